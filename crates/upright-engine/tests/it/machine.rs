//! The devices of this machine, the CPU once per instruction tier.

use upright_engine::{Options, Tier, devices};
use upright_model::Device;

/// All devices and tiers.
pub(crate) fn all() -> Vec<Options> {
    let mut all = Vec::new();
    for device in devices() {
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

/// The name, for messages.
pub(crate) fn name(options: &Options) -> String {
    match options.tier {
        Some(tier) => tier.to_string(),
        None => options.device.to_string(),
    }
}
