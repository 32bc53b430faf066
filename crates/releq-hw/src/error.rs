//! What can be wrong with a model's configuration.

/// A cost model that cannot be configured so. Layers that a model cannot price are a
/// [`CostError`](releq_core::CostError).
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HwError {
    /// A constant lies outside its range.
    #[error("cost model `{model}`: {field} must be {allowed}, got {got}")]
    Parameter {
        /// Name of the model.
        model: &'static str,
        /// Name of the constant.
        field: &'static str,
        /// What came.
        got: f64,
        /// What is allowed.
        allowed: &'static str,
    },
    /// Nothing has this name.
    #[error("unknown {what} `{got}`: expected {allowed}")]
    UnknownName {
        /// What was looked for.
        what: &'static str,
        /// What came.
        got: String,
        /// Every known name, comma-separated.
        allowed: String,
    },
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
