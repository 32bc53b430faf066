//! Instruction sets that a caller can choose between.

use std::{fmt, str::FromStr};

use crate::{KernelError, cpu::Cpu};

/// An instruction set that kernels are written for, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust, on every processor.
    Portable,
    /// x86-64 with AVX2 (Haswell, Zen and later).
    Avx2,
    /// x86-64 with AVX-512 F, BW, VL, VBMI, VBMI2, VNNI, BITALG and VPOPCNTDQ (Ice Lake, Zen 4 and later).
    Avx512,
}

impl Isa {
    /// Every instruction set that kernels are written for, weakest first.
    pub const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// The strongest instruction set that this processor has.
    #[must_use]
    pub fn best() -> Self {
        Self::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Self::Portable)
    }

    /// Every instruction set that this processor has, weakest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// Whether this processor has it.
    #[must_use]
    pub fn is_available(self) -> bool {
        Cpu::detect(self).is_some()
    }

    /// Returns itself if this processor has it.
    ///
    /// # Errors
    /// [`KernelError::MissingIsa`] if this processor lacks it.
    pub fn check(self) -> Result<Self, KernelError> {
        Cpu::new(self).map(Cpu::isa)
    }

    /// The name, as [`Display`](fmt::Display) writes it and [`FromStr`] reads it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Isa {
    type Err = KernelError;

    fn from_str(text: &str) -> Result<Self, KernelError> {
        let named = Self::ALL.into_iter().find(|isa| isa.name() == text);
        named.ok_or_else(|| KernelError::UnknownIsa { name: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portable_is_always_available_and_names_round_trip() {
        assert!(Isa::Portable.check().is_ok());
        assert!(Isa::best().is_available());
        assert_eq!(Isa::available().last(), Some(Isa::best()));
        for isa in Isa::ALL {
            assert_eq!(isa.to_string().parse::<Isa>().ok(), Some(isa));
        }
        let error = "sse9".parse::<Isa>().expect_err("no such set").to_string();
        assert!(error.contains("sse9") && error.contains("avx512"), "{error}");
    }
}
