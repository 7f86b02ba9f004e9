//! The instruction tiers of the matrix products.

use std::fmt;
use std::str::FromStr;

use upright_base::{Error, Result};

/// Instruction set of the matrix products. Within a tier, every result has the same bits for any
/// number of threads and any other rows in the pack.
///
/// Everything but the products is f32 arithmetic in every tier, on the widest vectors of the
/// processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// f32 products of unrounded operands, on the widest vectors of the processor.
    Portable,
    /// bf16 products with `vdpbf16ps` (AVX512-BF16).
    Avx512,
    /// bf16 products with `tdpbf16ps` (AMX).
    Amx,
}

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

    /// Whether this machine and this process can run the tier. The system is queried once.
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

    /// The tier that `UPRIGHT_CPU` names (`portable`, `avx512` or `amx`), else the best tier of
    /// this machine.
    ///
    /// # Errors
    /// `UPRIGHT_CPU` names an unknown tier, or a tier that this machine cannot run.
    pub fn from_environment() -> Result<Self> {
        match std::env::var_os("UPRIGHT_CPU") {
            None => Ok(Self::detect()),
            Some(value) => Self::from_setting(&value.to_string_lossy()),
        }
    }

    /// The requested tier, else [`Tier::from_environment`].
    ///
    /// # Errors
    /// The machine cannot run the tier.
    pub(crate) fn chosen(tier: Option<Self>) -> Result<Self> {
        let tier = tier.map_or_else(Self::from_environment, Ok)?;
        if tier.available() {
            return Ok(tier);
        }
        let best = Self::detect();
        Err(
            Error::input(format!("this machine cannot run the {tier} tier"))
                .hint(format!("use {best}, the best tier of this machine")),
        )
    }

    fn from_setting(value: &str) -> Result<Self> {
        let tier: Self = value.parse()?;
        if !tier.available() {
            let best = Self::detect();
            return Err(Error::input(format!(
                "UPRIGHT_CPU={tier}: this machine cannot run this tier"
            ))
            .hint(format!(
                "unset UPRIGHT_CPU, or set it to {best}, the best tier of this machine"
            )));
        }
        Ok(tier)
    }

    /// Whether products round their operands to bf16.
    pub fn rounds(self) -> bool {
        self != Self::Portable
    }

    /// Name of the tier, as in `UPRIGHT_CPU`.
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
        Self::ALL.into_iter().find(|tier| tier.name() == name).ok_or_else(|| Error::input(format!("UPRIGHT_CPU={name}: unknown tier")).hint("set it to portable, avx512 or amx, or unset it to use the best tier of this machine"))
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

    /// AMX needs the processor, a system that saves its state, and a permission that Linux grants a
    /// process on request.
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
        // SAFETY: reading XCR0 needs XSAVE and OSXSAVE, which the check before the call verifies.
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
        let error = Tier::from_setting("gpu").unwrap_err();
        assert!(error.message.contains("gpu") && error.hint.contains("portable"));
        for tier in Tier::ALL.into_iter().filter(|tier| !tier.available()) {
            let error = Tier::from_setting(tier.name()).unwrap_err();
            assert!(error.message.contains(tier.name()));
            assert!(error.hint.contains(Tier::detect().name()));
        }
    }
}
