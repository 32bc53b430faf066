//! Replays accuracies that somebody measured before.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use releq_core::{Bitwidth, BitwidthAssignment, text_enum};
use serde::{Deserialize, Serialize};

use super::{Evaluation, Evaluator, Measurement};
use crate::ReleqError;

/// What a [`Table`] answers for an assignment that it does not hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum OnMiss {
    /// [`ReleqError::TableMiss`].
    #[default]
    Error,
    /// The entry whose bitwidths differ least in sum, the lowest such one; it answers *as a whole*,
    /// so that nothing is ever credited with bitwidths that were not measured.
    Nearest,
}

text_enum!(OnMiss, "answer to a miss", Error => "error", Nearest => "nearest");

/// Measured accuracies by assignment, from a CSV of `bits,accuracy_percent`.
///
/// `bits` are the bitwidths joined by `-` in layer order, as in `2-2-3-2,93.916667`. Further columns
/// are ignored.
#[derive(Clone, Debug)]
pub struct Table {
    entries: BTreeMap<BitwidthAssignment, f64>,
    layers: usize,
    full_precision: f64,
    on_miss: OnMiss,
}

impl Table {
    /// Reads a table; full precision is its best accuracy until [`full_precision`] says otherwise.
    ///
    /// [`full_precision`]: Self::with_full_precision
    ///
    /// # Errors
    /// [`ReleqError::Table`] with file and line: no such file, no header, an unreadable row, a
    /// bitwidth outside 1 to 32, an accuracy outside 0 to 100, rows of different length, the same
    /// assignment twice, or no row at all.
    pub fn read(path: impl AsRef<Path>, on_miss: OnMiss) -> Result<Self, ReleqError> {
        let path = path.as_ref();
        let file = std::fs::File::open(path)
            .map_err(|error| table_error(path, 0, format!("cannot be opened: {error}")))?;
        Self::from_reader(file, path, on_miss)
    }

    fn from_reader(
        reader: impl std::io::Read,
        path: &Path,
        on_miss: OnMiss,
    ) -> Result<Self, ReleqError> {
        let fail = |line: u64, reason: String| table_error(path, line, reason);
        let mut csv = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(reader);
        let headers = csv.headers().map_err(|error| fail(1, error.to_string()))?.clone();
        let column = |name: &str| {
            headers.iter().position(|header| header == name).ok_or_else(|| {
                fail(1, format!("no column `{name}`; expected a header `bits,accuracy_percent`"))
            })
        };
        let (bits_column, accuracy_column) = (column("bits")?, column("accuracy_percent")?);
        let mut entries = BTreeMap::new();
        let mut layers = None;
        for row in csv.records() {
            let row = row.map_err(|error| {
                let line = error.position().map_or(0, csv::Position::line);
                fail(line, error.to_string())
            })?;
            let line = row.position().map_or(0, csv::Position::line);
            let bits: BitwidthAssignment = row[bits_column]
                .parse()
                .map_err(|error| fail(line, format!("column `bits`: {error}")))?;
            let text = &row[accuracy_column];
            let percent: f64 =
                text.parse().ok().filter(|p| (0.0..=100.0).contains(p)).ok_or_else(|| {
                    fail(line, format!("column `accuracy_percent`: `{text}` is not in 0 to 100"))
                })?;
            let expected = *layers.get_or_insert(bits.len());
            if bits.len() != expected {
                let reason = format!("{} bitwidths, but {expected} in the rows before", bits.len());
                return Err(fail(line, reason));
            }
            if entries.insert(bits.clone(), percent / 100.0).is_some() {
                return Err(fail(line, format!("{bits} stands here a second time")));
            }
        }
        let layers = layers.ok_or_else(|| fail(0, "holds no row".into()))?;
        let full_precision = entries.values().copied().fold(0.0, f64::max);
        if full_precision <= 0.0 {
            return Err(fail(0, "every accuracy is 0".into()));
        }
        Ok(Self { entries, layers, full_precision, on_miss })
    }

    /// Sets the accuracy in full precision, in 0 to 1.
    ///
    /// # Errors
    /// [`ReleqError::Setting`] unless it lies above 0 and is at most 1.
    pub fn with_full_precision(mut self, accuracy: f64) -> Result<Self, ReleqError> {
        if accuracy > 0.0 && accuracy <= 1.0 {
            self.full_precision = accuracy;
            Ok(self)
        } else {
            Err(ReleqError::Setting {
                setting: "full_precision",
                reason: format!("{accuracy} is not above 0 and at most 1"),
            })
        }
    }

    /// Number of layers that each entry has.
    #[must_use]
    pub const fn layers(&self) -> usize {
        self.layers
    }

    /// Every bitwidth found in the table, ascending.
    #[must_use]
    pub fn bitwidths(&self) -> Vec<Bitwidth> {
        let mut all: Vec<Bitwidth> = self.entries.keys().flat_map(|bits| bits.to_vec()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// All entries, with accuracies in 0 to 1.
    pub fn iter(&self) -> impl Iterator<Item = (&BitwidthAssignment, f64)> {
        self.entries.iter().map(|(bits, &accuracy)| (bits, accuracy))
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry; never true of a table that was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn nearest(&self, bits: &BitwidthAssignment) -> Option<(&BitwidthAssignment, f64)> {
        let distance = |entry: &BitwidthAssignment| -> u32 {
            entry.iter().zip(bits.iter()).map(|(a, b)| u32::from(a.get().abs_diff(b.get()))).sum()
        };
        self.iter().min_by_key(|(entry, _)| distance(entry))
    }
}

fn table_error(path: &Path, line: u64, reason: String) -> ReleqError {
    ReleqError::Table { path: PathBuf::from(path), line, reason }
}

impl Evaluator for Table {
    fn full_precision(&self) -> f64 {
        self.full_precision
    }

    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        if let Some(&accuracy) = self.entries.get(bits) {
            return Ok(Evaluation::new(accuracy));
        }
        match (self.on_miss, bits.len() == self.layers) {
            (OnMiss::Nearest, true) => self
                .nearest(bits)
                .map(|(entry, accuracy)| Measurement::new(accuracy).of(entry.clone()).into()),
            _ => None,
        }
        .ok_or_else(|| ReleqError::TableMiss(bits.clone()))
    }

    fn name(&self) -> &str {
        "table"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::{Cached, check_evaluator};

    fn read(text: &str, on_miss: OnMiss) -> Result<Table, ReleqError> {
        Table::from_reader(text.as_bytes(), Path::new("t.csv"), on_miss)
    }

    #[test]
    fn answers_entries_and_treats_misses_as_told() {
        let text = "bits,accuracy_percent\n2-2,50\n4-4,90.5\n8-8,99\n";
        let table = read(text, OnMiss::Error).unwrap();
        assert_eq!(table.bitwidths().len(), 3);
        assert_eq!(table.full_precision(), 0.99);
        assert_eq!(table.evaluate(&"4-4".parse().unwrap()).unwrap(), Evaluation::new(0.905));
        let miss = table.evaluate(&"4-8".parse().unwrap()).unwrap_err();
        assert!(matches!(miss, ReleqError::TableMiss(bits) if bits.to_string() == "4-8"));
        let table = read(text, OnMiss::Nearest).unwrap();
        // 5-4 is 1 away from 4-4; 3-3 is 2 away from both 2-2 and 4-4: the lower one answers.
        for (asked, answer) in [("5-4", "4-4"), ("3-3", "2-2"), ("8-7", "8-8")] {
            let Evaluation::Measured(measured) = table.evaluate(&asked.parse().unwrap()).unwrap()
            else {
                panic!("a table has measured everything");
            };
            assert_eq!(measured.answered_by.unwrap().to_string(), answer);
        }
        assert!(table.evaluate(&"4-4-4".parse().unwrap()).is_err());
    }

    #[test]
    fn tables_and_what_wraps_them_conform() {
        let text = "bits,accuracy_percent\n2-2,50\n4-4,90.5\n8-8,99\n";
        let all = ["2-2", "4-4", "8-8", "5-4", "3-3"].map(|bits| bits.parse().unwrap());
        let table = read(text, OnMiss::Nearest).unwrap();
        check_evaluator(&table, &all);
        check_evaluator(&Cached::new(&table), &all);
        check_evaluator(&std::sync::Arc::new(table), &all);
    }

    #[test]
    fn a_bad_table_is_refused_with_its_line() {
        let check = |text: &str, expected: &str| {
            let message = read(text, OnMiss::Error).unwrap_err().to_string();
            assert!(message.contains(expected), "`{message}` lacks `{expected}`");
        };
        check("", "line 1: no column `bits`");
        check("bits,accuracy\n2-2,50\n", "line 1: no column `accuracy_percent`");
        check("bits,accuracy_percent\n", "holds no row");
        check("bits,accuracy_percent\n2-2,50\n2-0,50\n", "line 3: column `bits`: bitwidth 0");
        check("bits,accuracy_percent\n2-33,50\n", "line 2: column `bits`: bitwidth 33");
        check("bits,accuracy_percent\n2-x,50\n", "line 2: column `bits`: `x` is not");
        check("bits,accuracy_percent\n2-2,101\n", "line 2: column `accuracy_percent`: `101`");
        check("bits,accuracy_percent\n2-2,NaN\n", "`NaN` is not in 0 to 100");
        check("bits,accuracy_percent\n2-2\n", "line 2");
        check("bits,accuracy_percent\n2-2,50\n2-2-2,60\n", "line 3: 3 bitwidths, but 2");
        check("bits,accuracy_percent\n2-2,50\n2-2,60\n", "line 3: 2-2 stands here a second");
        check("bits,accuracy_percent\n2-2,0\n", "every accuracy is 0");
        let missing = Table::read("/nonexistent/t.csv", OnMiss::Error).unwrap_err().to_string();
        assert!(missing.contains("/nonexistent/t.csv") && missing.contains("cannot be opened"));
    }
}
