//! Which files of a folder are images of which class.

use std::{
    fs,
    io::Cursor,
    path::{Path, PathBuf},
};

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use releq_data::{
    BadImages, Cache, DataError, ImageFolder, ImageFolderConfig, Splits, image_folder,
};
use tempfile::TempDir;

fn config() -> ImageFolderConfig {
    ImageFolderConfig { cache: Cache::Off, ..Default::default() }
}

/// Writes an image of one colour, whose red is `shade`.
fn paint(path: &Path, shade: u8, format: ImageFormat) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let image = RgbImage::from_pixel(4, 4, Rgb([shade, 0, 0]));
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(image).write_to(&mut bytes, format).unwrap();
    fs::write(path, bytes.into_inner()).unwrap();
}

/// The classes, and class and shade of every image.
fn listed(folder: &Path) -> (Vec<String>, Vec<(u16, u8)>) {
    let folder = ImageFolder::open(folder, &config()).unwrap();
    let images = folder.load().unwrap().images;
    let all = (0..images.len()).map(|index| (images.label(index), images.image(index)[0]));
    let all = all.collect();
    (folder.class_names().to_vec(), all)
}

fn message(result: Result<impl Sized, DataError>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
fn every_kind_of_image_file_is_read_and_others_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let formats = [
        ("a.bmp", ImageFormat::Bmp),
        ("b.PNG", ImageFormat::Png),
        ("c.pgm", ImageFormat::Pnm),
        ("d.ppm", ImageFormat::Pnm),
        ("e.tif", ImageFormat::Tiff),
        ("f.Tiff", ImageFormat::Tiff),
        ("g.webp", ImageFormat::WebP),
        // Other formats than the names say.
        ("h.jpg", ImageFormat::Bmp),
        ("i.jpeg", ImageFormat::Png),
    ];
    for (shade, (name, format)) in (0..).zip(formats) {
        paint(&root.join("ant").join(name), shade, format);
    }
    for name in ["notes.txt", "more.TXT", "film.gif", "noextension"] {
        fs::write(root.join("ant").join(name), "x").unwrap();
    }
    paint(&root.join("stray.png"), 99, ImageFormat::Png);
    fs::write(root.join("README.md"), "text").unwrap();

    let (classes, images) = listed(root);
    assert_eq!(classes, ["ant"]);
    assert_eq!(images, (0..9).map(|shade| (0, shade)).collect::<Vec<_>>());
    let left_out = ImageFolder::open(root, &config()).unwrap().left_out().clone();
    assert_eq!(left_out.count(), 5);
    let expected =
        "4 files that are not images (2 .txt, 1 without extension, 1 .gif), 1 image of no class";
    assert_eq!(left_out.to_string(), expected);

    // The source, which is shown beside every result, tells of both halves.
    let both = tempfile::tempdir().unwrap();
    for part in ["train", "test"] {
        paint(&both.path().join(part).join("ant/1.png"), 1, ImageFormat::Png);
        fs::write(both.path().join(part).join("ant/1.gif"), "x").unwrap();
    }
    let source = image_folder::load(both.path(), &config()).unwrap().source;
    assert!(source.ends_with(", without 2 files that are not images (2 .gif)"), "{source}");
}

#[test]
fn folders_within_a_class_are_read_in_the_order_of_their_paths() {
    let dir = tempfile::tempdir().unwrap();
    let paths =
        ["a/9.png", "a/b/2.png", "a/b/3.png", "a/b-c/1.png", "a/b/c/0.png", "b/x/y/z/0.png"];
    // As Python sorts the folders: `a/b-c` comes before `a/b/c`.
    let order = [0, 1, 2, 3, 4, 5];
    for (shade, path) in order.into_iter().zip(paths) {
        paint(&dir.path().join(path), shade, ImageFormat::Png);
    }
    let (classes, images) = listed(dir.path());
    assert_eq!(classes, ["a", "b"]);
    assert_eq!(images, [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 5)]);
}

#[test]
fn what_systems_leave_in_folders_is_no_class_and_no_image() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    paint(&root.join("ant/1.png"), 1, ImageFormat::Png);
    for junk in ["__MACOSX/._1.png", "@eaDir/1.png", ".ipynb_checkpoints/1.png", "lost+found/1.png"]
    {
        for place in ["", "ant/", "ant/more/"] {
            let path = root.join(place).join(junk);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
    }
    for junk in [".DS_Store", "Thumbs.db", "THUMBS.DB", "desktop.ini", "._1.png"] {
        fs::write(root.join("ant").join(junk), "x").unwrap();
    }
    assert_eq!(listed(root), (vec!["ant".to_owned()], vec![(0, 1)]));
    assert!(ImageFolder::open(root, &config()).unwrap().left_out().is_empty());
}

#[cfg(unix)]
#[test]
fn links_are_followed_but_no_folder_is_read_twice() {
    use std::os::unix::fs::symlink;

    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("data");
    paint(&root.join("ant/1.png"), 1, ImageFormat::Png);
    paint(&root.join("ant/deep/2.png"), 2, ImageFormat::Png);
    paint(&root.join("bee/3.png"), 3, ImageFormat::Png);
    let elsewhere = dir.path().join("elsewhere");
    paint(&elsewhere.join("4.png"), 4, ImageFormat::Png);
    symlink(&elsewhere, root.join("ant/elsewhere")).unwrap();
    symlink(&elsewhere, root.join("ant/again")).unwrap();
    symlink(root.join("bee/3.png"), root.join("ant/linked.png")).unwrap();
    for (from, to) in [("ant/deep/up", ".."), ("ant/root", "../.."), ("ant/first", "deep")] {
        symlink(to, root.join(from)).unwrap();
    }
    let shades = |folder: &Path| {
        let mut shades: Vec<_> = listed(folder).1;
        shades.sort_unstable();
        shades
    };
    assert_eq!(shades(&root), [(0, 1), (0, 2), (0, 3), (0, 4), (1, 3)]);
    symlink("..", root.join("cat")).unwrap();
    let error = message(ImageFolder::open(&root, &config()));
    assert!(error.contains("data/cat"), "{error}");
}

#[cfg(unix)]
#[test]
fn broken_links_count_as_images_that_do_not_decode() {
    use std::os::unix::fs::symlink;

    let dir = tempfile::tempdir().unwrap();
    let class = dir.path().join("ant");
    paint(&class.join("1.png"), 1, ImageFormat::Png);
    symlink("nowhere.png", class.join("0.png")).unwrap();
    symlink("loop.png", class.join("loop.png")).unwrap();
    let error = message(ImageFolder::open(dir.path(), &config()).unwrap().load());
    assert!(
        error.contains("2 of 3 images") && error.contains("ant/0.png (a broken link)"),
        "{error}"
    );
    let skip = ImageFolderConfig { bad_images: BadImages::Skip, ..config() };
    let loaded = ImageFolder::open(dir.path(), &skip).unwrap().load().unwrap();
    assert_eq!((loaded.images.len(), loaded.skipped.len()), (1, 2));
    // A class is another matter: without it, the others would have other numbers.
    symlink("nowhere", dir.path().join("bee")).unwrap();
    let error = message(ImageFolder::open(dir.path(), &skip));
    assert!(error.contains("cannot read") && error.contains("bee"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn names_that_are_not_unicode_are_read() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    let dir = tempfile::tempdir().unwrap();
    let name = |bytes: &'static [u8]| PathBuf::from(OsStr::from_bytes(bytes));
    for (shade, class) in (0..).zip([name(b"a"), name(b"caf\xe9"), name(b"caf\xe8")]) {
        paint(&dir.path().join(class).join(name(b"\xff.png")), shade, ImageFormat::Png);
    }
    let (classes, images) = listed(dir.path());
    assert_eq!(classes, ["a", r"caf\xe8", r"caf\xe9"]);
    assert_eq!(images, [(0, 0), (1, 2), (2, 1)]);
}

/// `train` and `test` with one class each beside `z`, under these names.
fn halves(train: &str, test: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (part, class) in [("train", train), ("test", test)] {
        paint(&dir.path().join(part).join(class).join("1.png"), 1, ImageFormat::Png);
        paint(&dir.path().join(part).join("cafz/1.png"), 2, ImageFormat::Png);
    }
    dir
}

#[test]
fn unicode_forms_of_one_name_are_one_class() {
    let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
    for (train, test) in [(composed, decomposed), (decomposed, composed)] {
        let dir = halves(train, test);
        if !dir.path().join("train").join(train).is_dir() {
            continue;
        }
        let Splits { train, test, .. } = image_folder::open(dir.path(), &config()).unwrap();
        assert_eq!(train.class_names(), ["cafz", composed]);
        assert_eq!(test.class_names(), train.class_names());
        for half in [train, test] {
            let images = half.load().unwrap().images;
            assert_eq!([images.image(0)[0], images.image(1)[0]], [2, 1]);
        }
    }
    // Both in one folder: which is meant cannot be known. Some systems keep no two such folders.
    let dir = halves(composed, composed);
    let second = dir.path().join("train").join(decomposed).join("2.png");
    paint(&second, 3, ImageFormat::Png);
    if fs::read_dir(dir.path().join("train")).unwrap().count() == 3 {
        let error = message(image_folder::load(dir.path(), &config()));
        assert!(error.contains("two folders are named `caf\u{e9}`"), "{error}");
    }
}

#[test]
fn tiny_imagenet_is_read_as_it_is_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for (shade, class) in [(1, "n01"), (2, "n02")] {
        let folder = root.join("train").join(class);
        paint(&folder.join(format!("images/{class}_0.JPEG")), shade, ImageFormat::Png);
        fs::write(folder.join(format!("{class}_boxes.txt")), "x").unwrap();
    }
    for (shade, name) in
        [(5, "val_0.JPEG"), (6, "val_1.JPEG"), (7, "val_2.JPEG"), (8, "val_3.JPEG")]
    {
        paint(&root.join("val/images").join(name), shade, ImageFormat::Png);
    }
    paint(&root.join("test/images/test_0.JPEG"), 9, ImageFormat::Png);
    let list = root.join("val/val_annotations.txt");
    fs::write(
        &list,
        "val_0.JPEG\tn02\t0\t32\t44\t62\r\nval_2.JPEG\tn01\t1\t2\nval_1.JPEG\tn02\t3\n",
    )
    .unwrap();

    let data = image_folder::load(root, &config()).unwrap();
    assert_eq!((data.train.len(), data.test.len()), (2, 3));
    let test: Vec<(u16, u8)> =
        (0..3).map(|index| (data.test.label(index), data.test.image(index)[0])).collect();
    assert_eq!(test, [(0, 7), (1, 5), (1, 6)]);
    let expected = "without 2 files that are not images (2 .txt), 1 image of no class";
    assert!(data.source.ends_with(expected), "{}", data.source);
    assert_eq!(image_folder::test_folder(root), Some(root.join("val")));

    for (text, expected) in [
        ("val_0.JPEG\tn01\nval_9.JPEG\tn02\n", "byte 15: there is no image `images/val_9.JPEG`"),
        ("val_0.JPEG\tn01\nval_0.JPEG\tn02\n", "byte 15: `val_0.JPEG` is in the list twice"),
        ("../val_0.JPEG\tn01\n", "byte 0: `../val_0.JPEG` is not the name of a file"),
        ("val_0.JPEG\n", "byte 0: `val_0.JPEG` is not an image and its class"),
        ("", "no classes"),
    ] {
        fs::write(&list, text).unwrap();
        let error = message(ImageFolder::open(root.join("val"), &config()));
        assert!(error.contains(expected), "{error}");
    }
    // Without the list, the images have no classes that could be compared.
    fs::remove_file(&list).unwrap();
    assert!(matches!(image_folder::load(root, &config()), Err(DataError::ClassMismatch { .. })));
}

#[test]
fn one_half_alone_has_the_classes_of_the_other() {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    for (half, classes) in [("train", &["a", "b", "c"][..]), ("val", &["a", "c"])] {
        for class in classes {
            paint(&root.join(half).join(class).join("0.png"), 1, ImageFormat::Png);
        }
    }
    // On its own, class `c` of the test images would be number 1, which is `b`.
    assert_eq!(listed(&root.join("val")).1[1].0, 1);
    let error = image_folder::check_classes(root, &config()).unwrap_err();
    assert!(matches!(&error, DataError::ClassMismatch { missing, unexpected, .. }
        if missing == &["b"] && unexpected.is_empty()));
    for part in ["val", "train", "missing b, unexpected none", "both folders need the same"] {
        assert!(error.to_string().contains(part), "`{error}` lacks `{part}`");
    }
    paint(&root.join("val/b/0.png"), 1, ImageFormat::Png);
    image_folder::check_classes(root, &config()).unwrap();
    paint(&root.join("val/d/0.png"), 1, ImageFormat::Png);
    assert!(image_folder::check_classes(root, &config()).is_err());
    fs::remove_dir_all(root.join("train")).unwrap();
    image_folder::check_classes(root, &config()).unwrap();
}
