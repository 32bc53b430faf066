//! `releq search`: finds a bitwidth for every layer.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, Result};
use releq::{
    Choice, DataConfig, Experiment, ExperimentConfig, HeldOut, NetworkConfig, RunFolder,
    RunFolderError, WeightsConfig,
    core::{Network, Weights},
    data::{Normalization, Splits, digits::DigitsConfig},
    hw::CostKind,
    quant::QuantizerKind,
    train::{AccuracyReport, TrainerFactory as _, accuracy},
    zoo,
};

use crate::{
    args::{
        DataArgs, NamedNetwork, NetworkArgs, NormalizationArgs, SearchArgs, TrainingArgs,
        WeightsArgs, WorkersArgs, images, settings, tell_shares,
    },
    terminal::output::{note, print},
};

/// Test images, and training images, that given weights are shown first.
const FIRST_LOOK: usize = 500;
/// How many of them at a time: 30 MB of pixels where images are those of ImageNet.
const AT_A_TIME: usize = 50;
/// So many times the accuracy of chance is near it.
const NEAR_CHANCE: f64 = 3.0;
/// So many standard errors between two accuracies are no accident.
const NO_ACCIDENT: f64 = 4.0;

/// Find a bitwidth for every layer of a network
///
/// The network is trained in full precision or starts from a checkpoint. An agent then chooses bitwidths, each choice is
/// measured by a short retrain, and the best ones get a long one. Everything is kept in the folder of the run: killed at
/// any moment, the same command goes on. All choices are made on held-out images; the images of the report choose nothing.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq search                                    LeNet, on MNIST or drawn digits
  releq search simplenet --data cifar10 --weights simplenet_cifar.pth.tar
  releq search model.onnx --data photos/ --mean 0.5 --std 0.5
  releq search model.onnx --data photos/ --no-retraining
                                                  images without labels, minutes
  releq search lenet --limit size=130kB --cost stripes-energy --max-loss 0.5
  releq search lenet --keep conv1=float --evaluations 30
  releq search lenet --activation-bits 4,8        bitwidths of activations too
  releq search ... --short-epochs 1 --long-epochs 10 --learning-rate 0.01
  releq search ... --evaluations 0                no search: published and
                                                  uniform bitwidths only
  releq search --print-config > run.toml
  releq search --config run.toml                  with the edited settings
  releq search --fork runs/lenet-mnist-1 --reward division
  releq search lenet --workers nats://localhost:4222
                                                  with `releq worker` elsewhere

A preset knows the quantizer, the layers to search, normalization and retraining
of each network. Options win over --config, which wins over the preset. For an
ONNX model, the learning rate of the retrains is tried out first.")]
pub(crate) struct Args {
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    weights: WeightsArgs,
    #[command(flatten)]
    normalization: NormalizationArgs,
    /// Settings to put over the network's preset: TOML, or JSON as in the config.json of a run; any part of them
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print all settings as TOML, including the options, and exit
    #[arg(long)]
    print_config: bool,
    /// Folder of the run; if it has begun there, it goes on [default: runs/NETWORK-DATA-N]
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Begin a new run with what the run in this folder has measured, as far as it is valid: its settings, with --config and
    /// the options over them, its weights in full precision, and its short retrains
    #[arg(long, value_name = "RUN")]
    fork: Option<PathBuf>,
    /// Keep nothing on disk; a run that is stopped cannot go on
    #[arg(long, conflicts_with_all = ["run", "fork", "tensorboard"])]
    no_run: bool,
    #[command(flatten)]
    training: TrainingArgs,
    #[command(flatten)]
    workers: WorkersArgs,
    #[command(flatten)]
    search: SearchArgs,
}

impl Args {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        self.run_with(|_, _| Ok(()))
    }

    /// Runs with what `adjust` makes of the settings in the end.
    pub(super) fn run_with(
        &self,
        adjust: impl FnOnce(&mut ExperimentConfig, &Network) -> Result<()>,
    ) -> Result<ExitCode> {
        // Files, network, weights and settings: whatever is wrong shows before any image is read.
        self.search.check()?;
        let forked = match &self.fork {
            Some(run) => {
                RunFolder::config_of(run)?;
                Some(run.join("config.json"))
            }
            None => None,
        };
        let files = [forked.as_deref(), self.config.as_deref()].into_iter().flatten();
        let files =
            files.map(|path| Ok((settings::read(path)?, path))).collect::<Result<Vec<_>>>()?;
        let named = files.iter().rev().find_map(|(settings, _)| settings.get("network"));
        let named: Option<NetworkConfig> = named
            .map(|value| serde_json::from_value(value.clone()))
            .transpose()
            .context("--config")?;
        let mut named = match (self.network.get()?, named) {
            (Some(named), _) => named,
            (None, Some(named)) => NamedNetwork::layers(named.build()?),
            (None, None) => NamedNetwork::layers(zoo::lenet()),
        };
        named.remark();
        let comes_with_weights = named.weights.is_some() && self.weights.weights.is_none();
        if let Some(groups) = self.search.channel_groups {
            named = named.with_channel_groups(groups)?;
        }
        let (mut network, mut weights) = self.weights.of(named)?;

        let mut config = self.preset(&network, weights.is_some());
        for (settings, path) in &files {
            config = settings::put_over(&config, settings, path)?;
        }
        if !(self.search.activation_bits.is_empty() && config.activation_actions.is_empty()) {
            network = network.with_fake_quantize()?;
        }
        // Options speak of layers as they were before they were divided.
        let whole = match self.search.channel_groups {
            Some(_) => network.without_channel_groups()?,
            None => network.clone(),
        };
        if let Some((_, weights)) = &mut weights {
            weights.add_ranges(&network);
        }
        // The mean of the weights' bits would leave activations at the most that they may have. Who has written both into a
        // file means it.
        let is_meant = files.iter().any(|(settings, _)| {
            let bits = settings.get("activation_actions").and_then(|bits| bits.as_array());
            settings.contains_key("cost") && bits.is_some_and(|bits| !bits.is_empty())
        });
        if !is_meant
            && !self.search.activation_bits.is_empty()
            && config.cost == CostKind::MeanBits.into()
        {
            config.cost = CostKind::Bitops.into();
        }
        let mut config = self.search.configure(config, &whole)?;
        self.training.configure(&mut config)?;
        let names_quantizer = self.search.quantizer.is_some()
            || files.iter().any(|(settings, _)| settings.contains_key("quantizer"));
        if self.training.no_retraining && !names_quantizer {
            // Nothing repairs what one scale for a whole layer does to its smaller channels.
            config.quantizer = QuantizerKind::WrpnScaledPerChannel.into();
        }
        if self.search.channel_groups.is_some() {
            config = config.for_channel_groups(&network)?;
        }
        adjust(&mut config, &network)?;
        config.network = Some(NetworkConfig::from(&network));
        config.normalization =
            self.normalization.given(&network, &self.data.images)?.or(config.normalization);
        if weights.is_some() && config.normalization.is_none() {
            note(
                "pixels are normalized as the training images are; if the weights were trained on others, say how with \
                 --mean and --std",
            );
        }
        // The weights can be read again from the configuration alone.
        if let Some((path, _)) = &weights {
            let WeightsArgs { key, ignore, .. } = &self.weights;
            let (path, key, ignore) = (absolute(path)?, key.clone(), ignore.clone());
            let whole = key.is_none() && ignore.is_empty();
            let weights = match whole {
                true => WeightsConfig::File(path),
                false => WeightsConfig::Part { path, key, ignore },
            };
            config.weights = Some(weights.into());
        }
        config.data = Some(self.data(&network, &config)?);
        config.check()?;
        if self.print_config {
            print(settings::to_toml(&config)?.trim_end())?;
            return Ok(ExitCode::SUCCESS);
        }
        // A rate that somebody has chosen stays.
        let probes =
            comes_with_weights && files.is_empty() && self.training.learning_rate.is_none();
        self.search(network, weights.map(|(_, weights)| weights), config, probes)
    }

    fn search(
        &self,
        network: Network,
        weights: Option<Weights>,
        mut config: ExperimentConfig,
        probes: bool,
    ) -> Result<ExitCode> {
        let Some(Choice::Ours(source)) = config.data.clone() else {
            anyhow::bail!("--config: `data` must name images that can be read")
        };
        let data = images::load_all(&source, &network)?;
        note(format_args!("data: {}", data.source));
        // A run that is taken over has held out as many as its settings say.
        if self.fork.is_none() || self.training.held_out.is_some() {
            self.training.hold_out(&mut config, &data);
        }
        if let Some(warning) = unresolved(config.tolerance, config.validation) {
            note(format_args!("{warning}"));
        }
        if let (Some(run), Some(from)) = (&self.run, &self.fork)
            && same_file::is_same_file(run, from).unwrap_or(false)
        {
            anyhow::bail!(
                "--run: {} is the run that --fork takes over; name another folder, or go on with it by `releq resume`",
                run.display()
            );
        }
        if data.train.classes() == 0 && config.correction.is_none() {
            anyhow::bail!(
                "{} have no labels to train by; --no-retraining searches without",
                data.source
            );
        }
        if let Some(weights) = &weights {
            first_look(&network, weights, &data, &config)?.iter().for_each(note);
        }
        let mut experiment = Experiment::new(network.clone(), data, config);
        if let Some(weights) = weights {
            experiment = experiment.weights(weights);
        }
        if probes && experiment.config().correction.is_none() {
            let (probed, probe) = experiment.probe_rates()?;
            note(probe);
            experiment = probed;
        }
        let workers = self.workers.connect(experiment.config().threads)?;
        if let Some(workers) = &workers {
            experiment = experiment.workers(Arc::clone(workers));
        }
        let folder = match (&self.run, self.no_run) {
            (_, true) => None,
            (Some(folder), _) => Some(folder.clone()),
            (None, _) => Some(folder_for(&network, &source, experiment.config())?),
        };
        let folder = folder.map(RunFolder::open).transpose()?;
        let folder = match (folder, &self.fork) {
            (Some(folder), Some(from)) => {
                if folder.config().is_some() {
                    note(format_args!(
                        "the run in {} has begun and goes on; of {} it has what it took over at its start",
                        folder.path().display(),
                        from.display()
                    ));
                }
                Some(folder.fork(from))
            }
            (folder, _) => folder,
        };
        let ended = self.search.output.run(experiment, folder);
        tell_shares(workers.as_deref());
        ended
    }

    /// The network's settings.
    fn preset(&self, network: &Network, has_weights: bool) -> ExperimentConfig {
        let seed = self.search.seed.unwrap_or(1);
        let mut config = settings::preset(network, seed);
        if !has_weights {
            // The preset's normalization belongs to published weights.
            config.normalization = None;
        }
        config
    }

    /// The images that the options name, else those of the settings, else the network's usual ones; for LeNet drawn
    /// digits where there are none.
    fn data(&self, network: &Network, config: &ExperimentConfig) -> Result<Choice<DataConfig>> {
        if let (false, Some(data)) = (self.data.is_named(), &config.data) {
            return Ok(data.clone());
        }
        let found = match self.data.find(network)? {
            Some(found) => found,
            None if network.name() == zoo::lenet().name() => {
                note("MNIST not found (see --data and --download): drawing digits");
                DataConfig::Digits(DigitsConfig::default())
            }
            None => self.data.required(network)?,
        };
        Ok(Choice::Ours(match found {
            DataConfig::Folder { path, kind, images } => {
                DataConfig::Folder { path: absolute(&path)?, kind, images }
            }
            other => other,
        }))
    }
}

/// What given weights see in some test images, before anything that takes long: images that are prepared otherwise than in
/// the training show here.
fn first_look(
    network: &Network,
    weights: &Weights,
    data: &Splits,
    config: &ExperimentConfig,
) -> Result<Vec<String>> {
    let images = data.test.take(FIRST_LOOK, config.seed);
    let Choice::Ours(backend) = config.trainer else { return Ok(Vec::new()) };
    if images.classes() == 0 {
        return Ok(vec!["accuracy unknown: the images have no labels".to_owned()]);
    }
    let normalization = match &config.normalization {
        Some(normalization) => normalization.clone(),
        None => Normalization::measured(&data.train)?,
    };
    let mut trainer = backend.trainer(network, QuantizerKind::WrpnScaled.build())?;
    trainer.load(weights)?;
    let mut see = |images| accuracy(trainer.as_mut(), images, &normalization, AT_A_TIME);
    let test = see(&images)?;
    let mut notes = vec![told(test, network.outputs())];
    if config.held_out == HeldOut::Training && data.train.classes() > 0 {
        notes.extend(seen_before(see(&data.train.take(FIRST_LOOK, config.seed))?, test));
    }
    Ok(notes)
}

/// A warning where training images, from which some are held out, are seen so much better than test images that the
/// network was trained on them.
fn seen_before(train: AccuracyReport, test: AccuracyReport) -> Option<String> {
    let gap = train.accuracy() - test.accuracy();
    // One image more of each kind, so that no accuracy counts as certain.
    let variance = |report: AccuracyReport| {
        let seen = (report.correct + 1) as f64 / (report.total + 2) as f64;
        seen * (1.0 - seen) / report.total.max(1) as f64
    };
    let error = (variance(train) + variance(test)).sqrt();
    (gap > NO_ACCIDENT * error).then(|| {
        format!(
            "of {} training images it is {:.1} %: the network was probably trained on those that are held out from them, and \
             choices made on them ask for more bits than others would; --held-out-from-test holds out test images",
            train.total,
            100.0 * train.accuracy()
        )
    })
}

/// An accuracy in full precision, with a warning where it is hardly better than chance.
fn told(report: AccuracyReport, classes: usize) -> String {
    let (seen, chance) = (report.accuracy(), 1.0 / classes.max(1) as f64);
    let mut told = format!("full precision: {:.1} % of {} test images", 100.0 * seen, report.total);
    if seen < NEAR_CHANCE * chance && seen < 0.5 {
        told += &format!(
            ". That is near chance, {:.1} %: if the network is trained, images are prepared otherwise than in its \
             training (--preprocess, --mean and --std), or its classes have other numbers (--classes)",
            100.0 * chance
        );
    }
    told
}

/// A path that stays right when the run goes on from another folder.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| path.display().to_string())
}

/// `runs/NETWORK-DATA-N`: the newest run with these settings that has not come to its end, or a new one.
fn folder_for(network: &Network, data: &DataConfig, config: &ExperimentConfig) -> Result<PathBuf> {
    let runs = Path::new("runs");
    let prefix = format!("{}-{}-", network.name(), short_name(data));
    let number = |name: &str| name.strip_prefix(&prefix)?.parse::<usize>().ok();
    let names = fs::read_dir(runs).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut numbers: Vec<usize> = names.filter_map(|name| number(name.to_str()?)).collect();
    numbers.sort_unstable();
    let folder = |number: usize| runs.join(format!("{prefix}{number}"));
    for &number in numbers.iter().rev() {
        // A folder that cannot be read is nobody's to go on with; a new one is taken then.
        let (folder, unfinished) = (folder(number), |folder: &Path| {
            RunFolder::has_settings(folder, config).ok()?.then_some(())?;
            RunFolder::is_finished(folder).ok().map(|finished| !finished)
        });
        if unfinished(&folder) == Some(true) {
            note(format_args!("going on with the run in {}", folder.display()));
            return Ok(folder);
        }
    }
    let next = match numbers.last() {
        // A command that was refused has left the folder without a run.
        Some(&last) if RunFolder::config_of(folder(last)).is_err_and(|e| is_no_run(&e)) => last,
        last => last.map_or(1, |last| last + 1),
    };
    Ok(folder(next))
}

const fn is_no_run(error: &RunFolderError) -> bool {
    matches!(error, RunFolderError::NoRun { .. })
}

/// A word for a data set.
fn short_name(data: &DataConfig) -> String {
    let name = match data {
        DataConfig::Digits(_) => Some("digits".to_owned()),
        DataConfig::Folder { kind: Some(kind), .. } => Some(kind.slug().to_owned()),
        DataConfig::Folder { path, .. } => {
            path.file_name().map(|name| name.to_string_lossy().into_owned())
        }
        _ => None,
    };
    let name = name.unwrap_or_else(|| "data".into());
    name.chars().map(|c| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
}

/// What to say of a tolerance below what this many held-out images can tell apart, if it is.
fn unresolved(tolerance: f64, images: usize) -> Option<String> {
    let image = 1.0 / images.max(1) as f64;
    if tolerance >= image {
        return None;
    }
    let (points, asked) = (100.0 * image, 100.0 * tolerance);
    let remedy = match (1.0 / tolerance).ceil() {
        needed if needed <= 1e9 => format!("{needed:.0} images would do (--held-out)"),
        _ => "no number of images would do".to_owned(),
    };
    Some(format!(
        "{images} held-out images tell accuracies apart by {points:.3} points at best, which is more than the loss of \
         {asked} points that is allowed; {remedy}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accuracy_near_chance_is_told_with_its_likely_causes() {
        let told = |correct, classes| told(AccuracyReport { correct, total: 500 }, classes);
        assert_eq!(told(410, 10), "full precision: 82.0 % of 500 test images");
        assert_eq!(told(255, 2), "full precision: 51.0 % of 500 test images");
        let warned = told(55, 10);
        assert!(
            warned.contains("near chance, 10.0 %") && warned.contains("--preprocess"),
            "{warned}"
        );
        assert!(told(1, 1000).contains("near chance, 0.1 %"));
    }

    #[test]
    fn held_out_images_that_were_trained_on_are_told() {
        let of = |correct| AccuracyReport { correct, total: 500 };
        let warned = seen_before(of(490), of(380)).unwrap();
        assert!(warned.contains("98.0 %") && warned.contains("--held-out-from-test"), "{warned}");
        assert_eq!(seen_before(of(400), of(370)), None);
        assert_eq!(seen_before(of(370), of(400)), None);
        assert_eq!(seen_before(of(500), of(500)), None);
    }

    #[test]
    fn a_tolerance_that_the_images_do_not_resolve_is_told_with_the_remedy() {
        assert_eq!(unresolved(0.003, 5000), None);
        assert_eq!(unresolved(0.001, 1000), None);
        let told = unresolved(0.0001, 5000).unwrap();
        assert!(told.contains("0.020 points") && told.contains("10000 images would do"), "{told}");
        let none = unresolved(0.0, 5000).unwrap();
        assert!(none.contains("no number of images"), "{none}");
    }
}
