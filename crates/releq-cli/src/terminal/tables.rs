//! Tables that fit the terminal.

use std::io::{IsTerminal, stdout};

use comfy_table::{
    Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets,
};
use unicode_width::UnicodeWidthStr;

/// Columns where standard output is no terminal.
const WIDTH: u16 = 80;

/// Narrower terminals get lines that wrap.
const NARROWEST: u16 = 40;

/// Characters that a line on standard output may have.
#[must_use]
pub fn width() -> u16 {
    let terminal = if stdout().is_terminal() { terminal_size::terminal_size() } else { None };
    terminal.map_or(WIDTH, |(width, _)| width.0.max(NARROWEST))
}

/// Whether standard output may have escape sequences: it is a terminal, and `NO_COLOR` is not set.
fn styled() -> bool {
    stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A table without lines.
#[must_use]
pub fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    fit(&mut table);
    table
}

/// A table with lines and a header.
#[must_use]
pub fn framed(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header);
    fit(&mut table);
    table
}

fn fit(table: &mut Table) {
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width());
    if !styled() {
        table.force_no_tty();
    }
}

/// Longest word that a column is made wide enough for; names of layers and bits of a long network break.
const LONGEST_WORD: usize = 20;

/// Lets no column become narrower than its longest word: a table that is too wide is easier to read than broken words.
pub(crate) fn keep_words(table: &mut Table) {
    let longest = |cell: &Cell| {
        cell.content().split_whitespace().map(UnicodeWidthStr::width).max().unwrap_or(0)
    };
    let rows: Vec<Vec<usize>> = table
        .header()
        .into_iter()
        .chain(table.row_iter())
        .map(|row| row.cell_iter().map(longest).collect())
        .collect();
    for (index, column) in table.column_iter_mut().enumerate() {
        let widest = rows.iter().filter_map(|row| row.get(index)).max().copied().unwrap_or(0);
        let width = u16::try_from(widest.min(LONGEST_WORD)).unwrap_or(0) + column.padding_width();
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
    }
}

/// A table as text, without spaces at the ends of lines.
#[must_use]
pub fn text(table: &Table) -> String {
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

/// A cell at the right.
pub fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// Tables below each other, each with the `fixed` columns and as many of the others, which are numbers, as fit. A
/// column begins with its header.
#[must_use]
pub fn side_by_side(fixed: &[Vec<String>], columns: &[Vec<String>]) -> String {
    below_each_other(fixed, columns, usize::from(width()))
}

fn below_each_other(fixed: &[Vec<String>], columns: &[Vec<String>], width: usize) -> String {
    let mut tables = Vec::new();
    let mut rest = columns;
    while !rest.is_empty() {
        let widest = |text: &str| text.lines().map(|line| line.chars().count()).max();
        let fits = |count: &usize| widest(&table_of(fixed, &rest[..*count])) <= Some(width);
        // One column has to go somewhere, however wide.
        let count = (1..=rest.len()).take_while(fits).last().unwrap_or(1);
        tables.push(table_of(fixed, &rest[..count]));
        rest = &rest[count..];
    }
    tables.join("\n\n")
}

fn table_of(fixed: &[Vec<String>], columns: &[Vec<String>]) -> String {
    let all: Vec<&Vec<String>> = fixed.iter().chain(columns).collect();
    let row =
        |index: usize| all.iter().map(move |column| column.get(index).cloned().unwrap_or_default());
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(row(0));
    for index in 1..all.iter().map(|column| column.len()).max().unwrap_or(0) {
        table.add_row(row(index));
    }
    for column in table.column_iter_mut().skip(fixed.len()) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    text(&table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_do_not_fit_stand_in_a_table_below() {
        let column = |name: &str| vec![name.to_owned(), "1".to_owned(), "22".to_owned()];
        let fixed = [column("layer")];
        let columns: Vec<_> = ["first", "second", "third", "fourth"].map(column).into();
        for (width, expected) in [(80, 1), (30, 2), (24, 2), (20, 4), (12, 4), (1, 4)] {
            let text = below_each_other(&fixed, &columns, width);
            let headers = text.lines().filter(|line| line.contains("layer")).count();
            assert_eq!(headers, expected, "{width}:\n{text}");
            for name in ["first", "second", "third", "fourth"] {
                assert!(text.contains(name), "{text}");
            }
            if width > 15 {
                assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
            }
        }
        assert_eq!(below_each_other(&fixed, &[], 80), "");
    }
}
