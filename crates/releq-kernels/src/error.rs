//! What a kernel refuses.

use crate::{Isa, Kernel};

/// Why a kernel cannot run on what it was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A slice that is shorter or longer than its shape says.
    #[error("`{what}` holds {got} values where its shape asks for {expected}")]
    Length {
        /// Name of the slice.
        what: &'static str,
        /// Values that the shape asks for.
        expected: usize,
        /// Values that it holds.
        got: usize,
    },
    /// A dimension of zero, or one that does not fit the others.
    #[error("`{what}` is {got}, which {reason}")]
    Shape {
        /// Name of the dimension.
        what: &'static str,
        /// Its value.
        got: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Dimensions whose product overflows.
    #[error("`{what}` is larger than memory can hold")]
    TooLarge {
        /// What the product counts.
        what: &'static str,
    },
    /// A bitwidth outside 1 to 8.
    #[error("`{what}` is {got} bits; kernels take 1 to 8")]
    Bits {
        /// Name of the operand.
        what: &'static str,
        /// The bitwidth.
        got: u8,
    },
    /// A code that its bitwidth cannot hold.
    #[error("`{what}[{index}]` is {got}, outside {low} to {high} of {bits} bits")]
    Code {
        /// Name of the operand.
        what: &'static str,
        /// Where it is.
        index: usize,
        /// Its value.
        got: i32,
        /// Least code.
        low: i32,
        /// Largest code.
        high: i32,
        /// The bitwidth.
        bits: u8,
    },
    /// A factor that is infinite or not a number.
    #[error("`{what}[{index}]` is not finite")]
    NotFinite {
        /// Name of the factors.
        what: &'static str,
        /// Where it is.
        index: usize,
    },
    /// Sums that could leave 32 bits.
    #[error(
        "sums over {depth} products of {weight_bits}-bit weights and {act_bits}-bit activations could \
         overflow 32 bits; at these bitwidths at most {bound} are safe"
    )]
    Overflow {
        /// Products in one sum.
        depth: usize,
        /// Bits of the weights.
        weight_bits: u8,
        /// Bits of the activations.
        act_bits: u8,
        /// Products that are safe.
        bound: usize,
    },
    /// A kernel that is not made for a layer of this kind.
    #[error(
        "the {kernel} kernel is not made for this kind of layer; `Choice::of` names one that is"
    )]
    Mismatch {
        /// What was asked for.
        kernel: Kernel,
    },
    /// This processor lacks the instructions.
    #[error("this processor has no {isa}; `Isa::best()` names the best it has")]
    MissingIsa {
        /// What was asked for.
        isa: Isa,
    },
    /// A name of no instruction set.
    #[error("unknown instruction set `{name}`; known: portable, avx2, avx512")]
    UnknownIsa {
        /// What was asked for.
        name: String,
    },
}
