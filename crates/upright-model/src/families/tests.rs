use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use safetensors::Dtype;
use serde_json::json;

use super::{llama::LLAMA, *};
use crate::adapter::{Adapter, AdapterLayout, LoraConfig, layout::head_or_embedding};
use crate::config::DecoderConfig;
use crate::config::tests::refused;
use crate::peft;
use crate::weights::names;
use crate::weights::tests::{Tensors, config, model, open, save};

/// Llama's arithmetic with another model type and other tensor names.
static TOY: Family = Family {
    name: "toy",
    model_types: &["toy", "toy_text"],
    kv_heads: KvHeads::Key { default: Some(2) },
    max_positions: 77,
    tied_head: true,
    tensors: TensorNames {
        prefix: "transformer.",
        embedding: "transformer.wte.weight",
        blocks: "transformer.h",
        final_norm: "transformer.ln_f",
        heads: &["output.weight"],
        attention_norm: "ln_1",
        mlp_norm: "ln_2",
        head_norms: None,
        qkv: QkvNames::Split(["attn.q", "attn.k", "attn.v"]),
        output: "attn.out",
        gate: Some("ffn.gate"),
        up: "ffn.up",
        down: "ffn.down",
        buffers: &["attn.mask"],
    },
    ..LLAMA
};

/// Writes a config of the toy family and reads it with the built-in families and the toy.
fn read(dir: &Path, changes: serde_json::Value) -> upright_base::Result<DecoderConfig> {
    let mut config = json!({ "model_type": "toy", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "vocab_size": 40 });
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let mut families = builtin().to_vec();
    families.push(&TOY);
    DecoderConfig::read_as(dir, &families)
}

/// The name that the toy family gives to a tensor of Llama.
fn renamed(llama: &str) -> String {
    let mut name = llama.to_owned();
    for (from, to) in [
        ("model.embed_tokens", "transformer.wte"),
        ("model.layers", "transformer.h"),
        ("model.norm", "transformer.ln_f"),
        ("lm_head", "output"),
        ("input_layernorm", "ln_1"),
        ("post_attention_layernorm", "ln_2"),
        ("self_attn.o_proj", "attn.out"),
        ("self_attn", "attn"),
        ("mlp", "ffn"),
        ("_proj", ""),
    ] {
        name = name.replace(from, to);
    }
    name
}

/// The tensors of a Llama of the toy's size, and the same values under the toy's names.
fn tensors() -> (DecoderConfig, Tensors, Tensors) {
    let llama = config("llama", json!({}));
    let before = model(&llama);
    let mut after = BTreeMap::new();
    for (name, tensor) in &before {
        after.insert(renamed(name), tensor.clone());
    }
    (llama, before, after)
}

#[test]
fn every_model_type_and_name_belongs_to_one_family() {
    let mut types = BTreeSet::new();
    let mut names = BTreeSet::new();
    for family in builtin() {
        assert!(names.insert(family.name), "{} twice", family.name);
        assert!(!family.model_types.is_empty(), "{family:?}");
        for model_type in family.model_types {
            assert!(types.insert(*model_type), "{model_type} twice");
            assert_eq!(find(builtin(), model_type), Some(*family));
        }
    }
    assert_eq!(find(builtin(), "toy"), None);
}

#[test]
fn entries_do_not_contradict_themselves() {
    for family in builtin().iter().copied().chain([&TOY]) {
        let names = &family.tensors;
        for name in [names.embedding, names.blocks, names.final_norm] {
            assert!(name.starts_with(names.prefix), "{family:?}: {name}");
        }
        for name in names.heads.iter().chain([&names.embedding]) {
            assert!(name.ends_with(".weight"), "{family:?}: {name}");
        }
        assert!(!names.heads.is_empty(), "{family:?}");

        let activation = &family.activation;
        let mut is_default_known = false;
        for (name, kind) in activation.known {
            is_default_known |= *name == activation.default;
            let is_gated = *kind == Activation::SwiGlu;
            assert_eq!(is_gated, names.gate.is_some(), "{family:?}: {name}");
        }
        assert!(is_default_known, "{family:?}: {}", activation.default);
        for name in activation.expected.split(", ") {
            for name in name.split(" or ") {
                let is_known = activation.known.iter().any(|(known, _)| *known == name);
                assert!(is_known, "{family:?}: {name}");
            }
        }

        let one_per_head = matches!(family.kv_heads, KvHeads::OnePerHead);
        assert!(one_per_head || !names.qkv.is_fused(), "{family:?}");
        let rotary = &family.rotary;
        assert!(
            rotary.is_partial || rotary.fraction.default == 1.0,
            "{family:?}"
        );
    }
}

#[test]
fn a_new_family_reads_its_config() {
    let dir = tempfile::tempdir().unwrap();
    let read_config = read(dir.path(), json!({})).unwrap();
    assert_eq!(read_config.family, &TOY);
    assert_eq!(read_config.model_type, "toy");
    assert_eq!(read_config.kv_heads, 2);
    assert_eq!(read_config.max_positions, 77);
    assert!(read_config.tied_head);

    let changes = json!({ "model_type": "toy_text", "max_position_embeddings": 64, "tie_word_embeddings": false });
    let toy = read(dir.path(), changes).unwrap();
    let as_llama = DecoderConfig {
        family: &LLAMA,
        model_type: "llama".to_owned(),
        ..toy
    };
    assert_eq!(as_llama, config("llama", json!({})));

    refused(
        read(dir.path(), json!({ "model_type": "tov" })),
        &[
            "\"tov\"",
            "gpt_neox, llama, mistral, qwen2, qwen3, toy, toy_text",
        ],
    );
    refused(
        DecoderConfig::read(dir.path()),
        &[
            "\"tov\"",
            "supported model types: gpt_neox, llama, mistral, qwen2, qwen3",
        ],
    );
}

#[test]
fn a_new_family_finds_its_tensors() {
    let dir = tempfile::tempdir().unwrap();
    let toy = read(dir.path(), json!({ "tie_word_embeddings": false })).unwrap();
    let (llama, before, mut after) = tensors();
    let mut listed = BTreeMap::new();
    for (name, shape) in names::tensors(&toy) {
        listed.insert(name, shape);
    }
    let mut expected = BTreeMap::new();
    for (name, (shape, _)) in &after {
        expected.insert(name.clone(), shape.clone());
    }
    assert_eq!(listed, expected);

    // Whole, and as an export of only the base model with a buffer.
    let whole = open(&after, &toy, Dtype::BF16).unwrap();
    after.insert("transformer.h.1.attn.mask".into(), (vec![1], vec![0.0]));
    let mut without_prefix = BTreeMap::new();
    for (name, tensor) in after {
        without_prefix.insert(name.replacen("transformer.", "", 1), tensor);
    }
    let bare = open(&without_prefix, &toy, Dtype::BF16).unwrap();
    let wanted = open(&before, &llama, Dtype::BF16).unwrap();
    for weights in [&whole, &bare] {
        assert_eq!(weights.find_non_finite(&TOY), None);
        assert!(weights.embedding.data() == wanted.embedding.data());
        assert!(weights.head().data() == wanted.head().data());
        assert_eq!(weights.final_norm.scale, wanted.final_norm.scale);
        assert_eq!(weights.blocks.len(), wanted.blocks.len());
        for (block, wanted) in weights.blocks.iter().zip(&wanted.blocks) {
            assert_eq!(block.attention_norm.scale, wanted.attention_norm.scale);
            assert_eq!(block.mlp_norm.scale, wanted.mlp_norm.scale);
            for (linear, wanted) in block.linears().zip(wanted.linears()) {
                assert_eq!(linear.module, renamed(&wanted.module));
                assert!(
                    linear.weight.data() == wanted.weight.data(),
                    "{}",
                    linear.module
                );
            }
        }
    }
}

#[test]
fn a_value_that_is_not_finite_is_named_as_the_family_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let toy = read(dir.path(), json!({ "tie_word_embeddings": false })).unwrap();
    let (_, _, tensors) = tensors();
    for name in [
        "transformer.wte.weight",
        "transformer.h.1.ln_2.weight",
        "transformer.h.0.attn.k.weight",
        "transformer.ln_f.weight",
        "output.weight",
    ] {
        let mut broken = tensors.clone();
        broken.get_mut(name).unwrap().1[3] = f32::NAN;
        let weights = open(&broken, &toy, Dtype::BF16).unwrap();
        assert_eq!(weights.find_non_finite(&TOY).as_deref(), Some(name));
    }
}

#[test]
fn adapters_of_a_new_family_are_read_with_and_without_the_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let toy = read(dir.path(), json!({})).unwrap();
    let lora = LoraConfig::new(2, 4.0, vec!["attn.v".into(), "up".into()]);
    let layout = AdapterLayout::new(&toy, &lora).unwrap();
    assert_eq!(layout.targets[0].module, "transformer.h.0.attn.v");
    assert_eq!(layout.targets[1].module, "transformer.h.0.ffn.up");
    assert_eq!(layout.targets.len(), 4);

    let mut adapter = Adapter::init(layout.into(), 1);
    for (index, value) in adapter.parameters.iter_mut().enumerate() {
        *value = (index % 29) as f32 / 8.0;
    }
    let folder = dir.path().join("adapter");
    peft::write(&folder, &adapter, &lora, &peft::BaseModel::default()).unwrap();
    assert_eq!(peft::read(&folder, &toy).unwrap().adapter, adapter);

    let mut bare: Tensors = BTreeMap::new();
    for target in &adapter.layout.targets {
        let module = target.module.strip_prefix("transformer.").unwrap();
        for (part, range, shape) in [
            ("lora_A", target.a(), vec![target.rank, target.inputs]),
            ("lora_B", target.b(), vec![target.outputs, target.rank]),
        ] {
            let key = format!("base_model.model.{module}.{part}.weight");
            bare.insert(key, (shape, adapter.parameters[range].to_vec()));
        }
    }
    save(&folder.join(peft::TENSOR_FILE), &bare, Dtype::F32);
    let read_bare = peft::read(&folder, &toy).unwrap().adapter;
    assert_eq!(read_bare.parameters, adapter.parameters);
}

#[test]
fn heads_and_embeddings_of_all_families_are_known() {
    for family in builtin() {
        for head in family.tensors.heads {
            let module = head.strip_suffix(".weight").unwrap();
            assert_eq!(head_or_embedding(module), Some("the head"));
        }
        let embedding = family.tensors.embedding.strip_suffix(".weight").unwrap();
        assert_eq!(head_or_embedding(embedding), Some("the embedding"));
    }
    assert_eq!(head_or_embedding("model.layers.0.mlp.up_proj"), None);
}
