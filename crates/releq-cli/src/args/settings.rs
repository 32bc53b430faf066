//! Files of settings, put over the settings that a network has.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use releq::{
    ExperimentConfig,
    core::{Network, UnknownName, text},
    quant::QuantizerKind,
};
use serde_json::{Map, Value};

use super::unique_json::Unique;

/// Settings that need not be there.
const OPTIONAL: [&str; 6] =
    ["network", "data", "weights", "activation_actions", "limits", "correction"];

/// Settings that have one of several forms.
const FORMS: [&str; 1] = ["length"];

/// The settings that a network has, before those of any file.
pub(crate) fn preset(network: &Network, seed: u64) -> ExperimentConfig {
    ExperimentConfig::preset(network.name(), seed).unwrap_or_else(|| {
        // No paper says how this network is quantized, and one scale for each channel leaves more of its accuracy than one for a
        // whole layer, above all where norms are folded into the weights: see docs/reproduction.md.
        let mut config = ExperimentConfig::lenet(seed);
        config.quantizer = QuantizerKind::WrpnScaledPerChannel.into();
        config
    })
}

/// Reads a file of settings: TOML, or JSON if its name ends in `.json`. Of a run's `config.json` it takes the settings.
///
/// # Errors
/// If the file cannot be read, naming the place.
pub(crate) fn read(path: &Path) -> Result<Map<String, Value>> {
    let name = || format!("--config {}", path.display());
    let text = text::read(path).with_context(name)?;
    let json = path.extension().is_some_and(|extension| extension == "json");
    let value: Value = if json {
        serde_json::from_str::<Unique>(&text).with_context(name)?.0
    } else {
        let settings: toml::Value = toml::from_str(&text).with_context(name)?;
        finite("", &settings).with_context(name)?;
        serde_json::to_value(settings).with_context(name)?
    };
    match value {
        Value::Object(mut settings) => {
            let of_a_run = settings.contains_key("format").then(|| settings.remove("config"));
            match of_a_run.flatten() {
                Some(Value::Object(settings)) => Ok(settings),
                _ => Ok(settings),
            }
        }
        _ => Err(anyhow!("{}: expected settings by name", name())),
    }
}

/// Refuses numbers that JSON, which settings become, does not have.
fn finite(place: &str, value: &toml::Value) -> Result<()> {
    let inner =
        |key: &str| if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
    match value {
        toml::Value::Float(number) => {
            ensure!(number.is_finite(), "`{place}` is {number}: expected a finite number");
            Ok(())
        }
        toml::Value::Array(values) => values
            .iter()
            .enumerate()
            .try_for_each(|(index, value)| finite(&format!("{place}[{index}]"), value)),
        toml::Value::Table(table) => {
            table.iter().try_for_each(|(key, value)| finite(&inner(key), value))
        }
        _ => Ok(()),
    }
}

/// Puts settings over `config`: any part of them may be missing.
///
/// # Errors
/// For an unknown name, with the nearest, and for values that do not fit.
pub(crate) fn put_over(
    config: &ExperimentConfig,
    settings: &Map<String, Value>,
    path: &Path,
) -> Result<ExperimentConfig> {
    let name = || format!("--config {}", path.display());
    let mut whole = serde_json::to_value(config)?;
    if let Value::Object(whole) = &mut whole {
        for optional in OPTIONAL {
            whole.entry(optional).or_insert(Value::Null);
        }
    }
    merge("", &mut whole, settings).with_context(name)?;
    if let Value::Object(whole) = &mut whole {
        whole.retain(|key, value| !(value.is_null() && OPTIONAL.contains(&key.as_str())));
    }
    ExperimentConfig::from_value(whole).with_context(name)
}

/// The settings as TOML, which [`read`] takes again.
///
/// # Errors
/// For a number that TOML cannot express: a seed of 2^63 or more.
pub(crate) fn to_toml(config: &ExperimentConfig) -> Result<String> {
    // By way of JSON text, which has the shortest digits of single-precision numbers: 0.02, not 0.019999999552965164.
    let mut value: Value = serde_json::from_str(&config.to_json()?)?;
    drop_nulls(&mut value);
    let value = toml::Value::try_from(&value).context(
        "--print-config: TOML has no whole number above 2^63 - 1; take a smaller --seed",
    )?;
    Ok(toml::to_string_pretty(&value)?)
}

/// TOML has no null: what is missing has its default.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(values) => values.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn merge(place: &str, whole: &mut Value, settings: &Map<String, Value>) -> Result<()> {
    let Value::Object(known) = whole else {
        *whole = Value::Object(settings.clone());
        return Ok(());
    };
    // One of several forms, such as `{"steps": 60}` in place of `{"epochs": 1.0}`, replaces the other.
    if !place.is_empty() && known.len() == 1 && !settings.keys().any(|key| known.contains_key(key))
    {
        *known = settings.clone();
        return Ok(());
    }
    if FORMS.contains(&place.rsplit('.').next().unwrap_or_default()) && settings.len() > 1 {
        let given: Vec<String> = settings.keys().map(|key| format!("`{key}`")).collect();
        bail!("`{place}` has {} at once: give one of them", given.join(" and "));
    }
    for (key, value) in settings {
        let place = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
        let Some(old) = known.get_mut(key) else {
            let unknown = UnknownName::new("setting", &place, known.keys().map(String::as_str));
            return Err(unknown.into());
        };
        match value {
            Value::Object(inner) if old.is_object() => merge(&place, old, inner)?,
            _ => *old = value.clone(),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use std::fs;

    use releq::{
        AgentKind, Choice, NetworkConfig,
        train::{Decay, Length},
    };

    use super::*;

    fn over(text: &str, name: &str) -> Result<ExperimentConfig> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        put_over(&ExperimentConfig::lenet(1), &read(&path)?, &path)
    }

    #[test]
    fn any_part_of_the_settings_may_be_given() {
        let config = over(
            "\u{feff}tolerance = 0.01\nnetwork = \"simplenet\"\nagent = \"random\"\n\
             [short_retrain]\ndecay = \"constant\"\n[short_retrain.length]\nepochs = 0.5\n\
             [budget]\nevaluations = 7\n",
            "run.toml",
        )
        .unwrap();
        assert_eq!(config.tolerance, 0.01);
        assert_eq!(config.network, Some(NetworkConfig::Zoo("simplenet".into())));
        assert_eq!(config.agent, Choice::Ours(AgentKind::Random));
        assert_eq!(config.short_retrain.length, Length::Epochs(0.5));
        assert_eq!(config.short_retrain.decay, Decay::Constant);
        assert_eq!(config.short_retrain.batch_size, 64);
        assert_eq!((config.budget.evaluations, config.budget.patience), (Some(7), Some(96)));
    }

    #[test]
    fn a_setting_that_is_there_twice_is_refused() {
        for (text, key) in [
            (r#"{"seed": 5, "seed": 6}"#, "seed"),
            (r#"{"pretrain": {"batch_size": 2}, "pretrain": {"batch_size": 3}}"#, "pretrain"),
            (r#"{"pretrain": {"batch_size": 2, "batch_size": 3}}"#, "batch_size"),
        ] {
            let message = format!("{:#}", over(text, "run.json").unwrap_err());
            assert!(message.contains(&format!("`{key}` is there twice")), "{message}");
        }
        assert_eq!(over(r#"{"seed": 5, "uniform": [4, 3]}"#, "run.json").unwrap().seed, 5);
    }

    #[test]
    fn what_is_printed_is_read_again() {
        let mut config = ExperimentConfig::lenet(7);
        config.fixed_layers = vec![("conv1".into(), "float".parse().unwrap())];
        config.network = Some(NetworkConfig::Zoo("lenet".into()));
        let text = to_toml(&config).unwrap();
        assert!(text.contains("learning_rate = 0.02\n"), "{text}");
        assert_eq!(over(&text, "run.toml").unwrap(), config);
        assert_eq!(over(&config.to_json().unwrap(), "run.json").unwrap(), config);
        config.uniform = vec!["3".parse().unwrap()];
        assert_eq!(over(&to_toml(&config).unwrap(), "run.toml").unwrap(), config);
        let of_a_run = format!(r#"{{"format": "x", "config": {}}}"#, config.to_json().unwrap());
        assert_eq!(over(&of_a_run, "config.json").unwrap(), config);
    }

    #[test]
    fn mistakes_are_named_with_the_file_and_the_place() {
        for (text, expected) in [
            ("tolerence = 0.1", "unknown setting `tolerence`: did you mean `tolerance`?"),
            ("[budget]\nevaluation = 1", "unknown setting `budget.evaluation`"),
            ("tolerance = \"much\"", "invalid type: string \"much\""),
            ("tolerance = 3.0", "`tolerance`: 3.0 is not in 0 to 1"),
            ("quantizer = \"wrqn\"", "wrqn"),
            ("tolerance = ", "line 1"),
        ] {
            let message = format!("{:#}", over(text, "run.toml").unwrap_err());
            assert!(message.starts_with("--config "), "{message}");
            assert!(message.contains("run.toml") && message.contains(expected), "{message}");
        }
        let message = format!("{:#}", over("[1]", "run.json").unwrap_err());
        assert!(message.contains("expected settings by name"), "{message}");
    }
}
