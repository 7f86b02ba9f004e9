//! The devices of this machine, the CPU once per instruction tier, and the GPU decoder on the host device where the kernels were
//! built.

use upright_engine::{Options, Tier, devices};
use upright_model::{Device, config::DecoderConfig};

use super::goldens;

/// All devices and tiers.
pub(crate) fn all() -> Vec<Options> {
    let mut all = Vec::new();
    let mut devices = devices();
    if upright_emulator::missing().is_none() {
        devices.push(Device::Host);
    }
    for device in devices {
        let tiers = match device {
            Device::Cpu => Tier::ALL
                .into_iter()
                .filter(|tier| tier.available())
                .map(Some)
                .collect(),
            _ => vec![None],
        };
        for tier in tiers {
            all.push(Options {
                device,
                tier,
                threads: 2,
                ..Options::default()
            });
        }
    }
    all
}

/// The tier whose products do not round their operands.
pub(crate) fn exact() -> Options {
    Options {
        device: Device::Cpu,
        tier: Some(Tier::Portable),
        threads: 2,
        ..Options::default()
    }
}

/// All devices and tiers whose products round their operands to bf16.
pub(crate) fn rounding() -> Vec<Options> {
    let rounds = |options: &Options| options.tier != Some(Tier::Portable);
    all().into_iter().filter(rounds).collect()
}

/// Whether a device takes the sizes of a golden model: a GPU takes multiples of 8.
pub(crate) fn takes(options: &Options, golden: &str) -> bool {
    if options.device == Device::Cpu {
        return true;
    }
    let config = DecoderConfig::read(&goldens::folder(golden)).unwrap();
    [config.hidden, config.intermediate, config.head_size]
        .iter()
        .all(|size| size.is_multiple_of(8))
}

/// Whether a device runs a golden model in tests of bits, which run a model dozens of times. The host device is slow, so it runs one of
/// each kind: heads side by side, targets of different ranks, a window, norms of heads.
pub(crate) fn runs_often(options: &Options, golden: &str) -> bool {
    let of_each_kind = ["neox_parallel", "neox_patterns", "mistral", "qwen3"];
    let is_slow = options.device == Device::Host;
    takes(options, golden) && (!is_slow || of_each_kind.contains(&golden))
}

/// The name, for messages.
pub(crate) fn name(options: &Options) -> String {
    match options.tier {
        Some(tier) => tier.to_string(),
        None => options.device.to_string(),
    }
}
