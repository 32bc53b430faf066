//! A layer of a network, packed for the kernel that suits it.

use std::fmt;

use crate::{
    BitPair, BitSerialConv, BitSerialWeights, ConvShape, DepthwiseConv, GemmShape, Int8Conv,
    Int8Weights, Isa, KernelError, LowBitConv, LowBitWeights, Threads, Workspace,
    int::{epilogue::Output, weight_rows::WeightRows},
};

/// The kind and the shape of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LayerShape {
    /// A matrix product, as in a fully connected layer.
    Gemm(GemmShape),
    /// A convolution.
    Conv(ConvShape),
    /// A depthwise convolution, with as many outputs as channels.
    Depthwise(ConvShape),
}

impl LayerShape {
    /// Number of weights.
    #[must_use]
    pub const fn weights(self) -> usize {
        match self {
            Self::Gemm(shape) => shape.outputs * shape.depth,
            Self::Conv(shape) => shape.outputs * shape.depth(),
            Self::Depthwise(shape) => shape.channels * shape.kernel * shape.kernel,
        }
    }

    /// Number of weights of one output: products in one sum.
    #[must_use]
    pub const fn depth(self) -> usize {
        match self {
            Self::Gemm(shape) => shape.depth,
            Self::Conv(shape) => shape.depth(),
            Self::Depthwise(shape) => shape.kernel * shape.kernel,
        }
    }

    /// Number of activations.
    #[must_use]
    pub const fn acts(self) -> usize {
        match self {
            Self::Gemm(shape) => shape.pixels * shape.depth,
            Self::Conv(shape) | Self::Depthwise(shape) => {
                shape.height * shape.width * shape.channels
            }
        }
    }

    /// Number of output pixels. Each of them uses all weights.
    #[must_use]
    pub const fn pixels(self) -> usize {
        match self {
            Self::Gemm(shape) => shape.pixels,
            Self::Conv(shape) | Self::Depthwise(shape) => shape.out_height() * shape.out_width(),
        }
    }

    /// Number of outputs of one pixel.
    #[must_use]
    pub const fn outputs(self) -> usize {
        match self {
            Self::Gemm(shape) => shape.outputs,
            Self::Conv(shape) => shape.outputs,
            Self::Depthwise(shape) => shape.channels,
        }
    }

    /// Checks that the shape is possible. The other methods are only meaningful if it is.
    ///
    /// # Errors
    /// [`KernelError`] for invalid dimensions.
    pub fn check(self) -> Result<(), KernelError> {
        match self {
            Self::Gemm(GemmShape { pixels, outputs, depth }) => {
                let sides = [("weights", outputs, depth), ("activations", pixels, depth)];
                for (what, a, b) in sides.into_iter().chain([("out", pixels, outputs)]) {
                    let product = a.checked_mul(b).filter(|&p| p <= isize::MAX as usize / 8);
                    product.ok_or(KernelError::TooLarge { what })?;
                }
                Ok(())
            }
            Self::Conv(shape) => shape.check(),
            Self::Depthwise(shape) => crate::int::depthwise::check(shape),
        }
    }
}

/// A family of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kernel {
    /// Both operands are split into bit planes.
    BitSerial,
    /// Weights are expanded to one byte each when they are packed.
    Int8,
    /// Weights are stored at few bits and expanded while they are multiplied.
    LowBit {
        /// Bits that a weight takes in memory, at least its bitwidth.
        stored: u8,
    },
    /// The kernel for depthwise convolutions.
    Depthwise,
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BitSerial => f.pad("bit-serial"),
            Self::Int8 => f.pad("int8"),
            Self::LowBit { stored } => f.pad(&format!("low-bit/{stored}")),
            Self::Depthwise => f.pad("depthwise"),
        }
    }
}

/// A kernel and the reason it was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The kernel.
    pub kernel: Kernel,
    /// The rule that chose it.
    pub reason: &'static str,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kernel, self.reason)
    }
}

/// Size of the weights at one byte each, up to which they stay in the L2 cache of a core from image to image.
const NEAR: usize = 1 << 20;
/// Size of the weights at one byte each, above which they come from main memory or, at best, a shared cache.
const FAR: usize = 8 << 20;

impl Choice {
    /// The kernel that was fastest for such layers on an AMD Zen 4 core, where the rules were measured
    /// (docs/benchmarks.md). For 8-bit weights it is always int8.
    ///
    /// One instruction multiplies 64 bytes, so fewer bits save time in only two cases: if one or few pixels use
    /// each weight, so that reading the weights dominates, and if there are so few bit planes that counting
    /// bits takes less time than multiplying bytes.
    ///
    /// # Errors
    /// [`KernelError`] for an invalid shape.
    pub fn of(shape: LayerShape, bits: BitPair, isa: Isa) -> Result<Self, KernelError> {
        Self::or_of(None, shape, bits, isa)
    }

    /// A kernel that was not chosen by a rule.
    #[must_use]
    pub const fn requested(kernel: Kernel) -> Self {
        Self { kernel, reason: "requested by the caller" }
    }

    /// What the caller has chosen or, if nothing, what [`of`](Self::of) gives.
    fn or_of(
        choice: Option<Self>,
        shape: LayerShape,
        bits: BitPair,
        isa: Isa,
    ) -> Result<Self, KernelError> {
        shape.check()?;
        Ok(choice.unwrap_or_else(|| Self::of_checked(shape, bits, isa)))
    }

    /// Bits that the weights are packed as.
    const fn stored(self, bits: BitPair) -> u8 {
        match self.kernel {
            Kernel::LowBit { stored } => stored,
            _ => bits.weight(),
        }
    }

    fn of_checked(shape: LayerShape, bits: BitPair, isa: Isa) -> Self {
        let (w, planes) = (bits.weight(), bits.weight() * bits.act());
        let (pixels, expanded) = (shape.pixels(), shape.weights());
        let choice = |kernel, reason| Self { kernel, reason };
        let low_bit = |stored, reason| choice(Kernel::LowBit { stored }, reason);
        // Whether the inputs of a sum fill enough 32-bit words of a bit plane.
        let words = match shape {
            LayerShape::Depthwise(_) => {
                return choice(Kernel::Depthwise, "depthwise convolutions have a single kernel");
            }
            LayerShape::Gemm(shape) => shape.depth >= 256,
            LayerShape::Conv(shape) => shape.channels >= 32 && shape.outputs >= 32,
        };
        let few_planes = match isa {
            Isa::Avx512 if pixels == 1 => planes <= 4,
            Isa::Avx512 | Isa::Avx2 => planes <= 2,
            Isa::Portable => planes <= 4,
        };
        if few_planes && words {
            return choice(
                Kernel::BitSerial,
                "with so few bit planes, counting bits is faster than multiplying bytes",
            );
        }
        let bound =
            "a layer with few pixels and many weights is memory-bound: fewer bits, less to read";
        // The measured limits. A low-bit kernel expands in registers only on AVX-512; expanding 3, 5, 6 or 7
        // bits takes two or three steps, which pays off only for weights outside the near caches.
        match (isa, pixels, w) {
            (Isa::Avx512, 1, 1 | 2 | 4) => {
                low_bit(w, "one pixel reads every weight: fewer bits, less to read, from any cache")
            }
            (Isa::Avx512, 1, 3) if expanded <= NEAR => {
                low_bit(4, "one pixel reads every weight; in L2, expanding 4 bits is faster than 3")
            }
            (Isa::Avx512, 1, 3 | 5 | 6) if expanded > NEAR => low_bit(w, bound),
            (Isa::Avx512, 1, 7) if expanded > FAR => low_bit(w, bound),
            (Isa::Avx512, 2..4, 1..=4) if expanded > FAR => low_bit(w, bound),
            (Isa::Avx2, 1..4, 1 | 2) if expanded > FAR => low_bit(w, bound),
            (_, 0..4, 8) => choice(Kernel::Int8, "8-bit weights leave nothing to save"),
            (_, 0..4, _) => choice(
                Kernel::Int8,
                "expanding the weights would take longer than reading bytes from the cache",
            ),
            (Isa::Avx2, _, 1..=6) => choice(
                Kernel::Int8,
                "the layer is compute-bound; narrow weights are summed in 16 bits first",
            ),
            _ => choice(
                Kernel::Int8,
                "the layer is compute-bound, and a product takes the same time at any bitwidth",
            ),
        }
    }
}

/// A layer whose weights are packed for one kernel.
///
/// # Shapes
/// As for the kernels: activations `[pixels][depth]` or `[height][width][channels]`,
/// weights `[outputs][depth]`, `[outputs][kernel][kernel][channels]` or, depthwise, `[channels][kernel][kernel]`.
#[derive(Clone, Debug)]
pub struct Layer {
    shape: LayerShape,
    bits: BitPair,
    choice: Choice,
    packed: Packed,
}

#[derive(Clone, Debug)]
enum Packed {
    BitSerial(BitSerialWeights),
    BitSerialConv(BitSerialConv),
    Int8(Int8Weights),
    Int8Conv(Int8Conv),
    LowBit(LowBitWeights),
    LowBitConv(LowBitConv),
    Depthwise(DepthwiseConv),
}

impl Layer {
    /// Packs weights for the kernel that [`Choice::of`] names.
    ///
    /// # Errors
    /// [`KernelError`] for an invalid shape, a wrong length, a code outside its bitwidth, sums that could
    /// overflow, or an instruction set that this processor lacks.
    pub fn pack(
        codes: &[i8],
        shape: LayerShape,
        bits: BitPair,
        isa: Isa,
    ) -> Result<Self, KernelError> {
        Self::pack_codes(None, codes, shape, bits, isa)
    }

    /// Packs weights for the given kernel.
    ///
    /// # Errors
    /// As [`pack`](Self::pack); also if the kernel does not support such layers, or stores weights in fewer bits than
    /// they have.
    pub fn pack_for(
        kernel: Kernel,
        codes: &[i8],
        shape: LayerShape,
        bits: BitPair,
        isa: Isa,
    ) -> Result<Self, KernelError> {
        Self::pack_codes(Some(Choice::requested(kernel)), codes, shape, bits, isa)
    }

    /// Packs weights that `fill` writes, for the kernel of the given choice or, without one, of [`Choice::of`].
    ///
    /// `fill` gets the number of an output, and room for the weights of whole outputs from that one on, a few in each call;
    /// together they are all outputs, once and in order. So no more than that of the weights has to be in memory at a byte
    /// each, unless the kernel is bit-serial or depthwise, which take all of them at once.
    ///
    /// # Errors
    /// As [`pack`](Self::pack) and [`pack_for`](Self::pack_for), and those of `fill`.
    pub fn pack_rows<E: From<KernelError>>(
        choice: Option<Choice>,
        shape: LayerShape,
        bits: BitPair,
        isa: Isa,
        mut fill: impl FnMut(usize, &mut [i8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let choice = Choice::or_of(choice, shape, bits, isa)?;
        let rows = WeightRows::written_by(&mut fill, shape.depth(), choice.stored(bits))?;
        Self::pack_as(rows, shape, bits, isa, choice)
    }

    fn pack_codes(
        choice: Option<Choice>,
        codes: &[i8],
        shape: LayerShape,
        bits: BitPair,
        isa: Isa,
    ) -> Result<Self, KernelError> {
        let choice = Choice::or_of(choice, shape, bits, isa)?;
        let rows = WeightRows::of(codes, shape.outputs(), shape.depth(), choice.stored(bits))?;
        Self::pack_as(rows, shape, bits, isa, choice)
    }

    fn pack_as<E: From<KernelError>>(
        rows: WeightRows<'_, E>,
        shape: LayerShape,
        bits: BitPair,
        isa: Isa,
        choice: Choice,
    ) -> Result<Self, E> {
        let rows = &mut rows.within(bits);
        let packed = match (choice.kernel, shape) {
            (Kernel::BitSerial, LayerShape::Gemm(GemmShape { outputs, .. })) => {
                Packed::BitSerial(BitSerialWeights::pack_taps(rows, outputs, 1, isa)?)
            }
            (Kernel::BitSerial, LayerShape::Conv(shape)) => {
                Packed::BitSerialConv(BitSerialConv::pack_rows(rows, shape, isa)?)
            }
            (Kernel::Int8, LayerShape::Gemm(GemmShape { outputs, .. })) => {
                Packed::Int8(Int8Weights::pack_runs(rows, outputs, 1, isa)?)
            }
            (Kernel::Int8, LayerShape::Conv(shape)) => {
                Packed::Int8Conv(Int8Conv::pack_rows(rows, shape, isa)?)
            }
            (Kernel::LowBit { .. }, LayerShape::Gemm(GemmShape { outputs, .. })) => {
                Packed::LowBit(LowBitWeights::pack_runs(rows, outputs, 1, isa)?)
            }
            (Kernel::LowBit { .. }, LayerShape::Conv(shape)) => {
                Packed::LowBitConv(LowBitConv::pack_rows(rows, shape, isa)?)
            }
            (Kernel::Depthwise, LayerShape::Depthwise(shape)) => {
                Packed::Depthwise(DepthwiseConv::pack_rows(rows, shape, isa)?)
            }
            (Kernel::Depthwise, _) | (_, LayerShape::Depthwise(_)) => {
                return Err(KernelError::Mismatch { kernel: choice.kernel }.into());
            }
        };
        Ok(Self { shape, bits, choice, packed })
    }

    /// Sets the code that images of a convolution are padded with: the zero point of the activations. Products pad nothing.
    ///
    /// # Errors
    /// [`KernelError::Mismatch`] for another code than 0 and a padded convolution on bit planes.
    pub fn with_padding_code(mut self, code: u8) -> Result<Self, KernelError> {
        let is_padded = matches!(self.shape, LayerShape::Conv(shape) if shape.padding > 0);
        self.packed = match self.packed {
            Packed::Int8Conv(conv) => Packed::Int8Conv(conv.with_padding_code(code)),
            Packed::LowBitConv(conv) => Packed::LowBitConv(conv.with_padding_code(code)),
            Packed::Depthwise(conv) => Packed::Depthwise(conv.with_padding_code(code)),
            Packed::BitSerialConv(_) if code != 0 && is_padded => {
                return Err(KernelError::Mismatch { kernel: self.choice.kernel });
            }
            other => other,
        };
        Ok(self)
    }

    /// Bytes of the packed weights in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.packed {
            Packed::BitSerial(weights) => weights.bytes(),
            Packed::BitSerialConv(conv) => conv.weights().bytes(),
            Packed::Int8(weights) => weights.bytes(),
            Packed::Int8Conv(conv) => conv.weights().bytes(),
            Packed::LowBit(weights) => weights.bytes(),
            Packed::LowBitConv(conv) => conv.weights().bytes(),
            Packed::Depthwise(conv) => conv.bytes(),
        }
    }

    /// The kernel and the reason it was chosen.
    #[must_use]
    pub const fn choice(&self) -> Choice {
        self.choice
    }

    /// The shape that the weights were packed for.
    #[must_use]
    pub const fn shape(&self) -> LayerShape {
        self.shape
    }

    /// The bitwidths that the weights were packed for.
    #[must_use]
    pub const fn bits(&self) -> BitPair {
        self.bits
    }

    /// Runs the layer; results are written in the form that `out` asks for. The sums equal those of the
    /// [`reference`](crate::reference).
    ///
    /// # Errors
    /// [`KernelError`] for a wrong length, a code outside its bitwidth, or sums that could overflow.
    pub fn run<'a>(
        &self,
        acts: &[u8],
        out: impl Into<Output<'a>>,
        workspace: &mut Workspace,
        threads: &Threads,
    ) -> Result<(), KernelError> {
        let (pixels, act) = (self.shape.pixels(), self.bits.act());
        // Splitting into planes checks the codes itself.
        if self.choice.kernel != Kernel::BitSerial {
            self.bits.check_acts(acts)?;
        }
        match &self.packed {
            Packed::BitSerial(weights) => {
                let planes = &mut workspace.bit_planes;
                planes.pack_into(acts, pixels, weights.depth(), act, weights.isa())?;
                weights.gemm(planes, out, threads)
            }
            Packed::BitSerialConv(conv) => conv.run(acts, act, out, workspace, threads),
            Packed::Int8(weights) => weights.gemm(acts, pixels, out, threads),
            Packed::Int8Conv(conv) => conv.run(acts, out, workspace, threads),
            Packed::LowBit(weights) => weights.gemm(acts, pixels, out, threads),
            Packed::LowBitConv(conv) => conv.run(acts, out, workspace, threads),
            Packed::Depthwise(conv) => conv.run(acts, out, workspace, threads),
        }
    }
}
