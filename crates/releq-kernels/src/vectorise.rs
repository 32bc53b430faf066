//! Plain loops, compiled once per instruction set.
#![allow(unsafe_code, reason = "calls code compiled for an instruction set")]

use crate::cpu::Cpu;
#[cfg(target_arch = "x86_64")]
use crate::cpu::{Avx2, Avx512};

/// Loops that the compiler vectorizes by itself. `run` must be `#[inline(always)]`, so that it is compiled with the
/// instructions of its caller.
pub(crate) trait Loops {
    fn run(self);
}

/// Runs loops compiled for the instruction set of `cpu`. The results are the same for all of them.
pub(crate) fn vectorise(cpu: Cpu, loops: impl Loops) {
    match cpu {
        Cpu::Portable => loops.run(),
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx2(avx2) => run_avx2(avx2, loops),
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx512(avx512) => run_avx512(avx512, loops),
    }
}

#[cfg(target_arch = "x86_64")]
fn run_avx2(_avx2: Avx2, loops: impl Loops) {
    #[target_feature(enable = "avx2")]
    fn compiled(loops: impl Loops) {
        loops.run();
    }
    // SAFETY: `_avx2` proves that the processor has the feature.
    unsafe { compiled(loops) }
}

#[cfg(target_arch = "x86_64")]
fn run_avx512(_avx512: Avx512, loops: impl Loops) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni")]
    fn compiled(loops: impl Loops) {
        loops.run();
    }
    // SAFETY: `_avx512` proves that the processor has the features.
    unsafe { compiled(loops) }
}
