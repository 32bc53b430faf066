//! The weights of one layer, as a quantizer sees them.

use releq_core::Bitwidth;

use crate::{QuantError, Quantizer};

/// The weights of one layer: a borrowed slice and its number of output channels.
///
/// A plain slice, array or vector converts into a layer of one channel, which is all that a scheme with
/// one scale per layer needs.
///
/// # Shapes
/// Row-major `[channels, len / channels]`: a convolution's `[out, in / groups, kernel, kernel]` and a
/// linear layer's `[out, in]` with everything after the first dimension flattened.
///
/// ```
/// use releq_quant::LayerWeights;
///
/// let weights = [0.5, -0.25, 0.0, 0.125, 1.0, -1.0];
/// let layer = LayerWeights::new(&weights, 2)?;
/// let rows: Vec<&[f32]> = layer.rows().collect();
/// assert_eq!(rows, [[0.5, -0.25, 0.0], [0.125, 1.0, -1.0]]);
/// assert_eq!(LayerWeights::from(&weights).channels(), 1);
/// # Ok::<(), releq_quant::QuantError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerWeights<'a> {
    values: &'a [f32],
    channels: usize,
}

impl<'a> LayerWeights<'a> {
    /// Weights of `channels` output channels.
    ///
    /// # Errors
    /// [`QuantError::Channels`] if `channels` is zero or does not divide the number of weights.
    pub const fn new(values: &'a [f32], channels: usize) -> Result<Self, QuantError> {
        if channels == 0 || !values.len().is_multiple_of(channels) {
            return Err(QuantError::Channels { values: values.len(), channels });
        }
        Ok(Self { values, channels })
    }

    /// All weights, row-major.
    #[must_use]
    pub const fn values(&self) -> &'a [f32] {
        self.values
    }

    /// Number of output channels, at least 1.
    #[must_use]
    pub const fn channels(&self) -> usize {
        self.channels
    }

    /// Number of weights.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are no weights.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The weights of each channel in turn.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &'a [f32]> + use<'a> {
        self.values.chunks_exact((self.values.len() / self.channels).max(1))
    }

    /// Checks what every quantizer must check before it rounds: a supported bitwidth, at least one weight,
    /// and finite weights only.
    ///
    /// # Errors
    /// [`QuantError::BitwidthNotSupported`], [`QuantError::Empty`], or [`QuantError::NotFinite`] with the
    /// index of the first bad weight.
    pub fn check<Q: Quantizer + ?Sized>(
        &self,
        quantizer: &Q,
        bits: Bitwidth,
    ) -> Result<(), QuantError> {
        if !quantizer.supports(bits) {
            return Err(QuantError::unsupported(quantizer, bits));
        }
        if self.is_empty() {
            return Err(QuantError::Empty);
        }
        if max_abs(self.values).is_finite() {
            return Ok(());
        }
        let index = self.values.iter().position(|weight| !weight.is_finite()).unwrap_or_default();
        Err(QuantError::NotFinite { index, value: self.values[index] })
    }

    /// Checks that another slice, called `what` in the error, is as long as the weights.
    ///
    /// # Errors
    /// [`QuantError::Length`] if it is not.
    pub fn check_length(&self, what: &'static str, len: usize) -> Result<(), QuantError> {
        check_length(what, len, self.len())
    }
}

impl<'a> From<&'a [f32]> for LayerWeights<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self { values, channels: 1 }
    }
}

impl<'a, const N: usize> From<&'a [f32; N]> for LayerWeights<'a> {
    fn from(values: &'a [f32; N]) -> Self {
        Self { values, channels: 1 }
    }
}

impl<'a> From<&'a Vec<f32>> for LayerWeights<'a> {
    fn from(values: &'a Vec<f32>) -> Self {
        Self { values, channels: 1 }
    }
}

/// The largest magnitude; infinite or NaN if a weight is.
///
/// Without their sign, floats are ordered as their bits are, infinity and then NaN last. A maximum of
/// integers is vectorized and cannot lose a NaN, as a maximum of floats can.
pub(crate) fn max_abs(weights: &[f32]) -> f32 {
    f32::from_bits(weights.iter().fold(0, |max, weight| max.max(weight.abs().to_bits())))
}

pub(crate) fn check_length(
    what: &'static str,
    got: usize,
    expected: usize,
) -> Result<(), QuantError> {
    if got == expected { Ok(()) } else { Err(QuantError::Length { what, got, expected }) }
}
