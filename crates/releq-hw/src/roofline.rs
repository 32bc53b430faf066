//! Time bound by compute or by memory bandwidth.

use releq_core::{Cost, CostError, CostModel, LayerBits, LayerProfile};
use serde::{Deserialize, Serialize};

use crate::{HwError, MemoryTraffic, error::positive, price::whole};

/// How the peak rate grows as operands shrink below 8 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeakScaling {
    /// Not at all: narrow operands only save bandwidth.
    #[default]
    Fixed,
    /// As `64 / (bw * ba)`, for both serial operands or an ideal decomposable multiplier.
    Product,
    /// The same with both bitwidths rounded up to a power of two of at least 2, as in Bit Fusion: 5, 6 and
    /// 7 bits gain nothing, 3 are worth 4.
    PowerOfTwo,
}

impl PeakScaling {
    fn factor(self, bits: LayerBits) -> f64 {
        let product =
            |width: fn(u8) -> f64| width(bits.weight.get()) * width(bits.activation.get());
        match self {
            Self::Fixed => 1.0,
            Self::Product => 64.0 / product(f64::from),
            Self::PowerOfTwo => 64.0 / product(|bits| f64::from(bits.max(2).next_power_of_two())),
        }
    }
}

/// Time of one inference; each layer takes as long as its arithmetic or its memory traffic, whichever is longer.
///
/// `max(macs / (peak * factor(bw, ba)), bytes / bandwidth)`, with the bytes of [`MemoryTraffic`], summed over
/// layers.
///
/// # Units
/// Microseconds of one inference, batch 1. Any bitwidth from 1 to 32; float counts as 32.
///
/// # Source
/// Williams, Waterman, Patterson, "Roofline", CACM 2009, applied per layer. There is no default machine: both
/// rates must be given.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Rates", into = "Rates")]
pub struct Roofline(Rates);

/// A machine's two rates, before they are checked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rates {
    macs_per_s: f64,
    bytes_per_s: f64,
    #[serde(default)]
    scaling: PeakScaling,
}

impl Roofline {
    /// A machine of `macs_per_s` at 8 x 8 bits and `bytes_per_s` of memory bandwidth.
    ///
    /// # Errors
    /// [`HwError::Parameter`] unless both are positive and finite.
    pub fn new(macs_per_s: f64, bytes_per_s: f64, scaling: PeakScaling) -> Result<Self, HwError> {
        Rates { macs_per_s, bytes_per_s, scaling }.try_into()
    }
}

impl TryFrom<Rates> for Roofline {
    type Error = HwError;
    fn try_from(rates: Rates) -> Result<Self, HwError> {
        positive("roofline", "macs_per_s", rates.macs_per_s)?;
        positive("roofline", "bytes_per_s", rates.bytes_per_s)?;
        Ok(Self(rates))
    }
}

impl From<Roofline> for Rates {
    fn from(roofline: Roofline) -> Self {
        roofline.0
    }
}

impl CostModel for Roofline {
    fn name(&self) -> &str {
        "roofline"
    }

    fn unit(&self) -> &str {
        "us"
    }

    fn layer_cost(&self, layer: &LayerProfile, bits: LayerBits) -> Result<Cost, CostError> {
        let Rates { macs_per_s, bytes_per_s, scaling } = self.0;
        let bytes = MemoryTraffic::default().layer_cost(layer, bits)?.0;
        let compute_s = whole(layer.macs()).0 / (macs_per_s * scaling.factor(bits));
        Ok(Cost(compute_s.max(bytes / bytes_per_s) * 1e6))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::layers::{at, linear};

    #[test]
    fn hand_computed_cases() {
        let layer = linear(1000, 1000);
        let us = |macs_per_s, bytes_per_s, scaling, bits| {
            Roofline::new(macs_per_s, bytes_per_s, scaling)
                .unwrap()
                .layer_cost(&layer, bits)
                .unwrap()
                .0
        };
        // 1e6 MACs and 1.002e6 bytes at 8 bits.
        assert!((us(1e9, 1e12, PeakScaling::Fixed, at(8, 8)) - 1000.0).abs() < 1e-9);
        assert!((us(1e12, 1e9, PeakScaling::Fixed, at(8, 8)) - 1002.0).abs() < 1e-9);
        assert!((us(1e12, 1e9, PeakScaling::Fixed, at(4, 8)) - 502.0).abs() < 1e-9);
        assert!((us(1e9, 1e12, PeakScaling::Fixed, at(4, 8)) - 1000.0).abs() < 1e-9);
        assert!((us(1e9, 1e12, PeakScaling::Product, at(3, 8)) - 375.0).abs() < 1e-9);
        assert!((us(1e9, 1e12, PeakScaling::PowerOfTwo, at(3, 8)) - 500.0).abs() < 1e-9);
        assert!((us(1e9, 1e12, PeakScaling::PowerOfTwo, at(5, 8)) - 1000.0).abs() < 1e-9);
        assert!((us(1e9, 1e12, PeakScaling::PowerOfTwo, at(1, 8)) - 250.0).abs() < 1e-9);
        assert!(Roofline::new(0.0, 1.0, PeakScaling::Fixed).is_err());
        assert!(Roofline::new(1.0, f64::NAN, PeakScaling::Fixed).is_err());
    }
}
