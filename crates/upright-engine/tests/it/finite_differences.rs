//! Gradients against the definition of a derivative: central differences of a decoder in f64 that
//! shares no code with the engine ([`oracle`]) and is itself checked against transformers. The
//! differentiated function is `sum(slopes * logp)`.

use std::{collections::BTreeMap, path::PathBuf};

use super::oracle::{Base, Lora, Oracle, Tensor, erf, read_json, read_tensors};
use rayon::prelude::*;
use upright_engine::{Decoder, DeviceAdapter, Slopes};
use upright_model::{pack::Pack, peft};

use super::{goldens, machine};

/// The golden models whose adapters have one rank and one scale: the oracle reads no others. How ranks, alphas and rsLoRA are
/// read is the matter of [`super::golden`].
fn names() -> Vec<String> {
    let mut names = goldens::names();
    names.retain(|name| {
        let folder = goldens::folder(name);
        Lora::is_supported(&folder.join("adapter")) && Lora::is_supported(&folder.join("reference"))
    });
    assert!(!names.is_empty(), "the oracle supports no golden model");
    names
}

/// Half the distance between the two points of a difference.
const STEP: f64 = 1e-4;

/// Goldens are rounded to f32, as are the inverse frequencies of transformers.
const GOLDEN_TOLERANCE: f64 = 1e-5;

/// The portable tier works in f32: about 1e-7 for log-probabilities and 1e-6 for gradients.
const ENGINE_TOLERANCE: f64 = 1e-5;

/// Number of differentiated elements per adapter tensor.
const ELEMENTS: usize = 3;

/// Prompt and responses.
type Row = (Vec<u32>, Vec<Vec<u32>>);

struct Golden {
    dir: PathBuf,
    rows: Vec<Row>,
    tensors: BTreeMap<String, Tensor>,
}

impl Golden {
    fn open(name: &str) -> Self {
        let dir = goldens::folder(name);
        let ids = |v: &serde_json::Value| {
            v.as_array()
                .unwrap()
                .iter()
                .map(|t| t.as_u64().unwrap() as u32)
                .collect()
        };
        let rows = read_json(&dir.join("rows.json"));
        let rows = rows.as_array().unwrap().iter();
        let rows = rows.map(|r| {
            (
                ids(&r["prompt"]),
                r["responses"].as_array().unwrap().iter().map(ids).collect(),
            )
        });
        Self {
            rows: rows.collect(),
            tensors: read_tensors(&dir.join("golden.safetensors")),
            dir,
        }
    }

    fn values(&self, name: &str) -> &[f64] {
        &self.tensors[name].values
    }

    /// Each response after its prompt as a sequence of its own, in the order of the golden vectors.
    fn logp(&self, oracle: &Oracle, lora: Option<&Lora>) -> Vec<f64> {
        let sequences = self
            .rows
            .iter()
            .flat_map(|(prompt, responses)| responses.iter().map(move |r| (prompt, r)));
        sequences
            .flat_map(|(prompt, response)| oracle.logp(prompt, response, lora))
            .collect()
    }

    /// `sum(slopes * logp)` with `lora` moved by `distance` along `direction`.
    fn loss(
        &self,
        oracle: &Oracle,
        lora: &Lora,
        direction: &BTreeMap<&str, Vec<f64>>,
        distance: f64,
    ) -> f64 {
        let mut moved = lora.clone();
        for (&name, direction) in direction {
            let values = &mut moved.tensors.get_mut(name).unwrap().values;
            values
                .iter_mut()
                .zip(direction)
                .for_each(|(value, d)| *value += distance * d);
        }
        self.values("slopes")
            .iter()
            .zip(self.logp(oracle, Some(&moved)))
            .map(|(slope, logp)| slope * logp)
            .sum()
    }

    /// Compares a gradient (by the adapter's tensor names) with central differences: a few elements
    /// of every tensor, relative to the tensor's largest element, and one direction over all
    /// tensors, relative to the whole gradient. Returns the largest error.
    fn check(&self, oracle: &Oracle, lora: &Lora, gradient: &BTreeMap<String, Vec<f64>>) -> f64 {
        assert!(
            gradient.keys().eq(lora.tensors.keys()),
            "a gradient for every tensor of the adapter, and no other"
        );
        let mut random = Random(20);
        let mut probes = Vec::new();
        for (name, gradient) in gradient {
            let scale = gradient.iter().fold(0f64, |most, g| most.max(g.abs()));
            assert!(scale > 0.0, "{name} has no gradient");
            for _ in 0..ELEMENTS {
                let element = (random.next() % gradient.len() as u64) as usize;
                let mut direction = vec![0.0; gradient.len()];
                direction[element] = 1.0;
                let direction = BTreeMap::from([(&name[..], direction)]);
                probes.push((
                    format!("{name}[{element}]"),
                    direction,
                    gradient[element],
                    scale,
                ));
            }
        }
        let length = (gradient.values().map(Vec::len).sum::<usize>() as f64).sqrt();
        let mut signs = |len| {
            (0..len)
                .map(|_| [-1.0, 1.0][(random.next() >> 63) as usize] / length)
                .collect()
        };
        let everywhere: BTreeMap<&str, Vec<f64>> = gradient
            .iter()
            .map(|(name, g)| (&name[..], signs(g.len())))
            .collect();
        let slope = gradient
            .iter()
            .flat_map(|(name, g)| g.iter().zip(&everywhere[&name[..]]))
            .map(|(g, d)| g * d)
            .sum();
        let norm = gradient
            .values()
            .flatten()
            .map(|g| g * g)
            .sum::<f64>()
            .sqrt();
        probes.push(("a direction".to_owned(), everywhere, slope, norm / length));

        let errors = probes.par_iter().map(|(what, direction, expected, scale)| {
            let loss = |distance: f64| self.loss(oracle, lora, direction, distance);
            let found = (loss(STEP) - loss(-STEP)) / (2.0 * STEP);
            (what, found, *expected, (found - expected).abs() / scale)
        });
        let worst = errors.max_by(|a, b| a.3.total_cmp(&b.3)).unwrap();
        let (what, found, expected, error) = worst;
        println!(
            "  worst at {what}: {expected:e}, by differences {found:e}, relative error {error:.1e}"
        );
        error
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn relative(found: &[f64], wanted: &[f64]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    (squares(&mut found.iter().zip(wanted).map(|(f, w)| f - w))
        / squares(&mut wanted.iter().copied()))
    .sqrt()
}

#[test]
fn the_error_function_is_the_tabulated_one() {
    let table = [
        (0.1, 0.112_462_916_018_284_9),
        (0.5, 0.520_499_877_813_046_5),
        (1.0, 0.842_700_792_949_714_9),
    ];
    for (x, expected) in table.into_iter().chain([
        (2.0, 0.995_322_265_018_952_7),
        (3.5, 0.999_999_256_901_627_7),
    ]) {
        assert!((erf(x) - expected).abs() < 2e-15, "erf({x}) is {}", erf(x));
        assert_eq!(erf(-x), -erf(x));
    }
    assert_eq!((erf(0.0), erf(7.0), erf(-40.0)), (0.0, 1.0, -1.0));
}

#[test]
fn the_oracle_is_transformers() {
    for name in &names() {
        let golden = Golden::open(name);
        let oracle = Oracle::open(&golden.dir, Base::Exact);
        for (key, folder) in [
            ("base_logp", None),
            ("logp", Some("adapter")),
            ("reference_logp", Some("reference")),
        ] {
            let lora = folder.map(|folder| Lora::read(&golden.dir.join(folder)));
            let error = relative(&golden.logp(&oracle, lora.as_ref()), golden.values(key));
            println!("{name}: {key} {error:.1e}");
            assert!(error < 1e-6, "{name}: {key} is off by {error:e}");
        }
    }
}

#[test]
fn the_gradients_of_transformers_are_finite_differences() {
    for name in &names() {
        let golden = Golden::open(name);
        let oracle = Oracle::open(&golden.dir, Base::Exact);
        let lora = Lora::read(&golden.dir.join("adapter"));
        let named = golden
            .tensors
            .iter()
            .filter_map(|(key, t)| Some((key.strip_prefix("grad.")?, t)));
        let gradient = named
            .map(|(key, t)| (key.to_owned(), t.values.clone()))
            .collect();
        println!("{name}");
        let error = golden.check(&oracle, &lora, &gradient);
        assert!(error < GOLDEN_TOLERANCE, "{name}: off by {error:e}");
    }
}

#[test]
fn the_gradients_of_the_engine_are_finite_differences() {
    for name in &names() {
        let golden = Golden::open(name);
        let decoder = Decoder::open(&golden.dir, &machine::exact()).unwrap();
        let folder = peft::read(&golden.dir.join("adapter"), decoder.config()).unwrap();
        let adapter = decoder.load(folder.adapter).unwrap();
        let (logp, gradient) = gradient(&decoder, &adapter, &golden);

        let oracle = Oracle::open(&golden.dir, Base::Bf16);
        let lora = Lora::read(&golden.dir.join("adapter"));
        let error = relative(&logp, &golden.logp(&oracle, Some(&lora)));
        println!("{name}: logp {error:.1e}");
        assert!(
            error < ENGINE_TOLERANCE,
            "{name}: log-probabilities are off by {error:e}"
        );
        let error = golden.check(&oracle, &lora, &gradient);
        assert!(error < ENGINE_TOLERANCE, "{name}: off by {error:e}");
    }
}

/// The engine's log-probabilities of all rows in one pack, and its gradient by the names of a PEFT folder.
fn gradient(
    decoder: &Decoder,
    adapter: &DeviceAdapter,
    golden: &Golden,
) -> (Vec<f64>, BTreeMap<String, Vec<f64>>) {
    let mut pack = Pack::default();
    for (prompt, responses) in &golden.rows {
        pack.tree(
            prompt,
            &responses.iter().map(|r| &r[..]).collect::<Vec<_>>(),
        );
    }
    let (scores, activations) = decoder.forward(&pack, adapter).unwrap();
    let logp = scores.logp;
    let mut flat = decoder.vector(vec![0.0; adapter.parameters.len()]).unwrap();
    let slopes = Slopes {
        logp: golden.values("slopes").to_vec(),
    };
    decoder
        .backward(&pack, adapter, activations, &slopes, &mut flat)
        .unwrap();
    let flat = flat.read().unwrap();
    let mut named = BTreeMap::new();
    for target in &adapter.layout.targets {
        for (part, range) in [("lora_A", target.a()), ("lora_B", target.b())] {
            let values = flat[range].iter().copied().map(f64::from).collect();
            named.insert(format!("{}.{part}.weight", target.module), values);
        }
    }
    (logp, named)
}
