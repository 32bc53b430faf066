//! A run that begins with what another one has measured.

use std::path::Path;

use releq_core::Weights;
use releq_format::safetensors;

use super::{
    EVALUATIONS, EvaluationRecord, RunFolder, RunFolderError, STAGES, StageRecord, WEIGHTS,
    WeightsOrigin, journal::Journal, manifest::Manifest,
};

/// Settings that the answer of a short retrain does not depend on.
const AFTER_EVALUATIONS: [&str; 14] = [
    "actions",
    "activation_actions",
    "agent",
    "beside",
    "budget",
    "compare",
    "cost",
    "finalists",
    "fixed_layers",
    "limits",
    "report_costs",
    "reward",
    "sensitivity_images",
    "uniform",
];

/// Further ones, of the long retrains and what is made of them.
const AFTER_SEARCH: [&str; 3] = ["long_retrain", "seeds", "tolerance"];

/// Further ones that the weights in full precision do not depend on either.
const AFTER_WEIGHTS: [&str; 7] = [
    "correction",
    "distilled",
    "early_stop",
    "evaluator",
    "quantizer",
    "search_validation",
    "short_retrain",
];

/// What of a run is valid for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Valid {
    /// The weights in full precision.
    Weights,
    /// They and the answers of short retrains.
    Evaluations,
}

/// What of the run in `from` is valid for the run `now`.
///
/// # Errors
/// [`RunFolderError::NoRun`], and [`RunFolderError::Differs`] where nothing is, naming the first difference.
pub(super) fn valid(from: &Path, now: &Manifest) -> Result<Valid, RunFolderError> {
    let begun = begun(from)?;
    let free = [&AFTER_EVALUATIONS[..], &AFTER_SEARCH].concat();
    if begun.differs_besides(now, &free).is_none() {
        return Ok(Valid::Evaluations);
    }
    match begun.differs_besides(now, &[&free[..], &AFTER_WEIGHTS].concat()) {
        None => Ok(Valid::Weights),
        Some((what, begun, now)) => Err(RunFolderError::Differs {
            path: from.to_owned(),
            what: format!("`{what}`"),
            begun,
            now,
            remedy: "what was measured is of no use then; begin a new run without it",
        }),
    }
}

fn begun(from: &Path) -> Result<Manifest, RunFolderError> {
    Manifest::load(from)?.ok_or_else(|| RunFolderError::NoRun { path: from.to_owned() })
}

impl RunFolder {
    /// Writes into this folder what is valid of the run in `from`. A process that is killed meanwhile leaves the last
    /// step undone, the line of the weights, so that the next one does all of it again; lines that are there stay.
    pub(super) fn take_over(&self, from: &Path, now: &Manifest) -> Result<(), RunFolderError> {
        let run = now.identity();
        let (mut stages, records) = Journal::open::<StageRecord>(self.path.join(STAGES), &run)?;
        if records.iter().any(|record| matches!(record, StageRecord::Weights { .. })) {
            return Ok(());
        }
        let (valid, theirs) = (valid(from, now)?, begun(from)?.identity());
        let sync = |journal: &mut Journal, name: &str| {
            let path = self.path.join(name);
            journal.sync().map_err(|source| RunFolderError::Io { what: "write", path, source })
        };
        let stage_records: Vec<StageRecord> = Journal::read(&from.join(STAGES), &theirs)?;
        if valid == Valid::Evaluations {
            // Before the answers that came from there.
            let others = stage_records.iter().filter(|record| {
                matches!(record, StageRecord::OtherMachine { .. }) && !records.contains(record)
            });
            for other in others {
                stages.append(other)?;
            }
            sync(&mut stages, STAGES)?;
            let path = self.path.join(EVALUATIONS);
            let (mut journal, ours) = Journal::open::<EvaluationRecord>(path, &run)?;
            let all: Vec<EvaluationRecord> = Journal::read(&from.join(EVALUATIONS), &theirs)?;
            for record in all {
                if ours.iter().all(|known| known.bits != record.bits) {
                    journal.append(&record.for_free())?;
                }
            }
            sync(&mut journal, EVALUATIONS)?;
        }
        let trained = stage_records.into_iter().find_map(|stage| match stage {
            StageRecord::Weights { fingerprint, .. } => Some(fingerprint),
            _ => None,
        });
        // Where they are not trained yet, or gone, they are trained here.
        let (Some(fingerprint), Ok((tensors, _))) =
            (trained, safetensors::read_tensors(from.join(WEIGHTS)))
        else {
            return Ok(());
        };
        let weights = Weights(tensors);
        if weights.fingerprint() != fingerprint {
            return Ok(());
        }
        let path = self.path.join(WEIGHTS);
        WeightsOrigin { run, bits: None }
            .write(&path, &weights)
            .map_err(|source| RunFolderError::Io { what: "write", path, source })?;
        stages.append(&StageRecord::Weights { fingerprint, run_seconds: 0.0 })?;
        sync(&mut stages, STAGES)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use releq_core::Parameter;

    use super::*;
    use crate::{AgentKind, ExperimentConfig, evaluate::Evaluation};

    const BITS: [&str; 2] = ["2-3-4-5", "2-2-2-2"];

    fn weights() -> Weights {
        let values = (0..50).map(|value| value as f32 * 0.37).collect();
        Weights(BTreeMap::from([("fc.weight".into(), Parameter { shape: vec![5, 10], values })]))
    }

    fn origin() -> BTreeMap<String, String> {
        BTreeMap::from([("data".into(), "d".into())])
    }

    /// A run with weights and two answers.
    fn begun_in(path: &Path) {
        let folder = RunFolder::open(path).unwrap();
        let run = folder.begin(&ExperimentConfig::lenet(1), origin()).unwrap();
        run.save_weights(&weights()).unwrap();
        let fingerprint = weights().fingerprint();
        run.record_stage(&StageRecord::Weights { fingerprint, run_seconds: 9.0 }).unwrap();
        for bits in BITS {
            let answer = Evaluation::new(0.75);
            let record = EvaluationRecord::new(bits.parse().unwrap(), &answer, 10.0);
            run.record_evaluation(&record).unwrap();
        }
    }

    /// Answers and weights of a fork with other settings.
    fn fork(
        from: &Path,
        change: impl FnOnce(&mut ExperimentConfig),
    ) -> Result<(usize, bool), RunFolderError> {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("fork");
        let mut config = ExperimentConfig::lenet(1);
        change(&mut config);
        for _ in 0..2 {
            let folder = RunFolder::open(&path)?.fork(from);
            if let Err(error) = folder.begin(&config, origin()) {
                assert!(!path.join("config.json").exists(), "nothing is begun");
                return Err(error);
            }
        }
        let folder = RunFolder::open(&path)?;
        let run = folder.begin(&config, origin())?;
        assert!(run.evaluation_records.iter().all(|record| record.run_seconds == 0.0));
        let trained = run.weights();
        assert!(trained.as_ref().is_none_or(|trained| *trained == weights()));
        assert_eq!(run.stage_records.len(), usize::from(trained.is_some()));
        Ok((run.evaluation_records.len(), trained.is_some()))
    }

    #[test]
    fn a_fork_begins_with_what_is_valid_under_its_settings() {
        let root = tempfile::tempdir().unwrap();
        let from = root.path();
        begun_in(from);
        let before = fs::read(from.join(EVALUATIONS)).unwrap();
        assert_eq!(fork(from, |_| {}).unwrap(), (2, true));
        assert_eq!(fork(from, |config| config.tolerance = 0.1).unwrap(), (2, true));
        assert_eq!(fork(from, |c| c.agent = AgentKind::Random.into()).unwrap(), (2, true));
        assert_eq!(fork(from, |c| c.short_retrain.batch_size = 7).unwrap(), (0, true));
        for (change, expected) in [
            ((|c| c.seed = 2) as fn(&mut ExperimentConfig), "`seed` 1"),
            (|c| c.pretrain.batch_size = 7, "`pretrain.batch_size`"),
            (|c| c.validation += 1, "`validation`"),
        ] {
            let message = fork(from, change).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        assert_eq!(fs::read(from.join(EVALUATIONS)).unwrap(), before);
        // A line that is being written is no line, and weights that are gone are trained again.
        fs::write(from.join(EVALUATIONS), &before[..before.len() - 3]).unwrap();
        fs::remove_file(from.join(WEIGHTS)).unwrap();
        assert_eq!(fork(from, |_| {}).unwrap(), (1, false));
        let none = fork(&from.join("none"), |_| {}).unwrap_err().to_string();
        assert!(none.contains("is not a run folder"), "{none}");
    }

    /// Every setting is one of those that are free, or keeps a run from being taken over.
    #[test]
    fn free_settings_are_settings() {
        let value = serde_json::to_value(ExperimentConfig::lenet(1)).unwrap();
        for name in AFTER_EVALUATIONS.iter().chain(&AFTER_SEARCH).chain(&AFTER_WEIGHTS) {
            // Settings that are left out where they are not given.
            let optional = ["activation_actions", "correction", "early_stop", "limits", "reward"]
                .contains(name);
            assert!(optional || value.get(name).is_some(), "{name}");
        }
    }
}
