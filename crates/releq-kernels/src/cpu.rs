//! Proofs that this processor has an instruction set.
//!
//! Code compiled for an instruction set must never run on a processor that lacks it. So whatever calls such
//! code takes a value of one of these types, and the only way to get one is to ask the processor. The types are
//! zero-sized: passing a proof costs nothing at run time.

use crate::{Isa, KernelError};

/// AVX2.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx2(());

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    /// The proof, if this processor has AVX2.
    pub(crate) fn new() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }
}

/// AVX2 and FMA. Nearly all processors with AVX2 have both, but not all.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx2Fma(());

#[cfg(target_arch = "x86_64")]
impl Avx2Fma {
    /// The proof, if this processor has FMA besides AVX2.
    pub(crate) fn new(_avx2: Avx2) -> Option<Self> {
        is_x86_feature_detected!("fma").then_some(Self(()))
    }
}

/// Every AVX-512 extension that [`Isa::Avx512`] lists. AVX2 and FMA are included.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx512(());

#[cfg(target_arch = "x86_64")]
impl Avx512 {
    /// The proof, if this processor has all of them.
    pub(crate) fn new() -> Option<Self> {
        // The first three are what `target_feature(enable = "avx512f")` implies. Processors with AVX-512 have
        // them, but a virtual machine may hide them.
        let has_all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vbmi")
            && is_x86_feature_detected!("avx512vbmi2")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("avx512bitalg")
            && is_x86_feature_detected!("avx512vpopcntdq");
        has_all.then_some(Self(()))
    }
}

/// The products of bf16 pairs, and every extension that an [`Avx512`] proves.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx512Bf16(());

#[cfg(target_arch = "x86_64")]
impl Avx512Bf16 {
    /// The proof, if this processor has them besides AVX-512.
    pub(crate) fn new(_avx512: Avx512) -> Option<Self> {
        is_x86_feature_detected!("avx512bf16").then_some(Self(()))
    }
}

/// An [`Isa`] that this processor has: what kernels hold and dispatch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cpu {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

impl Cpu {
    /// The proof, if this processor has `isa`.
    pub(crate) fn detect(isa: Isa) -> Option<Self> {
        match isa {
            Isa::Portable => Some(Self::Portable),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Avx2::new().map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Avx512::new().map(Self::Avx512),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => None,
        }
    }

    /// As [`detect`](Self::detect), with the reason where there is no proof.
    ///
    /// # Errors
    /// [`KernelError::MissingIsa`] if this processor lacks `isa`.
    pub(crate) fn new(isa: Isa) -> Result<Self, KernelError> {
        Self::detect(isa).ok_or(KernelError::MissingIsa { isa })
    }

    /// The instruction set.
    pub(crate) const fn isa(self) -> Isa {
        match self {
            Self::Portable => Isa::Portable,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => Isa::Avx2,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => Isa::Avx512,
        }
    }
}
