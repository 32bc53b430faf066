//! The first setting in which two trainings differ, in the words of their JSON.

use serde::Serialize;
use serde_json::Value;

/// Where two values differ, and what either has there.
#[derive(Debug, PartialEq)]
pub(crate) struct Difference {
    /// Dotted name of the field; empty if the values differ as a whole.
    pub(crate) field: String,
    pub(crate) begun: String,
    pub(crate) now: String,
}

/// The first difference; `None` for values that are serialized alike.
pub(crate) fn difference<T: Serialize>(begun: &T, now: &T) -> Option<Difference> {
    // By way of text, in which a 32-bit number has its own digits.
    let value =
        |value: &T| serde_json::to_string(value).ok().and_then(|t| serde_json::from_str(&t).ok());
    let (begun, now): (Option<Value>, Option<Value>) = (value(begun), value(now));
    find("", &begun.unwrap_or_default(), &now.unwrap_or_default())
}

fn find(field: &str, begun: &Value, now: &Value) -> Option<Difference> {
    if begun == now {
        return None;
    }
    if let (Value::Object(begun), Value::Object(now)) = (begun, now)
        && begun.keys().eq(now.keys())
    {
        let dot = if field.is_empty() { "" } else { "." };
        let mut pairs = begun.iter().zip(now.values());
        return pairs
            .find_map(|((key, begun), now)| find(&format!("{field}{dot}{key}"), begun, now));
    }
    Some(Difference { field: field.to_owned(), begun: begun.to_string(), now: now.to_string() })
}

#[cfg(test)]
mod tests {
    use releq_data::Augmentation;

    use super::*;
    use crate::{Decay, Length, Schedule, Sgd};

    #[test]
    fn the_first_field_that_differs_is_named_with_both_values() {
        let sgd = Sgd { learning_rate: 0.1, momentum: 0.9, weight_decay: 0.0 };
        let schedule = Schedule::new(Length::Steps(4), 20, sgd);
        assert_eq!(difference(&schedule, &schedule.clone()), None);
        let slow = Sgd { learning_rate: 0.05, ..sgd };
        let mirror = Augmentation { mirror: true, ..schedule.augmentation };
        for (other, field, begun, now) in [
            (Schedule { sgd: slow, ..schedule }, "sgd.learning_rate", "0.1", "0.05"),
            (Schedule { batch_size: 21, ..schedule }, "batch_size", "20", "21"),
            (Schedule { augmentation: mirror, ..schedule }, "augmentation.mirror", "false", "true"),
            (Schedule { decay: Decay::Cosine, ..schedule }, "decay", "\"constant\"", "\"cosine\""),
            (
                Schedule { length: Length::Epochs(1.5), ..schedule },
                "length",
                r#"{"steps":4}"#,
                r#"{"epochs":1.5}"#,
            ),
        ] {
            let (field, begun, now) = (field.to_owned(), begun.to_owned(), now.to_owned());
            assert_eq!(difference(&schedule, &other), Some(Difference { field, begun, now }));
        }
    }
}
