//! A table of measured latencies, kept in a file.

use std::{collections::HashSet, num::NonZeroUsize, path::Path, time::Duration};

use releq_core::{LayerBits, LayerProfile, atomic_file, sealed, text};
use releq_kernels::{Isa, Threads, Workspace};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    CpuKernels, LatencyError, Machine, Timing, nameless, prepared::PreparedLayer, time_interleaved,
};

/// Version of the file. Version 1 had no checksum.
const FORMAT: u32 = 2;

/// How to measure.
#[derive(Clone, Debug)]
pub struct LatencyConfig {
    /// The kernels to run.
    pub kernels: CpuKernels,
    /// The instruction set to run them with.
    pub isa: Isa,
    /// Threads within one layer.
    pub threads: NonZeroUsize,
    /// Number of measurements of every layer.
    pub repeats: NonZeroUsize,
    /// Least duration of one measurement.
    pub sample: Duration,
    /// Commit of the kernels, if known; it is recorded in the table.
    pub commit: Option<String>,
}

impl Default for LatencyConfig {
    /// The best kernels on the best instruction set, one thread, eleven measurements of two milliseconds.
    fn default() -> Self {
        Self {
            kernels: CpuKernels::Best,
            isa: Isa::best(),
            threads: NonZeroUsize::MIN,
            repeats: NonZeroUsize::MIN.saturating_add(10),
            sample: Duration::from_millis(2),
            commit: None,
        }
    }
}

/// Latencies of layers on one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencyTable {
    format: u32,
    /// The machine.
    pub machine: Machine,
    /// Date of the first measurement, as in RFC 3339.
    pub date: String,
    /// Commit of the kernels, if it was known.
    pub commit: Option<String>,
    /// The kernels.
    pub kernels: CpuKernels,
    /// Their instruction set.
    pub isa: String,
    /// Threads within one layer.
    pub threads: NonZeroUsize,
    /// One for each shape and pair of bitwidths.
    pub rows: Vec<LatencyRow>,
}

/// Latency of one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencyRow {
    /// Its shape; the name is that of the first layer of this shape.
    pub layer: LayerProfile,
    /// Its bitwidths.
    pub bits: LayerBits,
    /// The kernel and the reason it was chosen.
    pub kernel: String,
    /// The latency.
    pub timing: Timing,
}

impl LatencyTable {
    /// Measures layers at bitwidths in turn, each shape once; `progress` gets the numbers of measured and of all layers.
    ///
    /// # Errors
    /// [`LatencyError`] if the kernels do not cover a layer.
    pub fn measure<'a>(
        work: impl IntoIterator<Item = (&'a LayerProfile, LayerBits)>,
        config: &LatencyConfig,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, LatencyError> {
        let mut table = Self {
            format: FORMAT,
            machine: Machine::this(),
            date: jiff::Timestamp::now().strftime("%FT%TZ").to_string(),
            commit: config.commit.clone(),
            kernels: config.kernels,
            isa: config.isa.to_string(),
            threads: config.threads,
            rows: Vec::new(),
        };
        table.extend(work, config, progress)?;
        Ok(table)
    }

    /// Measures what is missing from the table and keeps the rest. After an error, the table is unchanged.
    ///
    /// # Errors
    /// [`LatencyError`] if the kernels do not cover a layer, or if the table is of another machine or of other
    /// settings.
    pub fn extend<'a>(
        &mut self,
        work: impl IntoIterator<Item = (&'a LayerProfile, LayerBits)>,
        config: &LatencyConfig,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), LatencyError> {
        let here = Machine::this();
        if self.machine != here {
            let there = Box::new(self.machine.clone());
            return Err(LatencyError::Foreign { there, here: Box::new(here) });
        }
        for (what, there, here) in [
            ("kernels", self.kernels.to_string(), config.kernels.to_string()),
            ("instruction set", self.isa.clone(), config.isa.to_string()),
            ("threads", self.threads.to_string(), config.threads.to_string()),
        ] {
            if there != here {
                return Err(LatencyError::Settings { what, there, here });
            }
        }
        let mut known: HashSet<_> =
            self.rows.iter().map(|row| (nameless(&row.layer), row.bits)).collect();
        let missing: Vec<_> = work
            .into_iter()
            .filter(|(layer, bits)| known.insert((nameless(layer), *bits)))
            .collect();
        let mut rows = Vec::with_capacity(missing.len());
        // In chunks, so that the weights of large networks do not fill the memory.
        for chunk in missing.chunks(16) {
            progress(rows.len(), missing.len());
            rows.append(&mut measure(chunk, config)?);
        }
        progress(rows.len(), missing.len());
        self.rows.append(&mut rows);
        Ok(())
    }

    /// Reads a table that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`LatencyError::Text`] if the file cannot be read, and [`LatencyError::Damaged`] if it is not a valid table.
    pub fn load(path: &Path) -> Result<Self, LatencyError> {
        let damaged = |reason| LatencyError::Damaged { path: path.to_owned(), reason };
        let text = text::read(path)?;
        let foreign = |error: serde_json::Error| damaged(format!("not a latency table: {error}"));
        let value: Value = serde_json::from_str(&text).map_err(foreign)?;
        if let Some(format) = value.get("format").filter(|format| **format != FORMAT) {
            return Err(damaged(format!("its format is {format}, expected {FORMAT}")));
        }
        let value = sealed::open(value).map_err(|error| damaged(error.to_string()))?;
        let table: Self = serde_json::from_value(value).map_err(foreign)?;
        let mut known = HashSet::new();
        for (index, row) in table.rows.iter().enumerate() {
            let at = || format!("row {index} (layer `{}`)", row.layer.name);
            if !row.timing.is_plausible() {
                return Err(damaged(format!("{}: implausible times", at())));
            }
            if !known.insert((nameless(&row.layer), row.bits)) {
                return Err(damaged(format!("{}: this shape occurs twice", at())));
            }
        }
        Ok(table)
    }

    /// Writes the table as JSON with a checksum. An existing file is replaced atomically.
    ///
    /// # Errors
    /// [`LatencyError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), LatencyError> {
        let fail = |source| LatencyError::Io { path: path.to_owned(), source };
        let mut table = serde_json::to_value(self).map_err(|error| fail(error.into()))?;
        if let Value::Object(object) = &mut table {
            sealed::seal(object);
        }
        atomic_file::write(path, format!("{table:#}\n").as_bytes()).map_err(fail)
    }
}

fn measure(
    work: &[(&LayerProfile, LayerBits)],
    config: &LatencyConfig,
) -> Result<Vec<LatencyRow>, LatencyError> {
    let prepare = |&(layer, bits): &(&LayerProfile, LayerBits)| {
        PreparedLayer::new(layer, bits, config.kernels, config.isa)
            .map(|prepared| (prepared, Workspace::default()))
    };
    let mut prepared = work.iter().map(prepare).collect::<Result<Vec<_>, _>>()?;
    let choices: Vec<_> = prepared.iter().map(|(layer, _)| layer.kernel()).collect();
    let threads = &Threads::new(config.threads);
    let mut runs: Vec<_> =
        prepared.iter_mut().map(|(layer, workspace)| || layer.run(workspace, threads)).collect();
    let mut runs: Vec<&mut dyn FnMut()> =
        runs.iter_mut().map(|run| run as &mut dyn FnMut()).collect();
    let timings = time_interleaved(&mut runs, config.repeats, config.sample);
    let rows = work.iter().zip(choices).zip(timings);
    Ok(rows
        .map(|((&(layer, bits), kernel), timing)| LatencyRow {
            layer: layer.clone(),
            bits,
            kernel,
            timing,
        })
        .collect())
}
