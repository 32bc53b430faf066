//! The schemes by name, for configuration.

use std::sync::Arc;

use releq_core::text_enum;
use serde::{Deserialize, Serialize};

use crate::{Dorefa, Granularity, PowersOfTwo, Quantizer, Wrpn, WrpnScaled};

/// The name of a scheme of this crate, as it stands in configurations, in reports and on command lines.
///
/// Only configuration needs it: whatever quantizes takes a [`Quantizer`], which may as well be one of your
/// own. Text and serde forms are the name.
///
/// ```
/// use releq_quant::{Quantizer, QuantizerKind};
///
/// let kind: QuantizerKind = "powers-of-two".parse()?;
/// assert_eq!(kind.build().name(), "powers-of-two");
/// let error = "powers-of-2".parse::<QuantizerKind>().unwrap_err();
/// assert!(error.to_string().contains("did you mean `powers-of-two`?"));
/// # Ok::<(), releq_quant::UnknownName>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum QuantizerKind {
    /// [`Wrpn`], `wrpn`.
    #[default]
    Wrpn,
    /// [`Dorefa`], `dorefa`.
    Dorefa,
    /// [`WrpnScaled`] with its default clip and one scale per layer, `wrpn-scaled`.
    WrpnScaled,
    /// [`WrpnScaled`] with its default clip and one scale per channel, `wrpn-scaled-per-channel`.
    WrpnScaledPerChannel,
    /// [`PowersOfTwo`], `powers-of-two`.
    PowersOfTwo,
}

text_enum!(QuantizerKind, "quantizer",
    Wrpn => "wrpn",
    Dorefa => "dorefa",
    WrpnScaled => "wrpn-scaled",
    WrpnScaledPerChannel => "wrpn-scaled-per-channel",
    PowersOfTwo => "powers-of-two",
);

impl QuantizerKind {
    /// The quantizer of this name, which is also the quantizer's.
    #[must_use]
    pub fn build(self) -> Arc<dyn Quantizer> {
        match self {
            Self::Wrpn => Arc::new(Wrpn),
            Self::Dorefa => Arc::new(Dorefa),
            Self::WrpnScaled => Arc::new(WrpnScaled::default()),
            Self::WrpnScaledPerChannel => {
                let granularity = Granularity::PerChannel;
                Arc::new(WrpnScaled { granularity, ..WrpnScaled::default() })
            }
            Self::PowersOfTwo => Arc::new(PowersOfTwo),
        }
    }
}
