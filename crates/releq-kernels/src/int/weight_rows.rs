//! Weights on their way into the layout of a kernel.

use crate::{BitPair, ConvShape, GemmShape, KernelError};

/// The weights of a layer, `[outputs][depth]`, as packing takes them: some outputs at a time, from the first to the last, so that
/// no more of them need to be in memory.
pub(crate) struct WeightRows<'a, E = KernelError> {
    source: Source<'a, E>,
    pair: BitPair,
    /// What codes have to fit in.
    narrow: BitPair,
    depth: usize,
    buffer: Vec<i8>,
}

/// Writes the weights of the outputs from the given one on, as many as there is room for.
pub(crate) type Fill<'a, E> = dyn FnMut(usize, &mut [i8]) -> Result<(), E> + 'a;

enum Source<'a, E> {
    Slice(&'a [i8]),
    Fill(&'a mut Fill<'a, E>),
}

impl<'a> WeightRows<'a> {
    /// All of them, `[outputs][depth]` codes of `bits` bits.
    ///
    /// # Errors
    /// [`KernelError`] for a wrong length or a bitwidth outside 1 to 8.
    pub(crate) fn of(
        codes: &'a [i8],
        outputs: usize,
        depth: usize,
        bits: u8,
    ) -> Result<Self, KernelError> {
        GemmShape { pixels: 0, outputs, depth }.check(codes.len(), 0, 0)?;
        let pair = BitPair::new(bits, 8)?;
        let source = Source::Slice(codes);
        Ok(Self { source, pair, narrow: pair, depth, buffer: Vec::new() })
    }

    /// Those of a convolution, `[outputs][kernel][kernel][channels]`.
    ///
    /// # Errors
    /// As [`of`](Self::of), and for an invalid shape.
    pub(crate) fn of_conv(
        codes: &'a [i8],
        shape: ConvShape,
        bits: u8,
    ) -> Result<Self, KernelError> {
        shape.check()?;
        Self::of(codes, shape.outputs, shape.depth(), bits)
    }
}

impl<'a, E: From<KernelError>> WeightRows<'a, E> {
    /// Those that `fill` writes: rows of `depth` codes of `bits` bits.
    ///
    /// # Errors
    /// [`KernelError`] for a bitwidth outside 1 to 8.
    pub(crate) fn written_by(fill: &'a mut Fill<'a, E>, depth: usize, bits: u8) -> Result<Self, E> {
        let pair = BitPair::new(bits, 8)?;
        let source = Source::Fill(fill);
        Ok(Self { source, pair, narrow: pair, depth, buffer: Vec::new() })
    }

    /// The same, whose codes have to be of `bits` as well.
    pub(crate) fn within(self, bits: BitPair) -> Self {
        let narrow = if bits.weight() < self.pair.weight() { bits } else { self.pair };
        Self { narrow, ..self }
    }

    /// Bits that the codes are stored in, and those of activations.
    pub(crate) const fn pair(&self) -> BitPair {
        self.pair
    }

    /// Codes of one output.
    pub(crate) const fn depth(&self) -> usize {
        self.depth
    }

    /// Those of `count` outputs from `first` on.
    ///
    /// # Errors
    /// [`KernelError`] for a code outside its bitwidth, and those of the source.
    pub(crate) fn get(&mut self, first: usize, count: usize) -> Result<&[i8], E> {
        let (start, len) = (first * self.depth, count * self.depth);
        let codes = match &mut self.source {
            Source::Slice(codes) => &codes[start..start + len],
            Source::Fill(fill) => {
                self.buffer.resize(len, 0);
                fill(first, &mut self.buffer)?;
                &self.buffer
            }
        };
        self.narrow.check_weights(codes).map_err(|error| match error {
            KernelError::Code { what, index, got, low, high, bits } => {
                KernelError::Code { what, index: start + index, got, low, high, bits }
            }
            error => error,
        })?;
        Ok(codes)
    }
}
