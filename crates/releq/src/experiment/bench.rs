//! Everything that the retrains of a run need, loaded: where jobs are carried out.

use std::{collections::BTreeMap, fmt, num::NonZeroUsize, sync::Arc};

use releq_core::{Network, Weights};
use releq_data::{Dataset, Subset, bundle};

use super::{
    Choice, DataConfig, ExperimentConfig, NetworkConfig,
    finals::retrain_long,
    images::Images,
    pieces::{OwnPieces, Pieces},
    retrains,
};
use crate::{
    Cancel, ReleqError,
    evaluate::{Evaluator as _, Retrain, RetrainSetup},
    guard::guard,
    jobs::{Job, JobAnswer, RunSpec, Task},
};

/// Network, weights, images and quantizer of a run. It owns them, so that any thread can hold it.
pub struct Bench {
    spec: RunSpec,
    network: Network,
    weights: Weights,
    images: Images,
    pieces: Pieces,
}

impl fmt::Debug for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bench").field("network", &self.network.name()).finish_non_exhaustive()
    }
}

impl Bench {
    /// Loads what `spec` describes, with the images that `data` names: those of the run may be elsewhere on this machine.
    ///
    /// # Errors
    /// [`ReleqError::Setting`] if the images or the weights are not those of the run; any other [`ReleqError`] if something
    /// cannot be loaded.
    pub fn open(
        spec: RunSpec,
        data: &DataConfig,
        weights: Weights,
        cancel: &Cancel,
    ) -> Result<Self, ReleqError> {
        Self::assemble(spec, weights, cancel, |config| Images::new(data.load()?.into_dyn(), config))
    }

    /// The same with the images that [`packed_images`](Self::packed_images) gave.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`ReleqError::Data`] for bytes that are something else.
    pub fn open_packed(
        spec: RunSpec,
        images: &[u8],
        weights: Weights,
        cancel: &Cancel,
    ) -> Result<Self, ReleqError> {
        Self::assemble(spec, weights, cancel, |config| {
            let sets = bundle::from_bytes(images)?.into_iter();
            let parts: Vec<Subset> =
                sets.map(|set| Subset::all(Arc::new(set) as Arc<dyn Dataset>)).collect();
            let parts = <[Subset; 3]>::try_from(parts).map_err(|parts| {
                let reason = format!("they are {} sets of images, not three", parts.len());
                ReleqError::Setting { setting: "data", reason }
            })?;
            Images::of_parts(parts, "packed images".to_owned(), config)
        })
    }

    /// The images of the run in one piece, for machines that do not have them.
    ///
    /// # Errors
    /// [`ReleqError::Data`] if one cannot be read, or they take more than 2 GiB.
    pub fn packed_images(&self) -> Result<Vec<u8>, ReleqError> {
        Ok(bundle::to_bytes(&self.images.parts().map(|part| part as &dyn Dataset))?)
    }

    fn assemble(
        spec: RunSpec,
        weights: Weights,
        cancel: &Cancel,
        images: impl FnOnce(&ExperimentConfig) -> Result<Images, ReleqError>,
    ) -> Result<Self, ReleqError> {
        let config = &spec.config;
        config.check()?;
        let Some(network) = &config.network else {
            let reason = "names no network".to_owned();
            return Err(ReleqError::Setting { setting: "network", reason });
        };
        let network = network.build()?;
        if weights.fingerprint() != spec.weights {
            let reason = "they are not those of the run".to_owned();
            return Err(ReleqError::Setting { setting: "weights", reason });
        }
        weights.check(&network)?;
        let pieces = Pieces::new(config, &OwnPieces::default())?;
        // A machine that lacks what the trainer needs has to say so before it takes a job.
        pieces.trainers.trainer(&network, Arc::clone(&pieces.quantizer))?;
        let images = images(config)?;
        let found = images.fingerprints()?;
        if let Some((what, expected)) =
            spec.data.iter().find(|(what, of)| found.get(*what) != Some(of))
        {
            let found = found.get(what).map_or("none", String::as_str);
            let reason = format!(
                "the {what} images are not those of the run: their fingerprint is {found}, not {expected}"
            );
            return Err(ReleqError::Setting { setting: "data", reason });
        }
        let images = images.labelled(&network, config, &pieces, Some(&weights), cancel)?;
        Ok(Self { spec, network, weights, images, pieces })
    }

    /// What a run has loaded, with the fingerprints of its images.
    pub(super) fn of_run(
        (network, config): (&Network, &ExperimentConfig),
        (images, data): (Images, BTreeMap<String, String>),
        pieces: Pieces,
        weights: Weights,
    ) -> Self {
        let mut config = decisive(config);
        config.network = Some(NetworkConfig::from(network));
        config.normalization = Some(images.normalization.clone());
        let spec = RunSpec { config, data, weights: weights.fingerprint() };
        Self { spec, network: network.clone(), weights, images, pieces }
    }

    /// What it was made from.
    #[must_use]
    pub const fn spec(&self) -> &RunSpec {
        &self.spec
    }

    /// The network.
    #[must_use]
    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// The weights in full precision.
    #[must_use]
    pub const fn weights(&self) -> &Weights {
        &self.weights
    }

    /// What carries out its jobs, one after the other.
    #[must_use]
    pub fn runner<'a>(&'a self, cancel: &'a Cancel) -> JobRunner<'a> {
        let setup = RetrainSetup {
            network: &self.network,
            weights: &self.weights,
            train: &self.images.train,
            validation: &self.images.search_validation,
            normalization: &self.images.normalization,
            quantizer: &self.pieces.quantizer,
            trainers: &self.pieces.trainers,
            threads: NonZeroUsize::MIN,
            seed: self.spec.config.seed,
            cancel,
        };
        JobRunner { bench: self, setup, short: None, long: None }
    }
}

/// Carries out jobs on one thread. Its trainers, and what full precision sees, are kept from job to job.
#[derive(Debug)]
pub struct JobRunner<'a> {
    bench: &'a Bench,
    setup: RetrainSetup<'a>,
    /// Relative to this accuracy in full precision.
    short: Option<(f64, Retrain<'a>)>,
    long: Option<Retrain<'a>>,
}

impl JobRunner<'_> {
    /// Carries out one job.
    ///
    /// # Errors
    /// [`ReleqError::Cancelled`], or what would end the search if it happened there.
    pub fn carry_out(&mut self, job: &Job) -> Result<JobAnswer, ReleqError> {
        let Self { bench, setup, short, long } = self;
        let config = &bench.spec.config;
        let piece = || "trainer".to_owned();
        match job.task {
            Task::Short { full_precision } => {
                let retrain = match short.take() {
                    Some((relative_to, retrain)) if relative_to == full_precision => retrain,
                    _ => retrains::short(config, *setup, Some(full_precision))?,
                };
                let (_, retrain) = short.insert((full_precision, retrain));
                Ok(JobAnswer::Short(guard(piece, || retrain.evaluate(&job.bits))?.checked()))
            }
            Task::Long { again, weights } => {
                let retrain = long.get_or_insert_with(|| retrains::long(config, *setup));
                let sets = [&bench.images.validation as _, &bench.images.test as _];
                let (retrained, weights) = retrain_long(retrain, &job.bits, again, sets, weights)?;
                Ok(JobAnswer::Long { retrained, weights })
            }
        }
    }
}

/// Refuses pieces that only this program has.
pub(super) fn check_portable(config: &ExperimentConfig) -> Result<(), ReleqError> {
    let own = [
        ("data", matches!(config.data, Some(Choice::Own(_)) | None)),
        ("quantizer", matches!(config.quantizer, Choice::Own(_))),
        ("trainer", matches!(config.trainer, Choice::Own(_))),
    ];
    match own.into_iter().find(|(_, own)| *own) {
        Some((setting, _)) => {
            let reason = "it is the program's own, which workers do not have".to_owned();
            Err(ReleqError::Setting { setting, reason })
        }
        None => Ok(()),
    }
}

/// The settings with those replaced that no retrain depends on, so that equal retrains of different searches are equal
/// jobs. A setting that is not named here counts as one that decides.
fn decisive(config: &ExperimentConfig) -> ExperimentConfig {
    let any = ExperimentConfig::lenet(config.seed);
    ExperimentConfig {
        weights: None,
        threads: any.threads,
        actions: any.actions,
        activation_actions: any.activation_actions,
        fixed_layers: any.fixed_layers,
        cost: any.cost,
        limits: any.limits,
        reward: any.reward,
        tolerance: any.tolerance,
        sensitivity_images: any.sensitivity_images,
        pretrain: any.pretrain,
        fine_tune: None,
        signal: any.signal,
        agent: any.agent,
        evaluator: any.evaluator,
        budget: any.budget,
        compare: any.compare,
        finalists: any.finalists,
        seeds: any.seeds,
        beside: any.beside,
        uniform: any.uniform,
        report_costs: any.report_costs,
        ..config.clone()
    }
}
