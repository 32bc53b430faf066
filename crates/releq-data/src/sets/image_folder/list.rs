//! Images that a table lists, wherever they are.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use releq_core::{
    tables::{TextRow, TextTable},
    text::{self, TextError},
};

use super::{
    ImageFile, ImageFolder, ImageFolderConfig, LeftOut, LoadedImages,
    class_list::{ClassList, joined},
    listing::check_count,
    splits::FIFTH,
    test_fifth,
};
use crate::{DataError, ImageSet, Label, Splits, sets::exists};

/// Names of the column with the files, in order of preference.
const FILES: [&str; 4] = ["path", "file", "filename", "image"];
/// Names of the column with the classes.
const CLASSES: [&str; 2] = ["label", "class"];

/// Reads the images that a table lists. Its column `path` (or `file`, `filename`, `image`) has their files, within the
/// folder of the table or absolute. `label` (or `class`) has their classes, by number or by name; without that column,
/// they have no labels. `split` is `train` or `test` (`val`, `valid`, `validation`); without it, every fifth is a test image,
/// chosen at random but always the same. A file that does not exist is an image that does not decode. Columns that mean
/// the same must not say different things of an image.
///
/// # Errors
/// As [`ImageFolder::open`] and [`ImageFolder::load`], and [`DataError::Text`] for what is wrong with the table.
pub fn load_list(table: &Path, config: &ImageFolderConfig) -> Result<Splits, DataError> {
    let mut list = List::read(table, config)?;
    if !list.is_split {
        let (train, test) = test_fifth(list.load(false)?)?;
        list.source.push_str(FIFTH);
        return Ok(Splits { train, test, source: list.source });
    }
    let (train, test) = (list.load(false)?, list.load(true)?);
    Ok(Splits { train, test, source: list.source })
}

/// The test images of a table alone, and where they are from; it need not list any to train on. `None` where it does not
/// say which are to test on.
///
/// # Errors
/// As [`load_list`].
pub fn load_test_list(
    table: &Path,
    config: &ImageFolderConfig,
) -> Result<Option<(ImageSet, String)>, DataError> {
    let mut list = List::read(table, config)?;
    if !list.is_split {
        return Ok(None);
    }
    let test = list.load(true)?;
    Ok(Some((test, list.source)))
}

/// Names of the classes in a table; none where it has none, or only their numbers.
pub(crate) fn classes_of_list(
    table: &Path,
    config: &ImageFolderConfig,
) -> Result<Vec<String>, DataError> {
    let names = List::read(table, config)?.classes;
    let numbers = names.iter().enumerate().all(|(number, name)| *name == number.to_string());
    Ok(if numbers { Vec::new() } else { names })
}

/// The images that a table lists, before they are read.
struct List<'a> {
    table: &'a Path,
    config: &'a ImageFolderConfig,
    classes: Vec<String>,
    /// Every image, and whether it is one to test on.
    files: Vec<(ImageFile, bool)>,
    /// Whether the table says which images are to test on.
    is_split: bool,
    source: String,
}

impl<'a> List<'a> {
    fn read(table: &'a Path, config: &'a ImageFolderConfig) -> Result<Self, DataError> {
        config.check()?;
        exists(table)?;
        let rows = TextTable::read(table, &[])?;
        let path = column(&rows, &FILES).ok_or_else(|| rows.missing("path"))?;
        let is_split = rows.has("split");
        // One may be within the folder of the table, and the other within that of the class.
        let is_one_file = |a: &str, b: &str| Path::new(a).ends_with(b) || Path::new(b).ends_with(a);
        let mut images = Vec::new();
        for row in rows.rows() {
            let file = cell(&rows, &row, &FILES, is_one_file)?;
            if file.is_empty() {
                return Err(row.error(path, "names no file").into());
            }
            images.push((PathBuf::from(file), is_split && is_test(&row)?));
        }
        let Classes { names, of_rows, joined } = match column(&rows, &CLASSES) {
            Some(column) => classes(table, &rows, column, config)?,
            None => Classes { names: Vec::new(), of_rows: vec![0; images.len()], joined: None },
        };
        let unlabelled = if names.is_empty() { " without labels" } else { "" };
        let mut source = format!("images{unlabelled} listed in {}", table.display());
        if let Some(joined) = joined {
            source.push_str(&format!(", where {joined}"));
        }
        let listed = images.into_iter().zip(of_rows);
        let files = listed.map(|((path, is_test), class)| (ImageFile { path, class }, is_test));
        Ok(Self { table, config, classes: names, files: files.collect(), is_split, source })
    }

    /// The images to train on, which are all where nothing says which are to test on, or those to test on.
    fn load(&mut self, test: bool) -> Result<ImageSet, DataError> {
        let files = self.files.iter().filter(|(_, is_test)| *is_test == test);
        let files: Vec<ImageFile> = files.map(|(file, _)| file.clone()).collect();
        if files.is_empty() {
            let lacking = if test { "test" } else { "train" };
            let reason = format!("column `split`: no image is for `{lacking}`");
            return Err(TextError::new(self.table, 0, reason).into());
        }
        let folder = ImageFolder::listed(self.table, self.classes.clone(), files, self.config)?;
        let LoadedImages { images, skipped } = folder.load()?;
        if !skipped.is_empty() {
            self.source.push_str(&format!(", without {} that do not decode", skipped.len()));
        }
        Ok(images)
    }
}

/// Whether the classes of a list are numbers; names are numbered in their order.
///
/// # Errors
/// [`DataError::Text`] if the table cannot be read.
pub fn labels_are_numbers(table: &Path) -> Result<bool, DataError> {
    let rows = TextTable::read(table, &[])?;
    if column(&rows, &CLASSES).is_none() {
        return Ok(false);
    }
    for row in rows.rows() {
        if number(cell(&rows, &row, &CLASSES, is_one_class)?).is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The first of these columns that there is.
fn column(rows: &TextTable, names: &[&'static str]) -> Option<&'static str> {
    names.iter().copied().find(|name| rows.has(name))
}

/// What the first of these columns that says anything says of an image; all mean the same.
fn cell<'t>(
    rows: &TextTable,
    row: &TextRow<'t>,
    names: &[&'static str],
    is_same: impl Fn(&str, &str) -> bool,
) -> Result<&'t str, DataError> {
    let mut first: Option<(&str, &'t str)> = None;
    for &name in names.iter().filter(|name| rows.has(name)) {
        let cell = row.text(name)?;
        match first {
            _ if cell.is_empty() => {}
            None => first = Some((name, cell)),
            Some((_, known)) if is_same(known, cell) => {}
            Some((other, known)) => {
                let reason = format!(
                    "it is `{cell}`, but `{other}` is `{known}`; both mean the same, so leave the wrong column out"
                );
                return Err(row.error(name, reason).into());
            }
        }
    }
    Ok(first.map_or("", |(_, cell)| cell))
}

/// The number of a class; pandas writes it as `3.0` where an image has none.
fn number(cell: &str) -> Option<Label> {
    text::whole(cell).and_then(|number| Label::try_from(number).ok())
}

/// Whether two cells may be of one class. A number and a name are: one column has the numbers, the other what they stand for.
fn is_one_class(a: &str, b: &str) -> bool {
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a == b,
        (None, None) => a == b,
        _ => true,
    }
}

/// Whether a row says that it is a test image.
fn is_test(row: &TextRow<'_>) -> Result<bool, DataError> {
    let split = row.text("split")?;
    match split.to_lowercase().as_str() {
        "train" | "training" => Ok(false),
        "test" | "val" | "valid" | "validation" => Ok(true),
        _ => {
            let reason = format!("expected `train` or `test`, got `{split}`");
            Err(row.error("split", reason).into())
        }
    }
}

/// The classes of a table.
struct Classes {
    /// By number.
    names: Vec<String>,
    of_rows: Vec<Label>,
    /// Which names have one number.
    joined: Option<String>,
}

fn classes(
    table: &Path,
    rows: &TextTable,
    column: &str,
    config: &ImageFolderConfig,
) -> Result<Classes, DataError> {
    let cells: Result<Vec<&str>, DataError> = rows
        .rows()
        .map(|row| {
            let cell = cell(rows, &row, &CLASSES, is_one_class)?;
            let missing =
                || row.error(column, "the image has no label, but others have one").into();
            if cell.is_empty() { Err(missing()) } else { Ok(cell) }
        })
        .collect();
    let cells = cells?;
    if let Some(path) = &config.class_list {
        let names: Vec<String> = cells.iter().map(|&cell| cell.to_owned()).collect();
        let list = ClassList::read(path)?;
        let numbers = list.numbers(path, &names)?;
        let joined = joined(path, &names, &numbers);
        return Ok(Classes { names: list.names, of_rows: numbers, joined });
    }
    let numbers: Vec<Option<Label>> = cells.iter().map(|cell| number(cell)).collect();
    // Taken as names, numbers would be sorted as text, and stand for other classes.
    let odd = rows.rows().zip(&numbers).find(|(_, number)| number.is_none());
    if let Some((row, _)) = odd
        && numbers.iter().any(Option::is_some)
    {
        let reason = "it is no number of a class, as others are; leave the image out, or give every class its number by a \
                      list of classes (`class_list`)";
        return Err(row.error(column, reason).into());
    }
    if odd.is_none() {
        let numbers: Vec<Label> = numbers.into_iter().flatten().collect();
        let count = numbers.iter().max().map_or(0, |&largest| usize::from(largest) + 1);
        let names = (0..count).map(|number| number.to_string()).collect();
        return Ok(Classes { names, of_rows: numbers, joined: None });
    }
    let names: BTreeSet<&str> = cells.iter().copied().collect();
    check_count(table, names.len())?;
    let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    let place = |cell: &&str| names.binary_search_by(|name| name.as_str().cmp(cell)).ok();
    let labels = cells.iter().filter_map(place).filter_map(|place| Label::try_from(place).ok());
    let of_rows = labels.collect();
    Ok(Classes { names, of_rows, joined: None })
}

impl ImageFolder {
    /// The images of a list.
    fn listed(
        table: &Path,
        classes: Vec<String>,
        files: Vec<ImageFile>,
        config: &ImageFolderConfig,
    ) -> Result<Self, DataError> {
        Self::with_files(
            table.parent().unwrap_or(Path::new("")).to_owned(),
            table.display().to_string(),
            classes,
            files,
            LeftOut::default(),
            None,
            config,
        )
    }
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::*;
    use crate::{BadImages, Cache, Dataset};

    /// Ten images, each of one shade, and a table of them.
    fn listed(text: &str, class_list: Option<&str>) -> Result<Splits, DataError> {
        read(text, class_list, BadImages::Refuse, load_list)
    }

    /// What `load` makes of such a table.
    fn read<T>(
        text: &str,
        class_list: Option<&str>,
        bad_images: BadImages,
        load: fn(&Path, &ImageFolderConfig) -> Result<T, DataError>,
    ) -> Result<T, DataError> {
        let folder = tempfile::tempdir().unwrap();
        for shade in 0..10 {
            let image = RgbImage::from_pixel(3, 2, image::Rgb([shade; 3]));
            image.save(folder.path().join(format!("{shade}.png"))).unwrap();
        }
        let [table, list] = ["table.csv", "list.txt"].map(|name| folder.path().join(name));
        std::fs::write(&table, text).unwrap();
        if let Some(text) = class_list {
            std::fs::write(&list, text).unwrap();
        }
        let class_list = class_list.map(|_| list);
        let cache = Cache::Off;
        let config = ImageFolderConfig { cache, class_list, bad_images, ..Default::default() };
        load(&table, &config)
    }

    fn shades(images: &crate::ImageSet) -> Vec<(u8, Option<Label>)> {
        (0..images.len()).map(|i| (images.image(i)[0], Dataset::label(images, i))).collect()
    }

    #[test]
    fn rows_say_where_an_image_belongs() {
        let text =
            "path,label,split\n3.png,dog,train\n1.png,cat,test\n2.png,cat,train\n5.png,owl,val\n";
        let data = listed(text, None).unwrap();
        assert_eq!(shades(&data.train), [(3, Some(1)), (2, Some(0))]);
        assert_eq!(shades(&data.test), [(1, Some(0)), (5, Some(2))]);
        let data = listed(text, Some("owl\ncat\nfox\ndog\n")).unwrap();
        assert_eq!(shades(&data.train), [(3, Some(3)), (2, Some(1))]);
        assert_eq!(data.train.classes(), 4);
        let data = listed("path,split\n3.png,TRAIN\n4.png,Val\n", None).unwrap();
        assert!(!data.source.contains("fifth"), "{}", data.source);
        let numbers = "file;class\n3.png;7\n4.png;0\n5.png;7\n6.png;2\n7.png;1\n8.png;7\n";
        let data = listed(numbers, None).unwrap();
        assert_eq!((data.train.len(), data.test.len(), data.train.classes()), (4, 2, 8));
        let data = listed("path\n3.png\n4.png\n5.png\n", None).unwrap();
        assert_eq!((data.train.classes(), data.test.len()), (0, 1));
    }

    #[test]
    fn a_file_that_is_not_there_is_skipped_where_bad_images_are() {
        let text = "path,label\n3.png,0\nnone.png,0\n4.png,1\n5.png,1\n";
        let message = listed(text, None).unwrap_err().to_string();
        assert!(message.contains("none.png") && message.contains("1 of 4"), "{message}");
        // Also where it would give the size of all.
        for text in [text, "path,label\nnone.png,0\n3.png,0\n4.png,1\n5.png,1\n"] {
            let data = read(text, None, BadImages::Skip, load_list).unwrap();
            assert_eq!(data.train.len() + data.test.len(), 3);
            assert!(data.source.contains("without 1 that do not decode"), "{}", data.source);
        }
    }

    #[test]
    fn numbers_of_classes_are_whole_however_they_are_written() {
        // As text, 10 would come before 2.
        let text = "path,label,split\n3.png,10.0,train\n1.png,2.0,test\n2.png,0.0,train\n";
        let data = listed(text, None).unwrap();
        assert_eq!(
            (shades(&data.train), data.train.classes()),
            (vec![(3, Some(10)), (2, Some(0))], 11)
        );
        assert_eq!(shades(&data.test), [(1, Some(2))]);
        let are_numbers =
            |text| read(text, None, BadImages::Refuse, |table, _| labels_are_numbers(table));
        assert!(are_numbers(text).unwrap());
        for text in ["path,label\n3.png,1.5\n", "path,label\n3.png,cat\n", "path\n3.png\n"] {
            assert!(!are_numbers(text).unwrap(), "{text}");
        }
    }

    #[test]
    fn columns_that_mean_the_same_must_agree() {
        let text = "file,path,filename,label,class\n3.png,./3.png,3.png,1.0,1\n4.png,,4.png,,0\n5.png,5.png,,2,2\n";
        let data = listed(text, None).unwrap();
        let both = [shades(&data.train), shades(&data.test)].concat();
        let mut labels: Vec<_> = both.iter().map(|&(_, label)| label).collect();
        labels.sort_unstable();
        assert_eq!(labels, [Some(0), Some(1), Some(2)]);
        let text = "path,label,class\n3.png,0,cat\n4.png,1,dog\n5.png,1,dog\n";
        let data = listed(text, None).unwrap();
        assert_eq!(data.train.classes(), 2, "numbers, and beside them their names");
        for (text, expected) in [
            (
                "path,split,split\n3.png,train,train\n4.png,test,train\n",
                "line 3: column `split`: it is there several times, with `test` and `train`",
            ),
            ("path,label,Label\n3.png,1,2\n", "column `label`: it is there several times"),
            (
                "path,label,class\n3.png,1,1\n4.png,1,2\n",
                "line 3: column `class`: it is `2`, but `label` is `1`",
            ),
            (
                "path,file\n3.png,4.png\n",
                "line 2: column `file`: it is `4.png`, but `path` is `3.png`",
            ),
        ] {
            let message = listed(text, None).unwrap_err().to_string();
            assert!(message.contains(expected), "`{message}` lacks `{expected}`");
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_no_image() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe.png");
        // Opened, a pipe waits for somebody to write.
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        let pipe = match made {
            Ok(status) if status.success() => pipe.display().to_string(),
            _ => "/dev/null".to_owned(),
        };
        for other in [&pipe, "/dev/zero", &folder.path().display().to_string()] {
            for text in [
                format!("path,label\n{other},0\n3.png,0\n4.png,1\n5.png,1\n"),
                format!("path,label\n3.png,0\n4.png,1\n{other},0\n5.png,1\n"),
            ] {
                let message = listed(&text, None).unwrap_err().to_string();
                assert!(message.contains(&format!("{other} (it is no file)")), "{message}");
                let data = read(&text, None, BadImages::Skip, load_list).unwrap();
                assert_eq!(data.train.len() + data.test.len(), 3);
            }
        }
    }

    #[test]
    fn test_images_can_be_read_alone() {
        let test = |text| read(text, None, BadImages::Refuse, load_test_list);
        let (images, source) =
            test("path,label,split\n3.png,0,test\n4.png,1,val\n").unwrap().unwrap();
        assert_eq!(shades(&images), [(3, Some(0)), (4, Some(1))]);
        assert!(source.contains("table.csv"), "{source}");
        assert!(test("path,label\n3.png,0\n4.png,1\n").unwrap().is_none());
        let message = test("path,split\n3.png,train\n").unwrap_err().to_string();
        assert!(message.contains("no image is for `test`"), "{message}");
    }

    #[test]
    fn names_that_are_one_class_are_told() {
        let text = "path,label,split\n3.png,dog,train\n1.png,cat,test\n2.png,cat,train\n";
        let list = Some("index,name\n0,cat\n1,owl\n0,dog\n");
        let data = listed(text, list).unwrap();
        let told = data.source.contains("list.txt gives `cat` and `dog` one number, 0");
        assert!(told, "{}", data.source);
        let data = listed(text, Some("cat\ndog\n")).unwrap();
        assert!(!data.source.contains("one number"), "{}", data.source);
    }

    #[test]
    fn what_is_wrong_is_told_with_the_line() {
        for (text, expected) in [
            ("label\n3\n", "no column `path`"),
            ("path,label\n3.png,\n4.png,1\n", "line 2: column `label`: the image has no label"),
            ("path,split\n3.png,train\n4.png,both\n", "line 3: column `split`: expected `train`"),
            ("path,split\n3.png,train\n4.png,\n", "line 3: column `split`: expected `train`"),
            ("path,split\n3.png,train\n", "no image is for `test`"),
            ("path,split\n3.png,test\n", "no image is for `train`"),
            (
                "path,label\n3.png,3\n4.png,-1\n",
                "line 3: column `label`: it is no number of a class",
            ),
            (
                "path,label\n3.png,?\n4.png,1\n",
                "line 2: column `label`: it is no number of a class",
            ),
            ("path,label\n,3\n", "line 2: column `path`: names no file"),
            ("path,label\nnone.png,3\n4.png,1\n", "none.png"),
        ] {
            let message = listed(text, None).unwrap_err().to_string();
            assert!(message.contains(expected), "`{message}` lacks `{expected}`");
        }
        let message = listed("path,label\n3.png,ox\n", Some("cow\n")).unwrap_err().to_string();
        assert!(message.contains("list.txt: there is no class `ox`"), "{message}");
    }
}
