//! Folders of image files: real ones, and small ones that are drawn here.

use std::{
    fs,
    io::Cursor,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Instant,
};

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use releq_data::{
    BadImages, Cache, Color, DataError, Dataset, ImageFolder, ImageFolderConfig, ImageSet,
    ImageSize, Normalization, Splits, fingerprint, image_folder,
};
use tempfile::TempDir;

/// CIFAR-10 as JPEG files: a folder, or an archive that is unpacked once.
fn cifar10_jpeg() -> Option<PathBuf> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let named = PathBuf::from(std::env::var_os("RELEQ_DATA_DIR")?).join("cifar10-jpeg");
        if named.join("train").is_dir() {
            return Some(named);
        }
        let archive = named.join("cifar10-jpeg-q75.tar.xz");
        let unpacked = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cifar10-jpeg");
        if !unpacked.is_dir() && archive.is_file() {
            // Beside its place and renamed, for the next run must not find half of it.
            let part = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            let tar =
                Command::new("tar").arg("xf").arg(&archive).arg("-C").arg(part.path()).status();
            if tar.is_ok_and(|status| status.success()) {
                // Another process may have been faster; then its folder is as good.
                let _ = fs::rename(part.keep(), &unpacked);
            }
        }
        unpacked.is_dir().then_some(unpacked)
    });
    if folder.is_none() {
        eprintln!("skipped: RELEQ_DATA_DIR has no cifar10-jpeg/, or it cannot be unpacked");
    }
    folder.clone()
}

fn without_cache() -> ImageFolderConfig {
    ImageFolderConfig { cache: Cache::Off, ..Default::default() }
}

fn skipping() -> ImageFolderConfig {
    ImageFolderConfig { bad_images: BadImages::Skip, ..without_cache() }
}

fn picture(seed: u32, width: u32, height: u32) -> RgbImage {
    let colour = |x: u32, y: u32| [x * 9 + seed * 31, y * 13 + seed, seed * 50].map(|v| v as u8);
    RgbImage::from_fn(width, height, |x, y| Rgb(colour(x, y)))
}

fn write(path: &Path, image: &RgbImage, format: ImageFormat) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(image.clone()).write_to(&mut bytes, format).unwrap();
    fs::write(path, bytes.into_inner()).unwrap();
}

/// `train` and `test`, each with the classes `ant` and `bee` of three PNG files of 8 x 6 pixels.
fn small() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (part, shift) in [("train", 0), ("test", 6)] {
        for (class, first) in [("ant", 0), ("bee", 3)] {
            for seed in first..first + 3 {
                let path = dir.path().join(part).join(class).join(format!("{seed}.png"));
                write(&path, &picture(seed + shift, 8, 6), ImageFormat::Png);
            }
        }
    }
    dir
}

fn planes(image: &RgbImage) -> Vec<u8> {
    (0..3).flat_map(|channel| image.pixels().map(move |pixel| pixel[channel])).collect()
}

fn message(result: Result<impl Sized, DataError>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
fn sixty_thousand_real_files_load_and_come_from_the_cache_the_second_time() {
    let Some(dir) = cifar10_jpeg() else { return };
    let cache = tempfile::tempdir().unwrap();
    let config =
        ImageFolderConfig { cache: Cache::In(cache.path().to_owned()), ..Default::default() };
    let timed = || -> Splits {
        let start = Instant::now();
        let data = image_folder::load(&dir, &config).unwrap();
        eprintln!("60,000 images loaded in {:.2} s", start.elapsed().as_secs_f64());
        data
    };
    let decoded = timed();
    assert_eq!((decoded.train.len(), decoded.test.len()), (50_000, 10_000));
    assert_eq!((decoded.train.shape(), decoded.train.classes()), ([3, 32, 32], 10));
    for set in [&decoded.train, &decoded.test] {
        for class in 0..10_usize {
            let each = set.len() / 10;
            assert!((0..each).all(|i| usize::from(set.label(class * each + i)) == class));
        }
    }
    // The statistics of the original images, which everybody normalizes CIFAR-10 by.
    let found = Normalization::measured(&decoded.train).unwrap();
    let close = |found: &[f32], known: [f32; 3], tolerance: f32| {
        assert!(found.iter().zip(known).all(|(a, b)| (a - b).abs() < tolerance), "{found:?}");
    };
    close(&found.mean, [0.4914, 0.4822, 0.4465], 0.003);
    close(&found.std, [0.2470, 0.2435, 0.2616], 0.006);
    // What Pillow 13.0.0 decodes the same test files to; single pixels differ by 5 levels of 255 at
    // most, means by 0.35, for the two round colours differently.
    let found = Normalization::measured(&decoded.test).unwrap();
    close(&found.mean, [125.98676, 123.69122, 114.84741].map(|mean| mean / 255.0), 0.4 / 255.0);

    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 2);
    let cached = timed();
    assert!(cached.train == decoded.train && cached.test == decoded.test);
}

#[test]
fn all_formats_are_read_by_content_in_the_order_of_names() {
    let dir = tempfile::tempdir().unwrap();
    let images = [picture(0, 5, 4), picture(1, 5, 4), picture(2, 5, 4)];
    write(&dir.path().join("b/2.WEBP"), &images[2], ImageFormat::WebP);
    write(&dir.path().join("b/1.png"), &images[1], ImageFormat::Png);
    // A PNG file under another name.
    write(&dir.path().join("a/z.JPEG"), &images[0], ImageFormat::Png);
    // What is not read: hidden, of other kinds, beside the classes.
    write(&dir.path().join("a/.hidden.png"), &images[1], ImageFormat::Png);
    write(&dir.path().join("0.png"), &images[1], ImageFormat::Png);
    fs::create_dir(dir.path().join(".git")).unwrap();
    fs::write(dir.path().join("a/README.txt"), "text").unwrap();

    let folder = ImageFolder::open(dir.path(), &without_cache()).unwrap();
    assert_eq!(folder.class_names(), ["a", "b"]);
    assert_eq!((folder.shape(), folder.len()), ([3, 4, 5], 3));
    assert_eq!(folder.image_path(2), dir.path().join("b/2.WEBP"));
    let loaded = folder.load().unwrap();
    assert!(loaded.skipped.is_empty());
    for (index, image) in images.iter().enumerate() {
        assert_eq!(loaded.images.image(index), planes(image));
    }
    assert_eq!([0, 1, 2].map(|index| loaded.images.label(index)), [0, 1, 1]);

    let gray =
        ImageFolderConfig { color: Color::Gray, size: ImageSize::square(3), ..without_cache() };
    let gray = ImageFolder::open(dir.path(), &gray).unwrap();
    assert_eq!(gray.load().unwrap().images.shape(), [1, 3, 3]);
}

#[test]
fn threads_and_ways_to_read_do_not_change_the_images() {
    let dir = small();
    let load = |threads| {
        let size = ImageSize::ResizeCrop { resize: 5, crop: 4 };
        let config = ImageFolderConfig { threads, size, ..without_cache() };
        let folder = ImageFolder::open(dir.path().join("train"), &config).unwrap();
        assert_eq!(ImageSet::read(&folder).unwrap(), folder.load().unwrap().images);
        let normalization = Normalization { mean: vec![0.4; 3], std: vec![0.2; 3] };
        let [mut one, mut two] = [(); 2].map(|()| (Vec::new(), Vec::new()));
        let indices = [5, 0, 3, 3];
        folder.gather(&indices, &normalization, &mut one.0, &mut one.1).unwrap();
        let images = folder.load().unwrap().images;
        images.gather(&indices, &normalization, &mut two.0, &mut two.1).unwrap();
        assert_eq!(one, two);
        images
    };
    assert_eq!(load(1), load(7));
}

#[test]
fn images_that_do_not_decode_are_counted_and_refused_or_left_out() {
    let dir = small();
    let train = dir.path().join("train");
    let whole = fs::read(train.join("ant/1.png")).unwrap();
    fs::write(train.join("ant/0.png"), "not an image").unwrap();
    fs::write(train.join("bee/4.png"), &whole[..whole.len() / 2]).unwrap();

    let error = message(image_folder::load(dir.path(), &without_cache()));
    assert!(error.contains("2 of 6 images do not decode"), "{error}");
    assert!(error.contains("ant/0.png (not a JPEG, PNG, WebP"), "{error}");
    assert!(error.contains("bee/4.png (") && error.contains("choose to skip"), "{error}");

    let data = image_folder::load(dir.path(), &skipping()).unwrap();
    assert_eq!((data.train.len(), data.test.len()), (4, 6));
    assert!(data.source.ends_with("without 2 that do not decode"), "{}", data.source);
    assert_eq!([0, 1, 2, 3].map(|index| data.train.label(index)), [0, 0, 1, 1]);
    for (index, seed) in [1, 2, 3, 5].into_iter().enumerate() {
        assert_eq!(data.train.image(index), planes(&picture(seed, 8, 6)));
    }
    // One at a time there is nothing to skip to.
    let folder = ImageFolder::open(&train, &skipping()).unwrap();
    let mut pixels = vec![0; 3 * 6 * 8];
    let error = message(folder.read_image(4, &mut pixels));
    assert!(error.contains("bee/4.png"), "{error}");
    folder.read_image(5, &mut pixels).unwrap();
    assert_eq!(pixels, planes(&picture(5, 8, 6)));

    // The cache knows what was left out, and a stricter reader is not fooled by it.
    let cache = tempfile::tempdir().unwrap();
    let config = ImageFolderConfig { cache: Cache::In(cache.path().to_owned()), ..skipping() };
    let load = |config: &ImageFolderConfig| ImageFolder::open(&train, config).unwrap().load();
    let first = load(&config).unwrap();
    let second = load(&config).unwrap();
    assert_eq!((&first.images, &first.skipped), (&second.images, &second.skipped));
    assert_eq!(second.skipped.len(), 2);
    let strict = ImageFolderConfig { bad_images: BadImages::Refuse, ..config };
    assert!(matches!(load(&strict), Err(DataError::BadImages { total: 6, .. })));

    for class in ["ant", "bee"] {
        for file in fs::read_dir(train.join(class)).unwrap() {
            fs::write(file.unwrap().path(), "x").unwrap();
        }
    }
    let error = message(image_folder::load(dir.path(), &skipping()));
    assert!(error.contains("6 of 6 images") && error.contains("and 1 more"), "{error}");
}

#[test]
fn folders_that_are_no_image_folders_say_what_is_wrong() {
    let check = |spoil: &dyn Fn(&Path), expected: &[&str]| {
        let dir = small();
        spoil(dir.path());
        let error = message(image_folder::load(dir.path(), &without_cache()));
        for expected in expected {
            assert!(error.contains(expected), "`{error}` lacks `{expected}`");
        }
    };
    let remove = |path: PathBuf| fs::remove_dir_all(path).unwrap();
    let remove_all = |dir: &Path| remove(dir.to_owned());
    check(&|dir| remove(dir.join("train")), &["no image folder in", "missing train/"]);
    check(&|dir| remove(dir.join("test")), &["missing test/ or val/"]);
    check(
        &|dir| remove(dir.join("test/bee")),
        &["other classes than", "missing bee, unexpected none"],
    );
    check(
        &|dir| fs::rename(dir.join("test/bee"), dir.join("test/wasp")).unwrap(),
        &["missing bee, unexpected wasp"],
    );
    let empty = |class: PathBuf| {
        remove(class.clone());
        fs::create_dir(class).unwrap();
    };
    check(&remove_all, &["does not exist; check the path"]);
    check(&|dir| empty(dir.join("train/ant")), &["train/ant: no image of this class", "webp"]);
    check(&|dir| empty(dir.join("train")), &["train: no classes", "CLASS/image.jpg"]);
    check(
        &|dir| write(&dir.join("train/bee/9.png"), &picture(0, 8, 7), ImageFormat::Png),
        &["train/bee/9.png: 8x7 pixels, but", "train/ant/0.png has 8x6"],
    );
    check(
        &|dir| {
            for class in ["ant/6.png", "ant/7.png", "ant/8.png", "bee/9.png"] {
                write(&dir.join("test").join(class), &picture(0, 9, 9), ImageFormat::Png);
            }
            remove(dir.join("test/ant"));
            write(&dir.join("test/ant/0.png"), &picture(0, 9, 9), ImageFormat::Png);
        },
        &["test/ant/0.png: 9x9 pixels, but", "train/ant/0.png has 8x6"],
    );
    let dir = small();
    let config = ImageFolderConfig { max_bytes: 6 * 3 * 6 * 8 - 1, ..without_cache() };
    let error = message(image_folder::load(dir.path(), &config));
    assert!(error.contains("6 images of shape [3, 6, 8] need 864 bytes"), "{error}");
    let huge = u32::MAX;
    for (resize, crop, expected) in [
        (8, 9, "`size.crop` is 9, expected 1 to `size.resize`"),
        (8, 0, "`size.crop` is 0, expected 1 to `size.resize`"),
        (0, 0, "`size.resize` is 0, expected 1 to 16384"),
        (huge, huge, "`size.resize` is 4294967295, expected 1 to 16384"),
    ] {
        let size = ImageSize::ResizeCrop { resize, crop };
        let config = ImageFolderConfig { size, ..config.clone() };
        let error = message(image_folder::load(dir.path(), &config));
        assert!(error.contains(expected), "{error}");
    }
    let config = ImageFolderConfig { threads: usize::MAX, ..config };
    let error = message(image_folder::load(dir.path(), &config));
    assert!(error.contains("`threads` is 18446744073709551615, expected 0 to 1024"), "{error}");
    let val = dir.path().join("val");
    fs::rename(dir.path().join("test"), val).unwrap();
    assert_eq!(image_folder::load(dir.path(), &without_cache()).unwrap().test.len(), 6);
}

#[test]
fn a_folder_that_changes_is_noticed() {
    let dir = small();
    let train = dir.path().join("train");
    let cache = tempfile::tempdir().unwrap();
    let config =
        ImageFolderConfig { cache: Cache::In(cache.path().to_owned()), ..Default::default() };
    let open = || ImageFolder::open(&train, &config).unwrap();
    let first = open().load().unwrap().images;
    // Other pixels in a file of another time, a new file, a file less.
    let bee = train.join("bee/3.png");
    write(&bee, &picture(100, 8, 6), ImageFormat::Png);
    let soon = fs::metadata(&bee).unwrap().modified().unwrap() + std::time::Duration::from_secs(5);
    fs::File::options().append(true).open(&bee).unwrap().set_modified(soon).unwrap();
    let second = open().load().unwrap().images;
    assert_eq!(second.image(3), planes(&picture(100, 8, 6)));
    assert_ne!(first, second);
    write(&train.join("bee/9.png"), &picture(9, 8, 6), ImageFormat::Png);
    assert_eq!(open().load().unwrap().images.len(), 7);
    fs::remove_file(train.join("ant/0.png")).unwrap();
    assert_eq!(open().load().unwrap().images.len(), 6);
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1, "one file for one folder");

    // Between listing and reading.
    let folder = open();
    write(&train.join("bee/10.png"), &picture(9, 8, 6), ImageFormat::Png);
    assert_eq!(folder.load().unwrap().images.len(), 6, "the cache is of what was listed");
    let folder = ImageFolder::open(&train, &without_cache()).unwrap();
    write(&train.join("bee/11.png"), &picture(9, 8, 6), ImageFormat::Png);
    assert!(matches!(folder.load(), Err(DataError::Changed { .. })));
    let folder = ImageFolder::open(&train, &without_cache()).unwrap();
    fs::remove_file(train.join("bee/11.png")).unwrap();
    let error = folder.load().unwrap_err();
    assert!(
        matches!(&error, DataError::Read { path, .. } if path.ends_with("bee/11.png")),
        "{error}"
    );
}

#[test]
fn a_cache_file_of_other_images_is_not_believed() {
    let dir = small();
    let cache = tempfile::tempdir().unwrap();
    let config =
        ImageFolderConfig { cache: Cache::In(cache.path().to_owned()), ..Default::default() };
    let load = || image_folder::load(dir.path(), &config).unwrap();
    let decoded = load();
    // Labels that no class has, with a checksum that is right; the file begins with magic number, length of
    // the header, and header.
    for file in fs::read_dir(cache.path()).unwrap() {
        let path = file.unwrap().path();
        let whole = fs::read(&path).unwrap();
        let length = u64::from_le_bytes(whole[16..24].try_into().unwrap()) as usize;
        let mut header: serde_json::Value =
            serde_json::from_slice(&whole[24..24 + length]).unwrap();
        let pixels = header["pixels"].as_u64().unwrap() as usize;
        let mut data = whole[24 + length..][..pixels].to_vec();
        data.extend([0x0f, 0x27].repeat(6));
        assert_eq!(data.len(), whole.len() - 24 - length);
        let mut crc = flate2::Crc::new();
        crc.update(&data);
        header["crc32"] = crc.sum().into();
        let header = serde_json::to_vec(&header).unwrap();
        let start = [&whole[..16], &(header.len() as u64).to_le_bytes()];
        fs::write(path, [&start.concat()[..], &header, &data].concat()).unwrap();
    }
    let again = load();
    assert!(again.train == decoded.train && again.test == decoded.test);
}

#[test]
fn a_folder_has_one_fingerprint_however_it_is_read() {
    let dir = small();
    let train = dir.path().join("train");
    let cache = tempfile::tempdir().unwrap();
    let config =
        ImageFolderConfig { cache: Cache::In(cache.path().to_owned()), ..Default::default() };
    let loaded = |config: &ImageFolderConfig| {
        let images = ImageFolder::open(&train, config).unwrap().load().unwrap().images;
        fingerprint(&images).unwrap()
    };
    let first = fingerprint(&ImageFolder::open(&train, &config).unwrap()).unwrap();
    // From disk, decoded, from the cache, and without one.
    assert_eq!(
        [loaded(&config), loaded(&config), loaded(&without_cache())],
        [(); 3].map(|()| first.clone())
    );
    write(&train.join("bee/3.png"), &picture(100, 8, 6), ImageFormat::Png);
    assert_ne!(loaded(&without_cache()), first);
}

#[test]
fn a_cache_without_a_place_is_no_failure_of_loading() {
    let dir = small();
    // A file where the folder should be: whoever runs this, nothing can be written there.
    let cache = Cache::In(dir.path().join("train/ant/0.png"));
    let config = ImageFolderConfig { cache, ..Default::default() };
    assert_eq!(image_folder::load(dir.path(), &config).unwrap().train.len(), 6);
}

#[test]
fn parts_of_a_folder_keep_the_shares_of_the_classes() {
    let dir = small();
    let folder = ImageFolder::open(dir.path().join("train"), &without_cache()).unwrap();
    let (rest, held_out) = folder.split(2, 7).unwrap();
    assert_eq!((rest.len(), held_out.len()), (4, 2));
    assert_eq!([0, 1].map(|index| held_out.label(index)), [Some(0), Some(1)]);
    let set = folder.load().unwrap().images;
    let (set_rest, set_held_out) = set.split(2, 7).unwrap();
    assert_eq!(rest.load().unwrap().images, set_rest);
    assert_eq!(held_out.load().unwrap().images, set_held_out);
    assert_eq!(folder.take(4, 1).len(), 4);
    for holdout in [0, 6] {
        assert!(matches!(folder.split(holdout, 0), Err(DataError::Holdout { .. })));
    }
}
