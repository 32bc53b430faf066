//! Images that a table lists, wherever they are.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use releq_core::tables::{TextRow, TextTable};

use super::{
    ImageFile, ImageFolder, ImageFolderConfig, LeftOut, LoadedImages, class_list::ClassList,
    listing::check_count, splits::FIFTH, test_fifth,
};
use crate::{DataError, Label, Splits, sets::exists};

/// Names of the column with the files, in order of preference.
const FILES: [&str; 4] = ["path", "file", "filename", "image"];
/// Names of the column with the classes.
const CLASSES: [&str; 2] = ["label", "class"];

/// Reads the images that a table lists. Its column `path` (or `file`, `filename`, `image`) has their files, within the
/// folder of the table or absolute. `label` (or `class`) has their classes, by number or by name; without that column,
/// they have no labels. `split` is `train` or `test` (`val`, `valid`, `validation`); without it, every fifth is a test image,
/// chosen at random but always the same.
///
/// # Errors
/// As [`ImageFolder::open`] and [`ImageFolder::load`], and [`DataError::Text`] for what is wrong with the table.
pub fn load_list(table: &Path, config: &ImageFolderConfig) -> Result<Splits, DataError> {
    config.check()?;
    exists(table)?;
    let rows = TextTable::read(table, &[])?;
    let column = |names: &[&'static str]| names.iter().copied().find(|name| rows.has(name));
    let files = column(&FILES).ok_or_else(|| rows.missing("path"))?;
    let mut images = Vec::new();
    for row in rows.rows() {
        let file = row.text(files)?;
        if file.is_empty() {
            return Err(row.error(files, "names no file").into());
        }
        images.push((PathBuf::from(file), is_test(&row)?));
    }
    let (classes, labels) = match column(&CLASSES) {
        Some(column) => classes(table, &rows, column, config)?,
        None => (Vec::new(), vec![0; images.len()]),
    };
    let listed = images.into_iter().zip(labels);
    let listed = listed.map(|((path, is_test), class)| (ImageFile { path, class }, is_test));
    let (test, train): (Vec<_>, Vec<_>) = listed.partition(|(_, is_test)| *is_test == Some(true));
    let open = |files: Vec<(ImageFile, Option<bool>)>| {
        let files = files.into_iter().map(|(file, _)| file).collect();
        ImageFolder::listed(table, classes.clone(), files, config)
    };
    let unlabelled = if classes.is_empty() { " without labels" } else { "" };
    let mut source = format!("images{unlabelled} listed in {}", table.display());
    let mut load = |files| -> Result<_, DataError> {
        let LoadedImages { images, skipped } = open(files)?.load()?;
        if !skipped.is_empty() {
            source.push_str(&format!(", without {} that do not decode", skipped.len()));
        }
        Ok(images)
    };
    let (train, test) = match (train.is_empty(), test.is_empty()) {
        (false, false) => (load(train)?, load(test)?),
        (false, true) if !rows.has("split") => {
            let split = test_fifth(load(train)?)?;
            source.push_str(FIFTH);
            split
        }
        (no_train, _) => {
            let lacking = if no_train { "train" } else { "test" };
            return Err(rows.error(format!("column `split`: no image is for `{lacking}`")).into());
        }
    };
    Ok(Splits { train, test, source })
}

/// Whether the classes of a list are numbers; names are numbered in their order.
///
/// # Errors
/// [`DataError::Text`] if the table cannot be read.
pub fn labels_are_numbers(table: &Path) -> Result<bool, DataError> {
    let rows = TextTable::read(table, &[])?;
    let Some(column) = CLASSES.into_iter().find(|name| rows.has(name)) else { return Ok(false) };
    for row in rows.rows() {
        if row.text(column)?.parse::<Label>().is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a row is a test image, if it says.
fn is_test(row: &TextRow<'_>) -> Result<Option<bool>, DataError> {
    let Some(split) = row.find("split") else { return Ok(None) };
    match split.to_lowercase().as_str() {
        "train" | "training" => Ok(Some(false)),
        "test" | "val" | "valid" | "validation" => Ok(Some(true)),
        _ => {
            let reason = format!("expected `train` or `test`, got `{split}`");
            Err(row.error("split", reason).into())
        }
    }
}

/// Names of the classes by number, and the class of every row.
fn classes(
    table: &Path,
    rows: &TextTable,
    column: &str,
    config: &ImageFolderConfig,
) -> Result<(Vec<String>, Vec<Label>), DataError> {
    let cells: Result<Vec<&str>, DataError> = rows
        .rows()
        .map(|row| {
            let cell = row.text(column)?;
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
        return Ok((list.names, numbers));
    }
    let numbers: Vec<Option<Label>> = cells.iter().map(|cell| cell.parse().ok()).collect();
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
        return Ok(((0..count).map(|number| number.to_string()).collect(), numbers));
    }
    let names: BTreeSet<&str> = cells.iter().copied().collect();
    check_count(table, names.len())?;
    let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    let number = |cell: &&str| names.binary_search_by(|name| name.as_str().cmp(cell)).ok();
    let labels = cells.iter().filter_map(number).filter_map(|place| Label::try_from(place).ok());
    let labels = labels.collect();
    Ok((names, labels))
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
    use crate::{Cache, Dataset};

    /// Ten images, each of one shade, and a table of them.
    fn listed(text: &str, class_list: Option<&str>) -> Result<Splits, DataError> {
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
        let config = ImageFolderConfig { cache: Cache::Off, class_list, ..Default::default() };
        load_list(&table, &config)
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
    fn what_is_wrong_is_told_with_the_line() {
        for (text, expected) in [
            ("label\n3\n", "no column `path`"),
            ("path,label\n3.png,\n4.png,1\n", "line 2: column `label`: the image has no label"),
            ("path,split\n3.png,train\n4.png,both\n", "line 3: column `split`: expected `train`"),
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
