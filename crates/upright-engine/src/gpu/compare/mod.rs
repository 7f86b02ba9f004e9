//! Compares every kernel of a device with the emulator, and its products with the CPU, on what the decoder launches: forward and
//! backward passes in every way to save activations, an update, and generation. Only with the feature `host-device`.

mod device;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use upright_base::{Error, Result};
use upright_math::adamw::AdamWStep;
use upright_model::{
    Device as DeviceName, Recompute,
    adapter::{Adapter, AdapterLayout, LoraConfig},
    config::DecoderConfig,
    pack::Pack,
    weights::Weights,
};

use self::device::Compared;
pub use self::device::KernelComparison;
use super::{Device, cuda::Cuda, decoder::Decoder, head::Cut, host::Host};
use crate::{
    adapter::{DeviceAdapter, Held},
    backend::{Backend, Purpose},
    cpu::{self, tier::Tier},
    decoder::check_device,
    generation::{Generation, Running},
    next::Want,
    scores::Slopes,
};

/// Chunks of the head that are smaller than the pack below, so that the kernels that join chunks run too.
const SMALL_CUT: Cut = Cut {
    rows: 64,
    vocabulary: 56,
};

/// Runs a model on a device and compares everything it launches. `rank` is that of the adapter, on all linear layers. The weights
/// are those of the folder, or random.
///
/// # Errors
/// The device or a file is missing, the model has sizes that a GPU does not take, or the device failed.
pub fn compare_kernels(
    folder: &Path,
    has_random_weights: bool,
    device: DeviceName,
    rank: usize,
) -> Result<BTreeMap<&'static str, KernelComparison>> {
    check_device(device)?;
    let config = Arc::new(DecoderConfig::read(folder)?);
    let counters = Arc::default();
    let pool = Arc::new(cpu::decoder::thread_pool(0, &counters)?);
    let tier = Tier::from_environment()?;
    let card: Arc<dyn Device> = match device {
        DeviceName::Cuda(index) => Arc::new(Cuda::open(index)?),
        DeviceName::Host => Arc::new(Host::new(Arc::clone(&pool), tier)?),
        DeviceName::Auto | DeviceName::Cpu => {
            return Err(Error::input(format!(
                "--device {device}: the kernels of a GPU are compared, not those of the CPU"
            ))
            .hint("give --device cuda, or --device host"));
        }
    };
    let compared = Arc::new(Compared::new(card, Arc::clone(&pool), tier));
    for (recompute, cut) in [(Recompute::Off, Cut::default()), (Recompute::On, SMALL_CUT)] {
        let weights = if has_random_weights {
            Weights::random(&config, 1)
        } else {
            pool.install(|| Weights::open(folder, &config))?
        };
        let device = Arc::clone(&compared) as Arc<dyn Device>;
        let mut decoder = Decoder::open(Arc::clone(&config), Some(weights), device, recompute)?;
        decoder.cut = cut;
        let adapter = step(&decoder, rank)?;
        if recompute == Recompute::Off {
            generate(&decoder, &adapter)?;
        }
    }
    Ok(compared.take())
}

/// A step on one pack. Returns the updated adapter.
fn step(decoder: &Decoder, rank: usize) -> Result<DeviceAdapter> {
    let lora = LoraConfig::new(rank, rank as f64, vec!["all-linear".to_owned()]);
    let layout = Arc::new(AdapterLayout::new(&decoder.config, &lora)?);
    let mut first = Adapter::init(Arc::clone(&layout), 1);
    for (index, value) in first.parameters.iter_mut().enumerate() {
        // B begins as zero, which would hide what reads it.
        if *value == 0.0 {
            *value = ((index * 7919 % 2003) as f32 - 1001.0) * 2e-5;
        }
    }
    let mut adapter = DeviceAdapter {
        layout: Arc::clone(&layout),
        parameters: decoder.vector(first.parameters)?,
    };
    let pack = pack(decoder.config.vocab);
    decoder.score(&pack, None)?;
    let mut gradient = decoder.vector(vec![0.0; layout.len])?;
    let mut sum = decoder.sum(layout.len, -44)?;
    for purpose in [Purpose::Train, Purpose::Probe] {
        let (_, activations) = decoder.forward(&pack, &adapter, purpose)?;
        let slopes = slopes(&pack);
        decoder.backward(&pack, &adapter, activations, &slopes, &mut gradient)?;
        sum.add(&gradient)?;
    }
    sum.write_to(&mut gradient)?;
    gradient.norm()?;
    gradient.scale(0.5)?;
    let mut moments = [
        decoder.vector(vec![0.0; layout.len])?,
        decoder.vector(vec![0.0; layout.len])?,
    ];
    let mut average = adapter.parameters.copy()?;
    let update = AdamWStep::new([0.9, 0.95], 1e-8, 0.01, 1e-3, 1);
    let [m, v] = &mut moments;
    adapter.parameters.adamw(&gradient, m, v, &update)?;
    adapter.parameters.is_finite()?;
    average.move_towards(&adapter.parameters, 0.5)?;
    decoder.find_non_finite(&pack, Some(&adapter))?;
    Ok(adapter)
}

/// Sequences that are read, forked and continued.
fn generate(decoder: &Decoder, adapter: &DeviceAdapter) -> Result<()> {
    let vocab = decoder.config.vocab;
    let sequences = decoder.sequences(Some(Held::Borrowed(adapter)));
    let mut generation = Generation::new(vocab, Running::Device(sequences), usize::MAX);
    let long = tokens(70, 3, vocab);
    let short = tokens(5, 4, vocab);
    let joined = generation.join(&[&long, &short], Want::Best(3))?;
    let [(long, _), (short, _)] = [joined[0].clone(), joined[1].clone()];
    let fork = generation.fork(long)?;
    let next = tokens(3, 5, vocab);
    generation.advance(&[(fork, &next[..1]), (short, &next[..1])], Want::Logits)?;
    generation.advance(&[(long, &next), (fork, &next[1..])], Want::Best(2))?;
    Ok(())
}

/// Trees of prompts with two responses: shorter and longer than a tile of attention.
fn pack(vocab: usize) -> Pack {
    let mut pack = Pack::default();
    for (index, len) in [70, 9].into_iter().enumerate() {
        let prompt = tokens(len, index, vocab);
        let (first, second) = (tokens(20, index + 7, vocab), tokens(6, index + 9, vocab));
        pack.tree(&prompt, &[&first, &second]);
    }
    pack
}

fn tokens(count: usize, seed: usize, vocab: usize) -> Vec<u32> {
    let mut tokens = Vec::with_capacity(count);
    for index in 0..count {
        tokens.push(((index * 31 + seed * 17) % vocab) as u32);
    }
    tokens
}

fn slopes(pack: &Pack) -> Slopes {
    let mut logp = Vec::with_capacity(pack.targets.len());
    for index in 0..pack.targets.len() {
        logp.push((index * 7 % 5) as f64 / 4.0 - 0.4);
    }
    Slopes { logp }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{gpu::device::PRODUCTS, vector::Vector};

    /// The emulator against itself: everything is equal, and every kernel that a golden model can launch is compared.
    #[test]
    fn the_host_device_is_equal_to_the_emulator() {
        if let Some(why) = upright_emulator::missing() {
            println!("{why}");
            return;
        }
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llama");
        let found = compare_kernels(&folder, false, DeviceName::Host, 8).unwrap();
        assert!(found.len() > 20, "{}", found.len());
        for (kernel, comparison) in &found {
            assert_eq!(comparison.largest, 0.0, "{kernel}");
            assert_eq!(comparison.failure, None, "{kernel}");
            assert!(comparison.launches > 0, "{kernel}");
        }
        for kernel in ["adamw_update", "head_best", "rms_norm_backward", PRODUCTS] {
            assert!(found.contains_key(kernel), "{kernel}");
        }
    }

    /// One wrong bit of one kernel is found and named.
    #[test]
    fn a_wrong_bit_is_found() {
        if let Some(why) = upright_emulator::missing() {
            println!("{why}");
            return;
        }
        let pool = cpu::decoder::thread_pool(2, &Arc::default()).unwrap();
        let pool = Arc::new(pool);
        let tier = Tier::from_environment().unwrap();
        let mut host = Host::new(Arc::clone(&pool), tier).unwrap();
        host.flip_a_bit_after("adamw_update");
        let compared = Arc::new(Compared::new(Arc::new(host), pool, tier));
        let device = Arc::clone(&compared) as Arc<dyn Device>;
        let vector = || Vector::on_device(&device, &[0.25; 100]).unwrap();
        let (mut parameters, gradient, mut m, mut v) = (vector(), vector(), vector(), vector());
        let step = AdamWStep::new([0.9, 0.95], 1e-8, 0.01, 1e-3, 1);
        parameters.adamw(&gradient, &mut m, &mut v, &step).unwrap();
        parameters.norm().unwrap();
        parameters.scale(0.5).unwrap();
        for (kernel, comparison) in compared.take() {
            let is_wrong = kernel == "adamw_update";
            assert_eq!(comparison.failure.is_some(), is_wrong, "{kernel}");
            if let Some(failure) = comparison.failure {
                assert!(failure.contains("[0] is "), "{failure}");
            }
        }
    }

    #[test]
    fn the_cpu_is_refused() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llama");
        let error = compare_kernels(&folder, false, DeviceName::Cpu, 8).unwrap_err();
        assert!(error.message.contains("--device cpu"), "{error}");
    }
}
