//! Event files: framed, complete, and the same whether they are written from events or from the report.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod sample;

use std::{collections::BTreeMap, fs};

use prost::Message;
use releq::{Event, Report, Stage, core::Bitwidth, zoo};
use releq_cli::tensorboard::{EventFile, Names, bytes, write};
use sample::{chain, report};

/// The messages of TensorBoard, as far as they are needed to read a file.
mod messages {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Moment {
        #[prost(double, tag = "1")]
        pub(super) wall_time: f64,
        #[prost(int64, tag = "2")]
        pub(super) step: i64,
        #[prost(string, tag = "3")]
        pub(super) file_version: String,
        #[prost(message, optional, tag = "5")]
        pub(super) summary: Option<Values>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Values {
        #[prost(message, repeated, tag = "1")]
        pub(super) value: Vec<Value>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Value {
        #[prost(string, tag = "1")]
        pub(super) tag: String,
        #[prost(float, tag = "2")]
        pub(super) simple_value: f32,
    }
}

use messages::Moment;

fn unmasked(bytes: &[u8]) -> u32 {
    let masked = u32::from_le_bytes(bytes.try_into().unwrap());
    masked.wrapping_sub(0xa282_ead8).rotate_left(15)
}

/// All moments of a file, whose checksums must hold.
fn moments(mut bytes: &[u8]) -> Vec<Moment> {
    let mut moments = Vec::new();
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_at(12);
        assert_eq!(crc32c::crc32c(&head[..8]), unmasked(&head[8..]));
        let length = u64::from_le_bytes(head[..8].try_into().unwrap()) as usize;
        let (body, rest) = rest.split_at(length);
        assert_eq!(crc32c::crc32c(body), unmasked(&rest[..4]));
        moments.push(Moment::decode(body).unwrap());
        bytes = &rest[4..];
    }
    moments
}

/// The series of a file: steps and values by tag.
fn series(moments: &[Moment]) -> BTreeMap<String, Vec<(i64, f32)>> {
    let mut series: BTreeMap<String, Vec<(i64, f32)>> = BTreeMap::new();
    for moment in moments {
        for value in moment.summary.iter().flat_map(|summary| &summary.value) {
            assert!(value.simple_value.is_finite(), "{}", value.tag);
            series.entry(value.tag.clone()).or_default().push((moment.step, value.simple_value));
        }
    }
    series
}

#[test]
fn a_report_becomes_series() {
    let report = report(&zoo::lenet(), 40, 1);
    let written = bytes(&report);
    assert_eq!(written, bytes(&report));
    let moments = moments(&written);
    assert_eq!(moments[0].file_version, "brain.Event:2");
    assert!(moments[1..].iter().all(|moment| moment.file_version.is_empty()));
    let series = series(&moments);
    let history = &report.search.history;
    for (tag, of) in [
        ("search/reward", (|batch| batch.mean_reward) as fn(&releq::BatchRecord) -> f64),
        ("search/state_accuracy", |batch| batch.mean_acc_state),
        ("search/state_quantization", |batch| batch.mean_quant_state),
        ("agent/entropy", |batch| batch.update.entropy),
        ("agent/approx_kl", |batch| batch.update.approx_kl),
        ("agent/clip_fraction", |batch| batch.update.clip_fraction),
        ("agent/policy_loss", |batch| batch.update.policy_loss),
        ("agent/value_loss", |batch| batch.update.value_loss),
        ("probability/conv2/3 bits", |batch| f64::from(batch.action_probabilities[1][1])),
    ] {
        let expected: Vec<(i64, f32)> =
            history.iter().map(|batch| (batch.episodes as i64, of(batch) as f32)).collect();
        assert_eq!(series[tag], expected, "{tag}");
    }
    let best = report.search.best.as_ref().unwrap();
    for (layer, bits) in report.layers.iter().zip(best.bits.iter()) {
        let (_, last) = *series[&format!("bits/{}", layer.name)].last().unwrap();
        assert_eq!(Some(last as u8), Bitwidth::integer(*bits), "{}", layer.name);
    }
    assert_eq!(series["best/accuracy"].last().unwrap().1, best.accuracy as f32);
    assert_eq!(series["final/validation_accuracy"].len(), report.rows.len());
    assert!(series.contains_key("random/search/reward"));
    assert!(!series.contains_key("random/agent/entropy"), "random search learns nothing");
}

/// What a run would have said while it went on.
fn events(report: &Report) -> Vec<Event> {
    let batch = |record: &releq::BatchRecord| Event::Episodes {
        stage: Stage::Search,
        agent: "ppo".into(),
        budget: report.config.budget,
        record: Box::new(record.clone()),
        failures: 0,
        best: None,
    };
    let training = Event::TrainingStep { step: 1, steps: 2, loss: 2.25, learning_rate: 0.5 };
    let broken = Event::TrainingStep { step: 2, steps: 2, loss: f32::NAN, learning_rate: 0.25 };
    let failed = Event::Retrained {
        done: 1,
        total: 2,
        bits: None,
        accuracy: None,
        failure: Some("the loss diverged".into()),
    };
    [training, broken]
        .into_iter()
        .chain(report.search.history.iter().map(batch))
        .chain([failed])
        .collect()
}

#[test]
fn events_are_written_as_they_come() {
    let report = report(&chain(5), 24, 1);
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("tensorboard");
    let mut file = EventFile::create(&dir, Names::of(&report)).unwrap();
    let mut other = EventFile::create(&dir, Names::default()).unwrap();
    assert_ne!(file.path(), other.path(), "two lives within a second");
    let mut length = fs::metadata(file.path()).unwrap().len();
    for event in events(&report) {
        file.add(&event).unwrap();
        other.add(&event).unwrap();
        let now = fs::metadata(file.path()).unwrap().len();
        assert!(now > length || matches!(event, Event::Retrained { .. }), "{event:?}");
        length = now;
    }
    let live = series(&moments(&fs::read(file.path()).unwrap()));
    assert_eq!(live["training/loss"], [(1, 2.25)], "no number is no value");
    assert_eq!(live["training/learning_rate"], [(1, 0.5), (2, 0.25)]);
    let whole = series(&moments(&bytes(&report)));
    for tag in ["search/reward", "agent/value_loss", "probability/classifier/8 bits"] {
        assert_eq!(live[tag], whole[tag], "{tag}");
    }
    // Without names, numbers stand for them.
    let nameless = series(&moments(&fs::read(other.path()).unwrap()));
    assert_eq!(nameless["probability/step 5/action 7"], live["probability/classifier/8 bits"]);
}

#[test]
fn a_finished_run_is_written_whole() {
    let report = report(&zoo::lenet(), 8, 1);
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path().join("tensorboard"), &report).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes(&report));
    fs::write(folder.path().join("file"), "").unwrap();
    for error in [
        write(folder.path().join("file"), &report).unwrap_err(),
        EventFile::create(folder.path().join("file"), Names::default()).unwrap_err(),
    ] {
        assert!(error.to_string().contains("file"), "{error}");
    }
}
