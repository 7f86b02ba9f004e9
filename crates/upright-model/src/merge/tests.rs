use std::fs;
use std::sync::Arc;

use safetensors::Dtype;
use serde_json::{Value, json};

use super::*;
use crate::adapter::{AdapterLayout, LoraConfig};
use crate::config::tests::refused;
use crate::weights::Weights;
use crate::weights::file::TensorFile;
use crate::weights::tests::{Tensors, config, fingerprint as fingerprint_of, model, save};

const ALL: u64 = u64::MAX;

fn adapter(config: &DecoderConfig, targets: &[&str], seed: u64) -> Adapter {
    let lora = LoraConfig::new(
        3,
        4.0,
        targets.iter().map(|&name| name.to_owned()).collect(),
    );
    let mut adapter = Adapter::init(Arc::new(AdapterLayout::new(config, &lora).unwrap()), seed);
    adapter
        .parameters
        .iter_mut()
        .enumerate()
        .for_each(|(i, v)| *v += ((i as u64 * 11 + seed) % 17) as f32 / 40.0 - 0.2);
    adapter
}

/// A folder with a model, and one for the merged model.
struct Place {
    dir: tempfile::TempDir,
    config: DecoderConfig,
    tensors: Tensors,
}

impl Place {
    fn new(kind: &str, tied: bool, dtype: Dtype) -> Self {
        let config = config(kind, json!({ "tie_word_embeddings": tied }));
        let (dir, tensors) = (tempfile::tempdir().unwrap(), model(&config));
        fs::create_dir(dir.path().join("out")).unwrap();
        save(&dir.path().join("model.safetensors"), &tensors, dtype);
        Self {
            dir,
            config,
            tensors,
        }
    }

    fn merge(
        &self,
        adapters: &[&Adapter],
        dtype: Option<Float>,
        max: u64,
    ) -> Result<(MergedFiles, Fingerprint)> {
        let merge = Merge::open(self.dir.path(), &self.config, adapters)?;
        let options = MergeOptions {
            dtype,
            max_shard_bytes: max,
        };
        let mut last = 0;
        let files = merge.write(
            &self.dir.path().join("out"),
            &options,
            &mut |done, total| {
                assert!(last < done && done <= total);
                last = done;
                true
            },
        )?;
        let files = files.unwrap();
        assert_eq!(last, files.bytes);
        let fingerprint = merge.fingerprint(adapters.len(), dtype, None, &mut |_, _| true)?;
        Ok((files, fingerprint.unwrap()))
    }

    /// A tensor of the merged model and its values, whichever file it is in.
    fn merged(&self, name: &str) -> (Dtype, Vec<f32>) {
        let files = fs::read_dir(self.dir.path().join("out"))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let mut files = files.filter(|path| path.extension().is_some_and(|e| e == "safetensors"));
        let found = files.find_map(|path| {
            let file = TensorFile::open(&path).unwrap();
            file.tensor(name)
                .map(|tensor| (tensor.dtype, tensor.to_f32().unwrap()))
        });
        found.unwrap_or_else(|| panic!("no {name}"))
    }
}

/// What the adapters add to an element of `module`, in f64.
fn delta(adapter: &Adapter, module: &str, index: usize) -> f64 {
    let Some(target) = adapter
        .layout
        .targets
        .iter()
        .find(|target| target.module == module)
    else {
        return 0.0;
    };
    let (row, col) = (index / target.inputs, index % target.inputs);
    let (a, b) = (
        &adapter.parameters[target.a()],
        &adapter.parameters[target.b()],
    );
    let products = (0..target.rank)
        .map(|k| f64::from(b[row * target.rank + k]) * f64::from(a[k * target.inputs + col]));
    f64::from(target.scale) * products.sum::<f64>()
}

#[test]
fn every_family_is_merged_as_the_sum_says() {
    for (kind, targets) in [
        ("gpt_neox", &["query_key_value", "dense_4h_to_h"][..]),
        ("llama", &["all-linear"]),
        ("mistral", &["1.self_attn.v_proj"]),
        ("qwen2", &["k_proj", "o_proj"]),
        ("qwen3", &["q_proj", "gate_proj"]),
    ] {
        for (tied, dtype, float) in [
            (false, Dtype::F32, Float::F32),
            (true, Dtype::BF16, Float::Bf16),
            (true, Dtype::F16, Float::F16),
        ] {
            let place = Place::new(kind, tied, dtype);
            let adapter = adapter(&place.config, targets, 5);
            let adapters = [&adapter];
            let (files, fingerprint) = place.merge(&adapters, None, ALL).unwrap();
            assert_eq!(files.names, ["model.safetensors"]);
            let [mut changed, mut rounded] = [0.0; 2];
            for (name, (_, values)) in &place.tensors {
                let (held, found) = place.merged(name);
                assert_eq!(held, dtype);
                let module = name.strip_suffix(".weight").unwrap_or(name);
                for (index, (found, value)) in found.iter().zip(values).enumerate() {
                    let added = delta(&adapter, module, index);
                    let wanted = f64::from(*value) + added;
                    if added != 0.0 {
                        changed += added.powi(2);
                        rounded += (f64::from(*found) - wanted).powi(2);
                    }
                    // The f32 sum may lie on the other side of a tie.
                    let near = [-1e-6, 0.0, 1e-6].map(|e| float.round((wanted + e) as f32));
                    let close = (f64::from(*found) - wanted).abs() < 1e-6 || near.contains(found);
                    assert!(close, "{kind} {name}[{index}]: {found}, {wanted}");
                }
            }
            let rounding: f64 = (rounded / changed).sqrt();
            assert!(
                (files.rounding - rounding).abs() < 1e-6,
                "{kind} {dtype:?}: {}, {rounding}",
                files.rounding
            );
            assert_eq!(
                files.rounding == 0.0,
                float == Float::F32,
                "{kind} {dtype:?}: {rounding}"
            );
            Weights::open(&place.dir.path().join("out"), &place.config).unwrap();
            let merged = fingerprint_of(&place.dir.path().join("out"), &place.config);
            assert_eq!(merged, fingerprint, "{kind} {dtype:?}");
            let merge = Merge::open(place.dir.path(), &place.config, &adapters).unwrap();
            let base = merge
                .fingerprint(0, None, None, &mut |_, _| true)
                .unwrap()
                .unwrap();
            assert_eq!(base, fingerprint_of(place.dir.path(), &place.config));
            assert_ne!(base, fingerprint);
        }
    }
}

#[test]
fn two_adapters_at_once_are_one_after_the_other() {
    for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32] {
        let place = Place::new("llama", true, dtype);
        let first = adapter(&place.config, &["q_proj", "down_proj"], 1);
        let second = adapter(&place.config, &["q_proj", "v_proj"], 2);
        let both: [&Adapter; 2] = [&first, &second];
        let (_, fingerprint) = place.merge(&both, Some(Float::F32), ALL).unwrap();
        let at_once = fs::read(place.dir.path().join("out/model.safetensors")).unwrap();

        place.merge(&[&first], None, ALL).unwrap();
        let next = Place {
            dir: tempfile::tempdir().unwrap(),
            config: place.config.clone(),
            tensors: Tensors::new(),
        };
        fs::create_dir(next.dir.path().join("out")).unwrap();
        fs::rename(
            place.dir.path().join("out/model.safetensors"),
            next.dir.path().join("model.safetensors"),
        )
        .unwrap();
        let merge = Merge::open(place.dir.path(), &place.config, &both).unwrap();
        let between = merge
            .fingerprint(1, None, None, &mut |_, _| true)
            .unwrap()
            .unwrap();
        assert_eq!(between, fingerprint_of(next.dir.path(), &next.config));
        let (_, after) = next.merge(&[&second], Some(Float::F32), ALL).unwrap();
        assert_eq!(
            fs::read(next.dir.path().join("out/model.safetensors")).unwrap(),
            at_once,
            "{dtype:?}"
        );
        assert_eq!(after, fingerprint);
        // The rounding error of the second adapter, in both cases.
        let rounding = [
            place.merge(&both, None, ALL),
            next.merge(&[&second], None, ALL),
        ]
        .map(|made| made.unwrap().0.rounding);
        assert_eq!(rounding[0], rounding[1], "{dtype:?}");
        assert_eq!(rounding[0] > 0.0, dtype != Dtype::F32, "{dtype:?}");
    }
}

#[test]
fn shards_hold_what_they_may_and_are_the_same_model() {
    let place = Place::new("qwen3", false, Dtype::BF16);
    let adapter = adapter(&place.config, &["all-linear"], 3);
    let (_, whole) = place.merge(&[&adapter], None, ALL).unwrap();
    let expected: Vec<_> = place
        .tensors
        .keys()
        .map(|name| place.merged(name))
        .collect();
    fs::remove_file(place.dir.path().join("out/model.safetensors")).unwrap();

    let (files, fingerprint) = place.merge(&[&adapter], None, 6000).unwrap();
    let (shards, index) = files.names.split_at(files.names.len() - 1);
    assert!(
        shards.len() > 3 && index == ["model.safetensors.index.json"],
        "{files:?}"
    );
    assert_eq!(
        shards[1],
        format!("model-00002-of-{:05}.safetensors", shards.len())
    );
    assert_eq!(fingerprint, whole);
    assert_eq!(
        place
            .tensors
            .keys()
            .map(|name| place.merged(name))
            .collect::<Vec<_>>(),
        expected
    );
    assert_eq!(
        fingerprint_of(&place.dir.path().join("out"), &place.config),
        whole
    );
    let text = fs::read_to_string(place.dir.path().join("out").join(&index[0])).unwrap();
    let index: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(index["metadata"]["total_size"], json!(files.bytes));
    assert_eq!(
        index["weight_map"].as_object().unwrap().len(),
        place.tensors.len()
    );
    for name in shards {
        let file = TensorFile::open(&place.dir.path().join("out").join(name)).unwrap();
        let bytes: usize = file
            .names()
            .iter()
            .map(|name| file.tensor(name).unwrap().bytes().len())
            .sum();
        assert!(
            bytes <= 6000 || file.names().len() == 1,
            "{name} holds {bytes}"
        );
        assert_eq!(file.metadata().unwrap()["format"], "pt");
    }
}

#[test]
fn what_is_no_float_and_names_of_other_exports_are_kept() {
    // The base model alone, with a buffer, and norms in f32 behind bf16 matrices.
    let place = Place::new("gpt_neox", true, Dtype::BF16);
    let path = place.dir.path().join("model.safetensors");
    let encoded: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = place
        .tensors
        .iter()
        .map(|(name, (shape, values))| {
            let float = if shape.len() == 1 {
                Float::F32
            } else {
                Float::Bf16
            };
            let mut bytes = vec![0; values.len() * float.size()];
            values
                .iter()
                .zip(bytes.chunks_mut(float.size()))
                .for_each(|(value, into)| float.put(*value, into));
            let dtype = if shape.len() == 1 {
                Dtype::F32
            } else {
                Dtype::BF16
            };
            (
                name.replacen("gpt_neox.", "", 1),
                dtype,
                shape.clone(),
                bytes,
            )
        })
        .chain([(
            "layers.0.attention.bias".into(),
            Dtype::BOOL,
            vec![3],
            vec![1, 0, 1],
        )])
        // A value that f16 cannot represent, in a buffer that nothing computes with.
        .chain([(
            "layers.0.attention.masked_bias".into(),
            Dtype::F32,
            vec![1],
            (-1e9f32).to_le_bytes().to_vec(),
        )])
        .collect();
    let views = encoded.iter().map(|(name, dtype, shape, bytes)| {
        (
            name,
            safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).unwrap(),
        )
    });
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    let adapter = adapter(&place.config, &["dense"], 4);
    let (_, fingerprint) = place.merge(&[&adapter], Some(Float::F16), ALL).unwrap();
    let file = TensorFile::open(&place.dir.path().join("out/model.safetensors")).unwrap();
    let mask = file.tensor("layers.0.attention.bias").unwrap();
    assert_eq!((mask.dtype, mask.bytes()), (Dtype::BOOL, &[1, 0, 1][..]));
    let buffer = file.tensor("layers.0.attention.masked_bias").unwrap();
    assert_eq!(
        (buffer.dtype, buffer.to_f32().unwrap()),
        (Dtype::F32, vec![-1e9])
    );
    assert_eq!(
        file.tensor("final_layer_norm.weight").unwrap().dtype,
        Dtype::F16
    );
    assert_eq!(file.names().len(), encoded.len());
    assert_eq!(file.names().last().unwrap(), "layers.0.attention.bias");
    assert_eq!(
        fingerprint_of(&place.dir.path().join("out"), &place.config),
        fingerprint
    );
}

#[test]
fn what_cannot_be_merged_is_named_and_a_stop_is_heard() {
    let place = Place::new("llama", true, Dtype::F32);
    let mut large = adapter(&place.config, &["0.self_attn.q_proj"], 6);
    large.parameters.iter_mut().for_each(|value| *value *= 1e4);
    let tensor = "model.layers.0.self_attn.q_proj.weight";
    refused(
        place.merge(&[&large], Some(Float::F16), ALL),
        &["model.safetensors", tensor, "F16 cannot", "bf16 or f32"],
    );
    assert!(place.merge(&[&large], Some(Float::Bf16), ALL).is_ok());
    let adapters = [&large];
    let merge = Merge::open(place.dir.path(), &place.config, &adapters).unwrap();
    let options = MergeOptions {
        dtype: None,
        max_shard_bytes: ALL,
    };
    assert_eq!(
        merge
            .write(&place.dir.path().join("out"), &options, &mut |_, _| false)
            .unwrap(),
        None
    );
    let missing = Path::new("no/such/folder");
    let error = merge
        .write(missing, &options, &mut |_, _| true)
        .unwrap_err();
    assert!(error.message.contains("cannot create"), "{error}");

    let mut tensors = place.tensors.clone();
    tensors.remove(tensor);
    save(
        &place.dir.path().join("model.safetensors"),
        &tensors,
        Dtype::F32,
    );
    refused(
        Merge::open(place.dir.path(), &place.config, &[]).map(|_| ()),
        &[tensor, "missing"],
    );
}
