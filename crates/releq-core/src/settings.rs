//! Settings that are read from a map of named fields only.

use serde::{Deserializer, de::Visitor, forward_to_deserialize_any};

/// Reads a struct from a map alone. What serde derives takes a list as well, in which fields have no names: where all
/// fields have defaults, `[]` is all of them, whatever was meant.
#[derive(Debug)]
#[doc(hidden)]
pub struct Named<D>(pub D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Named<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// Implements `Serialize` and `Deserialize` for a struct of settings that derives both with
/// `#[serde(remote = "Self")]`; it is read from named fields only.
///
/// # Examples
///
/// ```
/// use releq_core::named_fields;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Default, Serialize, Deserialize)]
/// #[serde(remote = "Self", default, deny_unknown_fields)]
/// struct Pen {
///     width: u32,
/// }
/// named_fields!(Pen);
///
/// assert_eq!(serde_json::from_str::<Pen>(r#"{"width": 3}"#)?.width, 3);
/// assert!(serde_json::from_str::<Pen>("[]").is_err());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[macro_export]
macro_rules! named_fields {
    ($type:ty) => {
        impl ::serde::Serialize for $type {
            fn serialize<S: ::serde::Serializer>(
                &self,
                serializer: S,
            ) -> ::std::result::Result<S::Ok, S::Error> {
                <$type>::serialize(self, serializer)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> ::std::result::Result<Self, D::Error> {
                <$type>::deserialize($crate::Named(deserializer))
            }
        }
    };
}
