//! Tables from outside: comma-separated values as spreadsheets and programs write them.
//!
//! The columns are separated by commas, semicolons, tabs or vertical bars, whichever separates the columns that are
//! asked for. Names of columns may differ in case, and have spaces or hyphens for underscores. Cells may be quoted.

use std::path::{Path, PathBuf};

use csv::{Position, ReaderBuilder, StringRecord, Trim};

use crate::{
    StandIn,
    text::{self, TextError},
};

/// What may separate columns; where several do equally well, the first.
const SEPARATORS: [u8; 4] = *b",;\t|";

/// A table of text.
#[derive(Clone, Debug)]
pub struct TextTable {
    path: PathBuf,
    columns: Vec<String>,
    rows: Vec<(u64, StringRecord)>,
}

/// One row of a [`TextTable`].
#[derive(Clone, Copy, Debug)]
pub struct TextRow<'t> {
    table: &'t TextTable,
    line: u64,
    record: &'t StringRecord,
}

impl TextTable {
    /// Reads the table in a file, which must have the columns `required`, in any order.
    ///
    /// # Errors
    /// [`TextError`] if the file cannot be read as text, lacks a column or has it twice, or has a row with more
    /// or fewer values than the header.
    pub fn read(path: impl AsRef<Path>, required: &[&str]) -> Result<Self, TextError> {
        let path = path.as_ref();
        Self::parse(&text::read(path)?, path, required)
    }

    /// As [`read`](Self::read), of text that was read from `path`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    ///
    /// # Examples
    /// ```
    /// use releq_core::tables::TextTable;
    ///
    /// let table = TextTable::parse("Bits;Accuracy Percent\n2-2;92,5\n", "t.csv", &["bits"])?;
    /// let row = table.rows().next().ok_or("no row")?;
    /// assert_eq!(row.decimal("accuracy_percent")?, 92.5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn parse(
        text: &str,
        path: impl Into<PathBuf>,
        required: &[&str],
    ) -> Result<Self, TextError> {
        let path = path.into();
        if text.trim().is_empty() {
            return Err(TextError::new(path, 0, StandIn::Nothing.to_string()));
        }
        let (separators, text, skipped) = declared_separator(text);
        let header = |separator: u8| -> Result<Vec<String>, TextError> {
            let mut reader = reader(text, separator);
            let header = reader.headers().map_err(|error| unreadable(&path, skipped, &error))?;
            Ok(header.iter().map(plain_name).collect())
        };
        let mut best: Option<(usize, usize, u8, Vec<String>)> = None;
        for &separator in separators {
            let columns = header(separator)?;
            let found = required.iter().filter(|name| columns.iter().any(|c| c == *name)).count();
            if best.as_ref().is_none_or(|&(most, width, ..)| (found, columns.len()) > (most, width))
            {
                best = Some((found, columns.len(), separator, columns));
            }
        }
        let (separator, columns) = match best {
            Some((_, _, separator, columns)) => (separator, columns),
            None => (b',', Vec::new()),
        };
        for &name in required {
            match columns.iter().filter(|column| *column == name).count() {
                0 => return Err(missing(&path, &columns, name)),
                1 => {}
                count => {
                    let reason = format!("column `{name}` is there {count} times");
                    return Err(TextError::new(path, skipped + 1, reason));
                }
            }
        }
        let mut rows = Vec::new();
        for record in reader(text, separator).records() {
            let record = record.map_err(|error| unreadable(&path, skipped, &error))?;
            let line = skipped + record.position().map_or(0, Position::line);
            // Spreadsheets end a table with rows of empty cells.
            if record.iter().all(str::is_empty) {
                continue;
            }
            let further = record.iter().skip(columns.len()).any(|cell| !cell.is_empty());
            if further || record.len() < columns.len() {
                let mut reason = format!("{} values for {} columns", record.len(), columns.len());
                if separator == b',' && record.len() > columns.len() {
                    reason += "; if one of the commas is not between columns, quote that value, or \
                               separate the columns by semicolons";
                }
                return Err(TextError::new(path, line, reason));
            }
            rows.push((line, record));
        }
        Ok(Self { path, columns, rows })
    }

    /// Whether the table in `text` has a column of this name, whatever separates its columns: for files that may be tables
    /// or something else.
    ///
    /// ```
    /// # use releq_core::tables::TextTable;
    /// assert!(TextTable::is_one_with("sep=;\n\"Index\";\"name\"\n0;cat\n", "index"));
    /// assert!(!TextTable::is_one_with("cat\ndog\n", "index"));
    /// ```
    #[must_use]
    pub fn is_one_with(text: &str, column: &str) -> bool {
        let (separators, text, _) = declared_separator(text);
        separators.iter().any(|&separator| {
            let mut reader = reader(text, separator);
            let header = reader.headers();
            header.is_ok_and(|header| header.iter().any(|name| plain_name(name) == column))
        })
    }

    /// The rows below the header.
    pub fn rows(&self) -> impl Iterator<Item = TextRow<'_>> {
        self.rows.iter().map(|(line, record)| TextRow { table: self, line: *line, record })
    }

    /// Whether there is a column of this name.
    #[must_use]
    pub fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|name| name == column)
    }

    /// The error that there is no column of this name.
    #[must_use]
    pub fn missing(&self, column: &str) -> TextError {
        missing(&self.path, &self.columns, column)
    }

    /// An error about the table as a whole.
    #[must_use]
    pub fn error(&self, reason: impl Into<String>) -> TextError {
        TextError::new(&self.path, 0, reason)
    }
}

impl<'t> TextRow<'t> {
    /// Its line in the file, from 1.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The value in a column, if there is the column and a value.
    #[must_use]
    pub fn find(&self, column: &str) -> Option<&'t str> {
        let index = self.table.columns.iter().position(|name| name == column)?;
        self.record.get(index).filter(|text| !text.is_empty())
    }

    /// The values in all columns but this one.
    pub fn others(&self, column: &str) -> impl Iterator<Item = &'t str> {
        let columns = self.table.columns.iter().zip(self.record);
        columns.filter(move |(name, _)| *name != column).map(|(_, value)| value)
    }

    /// The value in a column; empty where there is none.
    ///
    /// # Errors
    /// [`TextError`] if there is no such column, or if there are several with different values.
    pub fn text(&self, column: &str) -> Result<&'t str, TextError> {
        let columns = self.table.columns.iter().zip(self.record);
        let mut values = columns.filter(|(name, _)| *name == column).map(|(_, value)| value);
        let Some(value) = values.next() else { return Err(self.table.missing(column)) };
        if let Some(other) = values.find(|other| *other != value) {
            let reason = format!("it is there several times, with `{value}` and `{other}`");
            return Err(self.error(column, reason));
        }
        Ok(value)
    }

    /// The number in a column, with a decimal point or a decimal comma.
    ///
    /// # Errors
    /// [`TextError`] if there is no finite number.
    pub fn decimal(&self, column: &str) -> Result<f64, TextError> {
        let text = self.text(column)?;
        text::decimal(text)
            .ok_or_else(|| self.error(column, format!("expected a number, got `{text}`")))
    }

    /// The whole number in a column; `3.0` is one, too.
    ///
    /// # Errors
    /// [`TextError`] if there is no whole number.
    pub fn whole(&self, column: &str) -> Result<u64, TextError> {
        let text = self.text(column)?;
        text::whole(text).ok_or_else(|| {
            let reason =
                format!("expected a whole number without thousands separators, got `{text}`");
            self.error(column, reason)
        })
    }

    /// An error about the value in a column of this row.
    #[must_use]
    pub fn error(&self, column: &str, reason: impl AsRef<str>) -> TextError {
        self.row_error(format!("column `{column}`: {}", reason.as_ref()))
    }

    /// An error about this row.
    #[must_use]
    pub fn row_error(&self, reason: impl Into<String>) -> TextError {
        TextError::new(&self.table.path, self.line, reason)
    }
}

/// The separators to try, the text of the table, and the number of lines before it: a first line `sep=;` is an
/// instruction to Excel.
fn declared_separator(text: &str) -> (&[u8], &str, u64) {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    match first.trim_end_matches('\r').as_bytes() {
        [b's' | b'S', b'e' | b'E', b'p' | b'P', b'=', separator @ ..] if separator.len() == 1 => {
            (separator, rest, 1)
        }
        _ => (&SEPARATORS, text, 0),
    }
}

fn reader(text: &str, separator: u8) -> csv::Reader<&[u8]> {
    let mut builder = ReaderBuilder::new();
    builder.delimiter(separator).trim(Trim::All).flexible(true).from_reader(text.as_bytes())
}

/// The name of a column as it is asked for.
fn plain_name(name: &str) -> String {
    name.trim().to_lowercase().replace([' ', '-'], "_")
}

fn unreadable(path: &Path, skipped: u64, error: &csv::Error) -> TextError {
    let line = error.position().map_or(0, Position::line);
    TextError::new(path, if line == 0 { 0 } else { line + skipped }, error.to_string())
}

/// Columns that an error lists.
const MOST_SHOWN: usize = 20;

fn missing(path: &Path, columns: &[String], column: &str) -> TextError {
    let (shown, more) = columns.split_at(columns.len().min(MOST_SHOWN));
    let there = match (shown, more.len()) {
        ([], _) => "nothing".to_owned(),
        (shown, 0) => shown.join(", "),
        (shown, more) => format!("{} and {more} more", shown.join(", ")),
    };
    TextError::new(path, 1, format!("no column `{column}`; the header has {there}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<TextTable, TextError> {
        TextTable::parse(text, "t.csv", &["bits", "accuracy"])
    }

    #[test]
    fn every_dialect_is_the_same_table() {
        for text in [
            "bits,accuracy\n2-2,92.5\n\n4-4,93.5\n",
            "bits;accuracy\n2-2;92,5\n4-4;93,5\n",
            "sep=;\r\nbits;accuracy\r\n2-2;92,5\r\n4-4;93,5\r\n",
            "bits\taccuracy\n2-2\t92.5\n4-4\t93,5\n",
            "bits,accuracy\n2-2,92.5,\n4-4,93.5,,\n",
            "Bits | ACCURACY \n2-2 | 92.5\n4-4 | 93.5",
            "accuracy,note,bits\n\"92,5\",\"a,b\",\"2-2\"\n93.5,,4-4\n,,\n",
            // The most columns are not the right ones.
            "bits,accuracy,a;b;c;d;e\n2-2,92.5,\n4-4,93.5,\n",
        ] {
            let table = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let row = |row: TextRow<'_>| {
                (row.text("bits").unwrap().to_owned(), row.decimal("accuracy").unwrap())
            };
            let rows: Vec<_> = table.rows().map(row).collect();
            assert_eq!(rows, [("2-2".to_owned(), 92.5), ("4-4".to_owned(), 93.5)], "{text}");
        }
        let named = TextTable::parse("Accuracy-Percent\n1\n", "t.csv", &["accuracy_percent"]);
        assert!(named.is_ok());
    }

    #[test]
    fn errors_name_file_line_and_column() {
        let check = |text: &str, expected: &str| {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(expected), "`{message}` lacks `{expected}`");
        };
        check("", "t.csv: is empty; fetch it again");
        check("\n \n", "t.csv: is empty");
        check(";\n", "t.csv, line 1: no column `bits`; the header has");
        check("a;b\n", "no column `bits`; the header has a, b");
        check(&format!("{}z\n", "a;".repeat(60)), "the header has a, a, a");
        check(&format!("{}z\n", "a;".repeat(60)), "a and 41 more");
        check("bits,Bits,accuracy\n", "line 1: column `bits` is there 2 times");
        check("bits,accuracy\n2-2\n", "t.csv, line 2: 1 values for 2 columns");
        check("bits,accuracy\n2-2,92.5\n4-4,93,5\n", "line 3: 3 values for 2 columns; if one of");

        // A column that need not be there may be there several times, if that changes nothing.
        let several = parse("bits,accuracy,MACs,macs\n2-2,92.5,7,7\n4-4,93.5,7,8\n").unwrap();
        let macs: Vec<_> = several.rows().map(|row| row.whole("macs")).collect();
        assert_eq!(macs[0].as_ref().unwrap(), &7);
        let message = macs[1].as_ref().unwrap_err().to_string();
        assert!(
            message.contains("line 3: column `macs`: it is there several times, with `7` and `8`")
        );

        let table = parse("sep=,\nbits,accuracy,size\n2-2,x,3.5\n").unwrap();
        let row = table.rows().next().unwrap();
        let message = |result: Result<u64, TextError>| result.unwrap_err().to_string();
        let decimal = row.decimal("accuracy").map(|_| 0);
        assert_eq!(
            message(decimal),
            "t.csv, line 3: column `accuracy`: expected a number, got `x`"
        );
        assert!(message(row.whole("size")).contains("line 3: column `size`: expected a whole"));
        assert!(message(row.whole("depth")).contains("no column `depth`; the header has bits, a"));
        assert_eq!(table.error("bad").to_string(), "t.csv: bad");
    }
}
