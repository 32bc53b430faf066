//! Activations as bit planes.

use super::WORD;
use crate::{BitPair, GemmShape, Isa, KernelError, cpu::Cpu};

/// Activations `[pixels][depth]` as bit planes.
///
/// Layout: `[pixels][depth / 32, rounded up][plane, lowest first]` words. Bit `k` of a word belongs to code `k`
/// of its 32 codes; bits past the depth are zero. The layout is the same for every instruction set.
#[derive(Clone, Debug, Default)]
pub struct BitPlanes {
    words: Vec<u32>,
    pixels: usize,
    depth: usize,
    bits: u8,
}

impl BitPlanes {
    /// Splits `[pixels][depth]` codes of `bits` bits.
    ///
    /// # Errors
    /// [`KernelError`] for a wrong length, a code outside its bitwidth, a bitwidth outside 1 to 8, or an instruction
    /// set that this processor lacks.
    pub fn pack(
        codes: &[u8],
        pixels: usize,
        depth: usize,
        bits: u8,
        isa: Isa,
    ) -> Result<Self, KernelError> {
        let mut planes = Self::default();
        planes.pack_into(codes, pixels, depth, bits, isa)?;
        Ok(planes)
    }

    /// As [`pack`](Self::pack), reusing the memory of these planes. They stay unchanged on an error.
    ///
    /// # Errors
    /// As [`pack`](Self::pack).
    pub fn pack_into(
        &mut self,
        codes: &[u8],
        pixels: usize,
        depth: usize,
        bits: u8,
        isa: Isa,
    ) -> Result<(), KernelError> {
        let cpu = Cpu::new(isa)?;
        let pair = BitPair::new(1, bits)?;
        GemmShape { pixels, outputs: 0, depth }.check(0, codes.len(), 0)?;
        pair.check_acts(codes)?;
        let (count, full) = (depth.div_ceil(WORD), depth / WORD * WORD);
        let pixel_words = count * usize::from(bits);
        resize(&mut self.words, pixels.checked_mul(pixel_words))?;
        (self.pixels, self.depth, self.bits) = (pixels, depth, bits);
        let split = splitter(cpu);
        if depth == full {
            split(codes, bits, &mut self.words);
            return Ok(());
        }
        // The last word of every pixel is split from a copy that is padded with zeros.
        let mut tail = [0; WORD];
        let full_words = full / WORD * usize::from(bits);
        for (codes, words) in
            codes.chunks_exact(depth).zip(self.words.chunks_exact_mut(pixel_words))
        {
            let (codes, rest) = codes.split_at(full);
            let (words, last) = words.split_at_mut(full_words);
            tail[..rest.len()].copy_from_slice(rest);
            split(codes, bits, words);
            split(&tail, bits, last);
        }
        Ok(())
    }

    /// Number of pixels.
    #[must_use]
    pub const fn pixels(&self) -> usize {
        self.pixels
    }

    /// Number of codes of a pixel.
    #[must_use]
    pub const fn depth(&self) -> usize {
        self.depth
    }

    /// Bitwidth of the codes; 0 if nothing was packed yet.
    #[must_use]
    pub const fn bits(&self) -> u8 {
        self.bits
    }

    /// The words, in the layout that the type documents.
    #[must_use]
    pub fn words(&self) -> &[u32] {
        &self.words
    }
}

/// Fills `values` with `len` zeros, and allocates only if it has to grow.
pub(super) fn resize<T: Clone + Default>(
    values: &mut Vec<T>,
    len: Option<usize>,
) -> Result<(), KernelError> {
    let too_large = KernelError::TooLarge { what: "activations" };
    let Some(len) = len else { return Err(too_large) };
    values.clear();
    values.try_reserve(len).map_err(|_| too_large)?;
    values.resize(len, T::default());
    Ok(())
}

/// A function that splits whole words of codes of the given bitwidth into planes `[codes / 32][plane]`.
pub(super) type Split = Box<dyn Fn(&[u8], u8, &mut [u32])>;

/// The function for `cpu`, to be chosen once for many calls. Proofs are empty, so boxing them allocates nothing.
pub(super) fn splitter(cpu: Cpu) -> Split {
    match cpu {
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx512(avx512) => {
            Box::new(move |codes, bits, words| super::avx512::split(avx512, codes, bits, words))
        }
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx2(avx2) => {
            Box::new(move |codes, bits, words| super::avx2::split(avx2, codes, bits, words))
        }
        Cpu::Portable => Box::new(super::portable::split),
    }
}
