//! A piece of a run in its configuration: one of ours by name and settings, or one of the user's own.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{
        self, DeserializeSeed, IntoDeserializer, MapAccess, Visitor,
        value::{MapAccessDeserializer, StrDeserializer},
    },
    ser::SerializeMap,
};

/// A piece by name and settings, or `{"own": name}` for one that the program must hand in.
///
/// ```
/// use releq::{Choice, quant::QuantizerKind};
///
/// let ours: Choice<QuantizerKind> = serde_json::from_str(r#""wrpn-scaled""#)?;
/// assert_eq!(ours, Choice::Ours(QuantizerKind::WrpnScaled));
/// let own: Choice<QuantizerKind> = serde_json::from_str(r#"{"own": "codebook"}"#)?;
/// assert_eq!(own, Choice::Own("codebook".into()));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice<K> {
    /// One of ours.
    Ours(K),
    /// One of the user's own, by the name under which the program hands it in.
    Own(String),
}

impl<K: Default> Default for Choice<K> {
    fn default() -> Self {
        Self::Ours(K::default())
    }
}

impl<K> From<K> for Choice<K> {
    fn from(kind: K) -> Self {
        Self::Ours(kind)
    }
}

impl<K: fmt::Display> fmt::Display for Choice<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours(kind) => kind.fmt(f),
            Self::Own(name) => f.pad(name),
        }
    }
}

const OWN: &str = "own";

impl<K: Serialize> Serialize for Choice<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Ours(kind) => kind.serialize(serializer),
            Self::Own(name) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(OWN, name)?;
                map.end()
            }
        }
    }
}

impl<'de, K: Deserialize<'de>> Deserialize<'de> for Choice<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ChoiceVisitor(std::marker::PhantomData))
    }
}

struct ChoiceVisitor<K>(std::marker::PhantomData<K>);

impl<'de, K: Deserialize<'de>> Visitor<'de> for ChoiceVisitor<K> {
    type Value = Choice<K>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name, a name with settings, or {\"own\": name}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Choice<K>, E> {
        let text: StrDeserializer<'_, E> = text.into_deserializer();
        K::deserialize(text).map(Choice::Ours)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Choice<K>, A::Error> {
        let Some(key) = map.next_key::<String>()? else {
            return Err(de::Error::invalid_length(0, &self));
        };
        if key == OWN {
            let name = map.next_value()?;
            return match map.next_key::<String>()? {
                Some(key) => Err(de::Error::unknown_field(&key, &[OWN])),
                None => Ok(Choice::Own(name)),
            };
        }
        K::deserialize(MapAccessDeserializer::new(Rest { key: Some(key), map })).map(Choice::Ours)
    }
}

/// A map whose first key has been read.
struct Rest<A> {
    key: Option<String>,
    map: A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Rest<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        match self.key.take() {
            Some(key) => seed.deserialize(key.into_deserializer()).map(Some),
            None => self.map.next_key_seed(seed),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use releq_hw::CostKind;
    use releq_quant::QuantizerKind;

    use super::*;

    #[test]
    fn both_forms_round_trip_and_errors_name_what_is_wrong() {
        let check = |text: &str| {
            let choice: Choice<CostKind> = serde_json::from_str(text).unwrap();
            let again = serde_json::to_string(&choice).unwrap();
            assert_eq!(serde_json::from_str::<Choice<CostKind>>(&again).unwrap(), choice);
            choice
        };
        assert_eq!(check(r#""mean-bits""#), Choice::Ours(CostKind::MeanBits));
        assert!(matches!(
            check(r#"{"cost-weighted": {"memory_over_mac": 200.0}}"#),
            Choice::Ours(CostKind::CostWeighted(_))
        ));
        assert_eq!(check(r#"{"own": "board"}"#), Choice::Own("board".into()));

        let refused = |text: &str, expected: &str| {
            let error = serde_json::from_str::<Choice<QuantizerKind>>(text).unwrap_err();
            assert!(error.to_string().contains(expected), "`{error}` lacks `{expected}`");
        };
        refused(r#""wrqn""#, "wrpn");
        refused(r#"{"own": "a", "more": 1}"#, "more");
        refused("{}", "own");
        refused("7", "own");
    }
}
