//! The schemes by name, for configuration.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{Dorefa, Granularity, PowersOfTwo, QuantError, Quantizer, Wrpn, WrpnScaled};

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
/// # Ok::<(), releq_quant::QuantError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
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

impl QuantizerKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::Wrpn,
        Self::Dorefa,
        Self::WrpnScaled,
        Self::WrpnScaledPerChannel,
        Self::PowersOfTwo,
    ];

    /// The name, which is that of the quantizer.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wrpn => "wrpn",
            Self::Dorefa => "dorefa",
            Self::WrpnScaled => "wrpn-scaled",
            Self::WrpnScaledPerChannel => "wrpn-scaled-per-channel",
            Self::PowersOfTwo => "powers-of-two",
        }
    }

    /// The quantizer of this name.
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

impl From<QuantizerKind> for &'static str {
    fn from(kind: QuantizerKind) -> Self {
        kind.name()
    }
}

impl TryFrom<String> for QuantizerKind {
    type Error = QuantError;
    fn try_from(name: String) -> Result<Self, QuantError> {
        name.parse()
    }
}

impl fmt::Display for QuantizerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for QuantizerKind {
    type Err = QuantError;
    fn from_str(name: &str) -> Result<Self, QuantError> {
        let all = || Self::ALL.iter().copied();
        all().find(|kind| kind.name() == name).ok_or_else(|| {
            // Up to a third of the letters may be wrong; further away is another word.
            let typed = name.to_lowercase();
            let distances = all().map(|kind| (edit_distance(&typed, kind.name()), kind));
            let close = distances.filter(|(distance, kind)| 3 * distance <= kind.name().len());
            let nearest = close.min_by_key(|(distance, _)| *distance).map(|(_, kind)| kind);
            QuantError::UnknownKind { name: name.to_owned(), nearest }
        })
    }
}

/// Characters to insert, remove or replace (Levenshtein distance).
fn edit_distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.chars().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.chars().count()]
}
