//! Plain loops, compiled once per instruction set.
#![allow(unsafe_code, reason = "calls into an instruction set")]

use crate::Isa;

/// Loops that the compiler vectorises by itself; `run` must be `#[inline(always)]`, so that it takes the
/// instructions of its caller.
pub(crate) trait Loops {
    fn run(self);
}

/// Runs loops compiled for `isa`; the same values come out for every one of them.
pub(crate) fn vectorise(isa: Isa, loops: impl Loops) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni")]
        fn avx512(loops: impl Loops) {
            loops.run();
        }
        #[target_feature(enable = "avx2")]
        fn avx2(loops: impl Loops) {
            loops.run();
        }
        match isa {
            // SAFETY: the guard asks for the features.
            Isa::Avx512 if isa.is_available() => return unsafe { avx512(loops) },
            // SAFETY: the guard asks for the feature.
            Isa::Avx2 if isa.is_available() => return unsafe { avx2(loops) },
            _ => {}
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = isa;
    loops.run();
}
