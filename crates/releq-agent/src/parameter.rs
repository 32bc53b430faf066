//! One trainable parameter on the host.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{AgentError, AgentSnapshot};

/// Rows and columns of a parameter; a bias is one row.
pub(crate) type Shape = [usize; 2];

/// A weight matrix or a bias, with Adam's moments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameter {
    pub(crate) shape: Shape,
    pub(crate) values: Vec<f32>,
    pub(crate) first_moment: Vec<f32>,
    pub(crate) second_moment: Vec<f32>,
}

impl Parameter {
    fn new(shape: Shape, values: Vec<f32>) -> Self {
        let zeros = vec![0.0; values.len()];
        Self { shape, values, first_moment: zeros.clone(), second_moment: zeros }
    }

    /// Glorot-uniform, the initialization of TensorFlow 1.
    pub(crate) fn glorot(shape @ [rows, columns]: Shape, rng: &mut impl Rng) -> Self {
        let limit = (6.0 / (rows + columns) as f32).sqrt();
        let values = (0..rows * columns).map(|_| rng.random_range(-limit..limit)).collect();
        Self::new(shape, values)
    }

    pub(crate) fn zeros(shape @ [rows, columns]: Shape) -> Self {
        Self::new(shape, vec![0.0; rows * columns])
    }

    fn parts(&self) -> [(&'static str, &[f32]); 3] {
        [
            ("values", &self.values),
            ("first_moment", &self.first_moment),
            ("second_moment", &self.second_moment),
        ]
    }

    /// The parameter as a field of `snapshot`.
    pub(crate) fn save(&self, field: &str, snapshot: &AgentSnapshot) -> Result<Value, AgentError> {
        for (part, numbers) in self.parts() {
            let numbers = numbers.iter().map(|&number| f64::from(number));
            snapshot.check_finite(&format!("{field}.{part}"), numbers)?;
        }
        serde_json::to_value(self).map_err(|error| snapshot.error(field, error))
    }

    /// Reads a field of `snapshot`.
    pub(crate) fn load(
        value: Option<Value>,
        shape @ [rows, columns]: Shape,
        field: &str,
        snapshot: &AgentSnapshot,
    ) -> Result<Self, AgentError> {
        let fail = |reason: String| Err(snapshot.error(field, reason));
        let Some(value) = value else { return fail("missing".into()) };
        let parameter: Self = match serde_json::from_value(value) {
            Ok(parameter) => parameter,
            Err(error) => return fail(error.to_string()),
        };
        if parameter.shape != shape {
            return fail(format!("shape {:?}, expected {shape:?}", parameter.shape));
        }
        for (part, numbers) in parameter.parts() {
            if Some(numbers.len()) != rows.checked_mul(columns) {
                return fail(format!("`{part}` has {} numbers", numbers.len()));
            }
            // A number beyond the range of `f32` is read as infinity.
            if !numbers.iter().all(|number| number.is_finite()) {
                return fail(format!("`{part}` has a number that is not finite"));
            }
        }
        Ok(parameter)
    }
}
