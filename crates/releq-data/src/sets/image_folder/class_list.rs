//! Which number each class has, where the order of folders does not say it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    path::Path,
};

use releq_core::{
    tables::TextTable,
    text::{self, TextError},
};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

use crate::{DataError, Label};

/// Words of a header over names of classes.
const HEADER: [&str; 5] = ["class", "classes", "name", "label", "labels"];
/// Words of a header over their numbers.
const NUMBERS: [&str; 3] = ["index", "id", "number"];

/// Numbers of classes by their names.
pub(super) struct ClassList {
    /// By number; empty for a number that nothing is said of.
    pub(super) names: Vec<String>,
    /// `None` for a name that several classes have.
    numbers: HashMap<String, Option<Label>>,
}

impl ClassList {
    /// Reads a list in one of the forms in which they come with networks: a table with a column `index`, whose other
    /// columns are names; JSON, of numbers by names or of names by numbers; or one name on each line, with its number before
    /// or after it on every line, or else in the order of the numbers.
    pub(super) fn read(path: &Path) -> Result<Self, DataError> {
        let text = text::read(path)?;
        let mut list = Self { names: Vec::new(), numbers: HashMap::new() };
        let json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        if json {
            list.json(path, &text)?;
        } else if TextTable::is_one_with(&text, "index") {
            list.table(path, &text)?;
        } else {
            list.lines(path, &text)?;
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

    /// One class on each line.
    fn lines<'a>(&mut self, path: &Path, text: &'a str) -> Result<(), DataError> {
        let lines: Vec<&'a str> = text.trim_end().lines().map(str::trim).collect();
        if let [first, _, ..] = lines.as_slice()
            && is_header(first)
        {
            let reason = format!(
                "`{first}` seems to be a header, which would be class 0: remove it; for a class of that name, or numbers in a \
                 column of their own, write a table with a column `index`"
            );
            return Err(TextError::new(path, 1, reason).into());
        }
        let after = |line: &'a str| {
            let (name, number) = line.rsplit_once(char::is_whitespace)?;
            Some((text::whole(number)?, name, line))
        };
        // Larger ones are no numbers of classes, but names of another kind.
        let before = |line: &'a str| {
            let (number, name) = line.split_once(char::is_whitespace)?;
            let number = text::whole(number).filter(|&number| number <= Label::MAX.into())?;
            Some((number, name, line))
        };
        let all = |read: &dyn Fn(&'a str) -> Option<(u64, &'a str, &'a str)>| {
            let lines = lines.iter().filter(|line| !line.is_empty());
            lines.map(|line| read(line)).collect::<Option<Vec<_>>>()
        };
        let in_order = || (0..).zip(&lines).map(|(number, line)| (number, *line, *line)).collect();
        let classes = all(&after).or_else(|| all(&before)).unwrap_or_else(in_order);
        // WordNet's lists have the description after the number of the class.
        let mut first_words: HashMap<&str, Option<u64>> = HashMap::new();
        for (number, name, line) in classes {
            self.add(path, number, [name.trim()])?;
            for word in [name, line].into_iter().filter_map(|text| text.split_whitespace().next()) {
                let known = first_words.entry(word).or_insert(Some(number));
                *known = known.filter(|known| *known == number);
            }
        }
        // A whole line means more than the first word of another: `sea`, and `sea lion`.
        let whole: HashSet<String> = self.numbers.keys().cloned().collect();
        for (word, number) in first_words {
            let word: String = word.nfc().collect();
            if !whole.contains(&word) {
                let number = number.and_then(|number| Label::try_from(number).ok());
                self.numbers.insert(word, number);
            }
        }
        Ok(())
    }

    fn json(&mut self, path: &Path, text: &str) -> Result<(), DataError> {
        let wrong = |reason: String| DataError::from(TextError::new(path, 0, reason));
        let Entries(entries) =
            serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        for (key, value) in &entries {
            // `{"cat": 0}`, `{"0": "cat"}`, `{"cat": "0"}` or `{"0": ["n02123045", "tabby"]}`.
            let (index, names) = match value {
                // Written by pandas or JavaScript, it may be `0.0`.
                Value::Number(number) => (text::whole(&number.to_string()), vec![key.as_str()]),
                Value::String(name) => match text::whole(key) {
                    None => (text::whole(name), vec![key.as_str()]),
                    index => (index, vec![name.as_str()]),
                },
                Value::Array(names) => {
                    (text::whole(key), names.iter().filter_map(Value::as_str).collect())
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

/// Whether a line is the header of a list.
fn is_header(line: &str) -> bool {
    let is_end = |letter: char| letter.is_whitespace() || ",;|".contains(letter);
    let words = line.split(is_end).map(|word| word.trim_matches('"').to_lowercase());
    let words: Vec<String> = words.filter(|word| !word.is_empty()).collect();
    let mut has_name = false;
    let all = words.iter().all(|word| {
        let is_name = HEADER.contains(&word.as_str());
        has_name |= is_name;
        is_name || NUMBERS.contains(&word.as_str())
    });
    all && has_name
}

/// What is in JSON, in order; items of an array have their places for keys.
struct Entries(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entry;

        impl<'de> Visitor<'de> for Entry {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or an array")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let (mut entries, mut seen) = (Vec::new(), HashSet::new());
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    // Of two numbers, either may be meant.
                    if !seen.insert(key.clone()) {
                        return Err(A::Error::custom(format!("`{key}` is there twice")));
                    }
                    entries.push((key, value));
                }
                Ok(Entries(entries))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(item) = items.next_element()? {
                    entries.push((entries.len().to_string(), item));
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_any(Entry)
    }
}

/// Names of the classes in a list of them, as [`ImageFolderConfig::class_list`](super::ImageFolderConfig::class_list) takes
/// it: by number, and empty for a number that it says nothing of. Where a class has several names, the first.
///
/// # Errors
/// [`DataError::Text`] if it cannot be read.
pub fn listed_classes(path: &Path) -> Result<Vec<String>, DataError> {
    Ok(ClassList::read(path)?.names)
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
            ("list.csv", "\"index\",\"name\"\n\"0\",\"n1\"\n\"2\",\"n3\"\n\"1\",\"n2\"\n"),
            ("list.csv", "sep=;\r\nindex;name\r\n1;n2\r\n0;n1\r\n2.0;n3\r\n"),
            ("list.txt", "n3 2\nn1 0\nn2 1\n\n"),
            ("list.txt", "n3\t2\nn1 \t 0.0\nn2, fish\t1\n"),
            ("list.txt", "2\tn3\n0 n1 tench\n1 n2\n"),
            ("list.json", r#"{"n1": 0.0, "n2": 1.0, "n3": 2.0}"#),
            ("list.json", r#"{"n1": "0", "n2": "1", "n3": "2"}"#),
        ] {
            let got = numbers(file, text, &["n3", "n1"]).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(got, (3, vec![2, 0]), "{text}");
        }
    }

    #[test]
    fn a_whole_line_means_more_than_the_first_word_of_another() {
        for text in ["sea lion\nsea\nsea cow\nox\n", "sea\t1\nsea cow\t2\nsea lion\t0\nox\t3\n"] {
            let got = numbers("list.txt", text, &["sea", "sea lion", "sea cow", "ox"]).unwrap();
            assert_eq!(got, (4, vec![1, 0, 2, 3]), "{text}");
        }
        // As a first word alone it may be either, but whole lines are as clear as ever.
        let text = "sea lion\nsea cow\n";
        assert_eq!(numbers("list.txt", text, &["sea cow"]).unwrap().1, [1]);
        let message = numbers("list.txt", text, &["sea"]).unwrap_err().to_string();
        assert!(message.contains("`sea` is the name of several classes"), "{message}");
    }

    #[test]
    fn names_that_end_with_a_number_are_names_unless_all_do() {
        let text = "boeing 747\nspitfire\nboeing 737\n";
        assert_eq!(numbers("list.txt", text, &["boeing 737"]).unwrap(), (3, vec![2]));
        let got = numbers("list.txt", "cat 1\ndog 0\nkitten 1\n", &["cat", "kitten", "dog"]);
        assert_eq!(got.unwrap(), (2, vec![1, 1, 0]));
        // A number before the name may be that of the class and the name of its folder, or the latter alone.
        let text = "00002 stop\n00000 go\n00001 turn\n";
        assert_eq!(numbers("list.txt", text, &["00002", "turn"]).unwrap(), (3, vec![2, 1]));
        let text = "00070002 stop\n00000001 go\n";
        assert_eq!(numbers("list.txt", text, &["00000001"]).unwrap(), (2, vec![1]));
        // A single line is no header of anything.
        assert_eq!(numbers("list.txt", "Class\n", &["Class"]).unwrap(), (1, vec![0]));
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
            ("list.txt", "Classes\ncat\ncrane\n", "line 1: `Classes` seems to be a header"),
            ("list.txt", "label\ncrane\n", "remove it"),
            ("list.txt", "name id\ncrane 1\n", "line 1: `name id` seems to be a header"),
            ("list.txt", "\"name\",\"id\"\ncrane,1\n", "a table with a column `index`"),
            ("list.txt", "crane 0\ncrane 1\n", "`crane` is the name of several classes"),
            (
                "list.json",
                r#"{"crane": 0, "cat": 1, "crane": 2}"#,
                "`crane` is there twice at line 1",
            ),
            ("list.json", r#"{"crane": 0.5}"#, "`crane`: expected the number of a class"),
            ("list.json", r#"{"crane": -1}"#, "`crane`: expected the number of a class"),
            ("list.json", "7", "expected an object or an array"),
            ("list.json", "{", "EOF"),
        ] {
            let message = numbers(file, text, &["crane"]).unwrap_err().to_string();
            assert!(message.contains(expected), "`{message}` lacks `{expected}`");
            assert!(message.contains("list."), "{message}");
        }
    }
}
