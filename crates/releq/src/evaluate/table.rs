//! Replays accuracies that somebody measured before.

use std::{collections::BTreeMap, path::Path};

use releq_core::{
    Bitwidth, BitwidthAssignment, BitwidthError,
    tables::{TextRow, TextTable},
    text::{self, TextError},
    text_enum,
};
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

/// Differences that rounding to a percent makes.
const ROUNDED: f64 = 0.0051;

/// Layers that a table may have: more than any network, and few enough for the observations of all of them at once.
const MOST_LAYERS: usize = 2000;

text_enum!(OnMiss, "answer to a miss", Error => "error", Nearest => "nearest");

/// Column of the assignments.
const BITS: &str = "bits";

/// Column of accuracies in percent.
const PERCENT: &str = "accuracy_percent";

/// Column of accuracies from 0 to 1.
const SHARE: &str = "accuracy";

/// A best accuracy up to this, in 0 to 1, is no percentage but a share that was taken for one.
const ONE_PERCENT: f64 = 0.01;

/// What the numbers in the column of accuracies are.
#[derive(Clone, Copy, Debug)]
enum Unit {
    Percent,
    Share,
}

impl Unit {
    /// The column.
    const fn column(self) -> &'static str {
        match self {
            Self::Percent => PERCENT,
            Self::Share => SHARE,
        }
    }

    /// The accuracy in 0 to 1, and whether a percent sign says that it is a percentage.
    fn accuracy(self, row: &TextRow<'_>) -> Result<(f64, bool), TextError> {
        let column = self.column();
        let (most, remedy) = match self {
            Self::Percent => (100.0, ""),
            Self::Share => (1.0, "; a column of percentages is called `accuracy_percent`"),
        };
        let text = row.text(column)?;
        let (number, most, remedy, signed) = match text.strip_suffix('%') {
            Some(percent) => (percent, 100.0, "", true),
            None => (text, most, remedy, false),
        };
        match text::decimal(number).filter(|value| (0.0..=most).contains(value)) {
            Some(value) => Ok((value / most, signed)),
            None => Err(row.error(column, format!("`{text}` is not in 0 to {most}{remedy}"))),
        }
    }
}

/// Measured accuracies by assignment, from a table of `bits,accuracy_percent`.
///
/// `bits` are the bitwidths in layer order, as in `2-2-3-2,93.916667` or `"[2, 2, 3, 2]",93.9%`. Instead of
/// `accuracy_percent` there may be a column `accuracy` with accuracies from 0 to 1. Further columns are ignored.
/// Dialects are those of [`releq_core::tables`].
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
    /// [`ReleqError::Table`] with file and line: no such file, no header, an unreadable row, a bitwidth outside
    /// 1 to 32, an accuracy outside its range, percentages of which some do not exceed 1 (unless they have a percent
    /// sign or are 0, they may be shares), rows of different length,
    /// the same assignment twice, or no row at all.
    pub fn read(path: impl AsRef<Path>, on_miss: OnMiss) -> Result<Self, ReleqError> {
        Ok(Self::from_table(&TextTable::read(path, &[BITS])?, on_miss)?)
    }

    fn from_table(table: &TextTable, on_miss: OnMiss) -> Result<Self, TextError> {
        let unit = match (table.has(PERCENT), table.has(SHARE)) {
            (true, _) => Unit::Percent,
            (false, true) => Unit::Share,
            (false, false) => {
                let mut error = table.missing(PERCENT);
                error.reason += ", and no `accuracy`, from 0 to 1";
                return Err(error);
            }
        };
        let mut entries = BTreeMap::new();
        let mut layers = None;
        // Among the accuracies without a sign that says their unit, the first that may be a share and the first that
        // cannot be one.
        let (mut share, mut percentage) = (None, None);
        for row in table.rows() {
            let bits: BitwidthAssignment = row
                .text(BITS)?
                .parse()
                .map_err(|error: BitwidthError| row.error(BITS, error.to_string()))?;
            let (accuracy, signed) = unit.accuracy(&row)?;
            if let Unit::Percent = unit
                && table.has(SHARE)
            {
                let (other, _) = Unit::Share.accuracy(&row)?;
                if (other - accuracy).abs() > ROUNDED {
                    let (share, percent) = (row.text(SHARE)?, row.text(PERCENT)?);
                    let reason = format!(
                        "`{share}` is not what `{PERCENT}` says, `{percent}`; leave one of them out"
                    );
                    return Err(row.error(SHARE, reason));
                }
            }
            if !signed && accuracy > 0.0 {
                let first = if accuracy <= ONE_PERCENT { &mut share } else { &mut percentage };
                first.get_or_insert((row.line(), row.text(unit.column())?.to_owned()));
            }
            if bits.len() > MOST_LAYERS {
                let reason =
                    format!("{} bitwidths; networks have at most {MOST_LAYERS} layers", bits.len());
                return Err(row.row_error(reason));
            }
            let expected = *layers.get_or_insert(bits.len());
            if bits.len() != expected {
                let reason = format!("{} bitwidths, but {expected} in the rows before", bits.len());
                return Err(row.row_error(reason));
            }
            if entries.insert(bits.clone(), accuracy).is_some() {
                return Err(row.row_error(format!("{bits} stands here a second time")));
            }
        }
        let layers = layers.ok_or_else(|| table.error("contains no row"))?;
        match (unit, share, percentage) {
            (Unit::Percent, Some(_), None) => {
                let reason = format!(
                    "no value of `{PERCENT}` exceeds 1: these seem to be shares, not percentages; multiply \
                     them by 100, or rename the column to `{SHARE}`"
                );
                return Err(table.error(reason));
            }
            (Unit::Percent, Some((line, share)), Some((other, percentage))) => {
                let reason = format!(
                    "column `{PERCENT}` has `{share}` in line {line} and `{percentage}` in line {other}: the \
                     first may be a share; multiply shares by 100, and write `{share}%` where less than one \
                     percent is meant"
                );
                return Err(table.error(reason));
            }
            _ => {}
        }
        let full_precision = entries.values().copied().fold(0.0, f64::max);
        if full_precision <= 0.0 {
            return Err(table.error("every accuracy is 0"));
        }
        Ok(Self { entries, layers, full_precision, on_miss })
    }

    /// Sets the accuracy in full precision, in 0 to 1.
    ///
    /// # Errors
    /// [`ReleqError::Setting`] unless it lies above 0 and is at most 1; also if it is at most one percent and the
    /// table's best is not, since that is a share that was divided by 100.
    pub fn with_full_precision(mut self, accuracy: f64) -> Result<Self, ReleqError> {
        let fail = |reason| Err(ReleqError::Setting { setting: "full_precision", reason });
        let best = self.entries.values().copied().fold(0.0, f64::max);
        if !(accuracy > 0.0 && accuracy <= 1.0) {
            return fail(format!("{accuracy:?} is not above 0 and at most 1"));
        }
        if accuracy <= ONE_PERCENT && best > ONE_PERCENT {
            let (percent, best) = (100.0 * accuracy, 100.0 * best);
            return fail(format!(
                "{percent} %, while the table's best accuracy is {best} %; was a share given where a \
                 percentage is expected?"
            ));
        }
        self.full_precision = accuracy;
        Ok(self)
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
        Ok(Table::from_table(&TextTable::parse(text, "t.csv", &[BITS])?, on_miss)?)
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
        check("", "t.csv: is empty");
        check(
            "bits,acc\n2-2,50\n",
            "line 1: no column `accuracy_percent`; the header has bits, acc",
        );
        check("bits,accuracy_percent\n", "contains no row");
        check("bits,accuracy_percent\n2-2,50\n2-0,50\n", "line 3: column `bits`: bitwidth 0");
        check("bits,accuracy_percent\n2-33,50\n", "line 2: column `bits`: bitwidth 33");
        check("bits,accuracy_percent\n2-x,50\n", "line 2: column `bits`: `x` is not");
        check("bits,accuracy_percent\n,50\n", "line 2: column `bits`: an assignment needs");
        check("bits,accuracy_percent\n2-2,\n", "line 2: column `accuracy_percent`: `` is not in");
        check("bits,accuracy\n2-2,50\n", "column `accuracy`: `50` is not in 0 to 1; a column of");
        check("bits,accuracy\n2-2,101%\n", "column `accuracy`: `101%` is not in 0 to 100");
        check("bits,accuracy_percent\n2-2,101\n", "line 2: column `accuracy_percent`: `101`");
        check("bits,accuracy_percent\n2-2,NaN\n", "`NaN` is not in 0 to 100");
        check("bits,accuracy_percent\n2-2\n", "line 2");
        check("bits,accuracy_percent\n2-2,50\n2-2-2,60\n", "line 3: 3 bitwidths, but 2");
        check("bits,accuracy_percent\n2-2,50\n2-2,60\n", "line 3: 2-2 stands here a second");
        check("bits,accuracy_percent\n2-2,0\n", "every accuracy is 0");
        check(
            "bits,accuracy_percent,accuracy\n2-2,92,0.92\n2-4,93,0.46\n",
            "line 3: column `accuracy`: `0.46` is not what `accuracy_percent` says, `93`",
        );
        assert!(read("bits,accuracy,accuracy_percent\n2-2,0.921,92\n", OnMiss::Error).is_ok());
        let missing = Table::read("/nonexistent/t.csv", OnMiss::Error).unwrap_err().to_string();
        assert!(missing.contains("/nonexistent/t.csv") && missing.contains("cannot be read"));
    }

    #[test]
    fn one_table_in_many_dialects() {
        let plain = "bits,accuracy_percent\n2-2,92.0\n2-4,93.5\n4-4,98.0\n";
        let entries = |table: &Table| {
            table.iter().map(|(bits, accuracy)| (bits.clone(), accuracy)).collect::<Vec<_>>()
        };
        let expected = entries(&read(plain, OnMiss::Error).unwrap());
        for text in [
            "bits;accuracy_percent\n2-2;92,0\n2-4;93,5\n4-4;98,0\n",
            "bits,accuracy_percent\n2-2,92.0%\n2-4,93.5 %\n4-4,98%\n",
            "bits,accuracy_percent\n\"[2, 2]\",92.0\n\"[2, 4]\",93.5\n\"[4, 4]\",98.0\n",
            "Accuracy Percent\tBits\n92\t2 2\n93,5\t2.0 4.0\n98\t4-4\n",
            "bits,accuracy\n2-2,0.92\n2-4,0.935\n4-4,98%\n",
        ] {
            let table = read(text, OnMiss::Error).unwrap_or_else(|error| panic!("{text}: {error}"));
            for ((bits, accuracy), (expected_bits, expected)) in
                entries(&table).iter().zip(&expected)
            {
                assert_eq!(bits, expected_bits, "{text}");
                assert!((accuracy - expected).abs() < 1e-12, "{text}: {accuracy}");
            }
            assert_eq!(table.len(), 3);
        }
    }

    #[test]
    fn shares_are_not_taken_for_percentages() {
        let message = |text: &str| read(text, OnMiss::Error).unwrap_err().to_string();
        for column in ["0.92\n4-4,0.98", "1\n4-4,0.5", "0.5\n4-4,92%"] {
            let message = message(&format!("bits,accuracy_percent\n2-2,{column}\n"));
            assert!(message.contains("rename the column to `accuracy`"), "{message}");
        }
        for (column, expected) in [
            ("0.92\n4-4,98", "has `0.92` in line 2 and `98` in line 3"),
            ("98\n4-4,0.92", "has `0.92` in line 3 and `98` in line 2"),
            ("98\n4-4,1\n8-8,0.5", "has `1` in line 3 and `98` in line 2"),
        ] {
            let message = message(&format!("bits,accuracy_percent\n2-2,{column}\n"));
            assert!(message.contains(expected) && message.contains("t.csv"), "{message}");
        }
        // A sign says what the number is, and 0 is 0.
        for column in ["0.92%\n4-4,0.98 %", "0.5%\n4-4,92", "0\n4-4,92", "1.5\n4-4,1.2"] {
            let text = format!("bits,accuracy_percent\n2-2,{column}\n");
            assert!(read(&text, OnMiss::Error).is_ok(), "{text}");
        }
        let table = read("bits,accuracy_percent\n2-2,92\n", OnMiss::Error).unwrap();
        let message = table.clone().with_full_precision(0.0098).unwrap_err().to_string();
        assert!(message.contains("0.98 %") && message.contains("92 %"), "{message}");
        assert!(table.clone().with_full_precision(0.98).is_ok());
        for bad in [0.0, -0.5, 1.5, f64::NAN, f64::INFINITY] {
            assert!(table.clone().with_full_precision(bad).is_err(), "{bad}");
        }
    }
}
