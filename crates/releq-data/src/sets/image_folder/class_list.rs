//! Which number each class has, where the order of folders does not say it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
};

use releq_core::{
    tables::TextTable,
    text::{self, TextError},
};
use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

use crate::{DataError, Label};

/// Numbers of classes by their names.
pub(super) struct ClassList {
    /// By number; empty for a number that nothing is said of.
    pub(super) names: Vec<String>,
    /// `None` for a name that several classes have.
    numbers: HashMap<String, Option<Label>>,
}

impl ClassList {
    /// Reads a list in one of the forms in which they come with networks: a table with a column `index`, whose other
    /// columns are names; JSON, of numbers by names or of names by numbers; or one name on each line, in the order of the
    /// numbers.
    pub(super) fn read(path: &Path) -> Result<Self, DataError> {
        let text = text::read(path)?;
        let mut list = Self { names: Vec::new(), numbers: HashMap::new() };
        let json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        let header = text.lines().next().unwrap_or_default().to_lowercase();
        let is_table = header.split([',', ';', '\t', '|']).any(|name| name.trim() == "index");
        if json {
            list.json(path, &text)?;
        } else if is_table {
            list.table(path, &text)?;
        } else {
            for (index, line) in text.lines().map(str::trim).enumerate() {
                // WordNet's lists have the description after the number of the class.
                let first = line.split_whitespace().next();
                list.add(path, index as u64, [line].into_iter().chain(first))?;
            }
        }
        if list.names.is_empty() {
            return Err(TextError::new(path, 0, "lists no class").into());
        }
        Ok(list)
    }

    fn table(&mut self, path: &Path, text: &str) -> Result<(), DataError> {
        let table = TextTable::parse(text, path, &["index"])?;
        for row in table.rows() {
            let names = row.others("index");
            self.add(path, row.whole("index")?, names)?;
        }
        Ok(())
    }

    fn json(&mut self, path: &Path, text: &str) -> Result<(), DataError> {
        let wrong = |reason: String| DataError::from(TextError::new(path, 0, reason));
        let value: Value = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let entries: Vec<(String, Value)> = match value {
            Value::Object(map) => map.into_iter().collect(),
            Value::Array(names) => names
                .into_iter()
                .enumerate()
                .map(|(index, name)| (index.to_string(), name))
                .collect(),
            _ => return Err(wrong("expected an object or an array".into())),
        };
        for (key, value) in &entries {
            // `{"cat": 0}`, `{"0": "cat"}` or `{"0": ["n02123045", "tabby"]}`.
            let (index, names) = match value {
                Value::Number(number) => (number.as_u64(), vec![key.as_str()]),
                Value::String(name) => (key.parse().ok(), vec![name.as_str()]),
                Value::Array(names) => {
                    (key.parse().ok(), names.iter().filter_map(Value::as_str).collect())
                }
                _ => (None, Vec::new()),
            };
            let index = index.ok_or_else(|| {
                wrong(format!("`{key}`: expected the number of a class and its name"))
            })?;
            self.add(path, index, names)?;
        }
        Ok(())
    }

    fn add<'a>(
        &mut self,
        path: &Path,
        index: u64,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), DataError> {
        let Ok(number) = Label::try_from(index) else {
            let reason = format!("class {index}: the largest number of a class is {}", Label::MAX);
            return Err(TextError::new(path, 0, reason).into());
        };
        let place = usize::from(number);
        if self.names.len() <= place {
            self.names.resize(place + 1, String::new());
        }
        for name in names.into_iter().filter(|name| !name.is_empty()) {
            let name: String = name.nfc().collect();
            if self.names[place].is_empty() {
                self.names[place].clone_from(&name);
            }
            let known = self.numbers.entry(name).or_insert(Some(number));
            if *known != Some(number) {
                *known = None;
            }
        }
        Ok(())
    }

    /// The number of every name, in order.
    ///
    /// # Errors
    /// The first name that the list lacks, or has for several classes.
    pub(super) fn numbers(&self, path: &Path, names: &[String]) -> Result<Vec<Label>, DataError> {
        let number = |name: &String| match self.numbers.get(name) {
            Some(Some(number)) => Ok(*number),
            Some(None) => Err(format!("`{name}` is the name of several classes")),
            None => Err(format!("there is no class `{name}`")),
        };
        let numbers: Result<_, String> = names.iter().map(number).collect();
        numbers.map_err(|reason| TextError::new(path, 0, reason).into())
    }
}

/// What to say where the list at `path` gives several of `names` one number, which joins their classes; one's mistake as
/// often as one's purpose.
pub(super) fn joined(path: &Path, names: &[String], numbers: &[Label]) -> Option<String> {
    let mut by_number: BTreeMap<Label, BTreeSet<&str>> = BTreeMap::new();
    for (name, &number) in names.iter().zip(numbers) {
        by_number.entry(number).or_default().insert(name);
    }
    by_number.retain(|_, names| names.len() > 1);
    let (number, names) = by_number.first_key_value()?;
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    let more = match by_number.len() - 1 {
        0 => String::new(),
        more => format!(", and so on for {more} more"),
    };
    Some(format!("{} gives {} one number, {number}{more}", path.display(), names.join(" and ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(file: &str, text: &str, names: &[&str]) -> Result<(usize, Vec<Label>), DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file);
        std::fs::write(&path, text).unwrap();
        let list = ClassList::read(&path)?;
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        Ok((list.names.len(), list.numbers(&path, &names)?))
    }

    #[test]
    fn every_usual_form_gives_the_same_numbers() {
        for (file, text) in [
            ("list.csv", "index,wnid,name\n0,n1,tench\n2,n3,shark\n1,n2,\"goldfish, gold\"\n"),
            ("list.csv", "wnid;index\nn3;2\nn1;0\nn2;1\n"),
            ("list.txt", "n1\nn2\r\nn3\n"),
            ("list.txt", "n1 tench, Tinca tinca\nn2 goldfish\nn3 great white shark\n"),
            ("list.json", r#"{"n2": 1, "n1": 0, "n3": 2}"#),
            ("list.json", r#"{"0": ["n1", "tench"], "1": ["n2", "fish"], "2": ["n3", "fish"]}"#),
            ("list.json", r#"["n1", "n2", "n3"]"#),
        ] {
            let got = numbers(file, text, &["n3", "n1"]).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(got, (3, vec![2, 0]), "{text}");
        }
    }

    #[test]
    fn what_is_missing_or_ambiguous_is_named() {
        for (file, text, expected) in [
            ("list.txt", "cat\ndog\n", "there is no class `crane`"),
            ("list.txt", "crane\ncat\ncrane\n", "`crane` is the name of several classes"),
            ("list.txt", "", "lists no class"),
            ("list.csv", "index,name\nzero,crane\n", "expected a whole number"),
            ("list.csv", "index,name\n70000,crane\n", "the largest number of a class is 65535"),
            ("list.json", r#"{"crane": "cat"}"#, "`crane`: expected the number of a class"),
            ("list.json", "7", "expected an object or an array"),
            ("list.json", "{", "EOF"),
        ] {
            let message = numbers(file, text, &["crane"]).unwrap_err().to_string();
            assert!(message.contains(expected), "`{message}` lacks `{expected}`");
            assert!(message.contains("list."), "{message}");
        }
    }
}
