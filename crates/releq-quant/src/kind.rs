//! The schemes by name, for configuration.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Dorefa, QuantError, Quantizer, Wrpn, WrpnScaled};

/// A scheme by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuantizerKind {
    /// [`Wrpn`], `wrpn`.
    #[default]
    Wrpn,
    /// [`Dorefa`], `dorefa`.
    Dorefa,
    /// [`WrpnScaled`] with its default clip, `wrpn-scaled`.
    WrpnScaled,
}

impl QuantizerKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Wrpn, Self::Dorefa, Self::WrpnScaled];

    /// The quantizer of this name.
    #[must_use]
    pub fn build(self) -> Box<dyn Quantizer> {
        match self {
            Self::Wrpn => Box::new(Wrpn),
            Self::Dorefa => Box::new(Dorefa),
            Self::WrpnScaled => Box::new(WrpnScaled::default()),
        }
    }
}

impl fmt::Display for QuantizerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.build().name())
    }
}

impl FromStr for QuantizerKind {
    type Err = QuantError;
    fn from_str(text: &str) -> Result<Self, QuantError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.build().name() == text)
            .ok_or_else(|| QuantError::UnknownKind(text.to_owned()))
    }
}
