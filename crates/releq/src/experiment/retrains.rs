//! The retrains of a run, short and long, from its settings.

use super::ExperimentConfig;
use crate::{
    ReleqError,
    evaluate::{Retrain, RetrainSetup, Way},
};

/// Those of the search, relative to an accuracy in full precision, which is measured first where it is not known.
pub(super) fn short<'a>(
    config: &ExperimentConfig,
    setup: RetrainSetup<'a>,
    full_precision: Option<f64>,
) -> Result<Retrain<'a>, ReleqError> {
    let way = config.correction.map_or(Way::Train(config.short_retrain), Way::Correct);
    let mut retrain = match full_precision {
        Some(accuracy) => Retrain::unmeasured(setup, way).relative_to(accuracy)?,
        None => Retrain::measured_first(setup, way)?,
    };
    // A correction learns from nobody.
    if config.distilled && config.correction.is_none() {
        retrain = retrain.distilled();
    }
    if let Some(early_stop) = config.early_stop {
        retrain = retrain.early_stop(early_stop)?;
    }
    Ok(retrain)
}

/// Those at the end.
pub(super) fn long<'a>(config: &ExperimentConfig, setup: RetrainSetup<'a>) -> Retrain<'a> {
    let way = config.correction.map_or(Way::Train(config.long_retrain), Way::Correct);
    Retrain::unmeasured(setup, way)
}
