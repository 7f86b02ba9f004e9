//! The decoder on the host device, beyond what the goldens check.

use std::{path::PathBuf, sync::Arc};

use half::bf16;
use rayon::{ThreadPool, ThreadPoolBuilder};
use upright_math::adamw::AdamWStep;
use upright_model::{
    Recompute,
    adapter::{Adapter, Slot},
    config::DecoderConfig,
    pack::Pack,
    peft,
    weights::Weights,
};

use super::{
    array::Array,
    decoder::Decoder,
    device::{Device, UNIT},
    head::Cut,
    host::Host,
    memory::Way,
    meter::Meter,
};
use crate::{
    adapter::DeviceAdapter,
    backend::{Backend, Purpose},
    cpu::{head::Keep, tier::Tier},
    scores::Slopes,
    sum::Sum,
    vector::Vector,
};

const NAMES: [&str; 3] = ["llama", "neox_parallel", "qwen3"];

/// Ends a test where the kernels were not built.
macro_rules! needs_compiler {
    () => {
        if let Some(why) = upright_emulator::missing() {
            println!("{why}");
            return;
        }
    };
}

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn pool() -> Arc<ThreadPool> {
    Arc::new(ThreadPoolBuilder::new().num_threads(2).build().unwrap())
}

fn host() -> Arc<Host> {
    Arc::new(Host::new(pool(), Tier::detect()).unwrap())
}

/// A golden model on a device.
fn open(name: &str, host: &Arc<Host>, recompute: Recompute) -> Decoder {
    let config = DecoderConfig::read(&folder(name)).unwrap();
    let weights = Weights::open(&folder(name), &config).unwrap();
    let device = Arc::clone(host) as Arc<dyn Device>;
    Decoder::open(Arc::new(config), Some(weights), device, recompute).unwrap()
}

fn adapter(decoder: &Decoder, name: &str, which: &str) -> DeviceAdapter {
    let found = peft::read(&folder(name).join(which), &decoder.config).unwrap();
    load(decoder, found.adapter)
}

fn load(decoder: &Decoder, adapter: Adapter) -> DeviceAdapter {
    DeviceAdapter {
        layout: adapter.layout,
        parameters: decoder.vector(adapter.parameters).unwrap(),
    }
}

/// Trees of a prompt with two responses each, with prompts of the given lengths.
fn trees(prompts: &[usize]) -> Pack {
    let mut pack = Pack::default();
    for (index, len) in prompts.iter().enumerate() {
        let token = |i: usize| ((i * 31 + index * 17) % 97) as u32 + 1;
        let prompt: Vec<u32> = (0..*len).map(token).collect();
        let first: Vec<u32> = (0..7).map(|i| token(i + 3)).collect();
        let second: Vec<u32> = (0..4).map(|i| token(i + 5)).collect();
        pack.tree(&prompt, &[&first, &second]);
    }
    pack
}

fn slopes(pack: &Pack) -> Slopes {
    let mut logp = Vec::with_capacity(pack.targets.len());
    for index in 0..pack.targets.len() {
        logp.push((index * 7 % 5) as f64 / 4.0 - 0.4);
    }
    Slopes { logp }
}

/// Log-probabilities and gradient.
fn gradient(
    decoder: &Decoder,
    adapter: &DeviceAdapter,
    pack: &Pack,
    purpose: Purpose,
) -> (Vec<f64>, Vec<f32>) {
    let (scores, activations) = decoder.forward(pack, adapter, purpose).unwrap();
    let mut gradient = decoder.vector(vec![0.0; adapter.layout.len]).unwrap();
    decoder
        .backward(pack, adapter, activations, &slopes(pack), &mut gradient)
        .unwrap();
    (scores.logp, gradient.read().unwrap().into_owned())
}

fn distance(found: &[f32], wanted: &[f32]) -> f64 {
    let (mut off, mut norm) = (0.0, 0.0);
    for (found, wanted) in found.iter().zip(wanted) {
        off += f64::from(found - wanted).powi(2);
        norm += f64::from(*wanted).powi(2);
    }
    (off / norm).sqrt()
}

/// The bytes of a step are those that were planned, in every way to save activations. The results have the same bits.
#[test]
fn a_step_takes_the_memory_that_was_planned() {
    needs_compiler!();
    for name in NAMES {
        let host = host();
        let decoder = open(name, &host, Recompute::Auto);
        let adapter = adapter(&decoder, name, "adapter");
        let pack = trees(&[20, 9, 33]);
        let start = gradient(&decoder, &adapter, &pack, Purpose::Train);
        let lowest = adapter.layout.lowest_layer();
        let target = Array::zeros(&decoder.device, adapter.layout.len).unwrap();
        let mut planned = Vec::new();
        for (traces, head) in [
            (true, Keep::Softmax),
            (true, Keep::Gradient),
            (false, Keep::Gradient),
        ] {
            let way = Way { traces, head };
            let needed = decoder.bytes_of(&pack, &adapter.layout, way).unwrap().peak;
            target.zero().unwrap();
            let before = host.used();
            let tables = decoder.tables(&pack).unwrap();
            let state = decoder.prepared(tables.end, Some(&adapter)).unwrap();
            let (logp, activations) = decoder
                .run_forward(&state, &pack, tables, lowest, way)
                .unwrap();
            let slopes = slopes(&pack).logp;
            decoder
                .run_backward(&state, &pack, activations, lowest, &slopes, &target)
                .unwrap();
            assert_eq!(host.peak() - before, needed, "{name}, {way:?}");
            assert_eq!((logp, target.read().unwrap()), start, "{name}, {way:?}");
            planned.push(needed);
        }
        assert!(planned[2] < planned[1] && planned[2] < planned[0], "{name}");
    }
}

/// With less memory a step recomputes, with the same bits. With too little it is refused before anything is allocated.
#[test]
fn little_memory_leads_to_recomputing_and_then_to_an_error() {
    needs_compiler!();
    let host = host();
    let decoder = open("llama", &host, Recompute::Auto);
    let adapter = adapter(&decoder, "llama", "adapter");
    let pack = trees(&[20, 9, 33]);
    let straight = gradient(&decoder, &adapter, &pack, Purpose::Train);
    let gradient_bytes = (4 * adapter.layout.len).next_multiple_of(UNIT);
    let recomputed = Way {
        traces: false,
        head: Keep::Gradient,
    };
    let bytes = decoder.bytes_of(&pack, &adapter.layout, recomputed);
    let needed = bytes.unwrap().peak;
    host.set_limit(host.used() + needed + gradient_bytes + 4096);
    let way = decoder.way(&pack, &adapter.layout, Purpose::Train);
    assert_eq!(way.unwrap().0, recomputed);
    assert_eq!(
        gradient(&decoder, &adapter, &pack, Purpose::Probe),
        straight
    );
    host.set_limit(host.used() + needed / 2);
    let error = decoder.forward(&pack, &adapter, Purpose::Train);
    let error = error.err().expect("too little memory");
    assert!(
        error.message.contains("a pack of") && error.hint.contains("--token-budget"),
        "{error}: {}",
        error.hint
    );
    // A pack that fits still runs.
    assert!(decoder.score(&trees(&[3]), Some(&adapter)).is_ok());
}

/// A batch that is probed beside another leaves room for the other's backward pass.
#[test]
fn a_probe_leaves_room_for_the_backward_pass_of_another() {
    needs_compiler!();
    let host = host();
    let decoder = open("llama", &host, Recompute::Auto);
    let adapter = adapter(&decoder, "llama", "adapter");
    let (large, small) = (trees(&[60, 50, 40]), trees(&[12]));
    let wanted = [&large, &small].map(|pack| gradient(&decoder, &adapter, pack, Purpose::Train));
    let way = |traces| Way {
        traces,
        head: Keep::Gradient,
    };
    let bytes = |pack, traces| {
        let bytes = decoder.bytes_of(pack, &adapter.layout, way(traces));
        bytes.unwrap()
    };
    let of_large = bytes(&large, true);
    let [kept, recomputed] = [true, false].map(|traces| bytes(&small, traces));
    let mut gradients = [(); 2].map(|()| decoder.vector(vec![0.0; adapter.layout.len]).unwrap());
    // Tables are there before the way is chosen.
    let slack = 8192;
    assert!(kept.kept > recomputed.kept + 2 * slack && kept.peak < of_large.peak - of_large.kept);
    host.set_limit(host.used() + of_large.peak + recomputed.kept + slack);
    let forward = |pack| decoder.forward(pack, &adapter, Purpose::Train).unwrap();
    let passes = [forward(&large), forward(&small)];
    for (index, (scores, activations)) in passes.into_iter().enumerate() {
        let pack = [&large, &small][index];
        let (slopes, gradient) = (slopes(pack), &mut gradients[index]);
        decoder
            .backward(pack, &adapter, activations, &slopes, gradient)
            .unwrap();
        let found = gradient.read().unwrap().into_owned();
        assert_eq!((scores.logp, found), wanted[index]);
    }
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_what_is_missing() {
    needs_compiler!();
    let host = host();
    host.set_limit(100_000);
    let config = DecoderConfig::read(&folder("llama")).unwrap();
    let weights = Weights::open(&folder("llama"), &config).unwrap();
    let device = Arc::clone(&host) as Arc<dyn Device>;
    let error = Decoder::open(Arc::new(config), Some(weights), device, Recompute::Auto)
        .err()
        .expect("the weights take more");
    assert!(error.message.contains("GB are missing"), "{error}");
    assert!(error.hint.contains("--device cpu"), "{}", error.hint);
    assert_eq!(host.used(), 0);
}

/// A rank that needs more room uploads the weights again. If that fails, nothing is computed with half of them.
#[test]
fn weights_that_are_not_whole_are_not_used() {
    needs_compiler!();
    let host = host();
    let decoder = open("llama", &host, Recompute::Off);
    let adapter = adapter(&decoder, "llama", "adapter");
    let pack = trees(&[12]);
    decoder.score(&pack, None).unwrap();
    host.set_limit(host.used() + 2048);
    let error = decoder.score(&pack, Some(&adapter)).unwrap_err();
    assert!(error.message.contains("do not fit"), "{error}");
    host.set_limit(1 << 30);
    assert_eq!(
        decoder.score(&pack, None).unwrap_err().message,
        error.message
    );
}

/// What a token adds to the memory of a step, beside the formula that callers see. On the device that only counts.
#[test]
fn bytes_of_a_token_are_those_of_the_formula() {
    for name in NAMES {
        let meter = Arc::new(Meter::default());
        let config = DecoderConfig::read(&folder(name)).unwrap();
        let device = Arc::clone(&meter) as Arc<dyn Device>;
        let decoder = Decoder::open(Arc::new(config), None, device, Recompute::Off).unwrap();
        let adapter = adapter(&decoder, name, "adapter");
        let formula = decoder.bytes_per_token(0);
        // u of every target in bf16, and once more in the rows of attention's output.
        let mut ranks = 0;
        for target in &adapter.layout.targets {
            let copies = if target.slot == Slot::Output { 2 } else { 1 };
            ranks += copies * size_of::<bf16>() * target.rank.next_multiple_of(8);
        }
        let kept = |tokens: usize, traces: bool| {
            let ids: Vec<u32> = (0..tokens).map(|i| i as u32 % 90).collect();
            let mut pack = Pack::default();
            pack.tree(&ids[..1], &[&ids]);
            let way = Way {
                traces,
                head: Keep::Gradient,
            };
            let tables = decoder.tables(&pack).unwrap();
            let state = decoder.prepared(tables.end, Some(&adapter)).unwrap();
            let before = meter.used();
            let lowest = adapter.layout.lowest_layer();
            let (_, activations) = decoder
                .run_forward(&state, &pack, tables, lowest, way)
                .unwrap();
            let after = meter.used();
            drop(activations);
            after - before
        };
        for (traces, wanted) in [(true, formula.kept + ranks), (false, formula.recomputed)] {
            // The head keeps two rows of H values, the sum of a row, and its target.
            let head = 8 * decoder.config.hidden + 16;
            let found = (kept(8193, traces) - kept(4097, traces)) as f64 / 4096.0;
            let off = found - (wanted + head) as f64;
            assert!(
                off.abs() < 0.002 * found,
                "{name}: {found}, {wanted} + {head}"
            );
        }
    }
}

/// The head in small chunks of rows and of the vocabulary: the same numbers but for the order of sums, and the same bits whether a
/// row is alone, probed or trained on.
#[test]
fn the_head_can_be_cut_anywhere() {
    needs_compiler!();
    for name in NAMES {
        let host = host();
        let mut decoder = open(name, &host, Recompute::Off);
        let adapter = adapter(&decoder, name, "adapter");
        let pack = trees(&[12, 5, 18]);
        let (whole, whole_gradient) = gradient(&decoder, &adapter, &pack, Purpose::Train);
        decoder.cut = Cut {
            rows: 16,
            vocabulary: 56,
        };
        let (logp, trained) = gradient(&decoder, &adapter, &pack, Purpose::Train);
        for (found, wanted) in logp.iter().zip(&whole) {
            assert!((found - wanted).abs() < 1e-5, "{name}: {found} {wanted}");
        }
        // Shares are rounded to bf16 relative to the largest logit so far.
        let off = distance(&trained, &whole_gradient);
        assert!(off > 0.0 && off < 5e-3, "{name}: {off}");
        let probed = gradient(&decoder, &adapter, &pack, Purpose::Probe);
        assert_eq!(probed, (logp.clone(), trained), "{name}");
        let alone = decoder.score(&trees(&[12]), Some(&adapter)).unwrap();
        assert_eq!(alone.logp, logp[..alone.logp.len()], "{name}");
    }
}

/// Adapters of other shapes, and none, take turns in the same matrices.
#[test]
fn adapters_take_turns() {
    needs_compiler!();
    for name in ["neox_parallel", "qwen3"] {
        let host = host();
        let decoder = open(name, &host, Recompute::Off);
        let pack = trees(&[12, 5]);
        let first = adapter(&decoder, name, "adapter");
        let second = adapter(&decoder, name, "reference");
        let fresh = |which: Option<&str>| {
            let host = self::host();
            let decoder = open(name, &host, Recompute::Off);
            let adapter = which.map(|which| adapter(&decoder, name, which));
            decoder.score(&pack, adapter.as_ref()).unwrap().logp
        };
        let wanted = [Some("adapter"), Some("reference"), None].map(fresh);
        assert!(wanted[0] != wanted[1] && wanted[1] != wanted[2], "{name}");
        // A small adapter after a large one: two of the targets, at half their rank.
        let mut layout = (*first.layout).clone();
        layout.targets.truncate(2);
        let mut len = 0;
        for target in &mut layout.targets {
            target.rank = target.rank.div_ceil(2);
            target.offset = len;
            len = target.b().end;
        }
        layout.len = len;
        let parameters: Vec<f32> = (0..len).map(|i| (i % 13) as f32 / 40.0 - 0.1).collect();
        let small = Adapter {
            layout: Arc::new(layout),
            parameters,
        };
        let of_small = {
            let host = self::host();
            let decoder = open(name, &host, Recompute::Off);
            let small = load(&decoder, small.clone());
            gradient(&decoder, &small, &pack, Purpose::Train)
        };
        let small = load(&decoder, small);
        for _ in 0..2 {
            let score = |adapter| decoder.score(&pack, adapter).unwrap().logp;
            assert_eq!(score(Some(&first)), wanted[0], "{name}");
            assert_eq!(score(None), wanted[2], "{name}");
            let found = gradient(&decoder, &small, &pack, Purpose::Train);
            assert_eq!(found, of_small, "{name}");
            assert_eq!(score(Some(&second)), wanted[1], "{name}");
        }
    }
}

/// A changed parameter is seen in the next pass.
#[test]
fn an_update_reaches_the_matrices() {
    needs_compiler!();
    let host = host();
    let decoder = open("llama", &host, Recompute::Off);
    let mut adapter = adapter(&decoder, "llama", "adapter");
    let pack = trees(&[12]);
    let before = decoder.score(&pack, Some(&adapter)).unwrap().logp;
    adapter.parameters.scale(1.5).unwrap();
    let after = decoder.score(&pack, Some(&adapter)).unwrap().logp;
    assert_ne!(before, after);
    let values = adapter.parameters.read().unwrap().into_owned();
    let copy = DeviceAdapter {
        layout: Arc::clone(&adapter.layout),
        parameters: decoder.vector(values).unwrap(),
    };
    assert_eq!(decoder.score(&pack, Some(&copy)).unwrap().logp, after);
}

#[test]
fn a_value_that_is_not_finite_is_found() {
    needs_compiler!();
    let host = host();
    let decoder = open("llama", &host, Recompute::Off);
    let mut adapter = adapter(&decoder, "llama", "adapter");
    let pack = trees(&[12]);
    let find = |adapter: &DeviceAdapter| decoder.find_non_finite(&pack, Some(adapter)).unwrap();
    assert_eq!(find(&adapter), None);
    let mut values = adapter.parameters.read().unwrap().into_owned();
    values[3] = f32::INFINITY;
    adapter.parameters.write(&values).unwrap();
    let found = find(&adapter).unwrap();
    assert!(found.contains("lora_A"), "{found}");
    values.fill(3e38);
    adapter.parameters.write(&values).unwrap();
    let found = find(&adapter).unwrap();
    assert!(found.contains("block 0"), "{found}");
}

/// Every operation of vectors and sums has the CPU's bits.
#[test]
fn vectors_and_sums_are_those_of_the_cpu() {
    needs_compiler!();
    let (pool, host) = (pool(), host());
    let device: Arc<dyn Device> = host;
    for len in [1, 4096, 4097, 70_000] {
        let numbers = |factor: f32| -> Vec<f32> {
            (0..len)
                .map(|i| factor * ((i * 7919 % 2003) as f32 - 1001.0))
                .collect()
        };
        let pair = |values: Vec<f32>| {
            [
                Vector::on_host(values.clone(), Arc::clone(&pool)),
                Vector::on_device(&device, &values).unwrap(),
            ]
        };
        let bits = |vector: &Vector| -> Vec<u32> {
            let values = vector.read().unwrap();
            values.iter().map(|value| value.to_bits()).collect()
        };
        let mut sums = [
            Sum::on_host(len, -44, Arc::clone(&pool)),
            Sum::on_device(&device, len, -44).unwrap(),
        ];
        for factor in [0.013, -0.4] {
            for (sum, vector) in sums.iter_mut().zip(pair(numbers(factor))) {
                assert_eq!(sum.add(&vector).unwrap(), None);
            }
        }
        let mut read = pair(vec![0.0; len]);
        for (sum, vector) in sums.iter().zip(&mut read) {
            sum.write_to(vector).unwrap();
        }
        assert_eq!(bits(&read[0]), bits(&read[1]));
        let norms = read.each_ref().map(|vector| vector.norm().unwrap());
        assert_eq!(norms[0].to_bits(), norms[1].to_bits());
        for vector in &mut read {
            vector.scale(0.37).unwrap();
        }
        let step = AdamWStep::new([0.9, 0.95], 1e-8, 0.01, 1e-3, 3);
        let mut parameters = pair(numbers(0.01));
        let (mut m, mut v) = (pair(numbers(0.1)), pair(vec![0.25; len]));
        let mut averages = pair(numbers(0.02));
        for index in 0..2 {
            parameters[index]
                .adamw(&read[index], &mut m[index], &mut v[index], &step)
                .unwrap();
            assert!(parameters[index].is_finite().unwrap());
            averages[index]
                .move_towards(&parameters[index], 0.25)
                .unwrap();
        }
        for both in [&parameters, &m, &v, &averages] {
            assert_eq!(bits(&both[0]), bits(&both[1]), "{len}");
        }
        let copies = averages.each_ref().map(|vector| vector.copy().unwrap());
        for (copy, vector) in copies.iter().zip(&mut averages) {
            vector.clear().unwrap();
            assert_eq!(vector.norm().unwrap(), 0.0);
            assert_ne!(copy.norm().unwrap(), 0.0);
        }
        // A value out of range, by its index.
        let mut broken = numbers(0.1);
        broken[len / 2] = f32::INFINITY;
        let valid = pair(numbers(0.1));
        for ((sum, vector), valid) in sums.iter_mut().zip(pair(broken)).zip(&valid) {
            assert!(!vector.is_finite().unwrap());
            let problem = sum.add(&vector).unwrap().expect("out of range");
            assert_eq!((problem.index, problem.value), (len / 2, f32::INFINITY));
            sum.clear().unwrap();
            assert_eq!(sum.add(valid).unwrap(), None);
        }
    }
}

/// The check that decides what a run on a card promises.
#[test]
fn rows_of_products_keep_their_bits() {
    needs_compiler!();
    for name in NAMES {
        let decoder = open(name, &host(), Recompute::Off);
        assert!(decoder.rows_keep_their_bits().unwrap(), "{name}");
    }
}

/// An error of the device is an error of every later call.
#[test]
fn a_device_that_failed_stays_failed() {
    needs_compiler!();
    let host = host();
    let device = Arc::clone(&host) as Arc<dyn Device>;
    let array = Array::from(&device, &[1.0f32, 2.0]).unwrap();
    let mut place = array.place();
    place.bytes += 64;
    let error = device.zero(place, 72).unwrap_err();
    assert!(error.message.contains("not allocated"), "{error}");
    assert_eq!(array.read().unwrap_err().message, error.message);
    assert!(Array::<f32>::new(&device, 1).is_err());
}
