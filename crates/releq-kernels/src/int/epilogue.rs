//! The epilogue of every product: scale, bias and ReLU, then rounding to codes of the next layer.

use crate::{
    BitPair, KernelError,
    cpu::Cpu,
    int::scratch::Kept,
    vectorise::{Loops, vectorise},
};

/// Channels that are processed together.
pub(crate) const LANES: usize = 16;

/// `1.5 * 2^23`. Adding it to a float of at most 2^22 leaves no bits for a fraction: the sum is rounded half to
/// even, and its low bits are the integer.
const ROUND: f32 = 12_582_912.0;

/// How values in units of the scale become codes: clamped, rounded half to even, and moved by the zero point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Codes {
    /// The smallest value, from -255 to 0.
    pub(crate) low: f32,
    /// The largest value, from 0 to 255.
    pub(crate) high: f32,
    /// The code of zero. Added to `low` and to `high`, it gives 0 to 255.
    pub(crate) zero: u8,
}

impl Codes {
    /// For results that are no codes.
    #[cfg(target_arch = "x86_64")]
    pub(crate) const NONE: Self = Self { low: 0.0, high: 0.0, zero: 0 };

    /// Codes of `bits` bits, 1 to 8; the zero point must be one of them.
    pub(crate) fn new(bits: u8, zero: u8, relu: bool, ceiling: f32) -> Self {
        let (largest, zero_point) = (((1_u32 << bits) - 1) as f32, f32::from(zero));
        let low = if relu { 0.0 } else { -zero_point };
        Self { low, high: ceiling.min(largest - zero_point), zero }
    }

    /// The code of a value; that of NaN is the lowest. Comparisons, not `clamp`, so that the loops around it vectorize.
    #[inline(always)]
    pub(crate) fn round(self, value: f32) -> u8 {
        let value = if value > self.low { value } else { self.low };
        let value = if value < self.high { value } else { self.high };
        ((value + ROUND).to_bits() as u8).wrapping_add(self.zero)
    }
}

/// What turns the sums of 16 channels into values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Factors {
    pub(crate) offsets: [i32; LANES],
    pub(crate) scales: [f32; LANES],
    pub(crate) biases: [f32; LANES],
}

impl Factors {
    #[inline(always)]
    fn value(&self, lane: usize, sum: i32) -> f32 {
        sum.wrapping_add(self.offsets[lane]) as f32 * self.scales[lane] + self.biases[lane]
    }
}

/// Offset, scale, bias and ReLU per output channel, and the zero point of codes.
///
/// A value is `(sum + offset) * scale + bias`. The offset is a whole number, 0 unless set, and its addition wraps around. The
/// result is converted to `f32`, then multiplied, then added to, with rounding half to even after every step and no fused
/// multiply-add, so that all instruction sets agree bit for bit. ReLU replaces values that are not positive by `0.0`, and a
/// ceiling those above it by itself.
///
/// A code of `b` bits is the value clamped to `-zero_point ..= 2^b - 1 - zero_point`, rounded half to even, plus the zero
/// point. With a zero point of 0, which is the default, that includes ReLU. For codes, scale, bias and ceiling must be those
/// of the layer divided by the scale of its output codes.
#[derive(Clone, Debug, PartialEq)]
pub struct Epilogue {
    channels: usize,
    relu: bool,
    ceiling: f32,
    zero_point: u8,
    /// Padded with zeros.
    factors: Vec<Factors>,
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
        let mut factors = vec![Factors::default(); channels.div_ceil(LANES)];
        for (channel, (&scale, &bias)) in scales.iter().zip(biases).enumerate() {
            let factors = &mut factors[channel / LANES];
            factors.scales[channel % LANES] = scale;
            factors.biases[channel % LANES] = bias;
        }
        Ok(Self { channels, relu, ceiling: f32::INFINITY, zero_point: 0, factors })
    }

    /// Sets the whole number that is added to the sums of each channel, such as a bias in units of the product of both
    /// scales, or what a zero point of the activations adds to every sum.
    ///
    /// # Errors
    /// [`KernelError::Length`] for another number of offsets than channels.
    pub fn with_offsets(mut self, offsets: &[i32]) -> Result<Self, KernelError> {
        let (expected, got) = (self.channels, offsets.len());
        if got != expected {
            return Err(KernelError::Length { what: "offsets", expected, got });
        }
        for (factors, offsets) in self.factors.iter_mut().zip(offsets.chunks(LANES)) {
            factors.offsets[..offsets.len()].copy_from_slice(offsets);
        }
        Ok(self)
    }

    /// Sets the code that stands for zero in the results.
    #[must_use]
    pub fn with_zero_point(self, zero_point: u8) -> Self {
        Self { zero_point, ..self }
    }

    /// Sets the largest value, as ReLU6 has one.
    ///
    /// # Errors
    /// [`KernelError::Ceiling`] for one that is negative or not finite.
    pub fn with_ceiling(self, ceiling: f32) -> Result<Self, KernelError> {
        match ceiling.is_finite() && ceiling >= 0.0 {
            true => Ok(Self { ceiling, ..self }),
            false => Err(KernelError::Ceiling),
        }
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
        let value = self.factors[channel / LANES].value(channel % LANES, sum);
        let value = if self.relu && value <= 0.0 { 0.0 } else { value };
        if value > self.ceiling { self.ceiling } else { value }
    }

    /// The code of one sum: the reference that all kernels equal.
    ///
    /// # Panics
    /// If `channel` is out of range.
    #[must_use]
    pub fn code(&self, channel: usize, sum: i32, bits: u8) -> u8 {
        let largest = (1_i32 << bits.min(8)) - 1;
        let zero = i32::from(self.zero_point).min(largest);
        let value = self.value(channel, sum).clamp(-zero as f32, (largest - zero) as f32);
        (value.round_ties_even() as i32 + zero) as u8
    }

    fn codes(&self, bits: u8) -> Codes {
        Codes::new(bits, self.zero_point, self.relu, self.ceiling)
    }

    fn check(&self, channels: usize) -> Result<(), KernelError> {
        if self.channels == channels {
            return Ok(());
        }
        let (expected, got) = (channels, self.channels);
        Err(KernelError::Length { what: "channels of the epilogue", expected, got })
    }
}

/// Checks bits and a zero point of codes.
pub(crate) fn check_zero_point(zero_point: u8, bits: u8) -> Result<(), KernelError> {
    let pair = BitPair::new(1, bits)?;
    let (low, high, got) = (0, *pair.act_codes().end(), i32::from(zero_point));
    match got <= high {
        true => Ok(()),
        false => Err(KernelError::Code { what: "zero point", index: 0, got, low, high, bits }),
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
                check_zero_point(epilogue.zero_point, *bits)?;
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
    type Out: Kept;

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
    /// Of 16 channels each, starting at the first channel that the kernel computes.
    pub(crate) factors: &'a [Factors],
    pub(crate) codes: Codes,
    pub(crate) out: &'a mut [u8],
}

/// Results are codes.
#[derive(Debug)]
pub(crate) struct AsCodes<'a> {
    epilogue: &'a Epilogue,
    codes: Codes,
}

impl<'a> AsCodes<'a> {
    /// [`Output::check`] passed.
    pub(crate) fn new(epilogue: &'a Epilogue, bits: u8) -> Self {
        Self { epilogue, codes: epilogue.codes(bits) }
    }
}

impl Finish for AsCodes<'_> {
    type Out = u8;

    fn fused<'a>(&'a self, out: &'a mut [u8]) -> Option<Fused<'a>> {
        Some(Fused { factors: &self.epilogue.factors, codes: self.codes, out })
    }

    #[inline(always)]
    fn convert(&self, group: usize, sums: &[i32; LANES], codes: &mut [u8; LANES]) {
        let factors = &self.epilogue.factors[group];
        for i in 0..LANES {
            codes[i] = self.codes.round(factors.value(i, sums[i]));
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
        let (factors, ceiling) = (&self.0.factors[group], self.0.ceiling);
        let floor = if self.0.relu { 0.0 } else { f32::NEG_INFINITY };
        for i in 0..LANES {
            let value = factors.value(i, sums[i]);
            let value = if value > floor { value } else { floor };
            values[i] = if value < ceiling { value } else { ceiling };
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
        let offsets: Vec<i32> =
            (0..channels as i32).map(|c| [0, 7, -129, i32::MAX][c as usize % 4]).collect();
        let plain = |relu| Epilogue::new(&scales, &biases, relu).expect("finite");
        let moved = |relu, zero_point| {
            let epilogue = plain(relu).with_offsets(&offsets).expect("as many as channels");
            epilogue.with_zero_point(zero_point).with_ceiling(99.5).expect("positive")
        };
        let epilogues =
            [plain(true), plain(false), moved(true, 0), moved(false, 1), moved(true, 1)];
        for (epilogue, isa) in
            Isa::available().flat_map(|isa| epilogues.iter().map(move |epilogue| (epilogue, isa)))
        {
            let cpu = Cpu::new(isa).expect("it is available");
            let block = Block { cpu, sums: &tiled, first: 0, channels, pitch: channels };
            let mut values = vec![0.0; sums.len() * channels];
            AsValues(epilogue).finish(block, &mut values);
            for (at, value) in values.iter().enumerate() {
                let expected = epilogue.value(at % channels, sums[at / channels]);
                assert_eq!(value.to_bits(), expected.to_bits(), "{isa} {at}");
            }
            for bits in 1..=8 {
                let mut codes = vec![0; sums.len() * channels];
                AsCodes::new(epilogue, bits).finish(block, &mut codes);
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
    fn codes_are_on_either_side_of_the_zero_point() {
        // By hand: -100 + 10 in halves is -45, and half an odd number goes to the even neighbour before the zero point.
        let epilogue = Epilogue::new(&[0.5], &[0.0], false).expect("finite");
        let epilogue = epilogue.with_offsets(&[10]).expect("one").with_zero_point(101);
        let codes =
            |epilogue: &Epilogue| [-1000, -100, -10, -9, -7, 400].map(|s| epilogue.code(0, s, 8));
        assert_eq!(codes(&epilogue), [0, 56, 101, 101, 103, 255]);
        let ceiling = epilogue.with_ceiling(1.5).expect("positive");
        assert_eq!(codes(&ceiling), [0, 56, 101, 101, 103, 103]);
        let relu = Epilogue { relu: true, ..ceiling };
        assert_eq!(codes(&relu), [101, 101, 101, 101, 103, 103]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let one = || Epilogue::new(&[1.0], &[0.0], false).expect("finite");
        assert!(matches!(
            one().with_offsets(&[]),
            Err(KernelError::Length { what: "offsets", .. })
        ));
        assert!(matches!(one().with_ceiling(-1.0), Err(KernelError::Ceiling)));
        assert!(one().with_ceiling(f32::NAN).is_err());
        let error = check_zero_point(16, 4).expect_err("4 bits end at 15");
        assert!(error.to_string().contains("zero point"), "{error}");
        assert!(Epilogue::new(&[1.0], &[], true).is_err());
        assert!(Epilogue::new(&[f32::NAN], &[0.0], true).is_err());
        let error = Epilogue::new(&[1.0], &[f32::INFINITY], true).expect_err("not finite");
        assert!(error.to_string().contains("biases[0]"), "{error}");
    }
}
