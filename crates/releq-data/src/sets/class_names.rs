//! What the classes of a data set are called.

use std::path::Path;

use super::{
    image_folder::{self, listed_classes},
    open::{DataKind, detect},
};
use crate::{DataError, ImageFolderConfig};

const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
/// As the data set's own documentation calls them.
const CLOTHES: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];
/// As in its `batches.meta`.
const CIFAR10: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// Names of the classes of the data set in `dir`, by number: the given `kind`, or else the one that is detected. Of image
/// folders they are the names of the folders, or those in the list of classes, empty for a number that it says nothing
/// of; no image is read. Arrays, and images alone, have no names.
///
/// # Errors
/// As [`open`](crate::open), as far as names are read.
pub fn class_names(
    dir: &Path,
    kind: Option<DataKind>,
    images: &ImageFolderConfig,
) -> Result<Vec<String>, DataError> {
    let all = |names: [&str; 10]| names.map(str::to_owned).to_vec();
    Ok(match kind.map_or_else(|| detect(dir), Ok)? {
        DataKind::Mnist | DataKind::Svhn => all(DIGITS),
        DataKind::FashionMnist => all(CLOTHES),
        DataKind::Cifar10 => all(CIFAR10),
        DataKind::Arrays => Vec::new(),
        DataKind::ImageFolder => match &images.class_list {
            Some(list) => listed_classes(list)?,
            None => image_folder::classes_of(dir)?,
        },
        DataKind::ImageList => image_folder::classes_of_list(dir, images)?,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(dir: &Path, images: &ImageFolderConfig) -> Vec<String> {
        class_names(dir, None, images).unwrap()
    }

    #[test]
    fn classes_of_folders_and_tables_are_called_as_their_images_say() {
        let dir = tempfile::tempdir().unwrap();
        let image = |path: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "not looked at").unwrap();
        };
        for part in ["photos/train", "photos/test"] {
            for class in ["dog", "cat"] {
                image(&format!("{part}/{class}/1.png"));
            }
        }
        let photos = dir.path().join("photos");
        assert_eq!(names(&photos, &ImageFolderConfig::default()), ["cat", "dog"]);
        let list = dir.path().join("classes.txt");
        fs::write(&list, "dog\nhorse\ncat\n").unwrap();
        let listed = ImageFolderConfig { class_list: Some(list), ..Default::default() };
        assert_eq!(names(&photos, &listed), ["dog", "horse", "cat"]);

        image("alone/1.png");
        assert!(names(&dir.path().join("alone"), &ImageFolderConfig::default()).is_empty());
        let table = dir.path().join("table.csv");
        fs::write(&table, "path,label\n1.png,wolf\n2.png,bear\n").unwrap();
        assert_eq!(names(&table, &ImageFolderConfig::default()), ["bear", "wolf"]);

        assert!(class_names(&dir.path().join("away"), None, &listed).is_err());
    }
}
