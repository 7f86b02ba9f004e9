//! Kernels on the CPU.

pub mod activation;
mod along;
pub mod attention;
mod convert;
pub mod counters;
pub mod gemm;
mod lanes;
pub mod norm;
pub mod rates;
pub mod rope;
mod stored;

pub(crate) use lanes::{Lanes, Work, dispatch, exp};
pub(crate) use stored::Stored;

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// Instruction set that the matrix products run on. Within a tier every result has the same bits for any number of
/// threads and any neighbours in the pack.
///
/// What is not a product is f32 arithmetic in every tier, on the widest vectors that the processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// f32 products of unrounded operands, on whatever vectors the processor has.
    Portable,
    /// bf16 products with `vdpbf16ps` (AVX512-BF16).
    Avx512,
    /// bf16 products with `tdpbf16ps` (AMX).
    Amx,
}

/// Goes up by one with every change to the bits of any result: what an older build began or kept is then not mixed with
/// what this one computes.
const REVISION: u32 = 4;

impl Tier {
    /// Every tier, slowest first.
    pub const ALL: [Self; 3] = [Self::Portable, Self::Avx512, Self::Amx];

    /// The best tier of this machine.
    pub fn detect() -> Self {
        Self::ALL
            .into_iter()
            .rev()
            .find(|tier| tier.available())
            .unwrap_or(Self::Portable)
    }

    /// Whether this machine, and this process on it, can run the tier. Asked of the system once.
    pub fn available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => x86::avx512_bf16(),
            #[cfg(target_arch = "x86_64")]
            Self::Amx => x86::amx_bf16(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The tier that `UPRIGHT_CPU` names (`portable`, `avx512` or `amx`), else the best of this machine.
    ///
    /// # Errors
    /// `UPRIGHT_CPU` names no tier, or one that cannot run here.
    pub fn from_environment() -> Result<Self> {
        match std::env::var_os("UPRIGHT_CPU") {
            None => Ok(Self::detect()),
            Some(value) => Self::from_setting(&value.to_string_lossy()),
        }
    }

    fn from_setting(value: &str) -> Result<Self> {
        let tier: Self = value.parse()?;
        if !tier.available() {
            let best = Self::detect();
            return Err(Error::Setting {
                problem: format!("UPRIGHT_CPU={tier}: this machine cannot run that tier"),
                hint: format!("leave UPRIGHT_CPU unset, or set it to {best}, the best tier here"),
            });
        }
        Ok(tier)
    }

    /// Names everything that decides the bits of a result on this machine: the tier, the width of the f32 vectors that
    /// everything besides the products runs on, and the revision of both.
    pub fn arithmetic(self) -> String {
        format!("{}/f32x{}/{REVISION}", self.name(), lanes::width())
    }

    /// Whether products round their operands to bf16.
    pub fn rounds(self) -> bool {
        self != Self::Portable
    }

    /// The word that `UPRIGHT_CPU` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Tier {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|tier| tier.name() == name).ok_or_else(|| Error::Setting {
            problem: format!("UPRIGHT_CPU={name}: no such tier"),
            hint: "use portable, avx512 or amx, or leave UPRIGHT_CPU unset for the best of this machine".into(),
        })
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::is_x86_feature_detected;
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    use std::sync::OnceLock;

    pub(super) fn avx512_bf16() -> bool {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bf16")
    }

    /// AMX wants the processor, the system's state saving, and a permission that Linux gives a process on request.
    pub(super) fn amx_bf16() -> bool {
        static ANSWER: OnceLock<bool> = OnceLock::new();
        *ANSWER.get_or_init(|| {
            avx512_bf16() && processor_has_tiles() && system_saves_tiles() && permission()
        })
    }

    fn processor_has_tiles() -> bool {
        const BF16_AND_TILE: u32 = 1 << 22 | 1 << 24;
        __cpuid(0).eax >= 0x1d && __cpuid_count(7, 0).edx & BF16_AND_TILE == BF16_AND_TILE
    }

    fn system_saves_tiles() -> bool {
        const CONFIG_AND_DATA: u64 = 1 << 17 | 1 << 18;
        // SAFETY: reading XCR0 needs XSAVE and OSXSAVE, which the check before the call finds.
        is_x86_feature_detected!("xsave")
            && unsafe { _xgetbv(0) } & CONFIG_AND_DATA == CONFIG_AND_DATA
    }

    fn permission() -> bool {
        #[cfg(target_os = "linux")]
        {
            const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
            const TILE_DATA: libc::c_long = 18;
            // SAFETY: this request reads two numbers and writes no memory.
            unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
        }
        #[cfg(not(target_os = "linux"))]
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for tier in Tier::ALL {
            assert_eq!(tier.to_string().parse::<Tier>().unwrap(), tier);
        }
    }

    #[test]
    fn a_setting_that_cannot_be_says_what_would_work() {
        assert!(Tier::detect().available());
        assert_eq!(Tier::from_setting("portable").unwrap(), Tier::Portable);
        let Error::Setting { problem, hint } = Tier::from_setting("gpu").unwrap_err() else {
            panic!("a setting")
        };
        assert!(problem.contains("gpu") && hint.contains("portable"));
        for tier in Tier::ALL.into_iter().filter(|tier| !tier.available()) {
            let Error::Setting { problem, hint } = Tier::from_setting(tier.name()).unwrap_err()
            else {
                panic!("a setting")
            };
            assert!(problem.contains(tier.name()) && hint.contains(Tier::detect().name()));
        }
    }
}
