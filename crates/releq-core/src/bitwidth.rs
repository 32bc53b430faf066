//! Checked bitwidths and one bitwidth for every layer.

use std::{fmt, ops::Deref, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::text;

/// Number of bits that store one weight or activation, from 1 to 32, or `float`: not quantized.
///
/// [`FLOAT`](Self::FLOAT) is a value of its own. It differs from 32-bit integer codes and sorts after them.
///
/// In text and in serialized form, a bitwidth is a number or `float`.
///
/// ```
/// # use releq_core::Bitwidth;
/// assert_eq!(Bitwidth::new(4)?.get(), 4);
/// assert!(Bitwidth::new(0).is_err() && Bitwidth::new(33).is_err());
///
/// assert_eq!("float".parse(), Ok(Bitwidth::FLOAT));
/// assert!(Bitwidth::FLOAT > Bitwidth::new(32)?);
/// # Ok::<(), releq_core::BitwidthError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bitwidth(u8);

/// Why a bitwidth or a list of bitwidths is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BitwidthError {
    /// The number lies outside 1 to 32.
    #[error("bitwidth {0} is not in 1..=32")]
    OutOfRange(u64),
    /// The text is neither a number nor `float`.
    #[error("`{0}` is not a bitwidth: expected a whole number from 1 to 32, or `float`")]
    NotANumber(String),
    /// An assignment needs at least one layer.
    #[error("an assignment needs at least one bitwidth")]
    Empty,
}

/// Most bits of an integer code.
const MAX_BITS: u8 = 32;

/// Text form of [`Bitwidth::FLOAT`].
const FLOAT_NAME: &str = "float";

impl Bitwidth {
    /// One bit.
    pub const ONE: Self = Self(1);
    /// Eight bits, the usual baseline.
    pub const EIGHT: Self = Self(8);
    /// 32-bit floating point: the values are not quantized.
    // The number only makes the derived order put it after 32 bits.
    pub const FLOAT: Self = Self(MAX_BITS + 1);

    /// An integer bitwidth, if `bits` lies in 1 to 32.
    ///
    /// # Errors
    /// [`BitwidthError::OutOfRange`] for every other number.
    pub const fn new(bits: u8) -> Result<Self, BitwidthError> {
        if bits >= 1 && bits <= MAX_BITS {
            Ok(Self(bits))
        } else {
            Err(BitwidthError::OutOfRange(bits as u64))
        }
    }

    fn from_number(bits: u64) -> Result<Self, BitwidthError> {
        u8::try_from(bits)
            .ok()
            .and_then(|bits| Self::new(bits).ok())
            .ok_or(BitwidthError::OutOfRange(bits))
    }

    /// Number of bits that one stored value takes; 32 for [`FLOAT`](Self::FLOAT).
    ///
    /// Where a float differs from a 32-bit code, use [`integer`](Self::integer).
    #[must_use]
    pub const fn get(self) -> u8 {
        if self.is_float() { MAX_BITS } else { self.0 }
    }

    /// Number of bits of an integer code; `None` for [`FLOAT`](Self::FLOAT).
    #[must_use]
    pub const fn integer(self) -> Option<u8> {
        if self.is_float() { None } else { Some(self.0) }
    }

    /// [`FLOAT`](Self::FLOAT) for 32 bits, and every other bitwidth itself.
    ///
    /// Where weights are quantized, 32 bits mean that they are not: no quantizer rounds to 32-bit codes.
    #[must_use]
    pub const fn float_at_32(self) -> Self {
        if self.0 == MAX_BITS { Self::FLOAT } else { self }
    }

    /// Whether the values are not quantized.
    #[must_use]
    pub const fn is_float(self) -> bool {
        self.0 > MAX_BITS
    }
}

impl TryFrom<u8> for Bitwidth {
    type Error = BitwidthError;
    fn try_from(bits: u8) -> Result<Self, BitwidthError> {
        Self::new(bits)
    }
}

impl fmt::Debug for Bitwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bitwidth({self})")
    }
}

impl fmt::Display for Bitwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.integer() {
            Some(bits) => bits.fmt(f),
            None => f.pad(FLOAT_NAME),
        }
    }
}

impl FromStr for Bitwidth {
    type Err = BitwidthError;
    fn from_str(text: &str) -> Result<Self, BitwidthError> {
        let text = text.trim();
        if text == FLOAT_NAME {
            return Ok(Self::FLOAT);
        }
        match text::whole(text) {
            Some(bits) => Self::from_number(bits),
            None => Err(BitwidthError::NotANumber(text.to_owned())),
        }
    }
}

impl Serialize for Bitwidth {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.integer() {
            Some(bits) => serializer.serialize_u8(bits),
            None => serializer.serialize_str(FLOAT_NAME),
        }
    }
}

impl<'de> Deserialize<'de> for Bitwidth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Bitwidth;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number from 1 to 32, or \"float\"")
            }

            fn visit_u64<E: de::Error>(self, bits: u64) -> Result<Bitwidth, E> {
                Bitwidth::from_number(bits).map_err(E::custom)
            }

            // TOML reads every integer as signed.
            fn visit_i64<E: de::Error>(self, bits: i64) -> Result<Bitwidth, E> {
                match u64::try_from(bits) {
                    Ok(bits) => self.visit_u64(bits),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Signed(bits), &self)),
                }
            }

            // Numbers too: the keys of a JSON object are text.
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bitwidth, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// One bitwidth for every quantizable layer, in network order; never empty.
///
/// Written as `2-2-3-2`, or `float-2-3-float` where layers are not quantized; read from that, and from lists with
/// commas, semicolons or spaces, also in brackets: `2,2,3,2`, `[2, 2, 3, 2]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<Bitwidth>", into = "Vec<Bitwidth>")]
pub struct BitwidthAssignment(Vec<Bitwidth>);

impl BitwidthAssignment {
    /// An assignment of one bitwidth to every layer.
    ///
    /// # Errors
    /// [`BitwidthError::Empty`] if there is none.
    pub fn new(bits: Vec<Bitwidth>) -> Result<Self, BitwidthError> {
        if bits.is_empty() { Err(BitwidthError::Empty) } else { Ok(Self(bits)) }
    }

    /// An assignment of integer bitwidths, one for every layer.
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

    /// Arithmetic mean of the integer bitwidths.
    ///
    /// Layers in float are left out, because they are not quantized. The mean is 32 if all layers are in
    /// float.
    #[must_use]
    pub fn mean(&self) -> f64 {
        let (mut sum, mut layers) = (0.0, 0.0);
        for bits in self.0.iter().filter_map(|bits| bits.integer()) {
            sum += f64::from(bits);
            layers += 1.0;
        }
        if layers > 0.0 { sum / layers } else { f64::from(MAX_BITS) }
    }

    /// The bitwidths as plain numbers, as [`Bitwidth::get`] gives them.
    ///
    /// A layer in float becomes 32, like one of 32-bit codes; work with the [`Bitwidth`]s themselves where
    /// that matters.
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
        let inner = [('[', ']'), ('(', ')')].into_iter().find_map(|(open, close)| {
            text.trim().strip_prefix(open).and_then(|rest| rest.strip_suffix(close))
        });
        let mut bits = Vec::new();
        for part in inner.unwrap_or(text).split(['-', ',', ';']) {
            let mut words = part.split_whitespace().peekable();
            if words.peek().is_none() {
                return Err(BitwidthError::NotANumber(text.to_owned()));
            }
            for word in words {
                // Python writes `float` in a list with quotes.
                bits.push(word.trim_matches(['\'', '"']).parse()?);
            }
        }
        Self::new(bits)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
        check("4--4", BitwidthError::NotANumber("4--4".into()));
        check("-1", BitwidthError::NotANumber("-1".into()));
        check("[4, 4", BitwidthError::NotANumber("[4".into()));
        check("[]", BitwidthError::NotANumber("[]".into()));
        check("2.5", BitwidthError::NotANumber("2.5".into()));
        check("4-Float", BitwidthError::NotANumber("Float".into()));
    }

    #[test]
    fn lists_of_other_programs_are_assignments() {
        let assignment: BitwidthAssignment = "8-5-5-8".parse().unwrap();
        for text in [
            "8,5,5,8",
            "[8, 5, 5, 8]",
            "(8, 5, 5, 8)",
            "8 5 5 8",
            " [8;5;5;8] ",
            "[8.0, 5.0, 5.0, 8.0]",
        ] {
            assert_eq!(text.parse().as_ref(), Ok(&assignment), "{text}");
        }
        let float: BitwidthAssignment = "float-2-float".parse().unwrap();
        assert_eq!("['float', 2, 'float']".parse(), Ok(float.clone()));
        let written = BitwidthAssignment::from_bits([32, 2, 32]).unwrap();
        assert!(written.iter().map(|bits| bits.float_at_32()).eq(float.iter().copied()));
    }

    #[test]
    fn float_is_neither_32_nor_8_bits() {
        let float = Bitwidth::FLOAT;
        assert!(float.is_float() && float > Bitwidth::new(32).unwrap());
        assert_eq!((float.get(), float.integer()), (32, None));
        assert_eq!(format!("{float} {float:?} {float:>6}"), "float Bitwidth(float)  float");
        assert!((1..=32).all(|bits| !Bitwidth::new(bits).unwrap().is_float()));
    }

    #[test]
    fn float_layers_are_left_out_of_the_mean() {
        let mean = |text: &str| text.parse::<BitwidthAssignment>().unwrap().mean();
        assert_eq!(mean("2-2-3-2"), 2.25);
        assert_eq!(mean("float-4-4-8"), 16.0 / 3.0);
        assert_eq!(mean("float-2-float"), 2.0);
        assert_eq!(mean("float-float"), 32.0);
        let assignment: BitwidthAssignment = "float-4-32".parse().unwrap();
        assert_eq!(assignment.to_bits(), [32, 4, 32]);
    }

    #[test]
    fn serde_checks_too() {
        assert!(serde_json::from_str::<BitwidthAssignment>("[2,2,3,2]").is_ok());
        for bad in ["[]", "[0]", "[33]", "[2.5]", "[-1]", "[300]", "[\"x\"]", "[null]", "[true]"] {
            assert!(serde_json::from_str::<BitwidthAssignment>(bad).is_err(), "{bad}");
        }
        let assignment: BitwidthAssignment = "float-4".parse().unwrap();
        assert_eq!(serde_json::to_string(&assignment).unwrap(), r#"["float",4]"#);
        let message = serde_json::from_str::<Bitwidth>("[]").unwrap_err().to_string();
        assert!(message.contains("a whole number from 1 to 32, or \"float\""), "{message}");
    }

    #[test]
    fn bitwidths_are_keys_of_maps() {
        let counts = BTreeMap::from([(Bitwidth::EIGHT, 3), (Bitwidth::FLOAT, 1)]);
        let json = serde_json::to_string(&counts).unwrap();
        assert_eq!(json, r#"{"8":3,"float":1}"#);
        assert_eq!(serde_json::from_str::<BTreeMap<Bitwidth, i32>>(&json).unwrap(), counts);
    }

    proptest! {
        #[test]
        fn text_round_trips(bits in proptest::collection::vec(1u8..=33, 1..30)) {
            let bits = bits.into_iter().map(|b| Bitwidth::new(b).unwrap_or(Bitwidth::FLOAT));
            let assignment = BitwidthAssignment::new(bits.collect()).unwrap();
            prop_assert_eq!(&assignment.to_string().parse::<BitwidthAssignment>().unwrap(), &assignment);
            let json = serde_json::to_string(&assignment).unwrap();
            prop_assert_eq!(serde_json::from_str::<BitwidthAssignment>(&json).unwrap(), assignment);
        }
    }
}
