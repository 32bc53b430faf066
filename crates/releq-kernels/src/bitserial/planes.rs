//! Activations as bit planes.

use super::WORD;
use crate::{BitPair, GemmShape, Isa, KernelError};

/// Activations `[pixels][depth]` as bit planes.
///
/// Layout: `[pixels][depth / 32, rounded up][plane, lowest first]` words; bit `k` of a word belongs to code `k`
/// of its 32.
#[derive(Clone, Debug)]
pub struct BitPlanes {
    words: Vec<u32>,
    pixels: usize,
    depth: usize,
    bits: u8,
}

impl BitPlanes {
    /// # Errors
    /// [`KernelError`] for a length, a code, a bitwidth or an instruction set that does not fit.
    pub fn pack(
        codes: &[u8],
        pixels: usize,
        depth: usize,
        bits: u8,
        isa: Isa,
    ) -> Result<Self, KernelError> {
        isa.check()?;
        let pair = BitPair::new(1, bits)?;
        GemmShape { pixels, outputs: 0, depth }.check(0, codes.len(), 0)?;
        pair.check_acts(codes)?;
        let mut words = Vec::with_capacity(pixels * depth.div_ceil(WORD) * usize::from(bits));
        for pixel in codes.chunks_exact(depth.max(1)) {
            append(pixel, bits, isa, &mut words);
        }
        Ok(Self { words, pixels, depth, bits })
    }

    /// Number of pixels.
    #[must_use]
    pub const fn pixels(&self) -> usize {
        self.pixels
    }

    /// Codes of one pixel.
    #[must_use]
    pub const fn depth(&self) -> usize {
        self.depth
    }

    /// Bits of a code.
    #[must_use]
    pub const fn bits(&self) -> u8 {
        self.bits
    }

    /// The words, as the type lays them out.
    #[must_use]
    pub fn words(&self) -> &[u32] {
        &self.words
    }
}

/// Appends the planes of one pixel.
pub(super) fn append(codes: &[u8], bits: u8, isa: Isa, words: &mut Vec<u32>) {
    let (full, rest) = codes.as_chunks::<WORD>();
    let mut tail = [0; WORD];
    tail[..rest.len()].copy_from_slice(rest);
    let tail = (!rest.is_empty()).then_some(&tail);
    for codes in full.iter().chain(tail) {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::Avx512 => super::avx2::split(codes, bits, words),
            _ => split(codes, bits, words),
        }
    }
}

/// The planes of 32 codes.
fn split(codes: &[u8; WORD], bits: u8, words: &mut Vec<u32>) {
    for plane in 0..bits {
        let mut word = 0;
        for (index, codes) in codes.as_chunks::<8>().0.iter().enumerate() {
            let lowest = u64::from_le_bytes(*codes) >> plane & 0x0101_0101_0101_0101;
            // Moves the lowest bit of byte i to bit 56 + i.
            let gathered = lowest.wrapping_mul(0x0102_0408_1020_4080) >> 56;
            word |= (gathered as u32) << (8 * index);
        }
        words.push(word);
    }
}
