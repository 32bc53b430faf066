//! JSON objects that carry a checksum of their content.
//!
//! A digit that changes on a disk leaves valid JSON of another meaning. So what is written to be read back by this
//! workspace alone, such as the state of a search, has a field `checksum`. It is of the content and not of the text:
//! white space and the order of the fields do not matter.

use serde_json::{Map, Value};

use crate::Checksum;

/// Name of the field.
pub const CHECKSUM: &str = "checksum";

/// Why a sealed object is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// There is no JSON object.
    #[error("it is not a JSON object")]
    NoObject,
    /// There is no checksum.
    #[error("it has no checksum: it was cut, edited, or written by an earlier version")]
    Missing,
    /// The checksum is of other content.
    #[error("its checksum is of other content: it was damaged or edited")]
    Wrong,
}

/// Adds the checksum, in place of one that is there.
///
/// # Examples
///
/// ```
/// use releq_core::sealed::{SealError, open, seal};
/// use serde_json::json;
///
/// let mut state = serde_json::Map::from_iter([("episodes".to_owned(), json!(40))]);
/// seal(&mut state);
/// assert_eq!(open(state.clone().into()), Ok(json!({"episodes": 40})));
/// state["episodes"] = json!(48);
/// assert_eq!(open(state.into()), Err(SealError::Wrong));
/// ```
pub fn seal(object: &mut Map<String, Value>) {
    object.remove(CHECKSUM);
    let checksum = checksum(object);
    object.insert(CHECKSUM.to_owned(), checksum.into());
}

/// The object without its checksum, which must be right.
///
/// # Errors
/// [`SealError`].
pub fn open(value: Value) -> Result<Value, SealError> {
    let Value::Object(mut object) = value else { return Err(SealError::NoObject) };
    let found = object.remove(CHECKSUM).ok_or(SealError::Missing)?;
    if found != checksum(&object) {
        return Err(SealError::Wrong);
    }
    Ok(object.into())
}

fn checksum(object: &Map<String, Value>) -> String {
    let mut text = String::new();
    write_object(object, &mut text);
    Checksum::new().part(text).finish()
}

/// Writes JSON with sorted keys: another crate's choice of a feature decides in which order a map has them.
fn write(value: &Value, text: &mut String) {
    match value {
        Value::Object(object) => write_object(object, text),
        Value::Array(values) => {
            text.push('[');
            for value in values {
                write(value, text);
                text.push(',');
            }
            text.push(']');
        }
        value => text.push_str(&value.to_string()),
    }
}

fn write_object(object: &Map<String, Value>, text: &mut String) {
    let mut pairs: Vec<_> = object.iter().collect();
    pairs.sort_unstable_by_key(|(key, _)| *key);
    text.push('{');
    for (key, value) in pairs {
        text.push_str(&format!("{key:?}:"));
        write(value, text);
        text.push(',');
    }
    text.push('}');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sealed(value: Value) -> Map<String, Value> {
        let Value::Object(mut object) = value else { panic!("{value} is no object") };
        seal(&mut object);
        object
    }

    #[test]
    fn form_does_not_matter_and_content_does() {
        let value = json!({"a": [1, -0.0, 1e-300, null], "b": {"d": "x", "c": true}});
        let object = sealed(value.clone());
        let text = serde_json::to_string_pretty(&object).unwrap();
        assert_eq!(open(serde_json::from_str(&text).unwrap()), Ok(value));
        let checksum = object[CHECKSUM].as_str().unwrap();
        let other = format!(
            r#"{{"checksum":"{checksum}", "b":{{"c":true,"d":"x"}},"a":[1,-0.0,1e-300,null]}}"#
        );
        assert!(open(serde_json::from_str(&other).unwrap()).is_ok());
        for (from, to) in [("1,", "3,"), ("-0.0", "0.0"), ("true", "false"), ("\"x\"", "\"z\"")] {
            let changed = other.replacen(from, to, 1);
            assert_eq!(open(serde_json::from_str(&changed).unwrap()), Err(SealError::Wrong));
        }
        assert_eq!(open(json!({"a": 1})), Err(SealError::Missing));
        assert_eq!(open(json!([1])), Err(SealError::NoObject));
    }

    #[test]
    fn sealing_again_seals_what_is_there_now() {
        let mut object = sealed(json!({"a": 1}));
        object["a"] = json!(2);
        seal(&mut object);
        assert_eq!(open(object.into()), Ok(json!({"a": 2})));
    }
}
