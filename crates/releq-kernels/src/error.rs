//! Errors of the kernels.

use crate::{Isa, Kernel};

/// Why a kernel rejected its operands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A slice is shorter or longer than its shape requires.
    #[error("`{what}` has {got} values, but its shape requires {expected}")]
    Length {
        /// Name of the slice.
        what: &'static str,
        /// Number of values that the shape requires.
        expected: usize,
        /// Number of values in the slice.
        got: usize,
    },
    /// A dimension is zero, or inconsistent with the others.
    #[error("`{what}` is {got}, which {reason}")]
    Shape {
        /// Name of the dimension.
        what: &'static str,
        /// The rejected value.
        got: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A product of dimensions overflows.
    #[error("`{what}` would not fit in memory")]
    TooLarge {
        /// What the product counts.
        what: &'static str,
    },
    /// A bitwidth is outside 1 to 8.
    #[error("`{what}` has {got} bits; kernels support 1 to 8")]
    Bits {
        /// Name of the operand.
        what: &'static str,
        /// The rejected bitwidth.
        got: u8,
    },
    /// A code is outside the range of its bitwidth.
    #[error("`{what}[{index}]` is {got}, but {bits}-bit codes range from {low} to {high}")]
    Code {
        /// Name of the operand.
        what: &'static str,
        /// Index of the code.
        index: usize,
        /// The rejected code.
        got: i32,
        /// Smallest allowed code.
        low: i32,
        /// Largest allowed code.
        high: i32,
        /// The bitwidth.
        bits: u8,
    },
    /// A factor is infinite or NaN.
    #[error("`{what}[{index}]` is not finite")]
    NotFinite {
        /// Name of the factors.
        what: &'static str,
        /// Index of the factor.
        index: usize,
    },
    /// The largest value of an epilogue is negative or not finite.
    #[error("the ceiling of an epilogue must be a finite number of at least 0")]
    Ceiling,
    /// A sum could overflow 32 bits.
    #[error(
        "a sum of {depth} products of {weight_bits}-bit weights and {act_bits}-bit activations could \
         overflow 32 bits; at most {bound} products are safe at these bitwidths"
    )]
    Overflow {
        /// Products in one sum.
        depth: usize,
        /// Bits of the weights.
        weight_bits: u8,
        /// Bits of the activations.
        act_bits: u8,
        /// Largest safe number of products.
        bound: usize,
    },
    /// A kernel does not support this kind of layer.
    #[error(
        "the {kernel} kernel does not support this kind of layer; `Choice::of` names one that does"
    )]
    Mismatch {
        /// The requested kernel.
        kernel: Kernel,
    },
    /// This processor lacks an instruction set.
    #[error("this processor does not support {isa}; `Isa::best()` is the best that it supports")]
    MissingIsa {
        /// The requested instruction set.
        isa: Isa,
    },
    /// This processor, or the instruction set, has no products of bf16.
    #[error(
        "{isa} has no products of bf16 on this processor; AVX-512 with AVX512-BF16 has them (Zen 4, Sapphire Rapids and later)"
    )]
    MissingBf16 {
        /// The instruction set.
        isa: Isa,
    },
    /// A name is not that of an instruction set.
    #[error("unknown instruction set `{name}`; known: {}", Isa::ALL.map(Isa::name).join(", "))]
    UnknownIsa {
        /// The rejected name.
        name: String,
    },
}
