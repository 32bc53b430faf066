//! The epilogue of every product: scale, bias and ReLU, then rounding to codes of the next layer.

use crate::{
    BitPair, KernelError,
    cpu::Cpu,
    vectorise::{Loops, vectorise},
};

/// Channels that are processed together.
pub(crate) const LANES: usize = 16;

/// `1.5 * 2^23`. Adding it to a float of at most 2^22 leaves no bits for a fraction: the sum is rounded half to
/// even, and its low bits are the integer.
const ROUND: f32 = 12_582_912.0;

/// A value as a code of at most `largest`, which is at most 255: clamped, then rounded half to even. NaN becomes 0.
/// Comparisons, not `clamp`, so that the loops around it vectorize.
#[inline(always)]
pub(crate) fn round(value: f32, largest: f32) -> u8 {
    let value = if value > 0.0 { value } else { 0.0 };
    let value = if value < largest { value } else { largest };
    (value + ROUND).to_bits() as u8
}

/// Scale, bias and ReLU per output channel.
///
/// A value is `sum * scale + bias`. The sum is converted to `f32`, then multiplied, then added to, with
/// rounding half to even after every step and no fused multiply-add, so that all instruction sets agree bit for
/// bit. ReLU replaces values that are not positive by `0.0`. A code of `b` bits is the value clamped to
/// `0 ..= 2^b - 1` and rounded half to even, which includes ReLU. For codes, scale and bias must be those of
/// the layer divided by the scale of its output codes.
#[derive(Clone, Debug, PartialEq)]
pub struct Epilogue {
    channels: usize,
    relu: bool,
    /// Scales and biases, padded with zeros.
    factors: Vec<[[f32; LANES]; 2]>,
}

impl Epilogue {
    /// An epilogue with one scale and one bias per channel.
    ///
    /// # Errors
    /// [`KernelError`] if the numbers of scales and biases differ or one of them is not finite.
    pub fn new(scales: &[f32], biases: &[f32], relu: bool) -> Result<Self, KernelError> {
        let channels = scales.len();
        if biases.len() != channels {
            let got = biases.len();
            return Err(KernelError::Length { what: "biases", expected: channels, got });
        }
        for (what, values) in [("scales", scales), ("biases", biases)] {
            if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                return Err(KernelError::NotFinite { what, index });
            }
        }
        let mut factors = vec![[[0.0; LANES]; 2]; channels.div_ceil(LANES)];
        for (channel, (&scale, &bias)) in scales.iter().zip(biases).enumerate() {
            let [to_scales, to_biases] = &mut factors[channel / LANES];
            to_scales[channel % LANES] = scale;
            to_biases[channel % LANES] = bias;
        }
        Ok(Self { channels, relu, factors })
    }

    /// Number of channels.
    #[must_use]
    pub const fn channels(&self) -> usize {
        self.channels
    }

    /// The value of one sum: the reference that all kernels equal.
    ///
    /// # Panics
    /// If `channel` is out of range.
    #[must_use]
    pub fn value(&self, channel: usize, sum: i32) -> f32 {
        assert!(channel < self.channels, "channel {channel} of {}", self.channels);
        let [scales, biases] = &self.factors[channel / LANES];
        let value = sum as f32 * scales[channel % LANES] + biases[channel % LANES];
        if self.relu && value <= 0.0 { 0.0 } else { value }
    }

    /// The code of one sum: the reference that all kernels equal.
    ///
    /// # Panics
    /// If `channel` is out of range.
    #[must_use]
    pub fn code(&self, channel: usize, sum: i32, bits: u8) -> u8 {
        let largest = ((1_u32 << bits.min(8)) - 1) as f32;
        self.value(channel, sum).clamp(0.0, largest).round_ties_even() as u8
    }

    fn check(&self, channels: usize) -> Result<(), KernelError> {
        if self.channels == channels {
            return Ok(());
        }
        let (expected, got) = (channels, self.channels);
        Err(KernelError::Length { what: "channels of the epilogue", expected, got })
    }
}

/// The form of the results, and the slice that they are written to.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output<'a> {
    /// The 32-bit sums themselves.
    Sums(&'a mut [i32]),
    /// Codes, the input of the next layer.
    Codes {
        /// Scale and bias of every channel.
        epilogue: &'a Epilogue,
        /// Bitwidth of the codes.
        bits: u8,
        /// Receives the results.
        out: &'a mut [u8],
    },
    /// Floats, before quantization.
    Values {
        /// Scale, bias and ReLU of every channel.
        epilogue: &'a Epilogue,
        /// Receives the results.
        out: &'a mut [f32],
    },
}

impl Output<'_> {
    /// Number of results that the slice has space for.
    pub(crate) const fn len(&self) -> usize {
        match self {
            Self::Sums(out) => out.len(),
            Self::Codes { out, .. } => out.len(),
            Self::Values { out, .. } => out.len(),
        }
    }

    pub(crate) fn check(&self, channels: usize) -> Result<(), KernelError> {
        match self {
            Self::Sums(_) => Ok(()),
            Self::Values { epilogue, .. } => epilogue.check(channels),
            Self::Codes { epilogue, bits, .. } => {
                BitPair::new(1, *bits)?;
                epilogue.check(channels)
            }
        }
    }

    /// Splits into the first `len` results and the rest.
    pub(crate) fn split_at(self, len: usize) -> (Self, Self) {
        match self {
            Self::Sums(out) => {
                let (a, b) = out.split_at_mut(len);
                (Self::Sums(a), Self::Sums(b))
            }
            Self::Codes { epilogue, bits, out } => {
                let (a, b) = out.split_at_mut(len);
                (Self::Codes { epilogue, bits, out: a }, Self::Codes { epilogue, bits, out: b })
            }
            Self::Values { epilogue, out } => {
                let (a, b) = out.split_at_mut(len);
                (Self::Values { epilogue, out: a }, Self::Values { epilogue, out: b })
            }
        }
    }
}

impl<'a> From<&'a mut [i32]> for Output<'a> {
    fn from(out: &'a mut [i32]) -> Self {
        Self::Sums(out)
    }
}

impl<'a> From<&'a mut Vec<i32>> for Output<'a> {
    fn from(out: &'a mut Vec<i32>) -> Self {
        Self::Sums(out)
    }
}

/// The sums of a block of pixels, input of the epilogue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block<'a> {
    pub(crate) cpu: Cpu,
    /// `[pixels][channels / 16, rounded up]`
    pub(crate) sums: &'a [[i32; LANES]],
    /// The first channel, a multiple of 16.
    pub(crate) first: usize,
    pub(crate) channels: usize,
    /// Distance between results of adjacent pixels.
    pub(crate) pitch: usize,
}

/// Converts sums to one kind of results.
pub(crate) trait Finish: Sync {
    type Out: Copy + Default + Send;

    /// The output itself if results are sums, so that kernels can write to it without a copy.
    fn direct(_out: &mut [Self::Out]) -> Option<&mut [i32]> {
        None
    }

    /// The epilogue for kernels that can apply it to sums that are still in registers.
    fn fused<'a>(&'a self, _out: &'a mut [Self::Out]) -> Option<Fused<'a>> {
        None
    }

    /// Converts a group of channels. Must be `#[inline(always)]`, see [`Loops`].
    fn convert(&self, group: usize, sums: &[i32; LANES], out: &mut [Self::Out; LANES]);

    fn finish(&self, block: Block<'_>, out: &mut [Self::Out]) {
        vectorise(block.cpu, Each { finish: self, block, out });
    }
}

/// Results are the sums.
#[derive(Debug)]
pub(crate) struct AsSums;

impl Finish for AsSums {
    type Out = i32;

    fn direct(out: &mut [i32]) -> Option<&mut [i32]> {
        Some(out)
    }

    #[inline(always)]
    fn convert(&self, _group: usize, sums: &[i32; LANES], out: &mut [i32; LANES]) {
        *out = *sums;
    }
}

/// What a kernel needs to turn sums into codes by itself.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "read by AVX-512 alone"))]
#[derive(Debug)]
pub(crate) struct Fused<'a> {
    /// Scales and biases of 16 channels each, starting at the first channel that the kernel computes.
    pub(crate) factors: &'a [[[f32; LANES]; 2]],
    pub(crate) largest: f32,
    pub(crate) out: &'a mut [u8],
}

/// Results are codes of at most `largest`.
#[derive(Debug)]
pub(crate) struct AsCodes<'a> {
    epilogue: &'a Epilogue,
    largest: f32,
}

impl<'a> AsCodes<'a> {
    /// `bits` must be 1 to 8.
    pub(crate) fn new(epilogue: &'a Epilogue, bits: u8) -> Self {
        Self { epilogue, largest: ((1_u32 << bits) - 1) as f32 }
    }
}

impl Finish for AsCodes<'_> {
    type Out = u8;

    fn fused<'a>(&'a self, out: &'a mut [u8]) -> Option<Fused<'a>> {
        Some(Fused { factors: &self.epilogue.factors, largest: self.largest, out })
    }

    #[inline(always)]
    fn convert(&self, group: usize, sums: &[i32; LANES], codes: &mut [u8; LANES]) {
        let [scales, biases] = &self.epilogue.factors[group];
        for i in 0..LANES {
            codes[i] = round(sums[i] as f32 * scales[i] + biases[i], self.largest);
        }
    }
}

/// Results are floats.
#[derive(Debug)]
pub(crate) struct AsValues<'a>(pub(crate) &'a Epilogue);

impl Finish for AsValues<'_> {
    type Out = f32;

    #[inline(always)]
    fn convert(&self, group: usize, sums: &[i32; LANES], values: &mut [f32; LANES]) {
        let [scales, biases] = &self.0.factors[group];
        let floor = if self.0.relu { 0.0 } else { f32::NEG_INFINITY };
        for i in 0..LANES {
            let value = sums[i] as f32 * scales[i] + biases[i];
            values[i] = if value > floor { value } else { floor };
        }
    }
}

struct Each<'a, F: Finish + ?Sized> {
    finish: &'a F,
    block: Block<'a>,
    out: &'a mut [F::Out],
}

impl<F: Finish + ?Sized> Loops for Each<'_, F> {
    #[inline(always)]
    fn run(self) {
        let Block { sums, first, channels, pitch, .. } = self.block;
        let groups = channels.div_ceil(LANES);
        for (pixel, sums) in sums.chunks_exact(groups).enumerate() {
            for (group, sums) in sums.iter().enumerate() {
                let left = channels - group * LANES;
                let out = &mut self.out[pixel * pitch + group * LANES..];
                match out.first_chunk_mut() {
                    // The fast path stores 16 results at once. If pixels are adjacent, a partial group may write past
                    // its channels: those places belong to the next pixel, which is written later.
                    Some(out) if left >= LANES || pitch == channels => {
                        self.finish.convert(first / LANES + group, sums, out);
                    }
                    // Near the end of the output, or if the results of other panels follow.
                    _ => {
                        let mut results = [F::Out::default(); LANES];
                        self.finish.convert(first / LANES + group, sums, &mut results);
                        let left = left.min(LANES);
                        out[..left].copy_from_slice(&results[..left]);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn equals_the_reference_on_every_isa() {
        // Halves exactly, so that ties occur; an overflow to infinity; subnormal products.
        let scales = [0.5, -0.5, 1.0, 1e-3, 3e38, -3e38, 1e-42, 0.0, 0.25, 1.5, 7.0, 0.1];
        let biases = [0.0, 0.5, -3.0, 2.5, 1.0, 0.0, 0.5, 127.5, -0.0, 1e9, -1e9, 0.3];
        let (scales, biases) = (scales.repeat(3), biases.repeat(3));
        let channels = scales.len();
        let groups = channels.div_ceil(LANES);
        let kept = [i32::MIN, i32::MAX, -1, 0, 1, 2, 3, 5, 255, 509, 511, 16_777_217, -16_777_219];
        let sums: Vec<i32> = kept.into_iter().chain(-300..300).collect();
        let tiled: Vec<[i32; LANES]> =
            sums.iter().flat_map(|&s| vec![[s; LANES]; groups]).collect();
        for (relu, isa) in Isa::available().flat_map(|isa| [(true, isa), (false, isa)]) {
            let epilogue = Epilogue::new(&scales, &biases, relu).expect("finite");
            let cpu = Cpu::new(isa).expect("it is available");
            let block = Block { cpu, sums: &tiled, first: 0, channels, pitch: channels };
            let mut values = vec![0.0; sums.len() * channels];
            AsValues(&epilogue).finish(block, &mut values);
            for (at, value) in values.iter().enumerate() {
                let expected = epilogue.value(at % channels, sums[at / channels]);
                assert_eq!(value.to_bits(), expected.to_bits(), "{isa} {at}");
            }
            for bits in 1..=8 {
                let mut codes = vec![0; sums.len() * channels];
                AsCodes::new(&epilogue, bits).finish(block, &mut codes);
                for (at, &code) in codes.iter().enumerate() {
                    let expected = epilogue.code(at % channels, sums[at / channels], bits);
                    assert_eq!(code, expected, "{isa} {bits} {at}");
                }
            }
        }
    }

    #[test]
    fn halves_go_to_even() {
        let epilogue = Epilogue::new(&[0.5], &[0.0], true).expect("finite");
        let codes: Vec<u8> = [-3, 1, 2, 3, 5, 7, 600].map(|s| epilogue.code(0, s, 8)).to_vec();
        assert_eq!(codes, [0, 0, 1, 2, 2, 4, 255]);
        assert_eq!(epilogue.code(0, 31, 3), 7);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(Epilogue::new(&[1.0], &[], true).is_err());
        assert!(Epilogue::new(&[f32::NAN], &[0.0], true).is_err());
        let error = Epilogue::new(&[1.0], &[f32::INFINITY], true).expect_err("not finite");
        assert!(error.to_string().contains("biases[0]"), "{error}");
    }
}
