//! Values of options, checked as they are read: each parser says what is allowed.

use std::{num::NonZeroUsize, path::Path, str::FromStr};

use anyhow::{Context, Result, bail, ensure};
use releq::{
    core::{Bitwidth, BitwidthAssignment, Network, UnknownName, parallel::MOST_THREADS, text},
    data::Normalization,
    quant::QuantizerKind,
    reward::{RewardError, RewardKind},
    train::MOST_EPOCHS,
};
use serde::de::DeserializeOwned;

type Parsed<T> = Result<T, String>;

fn number(text: &str, allowed: &str, check: impl Fn(f64) -> bool) -> Parsed<f64> {
    let expected = || format!("expected {allowed}");
    text::decimal(text).filter(|&number| check(number)).ok_or_else(expected)
}

/// The text without a percent sign at its end.
fn without_sign(text: &str) -> &str {
    text.trim_end().trim_end_matches('%')
}

/// Percentage points: 0 to 100.
///
/// # Errors
/// For anything else.
pub fn points(text: &str) -> Parsed<f64> {
    let allowed = "percentage points from 0 to 100, such as 0.3";
    number(without_sign(text), allowed, |points| (0.0..=100.0).contains(&points))
}

/// A percentage above 0, up to 100.
///
/// # Errors
/// For anything else.
pub fn percent(text: &str) -> Parsed<f64> {
    let allowed = "a percentage above 0, up to 100, such as 98.5";
    number(without_sign(text), allowed, |percent| percent > 0.0 && percent <= 100.0)
}

/// A share, above 0 and at most 1.
///
/// # Errors
/// For anything else; of what seems to be a percentage, the message says the share.
pub fn share(text: &str) -> Parsed<f64> {
    let allowed = "a share above 0 and at most 1, such as 0.4";
    number(text, allowed, |share| share > 0.0 && share <= 1.0).map_err(|error| {
        let percent = text::decimal(without_sign(text));
        match percent.filter(|percent| (1.0..=100.0).contains(percent)) {
            Some(percent) => format!("{error}; {percent} % is {}", percent / 100.0),
            None => error,
        }
    })
}

/// A finite number above 0.
///
/// # Errors
/// For anything else.
pub fn positive(text: &str) -> Parsed<f64> {
    number(text, "a number above 0", |number| number > 0.0)
}

/// A finite number of 0 or more.
///
/// # Errors
/// For anything else.
pub fn not_negative(text: &str) -> Parsed<f64> {
    number(text, "a number of 0 or more", |number| number >= 0.0)
}

/// Passes over the training images.
///
/// # Errors
/// For more than a million, or what is no number of 0 or more.
pub fn epochs(text: &str) -> Parsed<f64> {
    let allowed = "a number of epochs from 0 to a million, such as 0.5";
    number(text, allowed, |epochs| (0.0..=MOST_EPOCHS).contains(&epochs))
}

/// A learning rate.
///
/// # Errors
/// Unless it is 0 or more, and a finite 32-bit number.
pub fn rate(text: &str) -> Parsed<f32> {
    let allowed = "a rate of 0 or more, such as 0.01";
    number(text, allowed, |rate| rate >= 0.0 && (rate as f32).is_finite()).map(|rate| rate as f32)
}

/// The mean of a channel.
///
/// # Errors
/// Unless it is a finite 32-bit number.
pub fn mean(text: &str) -> Parsed<f32> {
    let allowed = "a finite mean for each channel, such as 0.5 or 0.49,0.48,0.45";
    number(text, allowed, |mean| (mean as f32).is_finite()).map(|mean| mean as f32)
}

/// The standard deviation of a channel.
///
/// # Errors
/// Unless it is a finite 32-bit number above 0.
pub fn deviation(text: &str) -> Parsed<f32> {
    let allowed = "a standard deviation above 0 for each channel, such as 0.5 or 0.25,0.24,0.26";
    number(text, allowed, |std| (std as f32).is_finite() && std as f32 > 0.0).map(|std| std as f32)
}

/// A whole number of 1 or more.
///
/// # Errors
/// For anything else.
pub fn count(text: &str) -> Parsed<NonZeroUsize> {
    text.trim().parse().map_err(|_| "expected a whole number of 1 or more".to_owned())
}

/// Most repeats of a timing: more would take days, and their times memory.
pub const MOST_REPEATS: usize = 100_000;

/// How often something is timed.
///
/// # Errors
/// Unless it is a whole number from 1 to [`MOST_REPEATS`].
pub fn repeats(text: &str) -> Parsed<NonZeroUsize> {
    let count = text.trim().parse().ok().filter(|count: &NonZeroUsize| count.get() <= MOST_REPEATS);
    count.ok_or_else(|| format!("expected 1 to {MOST_REPEATS}"))
}

/// A whole number of 0 or more.
///
/// # Errors
/// For anything else.
pub fn whole<T: FromStr>(text: &str) -> Parsed<T> {
    text.trim().parse().map_err(|_| "expected a whole number of 0 or more".to_owned())
}

/// A number of threads.
///
/// # Errors
/// Unless it is a whole number from 1 to [`MOST_THREADS`].
pub fn threads(text: &str) -> Parsed<NonZeroUsize> {
    let count = text.trim().parse().ok().filter(|count: &NonZeroUsize| count.get() <= MOST_THREADS);
    count.ok_or_else(|| {
        format!("expected 1 to {MOST_THREADS}; without the option, all cores are used")
    })
}

/// A reward by its name and settings.
///
/// # Errors
/// For a name that none has, with the nearest, and for settings that it does not take.
pub fn reward(text: &str) -> Parsed<RewardKind> {
    text.parse().map_err(|error| match error {
        RewardError::UnknownName { got, .. } => {
            UnknownName::new("reward", got, RewardKind::names()).to_string()
        }
        other => other.to_string(),
    })
}

/// One or several bitwidths, which [`join_bits`] joins with those of other arguments.
///
/// # Errors
/// Unless all are bitwidths.
pub fn bits(text: &str) -> Parsed<BitwidthAssignment> {
    text.parse().map_err(|error| format!("{error}; write a list as 8,4,4,8"))
}

/// Bitwidths to choose from.
///
/// # Errors
/// As [`bits`]; for two with a dash between them, which are two for some and all between for others.
pub fn choices(text: &str) -> Parsed<BitwidthAssignment> {
    let list = bits(text)?;
    if list.len() == 2 && text.contains('-') {
        let (from, to) = (list[0], list[1]);
        return Err(format!(
            "write {from},{to} for two of them, and all of {from} to {to} one by one"
        ));
    }
    Ok(list)
}

/// The bitwidths of all arguments of an option; `None` without arguments.
#[must_use]
pub fn join_bits(arguments: &[BitwidthAssignment]) -> Option<BitwidthAssignment> {
    let bits = arguments.iter().flat_map(|bits| bits.iter().copied());
    BitwidthAssignment::new(bits.collect()).ok()
}

/// The bitwidths that the weights are to have, where 32 bits stand for full precision.
///
/// # Errors
/// If `quantizer` does not take one of them; the message names the option and what it takes.
pub fn weight_bits(
    option: &str,
    arguments: &[BitwidthAssignment],
    quantizer: QuantizerKind,
) -> Result<Option<BitwidthAssignment>> {
    let Some(bits) = join_bits(arguments) else { return Ok(None) };
    let bits: Vec<Bitwidth> = bits.iter().map(|bits| bits.float_at_32()).collect();
    let takes = quantizer.build();
    if let Some(other) = bits.iter().find(|&&bits| !bits.is_float() && !takes.supports(bits)) {
        let taken = (1..=32).filter_map(|bits| Bitwidth::new(bits).ok());
        let taken: Vec<_> = taken.filter(|&bits| takes.supports(bits)).collect();
        let (Some(least), Some(most)) = (taken.first(), taken.last()) else {
            bail!("{option} {other}: quantizer `{quantizer}` takes no bitwidth");
        };
        bail!(
            "{option} {other}: quantizer `{quantizer}` takes {least} to {most} bits; 32 or `float` leaves \
             weights in full precision"
        );
    }
    Ok(Some(BitwidthAssignment::new(bits)?))
}

/// One bitwidth for every layer, from as many or from one.
///
/// # Errors
/// If there are neither; the message names the option and lists the layers.
pub fn per_layer<'n>(
    option: &str,
    bits: &BitwidthAssignment,
    layers: impl ExactSizeIterator<Item = &'n str>,
) -> Result<BitwidthAssignment> {
    match (bits.len(), layers.len()) {
        (1, layers) => Ok(BitwidthAssignment::uniform(bits[0], layers)?),
        (count, layers) if count == layers => Ok(bits.clone()),
        (count, all) => {
            let names: Vec<&str> = layers.collect();
            bail!(
                "{option}: {count} bitwidths for {all} layers ({}); give one for each, or one for all",
                names.join(", ")
            )
        }
    }
}

/// The normalization of `--mean` and `--std`, with one number for each channel of the network's images, or one
/// for all.
///
/// # Errors
/// If there are more or fewer.
pub fn normalization(mean: &[f32], std: &[f32], network: &Network) -> Result<Normalization> {
    let [channels, ..] = network.input();
    let all = |option: &str, values: &[f32]| match *values {
        [value] => Ok(vec![value; channels]),
        _ => {
            let count = values.len();
            ensure!(
                count == channels,
                "{option}: {count} numbers, but the images of `{}` have {channels} channels; give one for \
                 each, or one for all",
                network.name()
            );
            Ok(values.to_vec())
        }
    };
    Ok(Normalization::new(all("--mean", mean)?, all("--std", std)?)?)
}

/// Settings from a TOML file, which is called `*.toml`, or from a JSON file.
///
/// # Errors
/// If the file cannot be read as text or does not contain such settings; the message names file, line and column.
pub fn settings<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = text::read(path)?;
    let toml = path.extension().is_some_and(|extension| extension == "toml");
    let read = || {
        if toml {
            return Ok(toml::from_str(&text)?);
        }
        // Serde takes a list for the fields in their order, which nobody means.
        if serde_json::from_str::<serde_json::Value>(&text).is_ok_and(|value| value.is_array()) {
            anyhow::bail!("expected settings by name, not a list");
        }
        Ok(serde_json::from_str(&text)?)
    };
    read().with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use std::fs;

    use releq::{train::Schedule, zoo::lenet};

    use super::*;

    fn refused<T: std::fmt::Debug>(parse: fn(&str) -> Parsed<T>, bad: &[&str], expected: &str) {
        for text in bad.iter().chain(&["", "x", "NaN", "inf", "-inf", "1e999", "-1"]) {
            let message = parse(text).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused_with_what_is_allowed() {
        refused(points, &["100.1"], "percentage points from 0 to 100");
        refused(percent, &["0", "100.1"], "a percentage above 0, up to 100");
        refused(share, &["0", "40"], "above 0 and at most 1");
        refused(positive, &["0"], "above 0");
        refused(epochs, &["-1", "1e308", "1000001", "nan"], "from 0 to a million");
        refused(not_negative, &["-0.1"], "0 or more");
        refused(rate, &["1e40"], "0 or more");
        refused(deviation, &["0", "1e-60", "1e40"], "above 0 for each channel");
        refused(count, &["0", "1.5"], "1 or more");
        refused(whole::<u64>, &["1.5"], "0 or more");
        refused(threads, &["0", "100000"], "1 to 1024");
        refused(repeats, &["0", "100001", "18446744073709551615"], "1 to 100000");
        for text in ["40", "40 %"] {
            assert!(share(text).unwrap_err().ends_with("; 40 % is 0.4"), "{text}");
        }
        assert_eq!((percent("98.5%"), points("0,3 %")), (Ok(98.5), Ok(0.3)));
        assert_eq!((points("0"), share("1"), positive("0,5")), (Ok(0.0), Ok(1.0), Ok(0.5)));
        assert_eq!((mean("-0.5"), deviation("0.5")), (Ok(-0.5), Ok(0.5)));
        assert!(mean("NaN").is_err() && mean("inf").is_err());
        assert_eq!(threads("1024").unwrap().get(), 1024);
    }

    #[test]
    fn bitwidths_come_in_one_argument_or_several() {
        let parsed = |arguments: &[&str]| -> Vec<BitwidthAssignment> {
            arguments.iter().map(|text| bits(text).unwrap()).collect()
        };
        let weights = |arguments: &[&str]| {
            weight_bits("--bits", &parsed(arguments), QuantizerKind::WrpnScaled)
        };
        for arguments in [&["32,2,3,32"][..], &["32", "2", "3", "float"], &["32-2", "3,float"]] {
            let joined = weights(arguments).unwrap().unwrap();
            assert_eq!(joined.to_string(), "float-2-3-float");
        }
        assert_eq!(weights(&[]).unwrap(), None);
        let message = weights(&["8,16"]).unwrap_err().to_string();
        assert!(message.starts_with("--bits 16: quantizer `wrpn-scaled` takes 1 to 8 bits; 32 or"));
        for text in ["0", "33", "8,x", "-1"] {
            assert!(bits(text).unwrap_err().ends_with("write a list as 8,4,4,8"), "{text}");
        }

        assert_eq!(choices("2,8").unwrap().to_string(), "2-8");
        assert_eq!(choices("2-4-8").unwrap().to_string(), "2-4-8");
        assert!(choices("2-8").unwrap_err().contains("2,8 for two of them"));

        let layers = ["a", "b", "c"];
        let each = |text: &str| per_layer("--bits", &text.parse().unwrap(), layers.into_iter());
        assert_eq!(each("4").unwrap().to_string(), "4-4-4");
        assert_eq!(each("4-2-4").unwrap().to_string(), "4-2-4");
        let message = each("4-2").unwrap_err().to_string();
        assert!(message.starts_with("--bits: 2 bitwidths for 3 layers (a, b, c)"), "{message}");
    }

    #[test]
    fn a_normalization_has_a_number_for_each_channel() {
        let normal = normalization(&[0.5], &[0.25], &lenet()).unwrap();
        assert_eq!((normal.mean.as_slice(), normal.std.as_slice()), (&[0.5][..], &[0.25][..]));
        let message = normalization(&[0.5], &[0.1, 0.2, 0.3], &lenet()).unwrap_err().to_string();
        assert!(
            message.contains("--std: 3 numbers") && message.contains("1 channels"),
            "{message}"
        );
    }

    #[test]
    fn settings_are_read_in_every_encoding_as_json_and_toml() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("schedule.json");
        let json = r#"{"length": {"epochs": 1.0}, "batch_size": 64, "sgd": {"learning_rate": 0.03,
            "momentum": 0.9, "weight_decay": 0.0001}, "decay": "cosine", "warmup_steps": 50,
            "augmentation": {"max_shift": 0, "mirror": false}}"#;
        let utf16 = [0xff, 0xfe].into_iter().chain(json.encode_utf16().flat_map(u16::to_le_bytes));
        let mut read = Vec::new();
        for bytes in [json.into(), format!("\u{feff}{json}").into_bytes(), utf16.collect()] {
            fs::write(&path, bytes).unwrap();
            read.push(settings::<Schedule>(&path).unwrap());
        }
        assert!(read.iter().all(|schedule| *schedule == read[0] && schedule.batch_size == 64));
        let toml = "batch_size = 64\ndecay = 'cosine'\nwarmup_steps = 50\nlength.epochs = 1.0\n\
            [sgd]\nlearning_rate = 0.03\nmomentum = 0.9\nweight_decay = 0.0001\n\
            [augmentation]\nmax_shift = 0\nmirror = false\n";
        let toml_path = folder.path().join("schedule.toml");
        fs::write(&toml_path, toml).unwrap();
        assert_eq!(settings::<Schedule>(&toml_path).unwrap(), read[0]);
        fs::write(&toml_path, format!("batchsize = 1\n{toml}")).unwrap();
        let message = format!("{:#}", settings::<Schedule>(&toml_path).unwrap_err());
        for expected in ["schedule.toml", "line 1", "unknown field `batchsize`"] {
            assert!(message.contains(expected), "{message}");
        }
        fs::write(&path, json.replace("64", "64.5")).unwrap();
        let message = format!("{:#}", settings::<Schedule>(&path).unwrap_err());
        assert!(message.contains("schedule.json") && message.contains("line 1"), "{message}");
    }
}
