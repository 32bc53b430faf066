//! A limit on the cost.

use releq_core::{Cost, CostError, CostModel, LayerBits, LayerProfile};
use serde::{Deserialize, Serialize};

use crate::{HwError, error::positive};

/// A cost model and the most that an assignment may cost under it, as the bytes of a flash memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget<M> {
    model: M,
    limit: Cost,
}

/// How much of a [`Budget`] an assignment uses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BudgetUse {
    /// Cost of the assignment, in the model's unit.
    pub cost: Cost,
    /// The most that it may be.
    pub limit: Cost,
}

impl BudgetUse {
    /// Whether the cost does not exceed the limit.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.cost <= self.limit
    }

    /// Cost over limit; above 1 if it does not fit.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        self.cost.0 / self.limit.0
    }
}

impl<M: CostModel> Budget<M> {
    /// At most `limit`, in the unit of `model`.
    ///
    /// # Errors
    /// [`HwError::Parameter`] unless `limit` is positive and finite.
    pub fn new(model: M, limit: Cost) -> Result<Self, HwError> {
        positive("budget", "limit", limit.0)?;
        Ok(Self { model, limit })
    }

    /// The model that the limit is for.
    pub const fn model(&self) -> &M {
        &self.model
    }

    /// What `bits` use of the budget.
    ///
    /// # Errors
    /// Those of the model.
    pub fn check(
        &self,
        layers: &[LayerProfile],
        bits: &[LayerBits],
    ) -> Result<BudgetUse, CostError> {
        Ok(BudgetUse { cost: self.model.network_cost(layers, bits)?, limit: self.limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ModelSize,
        price::layers::{at, lenet},
    };

    #[test]
    fn the_limit_itself_fits() {
        let layers = lenet();
        let budget = Budget::new(ModelSize::default(), Cost(215_250.0)).unwrap();
        let half = budget.check(&layers, &[at(4, 8); 4]).unwrap();
        assert!(half.fits() && half.fraction() == 1.0);
        let more = budget.check(&layers, &[at(5, 8); 4]).unwrap();
        assert!(!more.fits() && more.fraction() == 1.25);
        assert!(budget.check(&layers, &[at(5, 8); 3]).is_err());
        assert!(Budget::new(ModelSize::default(), Cost(0.0)).is_err());
    }
}
