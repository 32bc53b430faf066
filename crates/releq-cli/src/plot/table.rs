//! The numbers of a figure as CSV.

use csv::WriterBuilder;

/// Rows under a header.
#[derive(Debug)]
pub(crate) struct Table {
    writer: csv::Writer<Vec<u8>>,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new<T: AsRef<str>>(columns: impl IntoIterator<Item = T>) -> Self {
        let mut table =
            Self { writer: WriterBuilder::new().flexible(true).from_writer(Vec::new()) };
        table.row(columns);
        table
    }

    /// Adds a row.
    pub(crate) fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        let cells = cells.into_iter().map(|cell| cell.as_ref().to_owned().into_bytes());
        // Writing to memory does not fail, and rows may differ in length.
        let _ = self.writer.write_record(cells);
    }

    /// The whole as text.
    pub(crate) fn text(self) -> String {
        let bytes = self.writer.into_inner().unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    }
}

/// A number, or nothing where there is none.
pub(crate) fn number(value: impl Into<Option<f64>>) -> String {
    value.into().filter(|value| value.is_finite()).map_or_else(String::new, |v| v.to_string())
}
