//! Configuration errors of cost models and limits.

use releq_core::UnknownName;

/// Why the configuration of a cost model or a limit is invalid.
///
/// Layers that a model cannot price are a [`CostError`](releq_core::CostError).
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HwError {
    /// A constant lies outside its range.
    #[error("cost model `{model}`: {field} must be {allowed}, got {got:?}")]
    Parameter {
        /// Name of the model.
        model: &'static str,
        /// Name of the constant.
        field: &'static str,
        /// The rejected value.
        got: f64,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The settings that come with a name are missing or invalid.
    #[error("cost model `{name}`: {reason}")]
    Settings {
        /// Name of the model.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A limit that is no positive amount in the right unit.
    #[error("limit `{limit}`: {reason}")]
    Limit {
        /// The rejected limit.
        limit: String,
        /// What is wrong.
        reason: String,
    },
    /// No such name.
    #[error(transparent)]
    UnknownName(#[from] UnknownName),
}

/// Requires `got` to be positive and finite.
pub(crate) fn positive(model: &'static str, field: &'static str, got: f64) -> Result<f64, HwError> {
    if got.is_finite() && got > 0.0 {
        Ok(got)
    } else {
        Err(HwError::Parameter { model, field, got, allowed: "positive and finite" })
    }
}

/// Requires `got` to be zero or more, and finite.
pub(crate) fn not_negative(
    model: &'static str,
    field: &'static str,
    got: f64,
) -> Result<f64, HwError> {
    if got.is_finite() && got >= 0.0 {
        Ok(got)
    } else {
        Err(HwError::Parameter { model, field, got, allowed: "finite and not negative" })
    }
}
