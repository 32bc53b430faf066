//! `config.json`: everything that a run follows from.

use std::{collections::BTreeMap, path::Path};

use releq_core::{Checksum, atomic_file};
use releq_hw::Machine;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{CONFIG, RESTORE, RunFolderError, error::ANEW, read_if_there};
use crate::ExperimentConfig;

/// Changes whenever the meaning of a run folder does.
const FORMAT: &str = "releq run 4";

/// Settings that do not decide the result, so that another life of a run may have others.
const FREE: [&str; 1] = ["threads"];

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    format: String,
    /// [`identity`](Self::identity) as the version of the library saw it that began the run.
    identity: String,
    /// The machine that the run was begun on.
    machine: Machine,
    /// What the result follows from besides the settings.
    pub(super) origin: BTreeMap<String, String>,
    pub(super) config: ExperimentConfig,
}

impl Manifest {
    pub(super) fn new(config: ExperimentConfig, origin: BTreeMap<String, String>) -> Self {
        let identity = identity(&origin, &config);
        Self { format: FORMAT.to_owned(), identity, machine: Machine::this(), origin, config }
    }

    /// The manifest in a folder, if there is one.
    pub(super) fn load(folder: &Path) -> Result<Option<Self>, RunFolderError> {
        let path = folder.join(CONFIG);
        let Some(text) = read_if_there(&path)? else { return Ok(None) };
        let damaged =
            |reason| RunFolderError::Damaged { path: path.clone(), reason, remedy: RESTORE };
        let value: Value =
            serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        match value.get("format").and_then(Value::as_str) {
            Some(FORMAT) => {}
            Some(other) => {
                let reason = format!("its format is `{other}`; this version reads `{FORMAT}`");
                return Err(damaged(reason));
            }
            None => {
                let reason = "it is not the config.json of a run: there is no `format` in it";
                return Err(damaged(reason.into()));
            }
        }
        // From the text again, for the place in it that an error names.
        let manifest: Self =
            serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        // A version that has a setting more reads the file, but would go on with another run than was begun.
        if manifest.identity != identity(&manifest.origin, &manifest.config) {
            let reason = "its settings are not those that the run was begun with: it was changed since, or another version \
                          of releq wrote it";
            return Err(damaged(reason.into()));
        }
        Ok(Some(manifest))
    }

    pub(super) fn save(&self, folder: &Path) -> Result<(), RunFolderError> {
        let path = folder.join(CONFIG);
        let io = |source| RunFolderError::Io { what: "write", path: path.clone(), source };
        let text = serde_json::to_string_pretty(self).map_err(|error| io(error.into()))?;
        atomic_file::write(&path, (text + "\n").as_bytes()).map_err(io)
    }

    /// What tells this run's files from those of others: a checksum of everything that decides its result.
    pub(super) fn identity(&self) -> String {
        self.identity.clone()
    }

    /// Refuses to go on with what the run was not begun with, naming the first difference.
    pub(super) fn check_same(&self, now: &Self, folder: &Path) -> Result<(), RunFolderError> {
        let differs = |what: String, begun: String, now: String| RunFolderError::Differs {
            path: folder.to_owned(),
            what,
            begun,
            now,
            remedy: ANEW,
        };
        let none = || "none".to_owned();
        for what in self.origin.keys().chain(now.origin.keys()) {
            let (begun, now) = (self.origin.get(what), now.origin.get(what));
            if begun != now {
                let (begun, now) = (begun.cloned(), now.cloned());
                let (begun, now) = (begun.unwrap_or_else(none), now.unwrap_or_else(none));
                return Err(differs(what.clone(), begun, now));
            }
        }
        self.check_settings(&now.config, folder)
    }

    /// Whether the other run follows from the same data, weights and settings, apart from the settings that are named;
    /// else the first difference.
    pub(super) fn differs_besides(
        &self,
        other: &Self,
        free: &[&str],
    ) -> Option<(String, String, String)> {
        let origin = |manifest: &Self| serde_json::to_value(&manifest.origin).unwrap_or_default();
        let settings = |manifest: &Self| {
            let mut settings = settings(&manifest.config);
            if let Some(settings) = settings.as_object_mut() {
                settings.retain(|name, _| !free.contains(&name.as_str()));
            }
            settings
        };
        // The settings first: another seed, for instance, splits the data otherwise.
        settings_difference(&settings(self), &settings(other))
            .or_else(|| difference("", &origin(self), &origin(other)))
    }

    /// The same of the settings alone.
    pub(super) fn check_settings(
        &self,
        now: &ExperimentConfig,
        folder: &Path,
    ) -> Result<(), RunFolderError> {
        match settings_difference(&settings(&self.config), &settings(now)) {
            Some((what, begun, now)) => Err(RunFolderError::Differs {
                path: folder.to_owned(),
                what: format!("the setting `{what}`"),
                begun,
                now,
                remedy: ANEW,
            }),
            None => Ok(()),
        }
    }
}

fn identity(origin: &BTreeMap<String, String>, config: &ExperimentConfig) -> String {
    let text = format!("{FORMAT}\n{origin:?}\n{}", settings(config));
    Checksum::new().part(text).finish()
}

/// The settings that decide a run's result.
fn settings(config: &ExperimentConfig) -> Value {
    let mut value = serde_json::to_value(config).unwrap_or_default();
    if let Some(settings) = value.as_object_mut() {
        settings.retain(|name, _| !FREE.contains(&name.as_str()));
    }
    value
}

/// The first difference between the settings of two runs.
fn settings_difference(begun: &Value, now: &Value) -> Option<(String, String, String)> {
    // What they are about comes first: another network or other data bring settings of their own.
    ["network", "data", "weights"]
        .into_iter()
        .find_map(|subject| difference(subject, &begun[subject], &now[subject]))
        .or_else(|| difference("", begun, now))
}

/// The first place where two values differ, and what each has there.
fn difference(place: &str, begun: &Value, now: &Value) -> Option<(String, String, String)> {
    if let (Value::Object(begun), Value::Object(now)) = (begun, now) {
        let keys = begun.keys().chain(now.keys().filter(|key| !begun.contains_key(*key)));
        return keys.into_iter().find_map(|key| {
            let place = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
            let value = |of: &serde_json::Map<String, Value>| of.get(key).cloned();
            difference(&place, &value(begun).unwrap_or_default(), &value(now).unwrap_or_default())
        });
    }
    (begun != now).then(|| (place.to_owned(), begun.to_string(), now.to_string()))
}

#[cfg(test)]
mod tests {
    use std::{fs, num::NonZeroUsize};

    use super::*;

    fn manifest(change: impl FnOnce(&mut ExperimentConfig)) -> Manifest {
        let mut config = ExperimentConfig::lenet(1);
        change(&mut config);
        Manifest::new(config, data("d"))
    }

    fn data(fingerprint: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("data with fingerprint".to_owned(), fingerprint.to_owned())])
    }

    #[test]
    fn what_differs_is_named_and_threads_may_differ() {
        let begun = manifest(|_| {});
        let same = manifest(|config| config.threads = NonZeroUsize::new(7).unwrap());
        begun.check_same(&same, Path::new("run")).unwrap();
        assert_eq!(begun.identity(), same.identity());
        let refused = |now: &Manifest, expected: &str| {
            let message = begun.check_same(now, Path::new("run")).unwrap_err().to_string();
            assert!(message.contains(expected), "`{message}` lacks `{expected}`");
            assert_ne!(begun.identity(), now.identity());
        };
        let other = manifest(|config| config.tolerance = 0.01);
        refused(
            &other,
            "run was begun with the setting `tolerance` 0.003, and cannot go on with 0.01",
        );
        refused(&manifest(|config| config.pretrain.sgd.momentum = 0.5), "`pretrain.sgd.momentum`");
        refused(&manifest(|config| config.budget.episodes = Some(3)), "`budget.episodes` null");
        let elsewhere = manifest(|config| {
            config.budget.episodes = Some(3);
            config.network = Some(crate::NetworkConfig::Zoo("simplenet".into()));
        });
        refused(&elsewhere, "the setting `network` null, and cannot go on with \"simplenet\"");
        let of = |origin| Manifest::new(ExperimentConfig::lenet(1), origin);
        refused(&of(data("e")), "data with fingerprint d, and cannot go on with e");
        refused(&of(BTreeMap::new()), "cannot go on with none");
    }

    #[test]
    fn a_file_that_is_none_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::load(folder.path()).unwrap(), None);
        let whole = manifest(|_| {});
        whole.save(folder.path()).unwrap();
        assert_eq!(Manifest::load(folder.path()).unwrap(), Some(whole));
        let path = folder.path().join(CONFIG);
        let text = fs::read_to_string(&path).unwrap();
        let refused = |text: &str, expected: &str| {
            fs::write(&path, text).unwrap();
            let message = Manifest::load(folder.path()).unwrap_err().to_string();
            for part in ["config.json", "restore it", expected] {
                assert!(message.contains(part), "`{message}` lacks `{part}`");
            }
        };
        refused(&text.replace(FORMAT, "releq run 1"), "its format is `releq run 1`");
        refused("{}", "there is no `format`");
        refused(&text.replace("\"tolerance\"", "\"tolerence\""), "tolerence");
        let changed = text.replace("\"tolerance\": 0.003", "\"tolerance\": 0.03");
        refused(&changed, "changed since, or another version of releq wrote it");
        for cut in (0..text.trim_end().len()).step_by(64) {
            refused(&text[..cut], "");
        }
    }
}
