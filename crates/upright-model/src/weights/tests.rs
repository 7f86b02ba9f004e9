use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;

use super::file::TensorFile;
use super::names::{block_name, block_shape};
use super::*;
use crate::adapter::linears;
use crate::config::NormKind;
use crate::config::tests::{model_types, refused, sample};

pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Reads the sample config of a family with changes.
pub(crate) fn config(model_type: &str, changes: serde_json::Value) -> DecoderConfig {
    let dir = tempfile::tempdir().unwrap();
    let mut config = sample(model_type);
    config
        .as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    DecoderConfig::read(dir.path()).unwrap()
}

/// Every tensor of a model; the values are small eighths, exact in any type, and differ between tensors.
pub(crate) fn model(config: &DecoderConfig) -> Tensors {
    let mut shapes: Vec<(String, Vec<usize>)> = Vec::new();
    let names = &config.family.tensors;
    shapes.push((
        names.embedding.to_owned(),
        vec![config.vocab, config.hidden],
    ));
    if !config.tied_head {
        shapes.push((names.heads[0].to_owned(), vec![config.vocab, config.hidden]));
    }
    let mut norm = |name: String, len: usize, bias: bool| {
        shapes.push((format!("{name}.weight"), vec![len]));
        if bias {
            shapes.push((format!("{name}.bias"), vec![len]));
        }
    };
    let bias = config.norm == NormKind::Layer;
    norm(names.final_norm.to_owned(), config.hidden, bias);
    for layer in 0..config.layers {
        let block = block_name(config.family, layer);
        norm(
            format!("{block}.{}", names.attention_norm),
            config.hidden,
            bias,
        );
        norm(format!("{block}.{}", names.mlp_norm), config.hidden, bias);
        for name in names.head_norms.into_iter().flatten() {
            norm(format!("{block}.{name}"), config.head_size, false);
        }
    }
    let block = block_shape(config);
    let biased: Vec<bool> = {
        let gate = block.gate.iter();
        block
            .qkv
            .iter()
            .chain([&block.output])
            .chain(gate)
            .chain([&block.up, &block.down])
            .map(|l| l.bias)
            .collect()
    };
    for (linear, bias) in linears(config).into_iter().zip(biased.iter().cycle()) {
        shapes.push((
            format!("{}.weight", linear.module),
            vec![linear.outputs, linear.inputs],
        ));
        if *bias {
            shapes.push((format!("{}.bias", linear.module), vec![linear.outputs]));
        }
    }
    let values = |i: usize, len: usize| {
        (0..len)
            .map(|j| ((i * 7 + j) % 31) as f32 / 8.0 - 1.5)
            .collect()
    };
    shapes
        .into_iter()
        .enumerate()
        .map(|(i, (n, s))| (n, (s.clone(), values(i, s.iter().product()))))
        .collect()
}

fn encode(values: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Dtype::F16 => values
            .iter()
            .flat_map(|v| f16::from_f32(*v).to_le_bytes())
            .collect(),
        Dtype::BF16 => values
            .iter()
            .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
            .collect(),
        Dtype::F8_E4M3 => vec![0; values.len()],
        other => panic!("{other:?}"),
    }
}

/// Writes a safetensors file.
pub(crate) fn save(path: &Path, tensors: &Tensors, dtype: Dtype) {
    let data: Vec<_> = tensors
        .iter()
        .map(|(n, (s, v))| (n, s, encode(v, dtype)))
        .collect();
    let views = data
        .iter()
        .map(|(n, s, b)| (*n, TensorView::new(dtype, (*s).clone(), b).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Opens the weights of a folder with these tensors.
pub(crate) fn open(tensors: &Tensors, config: &DecoderConfig, dtype: Dtype) -> Result<Weights> {
    let dir = tempfile::tempdir().unwrap();
    save(&dir.path().join("model.safetensors"), tensors, dtype);
    Weights::open(dir.path(), config)
}

/// The fingerprint of a folder.
pub(crate) fn fingerprint(dir: &Path, config: &DecoderConfig) -> Fingerprint {
    crate::merge::fingerprint(dir, config, None, &mut |_, _| true)
        .unwrap()
        .unwrap()
}

/// The fingerprint of these tensors.
fn identity(tensors: &Tensors, config: &DecoderConfig, dtype: Dtype) -> Fingerprint {
    let dir = tempfile::tempdir().unwrap();
    save(&dir.path().join("model.safetensors"), tensors, dtype);
    fingerprint(dir.path(), config)
}

/// Rows of an embedding or values of a norm: every value that the engine computes with is part of
/// the identity.
#[test]
fn every_value_is_part_of_the_identity() {
    let config = config("llama", json!({ "vocab_size": 5003 }));
    let tensors = model(&config);
    let whole = identity(&tensors, &config, Dtype::BF16);
    for (name, (_, values)) in &tensors {
        for index in [0, values.len() / 2, values.len() - 1] {
            let mut changed = tensors.clone();
            changed.get_mut(name).unwrap().1[index] += 1.0;
            assert_ne!(
                identity(&changed, &config, Dtype::BF16),
                whole,
                "{name}[{index}]"
            );
        }
    }
}

fn f32s(matrix: &Matrix) -> Vec<f32> {
    matrix.data().iter().map(|v| v.to_f32()).collect()
}

#[test]
fn every_family_opens_and_modules_have_their_names() {
    for kind in model_types() {
        for tied in [false, true] {
            let config = config(kind, json!({ "tie_word_embeddings": tied }));
            let tensors = model(&config);
            let weights = open(&tensors, &config, Dtype::BF16).unwrap();
            assert_eq!(weights.head.is_none(), tied);
            let listed: BTreeMap<_, _> = names::tensors(&config).into_iter().collect();
            assert_eq!(
                listed,
                tensors
                    .iter()
                    .map(|(name, (shape, _))| (name.clone(), shape.clone()))
                    .collect()
            );
            let modules: Vec<_> = weights
                .blocks
                .iter()
                .flat_map(BlockWeights::linears)
                .collect();
            let specs = linears(&config);
            assert_eq!(modules.len(), specs.len());
            for (linear, spec) in modules.iter().zip(&specs) {
                assert_eq!(
                    (&linear.module, linear.weight.rows, linear.weight.cols),
                    (&spec.module, spec.outputs, spec.inputs)
                );
                assert_eq!(
                    f32s(&linear.weight),
                    tensors[&format!("{}.weight", spec.module)].1
                );
                assert_eq!(
                    linear.bias.as_ref(),
                    tensors.get(&format!("{}.bias", spec.module)).map(|t| &t.1)
                );
            }
            assert_eq!(weights.blocks[0].q_norm.is_some(), config.qk_norm);
            assert_eq!(
                weights.bytes_mapped(),
                weights
                    .matrices()
                    .map(|m| 2 * m.rows * m.cols)
                    .sum::<usize>()
            );
            let vectors: usize = tensors
                .values()
                .filter(|t| t.0.len() == 1)
                .map(|t| 4 * t.1.len())
                .sum();
            assert_eq!(weights.bytes_owned(), vectors);
        }
    }
}

#[test]
fn other_types_are_cast_once_and_keep_the_fingerprint() {
    let config = config("llama", json!({}));
    let mut tensors = model(&config);
    let mapped = open(&tensors, &config, Dtype::BF16).unwrap();
    for dtype in [Dtype::F16, Dtype::F32] {
        let cast = open(&tensors, &config, dtype).unwrap();
        assert_eq!(cast.bytes_mapped(), 0);
        assert_eq!(
            identity(&tensors, &config, dtype),
            identity(&tensors, &config, Dtype::BF16)
        );
        assert_eq!(cast.embedding.data(), mapped.embedding.data());
    }
    let before = identity(&tensors, &config, Dtype::BF16);
    // Nearest even: 1 + 2^-8 lies between two values of bf16, and so does 1 + 3 * 2^-8. Norms do
    // not change.
    let half = 0.5_f32.powi(8);
    tensors.get_mut("model.embed_tokens.weight").unwrap().1[..2]
        .copy_from_slice(&[1.0 + half, 1.0 + 3.0 * half]);
    tensors.get_mut("model.norm.weight").unwrap().1[0] = 1.0 + half;
    let cast = open(&tensors, &config, Dtype::F32).unwrap();
    assert_eq!(f32s(&cast.embedding)[..2], [1.0, 1.0 + 4.0 * half]);
    assert_eq!(cast.final_norm.scale[0], 1.0 + half);
    assert_ne!(identity(&tensors, &config, Dtype::F32), before);
}

#[test]
fn random_weights_are_those_of_the_seed_and_normal() {
    let config = config("qwen2", json!({ "vocab_size": 4001 }));
    let weights = Weights::random(&config, 7);
    assert_eq!(
        weights.embedding.data(),
        Weights::random(&config, 7).embedding.data()
    );
    assert_ne!(
        weights.embedding.data(),
        Weights::random(&config, 8).embedding.data()
    );
    assert_ne!(
        Fingerprint::of_random(&config, 7),
        Fingerprint::of_random(&config, 8)
    );
    assert_eq!(
        (weights.bytes_mapped(), weights.head.is_none()),
        (0, config.tied_head)
    );
    assert_eq!(weights.find_non_finite(config.family), None);
    assert!(weights.final_norm.scale.iter().all(|v| *v == 1.0));
    assert!(
        weights.blocks[0]
            .linears()
            .all(|linear| linear.bias.iter().flatten().all(|v| *v == 0.0))
    );
    let values = f32s(&weights.embedding);
    let mean = |power: i32| {
        values
            .iter()
            .map(|v| (f64::from(*v) / 0.02).powi(power))
            .sum::<f64>()
            / values.len() as f64
    };
    // Moments of N(0, 1), within five deviations of their estimates.
    let allowed = 5.0 / (values.len() as f64).sqrt();
    assert!(mean(1).abs() < allowed, "{}", mean(1));
    assert!((mean(2) - 1.0).abs() < 1.5 * allowed, "{}", mean(2));
    assert!((mean(4) - 3.0).abs() < 10.0 * allowed, "{}", mean(4));
    let neighbours: f64 = values
        .windows(2)
        .map(|v| f64::from(v[0] * v[1]))
        .sum::<f64>()
        / 0.02_f64.powi(2);
    assert!((neighbours / values.len() as f64).abs() < allowed);
}

#[test]
fn shards_give_the_same_weights() {
    let config = config("qwen3", json!({}));
    let tensors = model(&config);
    let dir = tempfile::tempdir().unwrap();
    let (mut parts, mut map) = ([Tensors::new(), Tensors::new()], serde_json::Map::new());
    for (i, (name, tensor)) in tensors.iter().enumerate() {
        map.insert(name.clone(), json!(format!("model-{}.safetensors", i % 2)));
        parts[i % 2].insert(name.clone(), tensor.clone());
    }
    let index = dir.path().join("model.safetensors.index.json");
    std::fs::write(&index, json!({ "weight_map": map }).to_string()).unwrap();
    refused(
        Weights::open(dir.path(), &config),
        &["2 of 2", "model-0.safetensors, model-1.safetensors"],
    );
    save(
        &dir.path().join("model-0.safetensors"),
        &parts[0],
        Dtype::BF16,
    );
    refused(
        Weights::open(dir.path(), &config),
        &["1 of 2", "missing: model-1.safetensors"],
    );
    save(
        &dir.path().join("model-1.safetensors"),
        &parts[1],
        Dtype::BF16,
    );
    Weights::open(dir.path(), &config).unwrap();
    assert_eq!(
        fingerprint(dir.path(), &config),
        identity(&tensors, &config, Dtype::BF16)
    );

    let name = parts[1].pop_first().unwrap().0;
    save(
        &dir.path().join("model-1.safetensors"),
        &parts[1],
        Dtype::BF16,
    );
    refused(
        Weights::open(dir.path(), &config),
        &["model-1.safetensors", &name, "index"],
    );
    std::fs::write(
        &index,
        json!({ "weight_map": { "a": "../model.safetensors" } }).to_string(),
    )
    .unwrap();
    refused(
        Weights::open(dir.path(), &config),
        &["weight_map.a", "same folder"],
    );
    std::fs::write(&index, "{}").unwrap();
    refused(
        Weights::open(dir.path(), &config),
        &["index.json", "weight_map", "missing"],
    );
}

#[test]
fn other_conventions_are_understood() {
    for kind in ["gpt_neox", "llama"] {
        let config = config(kind, json!({ "tie_word_embeddings": true }));
        let tensors = model(&config);
        let whole = identity(&tensors, &config, Dtype::BF16);
        let prefix = config.family.tensors.prefix;
        let mut bare: Tensors = tensors
            .into_iter()
            .map(|(n, t)| (n.replacen(prefix, "", 1), t))
            .collect();
        bare.insert(
            "layers.0.attention.masked_bias".into(),
            (vec![1], vec![0.0]),
        );
        bare.insert(
            "layers.1.attention.rotary_emb.inv_freq".into(),
            (vec![1], vec![0.0]),
        );
        open(&bare, &config, Dtype::BF16).unwrap();
        assert_eq!(identity(&bare, &config, Dtype::BF16), whole);
        // With a copy of the embedding as the head.
        let head = bare[config
            .family
            .tensors
            .embedding
            .strip_prefix(prefix)
            .unwrap()]
        .clone();
        bare.insert(config.family.tensors.heads[0].into(), head);
        open(&bare, &config, Dtype::BF16).unwrap();
        assert_eq!(identity(&bare, &config, Dtype::BF16), whole);
    }
    let config = config("gpt_neox", json!({}));
    let mut tensors = model(&config);
    let whole = identity(&tensors, &config, Dtype::BF16);
    let head = tensors.remove("embed_out.weight").unwrap();
    tensors.insert("lm_head.weight".into(), head);
    open(&tensors, &config, Dtype::BF16).unwrap();
    assert_eq!(identity(&tensors, &config, Dtype::BF16), whole);
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let config = config("llama", json!({}));
    let good = model(&config);
    let name = "model.layers.1.self_attn.k_proj.weight";
    let changed = |change: &dyn Fn(&mut Tensors)| {
        let mut tensors = good.clone();
        change(&mut tensors);
        open(&tensors, &config, Dtype::BF16)
    };
    refused(
        changed(&|t| drop(t.remove(name))),
        &["model.safetensors", name, "missing"],
    );
    let wrong = |t: &mut Tensors| t.get_mut(name).unwrap().0 = vec![32, 16];
    refused(
        changed(&wrong),
        &["model.safetensors", name, "[32, 16]", "[16, 32]"],
    );
    let flat = |t: &mut Tensors| t.get_mut("model.norm.weight").unwrap().0 = vec![1, 32];
    refused(changed(&flat), &["model.norm.weight", "[1, 32]", "[32]"]);
    refused(
        changed(&|t| drop(t.remove("lm_head.weight"))),
        &["lm_head.weight", "tie_word_embeddings"],
    );
    let bias = |t: &mut Tensors| {
        drop(t.insert(
            "model.layers.0.self_attn.q_proj.bias".into(),
            (vec![1], vec![0.0]),
        ));
    };
    refused(
        changed(&bias),
        &["model.layers.0.self_attn.q_proj.bias", "no place"],
    );
    let deeper = |t: &mut Tensors| {
        drop(t.insert(
            "model.layers.2.mlp.up_proj.weight".into(),
            (vec![1], vec![0.0]),
        ));
    };
    refused(
        changed(&deeper),
        &["model.layers.2.mlp.up_proj.weight", "num_hidden_layers"],
    );
    let outside =
        |t: &mut Tensors| drop(t.insert("model.norm.bias".into(), (vec![32], vec![0.0; 32])));
    refused(changed(&outside), &["model.norm.bias", "no place"]);
    refused(
        open(&good, &config, Dtype::F8_E4M3),
        &["model.embed_tokens.weight", "F8_E4M3", "bf16"],
    );
}

#[test]
fn a_second_head_must_be_the_embedding() {
    let config = config("llama", json!({ "tie_word_embeddings": true }));
    let mut tensors = model(&config);
    let head = tensors["model.embed_tokens.weight"].clone();
    tensors.insert("lm_head.weight".into(), head);
    open(&tensors, &config, Dtype::BF16).unwrap();
    *tensors
        .get_mut("lm_head.weight")
        .unwrap()
        .1
        .last_mut()
        .unwrap() += 1.0;
    refused(
        open(&tensors, &config, Dtype::BF16),
        &["lm_head.weight", "differs", "tie_word_embeddings"],
    );
}

#[test]
fn folders_without_safetensors_get_a_fitting_hint() {
    let config = config("llama", json!({}));
    let dir = tempfile::tempdir().unwrap();
    refused(
        Weights::open(dir.path(), &config),
        &["no model.safetensors", "download"],
    );
    std::fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
    refused(
        Weights::open(dir.path(), &config),
        &["pytorch_model.bin", "convert it to safetensors"],
    );
}

fn open_bytes(bytes: &[u8]) -> Result<TensorFile> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    std::fs::write(&path, bytes).unwrap();
    TensorFile::open(&path)
}

/// A file with this header and `data` bytes of tensors.
fn with_header(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 1);
    bytes
}

#[test]
fn damaged_files_are_named() {
    let damaged = |bytes: &[u8], words: &[&str]| {
        refused(
            open_bytes(bytes),
            &[words, &["model.safetensors", "download it again"]].concat(),
        );
    };
    damaged(b"", &["0 bytes"]);
    damaged(&u64::MAX.to_le_bytes(), &["header", "18446744073709551615"]);
    damaged(&with_header("{", 0), &["header is not valid"]);
    damaged(&with_header("{\"a\": 1}", 0), &["header is not valid"]);
    let tensor = |begin: u64, end: u64| {
        format!(r#"{{"dtype":"BF16","shape":[2],"data_offsets":[{begin},{end}]}}"#)
    };
    let good = with_header(&format!(r#"{{"a":{}}}"#, tensor(0, 4)), 4);
    assert!(open_bytes(&good).unwrap().tensor("a").is_some());
    damaged(&good[..good.len() - 1], &["promises 4 bytes", "found 3"]);
    damaged(
        &with_header(&format!(r#"{{"a":{}}}"#, tensor(4, 8)), 8),
        &["header is not valid"],
    );
    damaged(
        &with_header(
            &format!(r#"{{"a":{},"b":{}}}"#, tensor(0, 4), tensor(2, 6)),
            6,
        ),
        &["header is not valid"],
    );
    let huge = u64::MAX / 8;
    let many: Vec<String> = (0..9)
        .map(|i: u64| {
            let (begin, end) = (i.wrapping_mul(huge), (i + 1).wrapping_mul(huge));
            format!(r#""{i}":{{"dtype":"U8","shape":[{huge}],"data_offsets":[{begin},{end}]}}"#)
        })
        .collect();
    damaged(
        &with_header(&format!("{{{}}}", many.join(",")), 0),
        &["header"],
    );
    refused(
        open_bytes(b"version https://git-lfs.github.com/spec/v1\noid 1\n"),
        &["git-lfs", "git lfs pull"],
    );
}

#[test]
fn bf16_at_an_odd_address_is_copied() {
    let header = r#"{"a":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]}}"#;
    for pad in 0..2 {
        let header = format!("{header}{}", " ".repeat(pad));
        let odd = header.len() % 2 == 1;
        let file = open_bytes(&with_header(&header, 4)).unwrap();
        let matrix = file.tensor("a").unwrap().to_matrix(1, 2).unwrap();
        assert_eq!(matrix.is_mapped(), !odd);
        assert_eq!(matrix.data(), [bf16::from_bits(0x0101); 2]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_files_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = open_bytes(&bytes);
        let _ = open_bytes(&with_header(&String::from_utf8_lossy(&bytes), 3));
    }

    #[test]
    fn changed_headers_never_panic(at in 0_usize..160, to in any::<u8>(), cut in 0_usize..200, kind in 0..2) {
        let tensors = Tensors::from([("a".into(), (vec![2, 3], vec![1.0; 6])), ("b".into(), (vec![2], vec![1.0; 2]))]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        save(&path, &tensors, Dtype::BF16);
        let mut bytes = std::fs::read(&path).unwrap();
        if kind == 0 {
            let at = at.min(bytes.len() - 1);
            bytes[at] = to;
        } else {
            bytes.truncate(cut);
        }
        if let Ok(file) = open_bytes(&bytes) {
            for name in file.names() {
                let tensor = file.tensor(&name).unwrap();
                let _ = tensor.to_f32();
                let _ = tensor.to_matrix(2, 3);
            }
        }
    }
}
