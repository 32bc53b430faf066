//! The readers of settings, states, reports and agents, as functions of the bytes of one file.
//!
//! They need Burn, so they are not targets of libFuzzer: a build of Burn with its instrumentation takes too long.

use std::{collections::BTreeMap, fs, path::Path};

use releq::{
    Budget, Cancel, Experiment, ExperimentConfig, Problem, ReleqError, Report, Search, SearchState,
    agent::{Agent, Mode, Ppo, PpoConfig, RandomSearch, Trunk},
    core::{BitwidthAssignment, Network, Parameter},
    data::{
        ImageSet, Normalization,
        digits::{self, DigitsConfig},
    },
    evaluate::{Evaluation, Evaluator, OnMiss, Table},
    format::safetensors::{CHECKSUM, write_tensors},
    quant::QuantizerKind,
    train::{
        Length, NativeTrainer, Schedule, Sgd, Trainer, Training, TrainingState, initial_weights,
    },
    zoo::lenet,
};
use safetensors::{Dtype, SafeTensors};

use crate::readers::{Reader, file, folder, resealed};

/// All of them.
pub const SEARCHES: [Reader; 6] = [
    Reader { name: "training_state", read: training_state, seeds: training_state_seeds },
    Reader { name: "agent", read: agent, seeds: agent_seeds },
    Reader { name: "search_state", read: search_state, seeds: search_state_seeds },
    Reader { name: "experiment", read: experiment, seeds: experiment_seeds },
    Reader { name: "report", read: report, seeds: report_seeds },
    Reader { name: "accuracies", read: accuracies, seeds: accuracies_seeds },
];

/// A file of safetensors with the right checksum, as far as `bytes` are one.
fn write_resealed(path: &Path, bytes: &[u8]) {
    let tensors = SafeTensors::deserialize(bytes);
    let header = SafeTensors::read_metadata(bytes);
    if let (Ok(tensors), Ok((_, header))) = (tensors, header) {
        let mut metadata = header.metadata().clone().unwrap_or_default();
        metadata.remove(CHECKSUM);
        let parameter = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
            let (values, _) = view.data().as_chunks();
            let values = values.iter().map(|&value| f32::from_le_bytes(value)).collect();
            (name.to_owned(), Parameter { shape: view.shape().to_vec(), values })
        };
        let floats = tensors.iter().filter(|(_, view)| view.dtype() == Dtype::F32);
        let parameters: BTreeMap<String, Parameter> = floats.map(parameter).collect();
        if write_tensors(path, &parameters, metadata).is_ok() {
            return;
        }
    }
    fs::write(path, bytes).unwrap();
}

/// A network of one small layer, and images for it.
fn small() -> (Network, ImageSet) {
    let network = Network::builder("small", [1, 2, 2]).flatten("flat").linear("fc", 3);
    let pixels = (0..48).map(|index| index * 5).collect();
    let labels = (0..12).map(|index| index % 3).collect();
    (network.build().unwrap(), ImageSet::new("noise", [1, 2, 2], 3, pixels, labels).unwrap())
}

/// The state of a training, with the right checksum, which goes on for one step.
fn training_state(bytes: &[u8]) -> bool {
    let path = folder("training_state", |_| {}).join("state");
    write_resealed(&path, bytes);
    let Ok(state) = TrainingState::load(path) else { return false };
    let (network, data) = small();
    let normalization = Normalization::measured(&data).unwrap();
    let mut trainer = NativeTrainer::new(&network, QuantizerKind::Wrpn.build()).unwrap();
    Training::resume(&data, &normalization, &state, &mut trainer)
        .is_ok_and(|mut training| training.step(&mut trainer).is_ok())
}

fn training_state_seeds() -> Vec<Vec<u8>> {
    let (network, data) = small();
    let normalization = Normalization::measured(&data).unwrap();
    let sgd = Sgd { learning_rate: 0.01, momentum: 0.9, weight_decay: 0.0 };
    let schedule = Schedule::new(Length::Steps(9), 4, sgd);
    let mut trainer = NativeTrainer::new(&network, QuantizerKind::Wrpn.build()).unwrap();
    trainer.load(&initial_weights(&network, 1)).unwrap();
    let mut training = Training::new(&data, &normalization, &schedule, 1).unwrap();
    training.step(&mut trainer).unwrap();
    let path = folder("training_state", |_| {}).join("state");
    training.state(&trainer).save(&path).unwrap();
    vec![fs::read(path).unwrap()]
}

/// A saved agent, with the right checksum.
fn agent(bytes: &[u8]) -> bool {
    let path = file(&folder("agent", |_| {}), "agent.json", &resealed(bytes));
    let Ok(mut agent) = Ppo::load(path) else { return false };
    let snapshot = agent.snapshot();
    let observations = vec![vec![0.5; 3]; agent.begin(2, Mode::Explore).unwrap_or(0)];
    snapshot.is_ok() && agent.act(&observations).is_ok()
}

fn agent_seeds() -> Vec<Vec<u8>> {
    let config = PpoConfig { trunk: Trunk::Dense, ..PpoConfig::default() };
    let agent = config.init(3, 2, 9).unwrap();
    vec![serde_json::to_vec(&agent.snapshot().unwrap()).unwrap()]
}

/// Every assignment is as good.
struct Same;

impl Evaluator for Same {
    fn full_precision(&self) -> f64 {
        0.9
    }
    fn evaluate(&self, _: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        Ok(Evaluation::new(0.8))
    }
}

fn problem() -> Problem {
    Problem::builder().network(&lenet(), None).build().unwrap()
}

fn random(problem: &Problem) -> RandomSearch {
    RandomSearch::new(problem.action_count(), 3, 4)
}

/// The state of a search, with the right checksum, which goes on for one batch.
fn search_state(bytes: &[u8]) -> bool {
    let Ok(state) = serde_json::from_slice::<SearchState>(&resealed(bytes)) else { return false };
    let problem = problem();
    let mut agent = random(&problem);
    Search::resume(&problem, &mut agent, &Same, state)
        .is_ok_and(|mut search| search.step().is_ok() && search.state().is_ok())
}

fn search_state_seeds() -> Vec<Vec<u8>> {
    let problem = problem();
    let mut agent = random(&problem);
    let budget = Budget { episodes: Some(40), ..Budget::default() };
    let mut search = Search::new(&problem, &mut agent, &Same, budget);
    search.step().unwrap();
    search.step().unwrap();
    vec![serde_json::to_vec(&search.state().unwrap()).unwrap()]
}

/// Settings of an experiment.
fn experiment(bytes: &[u8]) -> bool {
    str::from_utf8(bytes)
        .is_ok_and(|text| ExperimentConfig::from_json(text).is_ok_and(|c| c.to_json().is_ok()))
}

fn experiment_seeds() -> Vec<Vec<u8>> {
    let preset = |name| ExperimentConfig::preset(name, 7).unwrap().to_json().unwrap();
    ["lenet", "resnet20"].map(|name| preset(name).into_bytes()).to_vec()
}

/// A report.
fn report(bytes: &[u8]) -> bool {
    let path = folder("report", |_| {}).join("report.csv");
    serde_json::from_slice(bytes).is_ok_and(|report: Report| {
        let chosen = report.chosen_row().is_some();
        chosen && !report.to_json().is_empty() && report.write_csv(path).is_ok()
    })
}

fn report_seeds() -> Vec<Vec<u8>> {
    let data = DigitsConfig { train: 60, test: 20, ..DigitsConfig::default() };
    let data = digits::generate(&data).unwrap();
    let mut config = ExperimentConfig::lenet(1);
    (config.validation, config.search_validation) = (20, 10);
    for schedule in [&mut config.pretrain, &mut config.short_retrain, &mut config.long_retrain] {
        (schedule.length, schedule.batch_size) = (Length::Steps(1), 10);
    }
    config.budget = Budget { evaluations: Some(3), ..Budget::default() };
    config.compare = false;
    let report = Experiment::new(lenet(), data, config).run(&Cancel::new(), &|_| {}).unwrap();
    vec![report.to_json().into_bytes()]
}

/// A table of measured accuracies, which answers for an assignment.
fn accuracies(bytes: &[u8]) -> bool {
    let path = file(&folder("accuracies", |_| {}), "table.csv", bytes);
    let bits = "2-2-3-2".parse().unwrap();
    Table::read(path, OnMiss::Nearest).is_ok_and(|table| table.evaluate(&bits).is_ok())
}

fn accuracies_seeds() -> Vec<Vec<u8>> {
    vec![
        b"bits,accuracy_percent\n2-2-3-2,93.9\n\"[8, 8, 8, 8]\",99.5%\n".to_vec(),
        "\u{feff}Bits;Accuracy\r\n2-2-3-2;0,92\r\n8-8-8-8;1.0\r\n".as_bytes().to_vec(),
    ]
}
