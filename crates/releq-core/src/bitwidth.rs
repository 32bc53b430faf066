//! Checked bitwidths and one bitwidth for every layer.

use std::{fmt, ops::Deref, str::FromStr};

use serde::{Deserialize, Serialize};

/// Number of bits that store one weight or activation, from 1 to 32.
///
/// ```
/// # use releq_core::Bitwidth;
/// assert_eq!(Bitwidth::new(4)?.get(), 4);
/// assert!(Bitwidth::new(0).is_err() && Bitwidth::new(33).is_err());
/// # Ok::<(), releq_core::BitwidthError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Bitwidth(u8);

/// A bitwidth or a list of bitwidths that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BitwidthError {
    /// The number lies outside 1 to 32.
    #[error("bitwidth {0} is not in 1..=32")]
    OutOfRange(u64),
    /// The text is no number.
    #[error("`{0}` is not a bitwidth: expected a whole number from 1 to 32")]
    NotANumber(String),
    /// An assignment needs at least one layer.
    #[error("an assignment needs at least one bitwidth")]
    Empty,
}

impl Bitwidth {
    /// One bit.
    pub const ONE: Self = Self(1);
    /// Eight bits, the usual baseline.
    pub const EIGHT: Self = Self(8);
    /// 32 bits: full precision.
    pub const FULL: Self = Self(32);

    /// Checks that `bits` lies in 1 to 32.
    ///
    /// # Errors
    /// [`BitwidthError::OutOfRange`] for every other number.
    pub const fn new(bits: u8) -> Result<Self, BitwidthError> {
        if bits >= 1 && bits <= 32 {
            Ok(Self(bits))
        } else {
            Err(BitwidthError::OutOfRange(bits as u64))
        }
    }

    /// The number of bits.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Bitwidth {
    type Error = BitwidthError;
    fn try_from(bits: u8) -> Result<Self, BitwidthError> {
        Self::new(bits)
    }
}

impl From<Bitwidth> for u8 {
    fn from(bits: Bitwidth) -> u8 {
        bits.0
    }
}

impl fmt::Display for Bitwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Bitwidth {
    type Err = BitwidthError;
    fn from_str(text: &str) -> Result<Self, BitwidthError> {
        let text = text.trim();
        let bits: u64 = text.parse().map_err(|_| BitwidthError::NotANumber(text.to_owned()))?;
        u8::try_from(bits)
            .map_err(|_| BitwidthError::OutOfRange(bits))
            .and_then(|bits| Self::new(bits).map_err(|_| BitwidthError::OutOfRange(bits.into())))
    }
}

/// One bitwidth for every quantizable layer, in network order; never empty.
///
/// Written as `2-2-3-2`; read from that or from `2,2,3,2`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<Bitwidth>", into = "Vec<Bitwidth>")]
pub struct BitwidthAssignment(Vec<Bitwidth>);

impl BitwidthAssignment {
    /// Takes one bitwidth for every layer.
    ///
    /// # Errors
    /// [`BitwidthError::Empty`] if there is none.
    pub fn new(bits: Vec<Bitwidth>) -> Result<Self, BitwidthError> {
        if bits.is_empty() { Err(BitwidthError::Empty) } else { Ok(Self(bits)) }
    }

    /// Checks every number, then as [`new`](Self::new).
    ///
    /// # Errors
    /// [`BitwidthError`] at the first number outside 1 to 32, or if there is none.
    pub fn from_bits(bits: impl IntoIterator<Item = u8>) -> Result<Self, BitwidthError> {
        Self::new(bits.into_iter().map(Bitwidth::new).collect::<Result<_, _>>()?)
    }

    /// The same bitwidth for each of `layers` layers.
    ///
    /// # Errors
    /// [`BitwidthError::Empty`] for zero layers.
    pub fn uniform(bits: Bitwidth, layers: usize) -> Result<Self, BitwidthError> {
        Self::new(vec![bits; layers])
    }

    /// Arithmetic mean of the bitwidths.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.0.iter().map(|b| f64::from(b.get())).sum::<f64>() / self.0.len() as f64
    }

    /// The bitwidths as plain numbers.
    #[must_use]
    pub fn to_bits(&self) -> Vec<u8> {
        self.0.iter().map(|b| b.get()).collect()
    }
}

impl Deref for BitwidthAssignment {
    type Target = [Bitwidth];
    fn deref(&self) -> &[Bitwidth] {
        &self.0
    }
}

impl TryFrom<Vec<Bitwidth>> for BitwidthAssignment {
    type Error = BitwidthError;
    fn try_from(bits: Vec<Bitwidth>) -> Result<Self, BitwidthError> {
        Self::new(bits)
    }
}

impl From<BitwidthAssignment> for Vec<Bitwidth> {
    fn from(bits: BitwidthAssignment) -> Self {
        bits.0
    }
}

impl fmt::Display for BitwidthAssignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: Vec<String> = self.0.iter().map(Bitwidth::to_string).collect();
        f.pad(&text.join("-"))
    }
}

impl FromStr for BitwidthAssignment {
    type Err = BitwidthError;
    fn from_str(text: &str) -> Result<Self, BitwidthError> {
        if text.trim().is_empty() {
            return Err(BitwidthError::Empty);
        }
        Self::new(text.split(['-', ',']).map(str::parse).collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_1_to_32_are_bitwidths() {
        for bits in 0..=u8::MAX {
            assert_eq!(Bitwidth::new(bits).is_ok(), (1..=32).contains(&bits));
        }
        let check = |text: &str, expected: BitwidthError| {
            assert_eq!(text.parse::<BitwidthAssignment>(), Err(expected));
        };
        check("", BitwidthError::Empty);
        check("4-0", BitwidthError::OutOfRange(0));
        check("33", BitwidthError::OutOfRange(33));
        check("4-300", BitwidthError::OutOfRange(300));
        check("4-x", BitwidthError::NotANumber("x".into()));
        check("4--4", BitwidthError::NotANumber(String::new()));
    }

    #[test]
    fn serde_checks_too() {
        assert!(serde_json::from_str::<BitwidthAssignment>("[2,2,3,2]").is_ok());
        for bad in ["[]", "[0]", "[33]", "[2.5]", "[-1]"] {
            assert!(serde_json::from_str::<BitwidthAssignment>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(bits in proptest::collection::vec(1u8..=32, 1..30)) {
            let assignment = BitwidthAssignment::from_bits(bits).unwrap();
            prop_assert_eq!(&assignment.to_string().parse::<BitwidthAssignment>().unwrap(), &assignment);
            let json = serde_json::to_string(&assignment).unwrap();
            prop_assert_eq!(serde_json::from_str::<BitwidthAssignment>(&json).unwrap(), assignment);
        }
    }
}
