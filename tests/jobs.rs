//! Retrains that somebody else carries out, from nothing but what a job says, give the report of a run that does all itself.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use releq::{
    Budget, Cancel, Choice, DataConfig, Experiment, ExperimentConfig, NetworkConfig, ReleqError,
    RunFolder,
    core::Weights,
    data::{
        Dataset, bundle,
        digits::{DigitsConfig, generate},
    },
    evaluate::{EarlyStop, Evaluation, Measurement},
    jobs::{Bench, Job, JobAnswer, RunSpec, Task, Workers},
    quant::Wrpn,
    train::{Hits, Length},
    zoo::lenet,
};
use releq_test_support::timeless;

fn digits() -> DigitsConfig {
    DigitsConfig { train: 300, test: 60, ..DigitsConfig::default() }
}

/// All stages, each a few steps long.
fn config() -> ExperimentConfig {
    let mut config = ExperimentConfig::lenet(4);
    config.network = Some(NetworkConfig::from(&lenet()));
    config.data = Some(DataConfig::Digits(digits()).into());
    config.validation = 60;
    config.search_validation = 40;
    config.sensitivity_images = 20;
    config.finalists = 2;
    config.early_stop = Some(EarlyStop { after: 0.5, below: 0.5, images: 20 });
    config.budget = Budget { evaluations: Some(6), ..Budget::default() };
    for (schedule, steps) in
        [(&mut config.pretrain, 60), (&mut config.short_retrain, 6), (&mut config.long_retrain, 12)]
    {
        schedule.batch_size = 20;
        schedule.length = Length::Steps(steps);
    }
    config
}

/// Runs by the text that describes them.
type Opened = Vec<(String, Arc<Bench>)>;

/// Makes everything anew from what would travel: text, and the weights.
#[derive(Clone, Default)]
struct Elsewhere {
    opened: Arc<Mutex<Opened>>,
    short: Arc<AtomicUsize>,
    long: Arc<AtomicUsize>,
    /// In the order in which they were asked for.
    jobs: Arc<Mutex<Vec<Job>>>,
    /// 3 unless said otherwise.
    width: Option<usize>,
}

impl Workers for Elsewhere {
    fn width(&self) -> usize {
        self.width.unwrap_or(3)
    }

    fn carry_out(
        &self,
        bench: &Arc<Bench>,
        job: &Job,
        cancel: &Cancel,
    ) -> Result<JobAnswer, ReleqError> {
        let text = serde_json::to_string(bench.spec()).unwrap();
        let bench = {
            let mut opened = self.opened.lock().unwrap();
            match opened.iter().find(|(spec, _)| *spec == text) {
                Some((_, bench)) => Arc::clone(bench),
                None => {
                    let weights = bench.weights().clone();
                    let new = Arc::new(open(&text, weights, cancel)?);
                    opened.push((text, Arc::clone(&new)));
                    new
                }
            }
        };
        let counter = if matches!(job.task, Task::Short { .. }) { &self.short } else { &self.long };
        counter.fetch_add(1, Ordering::Relaxed);
        self.jobs.lock().unwrap().push(job.clone());
        let job = serde_json::from_str(&serde_json::to_string(job).unwrap()).unwrap();
        let answer = bench.runner(cancel).carry_out(&job)?;
        assert!(answer.fits(&job.task));
        let weights = match &answer {
            JobAnswer::Long { weights, .. } => weights.clone(),
            _ => None,
        };
        let text = serde_json::to_string(&answer).unwrap();
        Ok(match serde_json::from_str(&text).unwrap() {
            JobAnswer::Long { retrained, .. } => JobAnswer::Long { retrained, weights },
            short => short,
        })
    }
}

fn open(spec: &str, weights: Weights, cancel: &Cancel) -> Result<Bench, ReleqError> {
    let spec: RunSpec = serde_json::from_str(spec).unwrap();
    let Some(Choice::Ours(data)) = spec.config.data.clone() else { panic!("own data") };
    Bench::open(spec, &data, weights, cancel)
}

fn run(config: ExperimentConfig, workers: Option<Elsewhere>) -> (String, Vec<u8>) {
    let root = tempfile::tempdir().unwrap();
    let mut experiment = Experiment::from_config(config).unwrap();
    if let Some(workers) = workers {
        experiment = experiment.workers(workers);
    }
    let folder = RunFolder::open(root.path()).unwrap();
    let report = experiment.run_in(&folder, &Cancel::new(), &|_| {}).unwrap();
    assert!(report.error.is_none() && report.search.error.is_none(), "{report:?}");
    (timeless(&report), std::fs::read(root.path().join("bits.json")).unwrap())
}

#[test]
fn a_report_does_not_tell_who_retrained() {
    let elsewhere = Elsewhere::default();
    assert_eq!(run(config(), Some(elsewhere.clone())), run(config(), None));
    let count = |of: &AtomicUsize| of.load(Ordering::Relaxed);
    assert!(count(&elsewhere.short) >= 6 && count(&elsewhere.long) >= 5, "they had the work");
    assert_eq!(elsewhere.opened.lock().unwrap().len(), 1, "one run");
}

#[test]
fn workers_do_meanwhile_what_will_surely_be_wanted() {
    let run = |width| {
        let elsewhere = Elsewhere { width: Some(width), ..Elsewhere::default() };
        let report = run(config(), Some(elsewhere.clone()));
        let jobs = elsewhere.jobs.lock().unwrap().clone();
        (report, jobs)
    };
    let is_long = |job: &Job| matches!(job.task, Task::Long { .. });
    let (alone, one_by_one) = run(1);
    let last_short = one_by_one.iter().rposition(|job| !is_long(job)).unwrap();
    assert!(
        !one_by_one[..last_short].iter().any(is_long),
        "the only worker does first things first"
    );
    let (report, jobs) = run(8);
    assert_eq!(report, alone);
    let last_short = jobs.iter().rposition(|job| !is_long(job)).unwrap();
    assert!(jobs[..last_short].iter().any(is_long), "long retrains beside the searches");
    for jobs in [&one_by_one, &jobs] {
        for (place, job) in jobs.iter().enumerate() {
            assert!(!jobs[..place].contains(job), "asked for twice: {job:?}");
        }
    }
    let short = |jobs: &[Job]| jobs.iter().filter(|job| !is_long(job)).count();
    assert_eq!(short(&jobs), short(&one_by_one), "nothing is measured that nobody wants");
}

#[test]
fn other_images_other_weights_and_own_pieces_are_refused() {
    let elsewhere = Elsewhere::default();
    let refused = |experiment: Experiment, expected: &str| {
        let error = experiment.workers(elsewhere.clone()).run(&Cancel::new(), &|_| {}).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    let experiment = || Experiment::from_config(config()).unwrap();
    refused(experiment().quantizer(Wrpn), "`quantizer`");
    refused(experiment().data("mine", generate(&digits()).unwrap()), "`data`");

    run(config(), Some(elsewhere.clone()));
    let opened = elsewhere.opened.lock().unwrap();
    let ((text, bench), cancel) = (&opened[0], Cancel::new());
    let weights = || bench.weights().clone();
    let mut other = weights();
    other.0.values_mut().next().unwrap().values[0] += 1.0;
    let error = open(text, other, &cancel).unwrap_err().to_string();
    assert!(error.contains("`weights`"), "{error}");
    let drawn = DataConfig::Digits(DigitsConfig { seed: 99, ..digits() });
    let error = Bench::open(bench.spec().clone(), &drawn, weights(), &cancel).unwrap_err();
    assert!(error.to_string().contains("fingerprint"), "{error}");
}

#[test]
fn images_in_one_piece_give_the_same_answers() {
    let elsewhere = Elsewhere::default();
    run(config(), Some(elsewhere.clone()));
    let opened = elsewhere.opened.lock().unwrap();
    let (bench, cancel) = (&opened[0].1, Cancel::new());
    let packed = bench.packed_images().unwrap();
    let open = |images: &[u8]| {
        Bench::open_packed(bench.spec().clone(), images, bench.weights().clone(), &cancel)
    };
    let again = open(&packed).unwrap();
    let bits = "2-3-4-5".parse::<releq::core::BitwidthAssignment>().unwrap();
    for task in [Task::Short { full_precision: 0.9 }, Task::Long { again: 0, weights: true }] {
        let job = Job { bits: bits.clone(), task };
        let answers = [bench, &again].map(|bench| bench.runner(&cancel).carry_out(&job).unwrap());
        assert_eq!(answers[0], answers[1]);
    }
    // Those of another run, other sets, and what is cut.
    let other = generate(&DigitsConfig { seed: 99, ..digits() }).unwrap();
    let other = [&other.train as &dyn Dataset, &other.test, &other.test];
    for (images, expected) in [
        (bundle::to_bytes(&other).unwrap(), "fingerprint"),
        (bundle::to_bytes(&other[..2]).unwrap(), "2 sets"),
        (packed[..packed.len() - 1].to_vec(), "a bundle"),
    ] {
        let error = open(&images).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_answer_fits_its_task_or_does_not() {
    let short = Task::Short { full_precision: 0.9 };
    let long = Task::Long { again: 0, weights: false };
    let of_short = |accuracy| JobAnswer::Short(Measurement::new(accuracy).into());
    let of_long = |images| JobAnswer::Long {
        retrained: Ok([10, images].map(|images| Hits::new(vec![true; images]))),
        weights: None,
    };
    assert!(of_short(0.5).fits(&short) && of_long(7).fits(&long));
    assert!(JobAnswer::Short(Evaluation::failed("NaN")).fits(&short));
    assert!(JobAnswer::Long { retrained: Err("NaN".into()), weights: None }.fits(&long));
    assert!(!of_short(1.5).fits(&short) && !of_short(f64::NAN).fits(&short));
    assert!(!of_long(0).fits(&long));
    assert!(!of_short(0.5).fits(&long) && !of_long(7).fits(&short));
}
