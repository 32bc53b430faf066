//! Configuration errors of cost models and limits.

/// Why the configuration of a cost model or a limit is invalid.
///
/// Layers that a model cannot price are a [`CostError`](releq_core::CostError).
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
    #[error("unknown {what} `{got}`: {}expected {allowed}", did_you_mean(.nearest.as_deref()))]
    UnknownName {
        /// What the name stands for, such as `cost model`.
        what: &'static str,
        /// The rejected name.
        got: String,
        /// The known name that resembles it most, if one does.
        nearest: Option<String>,
        /// Every known name, comma-separated.
        allowed: String,
    },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("did you mean `{name}`? "))
}

/// Jaro similarity from which on a name counts as a misspelling of another, as in clap.
const MISSPELLING: f64 = 0.7;

/// The error for `got`, which is none of `names`.
pub(crate) fn unknown_name(what: &'static str, got: &str, names: &[&str]) -> HwError {
    let nearest = names
        .iter()
        .map(|&name| (strsim::jaro(got, name), name))
        .filter(|(similarity, _)| *similarity > MISSPELLING)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name.to_owned());
    HwError::UnknownName { what, got: got.to_owned(), nearest, allowed: names.join(", ") }
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
