//! Upper bounds for the speed of kernels on this processor: loops of a kernel's innermost instructions on
//! registers only, without loads, stores or avoidable dependencies. Benchmarks report kernels relative to
//! these.
#![allow(unsafe_code, reason = "assembly, so that no compiler removes what computes nothing")]

#[cfg(target_arch = "x86_64")]
use crate::cpu::Avx512Bf16;
use crate::{FloatPrecision, Isa, KernelError, cpu::Cpu};

/// A register-only loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peak {
    /// AVX-512 `VPDPBUSD`: products of 8-bit codes, the int8 kernel.
    Int8,
    /// AVX-512 AND, `VPOPCNTB`, `VPDPBUSD`: products of bits, the bit-serial kernel with 2-bit activations or more.
    BitSerial,
    /// AVX-512 AND, `VPOPCNTD`, `VPADDD`: products of bits, the bit-serial kernel with 1-bit activations.
    BitSerialOneBit,
    /// AVX2 `VPMADDUBSW`, `VPMADDWD`, `VPADDD`: the common way to multiply 8-bit codes, which saturates at 16
    /// bits and is therefore not exact.
    SaturatingAvx2,
    /// AVX-512 `VFMADD231PS`: products of f32.
    Fp32,
    /// AVX512-BF16 `VDPBF16PS`: products of bf16.
    Bf16,
}

impl Peak {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Int8,
        Self::BitSerial,
        Self::BitSerialOneBit,
        Self::SaturatingAvx2,
        Self::Fp32,
        Self::Bf16,
    ];

    /// The instruction set that it needs; [`Bf16`](Self::Bf16) needs AVX512-BF16 besides.
    #[must_use]
    pub const fn isa(self) -> Isa {
        match self {
            Self::SaturatingAvx2 => Isa::Avx2,
            _ => Isa::Avx512,
        }
    }

    /// Runs the loop `rounds` times and returns the number of products that were computed and summed.
    ///
    /// # Errors
    /// [`KernelError::MissingIsa`] if this processor lacks the instruction set, [`KernelError::MissingBf16`] if it has no
    /// products of bf16 and they are asked for.
    pub fn run(self, rounds: u32) -> Result<u64, KernelError> {
        let cpu = Cpu::new(self.isa())?;
        if self == Self::Bf16 {
            FloatPrecision::Bf16.check(self.isa())?;
        }
        if rounds == 0 {
            return Ok(0);
        }
        let rounds = u64::from(rounds);
        let products: u64 = match (self, cpu) {
            #[cfg(target_arch = "x86_64")]
            (Self::Int8, Cpu::Avx512(avx512)) => x86_64::int8(avx512, rounds),
            #[cfg(target_arch = "x86_64")]
            (Self::BitSerial, Cpu::Avx512(avx512)) => x86_64::bit_serial(avx512, rounds),
            #[cfg(target_arch = "x86_64")]
            (Self::BitSerialOneBit, Cpu::Avx512(avx512)) => {
                x86_64::bit_serial_one_bit(avx512, rounds)
            }
            #[cfg(target_arch = "x86_64")]
            (Self::Fp32, Cpu::Avx512(avx512)) => x86_64::fp32(avx512, rounds),
            #[cfg(target_arch = "x86_64")]
            (Self::Bf16, Cpu::Avx512(avx512)) => {
                Avx512Bf16::new(avx512).map_or(0, |bf16| x86_64::bf16(bf16, rounds))
            }
            #[cfg(target_arch = "x86_64")]
            (Self::SaturatingAvx2, Cpu::Avx2(avx2)) => x86_64::saturating_avx2(avx2, rounds),
            // `isa` names the proof that each loop takes, so what is left is nothing to run.
            _ => 0,
        };
        Ok(rounds * products)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::asm;

    use crate::cpu::{Avx2, Avx512, Avx512Bf16};

    /// A loop over lines of assembly that may use all vector registers, after `$first`.
    macro_rules! rounds {
        ($rounds:expr, first $first:literal, $($line:expr),+ $(,)?) => {
            asm!(
                $first,
                "2:",
                $($line,)+
                "dec {left}",
                "jnz 2b",
                left = inout(reg) $rounds => _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _,
                out("xmm5") _, out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _,
                out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _, out("xmm14") _,
                out("xmm15") _, out("xmm16") _, out("xmm17") _, out("xmm18") _, out("xmm19") _,
                out("xmm20") _, out("xmm21") _, out("xmm22") _, out("xmm23") _, out("xmm24") _,
                out("xmm25") _, out("xmm26") _, out("xmm27") _, out("xmm28") _, out("xmm29") _,
                out("xmm30") _, out("xmm31") _,
                options(nomem, nostack),
            )
        };
        ($rounds:expr, $($line:expr),+ $(,)?) => {
            rounds!($rounds, first "", $($line),+)
        };
    }

    // Each takes the number of rounds, at least one, and returns the products of one round.

    pub(super) fn int8(_avx512: Avx512, rounds: u64) -> u64 {
        // SAFETY: `_avx512` proves that the processor has the instructions, which touch only the declared registers.
        unsafe {
            rounds!(
                rounds,
                "vpdpbusd zmm0, zmm30, zmm31",
                "vpdpbusd zmm1, zmm30, zmm31",
                "vpdpbusd zmm2, zmm30, zmm31",
                "vpdpbusd zmm3, zmm30, zmm31",
                "vpdpbusd zmm4, zmm30, zmm31",
                "vpdpbusd zmm5, zmm30, zmm31",
                "vpdpbusd zmm6, zmm30, zmm31",
                "vpdpbusd zmm7, zmm30, zmm31",
                "vpdpbusd zmm8, zmm30, zmm31",
                "vpdpbusd zmm9, zmm30, zmm31",
                "vpdpbusd zmm10, zmm30, zmm31",
                "vpdpbusd zmm11, zmm30, zmm31",
                "vpdpbusd zmm12, zmm30, zmm31",
                "vpdpbusd zmm13, zmm30, zmm31",
                "vpdpbusd zmm14, zmm30, zmm31",
                "vpdpbusd zmm15, zmm30, zmm31",
            );
        }
        16 * 64
    }

    pub(super) fn bit_serial(_avx512: Avx512, rounds: u64) -> u64 {
        // SAFETY: `_avx512` proves that the processor has the instructions, which touch only the declared registers.
        unsafe {
            rounds!(
                rounds,
                "vpandd zmm16, zmm30, zmm31",
                "vpandd zmm17, zmm30, zmm31",
                "vpandd zmm18, zmm30, zmm31",
                "vpandd zmm19, zmm30, zmm31",
                "vpandd zmm20, zmm30, zmm31",
                "vpandd zmm21, zmm30, zmm31",
                "vpandd zmm22, zmm30, zmm31",
                "vpandd zmm23, zmm30, zmm31",
                "vpopcntb zmm16, zmm16",
                "vpopcntb zmm17, zmm17",
                "vpopcntb zmm18, zmm18",
                "vpopcntb zmm19, zmm19",
                "vpopcntb zmm20, zmm20",
                "vpopcntb zmm21, zmm21",
                "vpopcntb zmm22, zmm22",
                "vpopcntb zmm23, zmm23",
                "vpdpbusd zmm0, zmm16, zmm29",
                "vpdpbusd zmm1, zmm17, zmm29",
                "vpdpbusd zmm2, zmm18, zmm29",
                "vpdpbusd zmm3, zmm19, zmm29",
                "vpdpbusd zmm4, zmm20, zmm29",
                "vpdpbusd zmm5, zmm21, zmm29",
                "vpdpbusd zmm6, zmm22, zmm29",
                "vpdpbusd zmm7, zmm23, zmm29",
            );
        }
        8 * 512
    }

    pub(super) fn bit_serial_one_bit(_avx512: Avx512, rounds: u64) -> u64 {
        // SAFETY: `_avx512` proves that the processor has the instructions, which touch only the declared registers.
        unsafe {
            rounds!(
                rounds,
                "vpandd zmm16, zmm30, zmm31",
                "vpandd zmm17, zmm30, zmm31",
                "vpandd zmm18, zmm30, zmm31",
                "vpandd zmm19, zmm30, zmm31",
                "vpandd zmm20, zmm30, zmm31",
                "vpandd zmm21, zmm30, zmm31",
                "vpandd zmm22, zmm30, zmm31",
                "vpandd zmm23, zmm30, zmm31",
                "vpopcntd zmm16, zmm16",
                "vpopcntd zmm17, zmm17",
                "vpopcntd zmm18, zmm18",
                "vpopcntd zmm19, zmm19",
                "vpopcntd zmm20, zmm20",
                "vpopcntd zmm21, zmm21",
                "vpopcntd zmm22, zmm22",
                "vpopcntd zmm23, zmm23",
                "vpaddd zmm0, zmm0, zmm16",
                "vpaddd zmm1, zmm1, zmm17",
                "vpaddd zmm2, zmm2, zmm18",
                "vpaddd zmm3, zmm3, zmm19",
                "vpaddd zmm4, zmm4, zmm20",
                "vpaddd zmm5, zmm5, zmm21",
                "vpaddd zmm6, zmm6, zmm22",
                "vpaddd zmm7, zmm7, zmm23",
            );
        }
        8 * 512
    }

    // Some values, such as subnormal ones, may be slower than others, so all are 0 here.

    pub(super) fn fp32(_avx512: Avx512, rounds: u64) -> u64 {
        // SAFETY: `_avx512` proves that the processor has the instructions, which touch only the declared registers.
        unsafe {
            rounds!(
                rounds,
                first "vzeroall",
                "vfmadd231ps zmm0, zmm14, zmm15",
                "vfmadd231ps zmm1, zmm14, zmm15",
                "vfmadd231ps zmm2, zmm14, zmm15",
                "vfmadd231ps zmm3, zmm14, zmm15",
                "vfmadd231ps zmm4, zmm14, zmm15",
                "vfmadd231ps zmm5, zmm14, zmm15",
                "vfmadd231ps zmm6, zmm14, zmm15",
                "vfmadd231ps zmm7, zmm14, zmm15",
                "vfmadd231ps zmm8, zmm14, zmm15",
                "vfmadd231ps zmm9, zmm14, zmm15",
                "vfmadd231ps zmm10, zmm14, zmm15",
                "vfmadd231ps zmm11, zmm14, zmm15",
                "vfmadd231ps zmm12, zmm14, zmm15",
                "vfmadd231ps zmm13, zmm14, zmm15",
            );
        }
        14 * 16
    }

    pub(super) fn bf16(_bf16: Avx512Bf16, rounds: u64) -> u64 {
        // SAFETY: `_bf16` proves that the processor has the instructions, which touch only the declared registers.
        unsafe {
            rounds!(
                rounds,
                first "vzeroall",
                "vdpbf16ps zmm0, zmm14, zmm15",
                "vdpbf16ps zmm1, zmm14, zmm15",
                "vdpbf16ps zmm2, zmm14, zmm15",
                "vdpbf16ps zmm3, zmm14, zmm15",
                "vdpbf16ps zmm4, zmm14, zmm15",
                "vdpbf16ps zmm5, zmm14, zmm15",
                "vdpbf16ps zmm6, zmm14, zmm15",
                "vdpbf16ps zmm7, zmm14, zmm15",
                "vdpbf16ps zmm8, zmm14, zmm15",
                "vdpbf16ps zmm9, zmm14, zmm15",
                "vdpbf16ps zmm10, zmm14, zmm15",
                "vdpbf16ps zmm11, zmm14, zmm15",
                "vdpbf16ps zmm12, zmm14, zmm15",
                "vdpbf16ps zmm13, zmm14, zmm15",
            );
        }
        14 * 32
    }

    pub(super) fn saturating_avx2(_avx2: Avx2, rounds: u64) -> u64 {
        // SAFETY: `_avx2` proves that the processor has the instructions, which touch only the declared registers.
        unsafe {
            rounds!(
                rounds,
                "vpmaddubsw ymm8, ymm14, ymm15",
                "vpmaddubsw ymm9, ymm14, ymm15",
                "vpmaddubsw ymm10, ymm14, ymm15",
                "vpmaddubsw ymm11, ymm14, ymm15",
                "vpmaddubsw ymm12, ymm14, ymm15",
                "vpmaddubsw ymm13, ymm14, ymm15",
                "vpmaddwd ymm8, ymm8, ymm14",
                "vpmaddwd ymm9, ymm9, ymm14",
                "vpmaddwd ymm10, ymm10, ymm14",
                "vpmaddwd ymm11, ymm11, ymm14",
                "vpmaddwd ymm12, ymm12, ymm14",
                "vpmaddwd ymm13, ymm13, ymm14",
                "vpaddd ymm0, ymm0, ymm8",
                "vpaddd ymm1, ymm1, ymm9",
                "vpaddd ymm2, ymm2, ymm10",
                "vpaddd ymm3, ymm3, ymm11",
                "vpaddd ymm4, ymm4, ymm12",
                "vpaddd ymm5, ymm5, ymm13",
            );
        }
        6 * 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_where_the_instructions_are_and_counts() {
        for peak in Peak::ALL {
            let counts = [0, 1, 1000].map(|rounds| peak.run(rounds));
            let precision = match peak {
                Peak::Bf16 => FloatPrecision::Bf16,
                _ => FloatPrecision::Fp32,
            };
            if precision.check(peak.isa()).is_ok() {
                let one = counts[1].clone().expect("the instructions are there");
                assert!(one > 0, "{peak:?}");
                assert_eq!(counts, [Ok(0), Ok(one), Ok(1000 * one)], "{peak:?}");
            } else {
                assert!(counts.iter().all(Result::is_err), "{peak:?}");
            }
        }
    }
}
