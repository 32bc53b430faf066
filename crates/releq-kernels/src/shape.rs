//! Shapes and operand ranges shared by all kernels, and their checks.

use std::ops::RangeInclusive;

use crate::KernelError;

/// Bitwidths of a pair of operands, each 1 to 8.
///
/// Weights are signed codes in two's complement, `-2^(w-1) ..= 2^(w-1) - 1`; activations are unsigned,
/// `0 ..= 2^a - 1`. A quantizer whose levels are odd half steps (DoReFa, or signs at 1 bit) maps level
/// `2 c + 1` to code `c`; a sum over its levels is then `2 sum(c x) + sum(x)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BitPair {
    weight: u8,
    act: u8,
}

impl BitPair {
    /// A pair of bitwidths.
    ///
    /// # Errors
    /// [`KernelError::Bits`] if one is outside 1 to 8.
    pub const fn new(weight: u8, act: u8) -> Result<Self, KernelError> {
        if weight == 0 || weight > 8 {
            return Err(KernelError::Bits { what: "weights", got: weight });
        }
        if act == 0 || act > 8 {
            return Err(KernelError::Bits { what: "activations", got: act });
        }
        Ok(Self { weight, act })
    }

    /// Bitwidth of the weights.
    #[must_use]
    pub const fn weight(self) -> u8 {
        self.weight
    }

    /// Bitwidth of the activations.
    #[must_use]
    pub const fn act(self) -> u8 {
        self.act
    }

    /// The range of weight codes.
    #[must_use]
    pub const fn weight_codes(self) -> RangeInclusive<i32> {
        let half = 1 << (self.weight - 1);
        -half..=half - 1
    }

    /// The range of activation codes.
    #[must_use]
    pub const fn act_codes(self) -> RangeInclusive<i32> {
        0..=(1 << self.act) - 1
    }

    /// The largest number of products whose sum cannot overflow 32 bits, whatever the codes.
    #[must_use]
    pub const fn safe_depth(self) -> usize {
        let largest = (1_usize << (self.weight - 1)) * ((1 << self.act) - 1);
        i32::MAX as usize / largest
    }

    /// Checks the number of products in a sum.
    ///
    /// # Errors
    /// [`KernelError::Overflow`] if a sum of `depth` products could overflow 32 bits.
    pub const fn check_depth(self, depth: usize) -> Result<(), KernelError> {
        let bound = self.safe_depth();
        if depth > bound {
            let (weight_bits, act_bits) = (self.weight, self.act);
            return Err(KernelError::Overflow { depth, weight_bits, act_bits, bound });
        }
        Ok(())
    }

    /// Checks weight codes.
    ///
    /// # Errors
    /// [`KernelError::Code`] for the first weight that is out of range.
    pub fn check_weights(self, weights: &[i8]) -> Result<(), KernelError> {
        let range = self.weight_codes();
        // The smallest and the largest vectorize; the place of a wrong one is searched for only where there is one.
        let low = weights.iter().fold(0_i8, |low, &code| low.min(code));
        let high = weights.iter().fold(0_i8, |high, &code| high.max(code));
        if range.contains(&low.into()) && range.contains(&high.into()) {
            return Ok(());
        }
        match weights.iter().position(|&code| !range.contains(&i32::from(code))) {
            None => Ok(()),
            Some(index) => Err(KernelError::Code {
                what: "weights",
                index,
                got: weights[index].into(),
                low: *range.start(),
                high: *range.end(),
                bits: self.weight,
            }),
        }
    }

    /// Checks activation codes.
    ///
    /// # Errors
    /// [`KernelError::Code`] for the first activation that is out of range.
    pub fn check_acts(self, acts: &[u8]) -> Result<(), KernelError> {
        let range = self.act_codes();
        // Bits outside the range survive in the union of all codes, which vectorizes well. The position is only
        // searched for in the rare case that there is something to find.
        if self.act == 8 || range.contains(&acts.iter().fold(0, |union, code| union | code).into())
        {
            return Ok(());
        }
        match acts.iter().position(|&code| !range.contains(&i32::from(code))) {
            None => Ok(()),
            Some(index) => Err(KernelError::Code {
                what: "activations",
                index,
                got: acts[index].into(),
                low: *range.start(),
                high: *range.end(),
                bits: self.act,
            }),
        }
    }
}

/// A matrix product of activations `[pixels][depth]` and weights `[outputs][depth]` into
/// `[pixels][outputs]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GemmShape {
    /// Rows of the activations; 1 makes it a matrix-vector product.
    pub pixels: usize,
    /// Rows of the weights.
    pub outputs: usize,
    /// Products in one sum.
    pub depth: usize,
}

impl GemmShape {
    /// Checks the lengths of all operands; zero sizes are allowed and give empty or zero results.
    ///
    /// # Errors
    /// [`KernelError::TooLarge`] or [`KernelError::Length`].
    pub fn check(self, weights: usize, acts: usize, out: usize) -> Result<(), KernelError> {
        for (what, rows, columns, got) in [
            ("weights", self.outputs, self.depth, weights),
            ("activations", self.pixels, self.depth, acts),
            ("out", self.pixels, self.outputs, out),
        ] {
            let expected = rows.checked_mul(columns).ok_or(KernelError::TooLarge { what })?;
            if got != expected {
                return Err(KernelError::Length { what, expected, got });
            }
        }
        Ok(())
    }
}

/// A channels-last convolution: activations `[height][width][channels]`, weights
/// `[outputs][kernel][kernel][channels]`, result `[out_height][out_width][outputs]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvShape {
    /// Input channels.
    pub channels: usize,
    /// Input rows.
    pub height: usize,
    /// Input columns.
    pub width: usize,
    /// Output channels.
    pub outputs: usize,
    /// Side of the square kernel.
    pub kernel: usize,
    /// Pixels from one output to the next.
    pub stride: usize,
    /// Pixels of zeros on every side.
    pub padding: usize,
}

impl ConvShape {
    /// Checks that the shape is possible.
    ///
    /// # Errors
    /// [`KernelError::Shape`] or [`KernelError::TooLarge`], naming the first invalid dimension.
    pub fn check(self) -> Result<(), KernelError> {
        for (what, got) in [
            ("channels", self.channels),
            ("height", self.height),
            ("width", self.width),
            ("outputs", self.outputs),
            ("kernel", self.kernel),
            ("stride", self.stride),
        ] {
            if got == 0 {
                return Err(KernelError::Shape { what, got, reason: "must be positive" });
            }
        }
        let too_large = |what| KernelError::TooLarge { what };
        let margin = self.padding.checked_mul(2).ok_or(too_large("padding"))?;
        for (what, size) in [("height", self.height), ("width", self.width)] {
            if size.checked_add(margin).ok_or(too_large(what))? < self.kernel {
                let reason = "is smaller than the kernel, padding included";
                return Err(KernelError::Shape { what, got: size, reason });
            }
        }
        let product = |what, factors: &[usize]| {
            let product = factors.iter().try_fold(1_usize, |a, &b| a.checked_mul(b));
            product.filter(|&p| p <= isize::MAX as usize / 8).ok_or(too_large(what)).map(drop)
        };
        product("activations", &[self.height + margin, self.width + margin, self.channels])?;
        product("weights", &[self.outputs, self.kernel, self.kernel, self.channels])?;
        product("out", &[self.out_height(), self.out_width(), self.outputs])
    }

    /// Rows of the result. Only meaningful if [`check`](Self::check) passed.
    #[must_use]
    pub const fn out_height(self) -> usize {
        (self.height + 2 * self.padding - self.kernel) / self.stride + 1
    }

    /// Columns of the result. Only meaningful if [`check`](Self::check) passed.
    #[must_use]
    pub const fn out_width(self) -> usize {
        (self.width + 2 * self.padding - self.kernel) / self.stride + 1
    }

    /// Products in one sum.
    #[must_use]
    pub const fn depth(self) -> usize {
        self.kernel * self.kernel * self.channels
    }

    /// Checks the lengths of all operands.
    ///
    /// # Errors
    /// As [`check`](Self::check), or [`KernelError::Length`].
    pub fn check_lengths(self, weights: usize, acts: usize, out: usize) -> Result<(), KernelError> {
        self.check()?;
        for (what, expected, got) in [
            ("weights", self.outputs * self.depth(), weights),
            ("activations", self.height * self.width * self.channels, acts),
            ("out", self.out_height() * self.out_width() * self.outputs, out),
        ] {
            if got != expected {
                return Err(KernelError::Length { what, expected, got });
            }
        }
        Ok(())
    }
}

/// Pooling windows over images `[height][width][channels]`. Padding is never the maximum, and does not count in
/// a mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolShape {
    /// Channels.
    pub channels: usize,
    /// Input rows.
    pub height: usize,
    /// Input columns.
    pub width: usize,
    /// Side of the square window.
    pub kernel: usize,
    /// Pixels from one window to the next.
    pub stride: usize,
    /// Pixels of padding on every side; less than the kernel.
    pub padding: usize,
}

impl PoolShape {
    /// Checks that the shape is possible.
    ///
    /// # Errors
    /// [`KernelError::Shape`] or [`KernelError::TooLarge`], naming the first invalid dimension.
    pub fn check(self) -> Result<(), KernelError> {
        ConvShape {
            channels: self.channels,
            height: self.height,
            width: self.width,
            outputs: self.channels,
            kernel: self.kernel,
            stride: self.stride,
            padding: self.padding,
        }
        .check()?;
        if self.padding >= self.kernel {
            let reason = "must be less than the kernel, or a window would be empty";
            return Err(KernelError::Shape { what: "padding", got: self.padding, reason });
        }
        Ok(())
    }

    /// Rows of the result. Only meaningful if [`check`](Self::check) passed.
    #[must_use]
    pub const fn out_height(self) -> usize {
        (self.height + 2 * self.padding - self.kernel) / self.stride + 1
    }

    /// Columns of the result. Only meaningful if [`check`](Self::check) passed.
    #[must_use]
    pub const fn out_width(self) -> usize {
        (self.width + 2 * self.padding - self.kernel) / self.stride + 1
    }
}
