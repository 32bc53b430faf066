//! The codes of a layer, wherever they are.

use std::convert::Infallible;

use releq_core::Bitwidth;
use releq_quant::Quantized;

/// Weights of one layer as integer codes, `weight = scale * (code - zero_point)`, in memory ([`Quantized`]) or still in their file
/// ([`FileCodes`](crate::packed::FileCodes)). Whoever needs few of them at a time reads those alone.
#[allow(clippy::len_without_is_empty, reason = "there is at least one")]
pub trait Codes: Sync {
    /// Why codes cannot be read.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Number of codes, of which there is at least one.
    fn len(&self) -> usize;

    /// Distance between neighbouring levels: one for the layer, or one for each output channel.
    fn scales(&self) -> &[f32];

    /// The code that stands for zero.
    fn zero_point(&self) -> f32;

    /// Bits of each code.
    fn bits(&self) -> Bitwidth;

    /// Writes the codes from number `first` on, in row-major order, as many as there is room for.
    ///
    /// # Errors
    /// If they cannot be read.
    ///
    /// # Panics
    /// If there are not as many.
    fn read(&self, first: usize, out: &mut [u8]) -> Result<(), Self::Error>;
}

impl Codes for Quantized {
    type Error = Infallible;

    fn len(&self) -> usize {
        self.codes().len()
    }

    fn scales(&self) -> &[f32] {
        self.scales()
    }

    fn zero_point(&self) -> f32 {
        self.zero_point()
    }

    fn bits(&self) -> Bitwidth {
        self.bits()
    }

    fn read(&self, first: usize, out: &mut [u8]) -> Result<(), Infallible> {
        out.copy_from_slice(&self.codes()[first..first + out.len()]);
        Ok(())
    }
}
