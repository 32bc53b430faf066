//! Small files of data sets cannot ask for much memory.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]
#![allow(unreachable_pub, reason = "the module is that of another test as well")]

#[path = "support/counting.rs"]
mod counting;

use std::{
    fs,
    io::{self, Cursor, Read, Write},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use flate2::{Compression, write::GzEncoder, write::ZlibEncoder};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage, RgbaImage};
use releq_data::{
    BadImages, Cache, DataError, ImageFolder, ImageFolderConfig, ImageSize, Splits, cifar10, mnist,
    svhn,
};

use crate::counting::peak;

/// Lets one test run at a time: what another one allocates for its inputs would count as the reader's.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A folder of one class with these files, which is read with this size.
fn folder(files: &[(&str, &[u8])], size: ImageSize) -> (tempfile::TempDir, ImageFolderConfig) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("class")).unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join("class").join(name), bytes).unwrap();
    }
    let (cache, bad_images) = (Cache::Off, BadImages::Skip);
    (dir, ImageFolderConfig { size, cache, bad_images, ..Default::default() })
}

/// Loads the folder, or says what is wrong with the images.
fn load(dir: &Path, config: &ImageFolderConfig) -> (usize, String) {
    let loaded = ImageFolder::open(dir, config).and_then(|folder| folder.load());
    match loaded {
        Ok(loaded) => (loaded.images.len(), format!("{:?}", loaded.skipped)),
        Err(error) => (0, error.to_string()),
    }
}

#[test]
fn one_large_image_takes_what_its_header_says_and_no_more() {
    let _turn = turn();
    let (width, height) = (1500_u32, 1000_u32);
    let pixel = |x: u32, y: u32| [x * y, x + y, x ^ y].map(|v| v as u8);
    let rgb = RgbImage::from_fn(width, height, |x, y| Rgb(pixel(x, y)));
    let rgba = RgbaImage::from_fn(width, height, |x, y| {
        let [r, g, b] = pixel(x, y);
        image::Rgba([r, g, b, 77])
    });
    let deep = DynamicImage::from(rgb.clone()).to_rgb16();
    let images = [
        (encoded(rgb.clone(), ImageFormat::Jpeg), 3),
        (encoded(rgb.clone(), ImageFormat::Png), 3),
        (encoded(rgb.clone(), ImageFormat::WebP), 3),
        (encoded(rgb.clone(), ImageFormat::Bmp), 3),
        (encoded(rgb.clone(), ImageFormat::Tiff), 3),
        (encoded(rgb, ImageFormat::Pnm), 3),
        (encoded(rgba.clone(), ImageFormat::Png), 4),
        (encoded(rgba, ImageFormat::WebP), 4),
        (encoded(deep.clone(), ImageFormat::Png), 6),
        (encoded(deep, ImageFormat::Tiff), 6),
    ];
    for (bytes, channel_bytes) in images {
        let pixels = (width * height) as usize;
        // What the reader of image folders reserves, and the image itself.
        let expected = 2 * bytes.len() + pixels * (2 * channel_bytes + 8) + (1 << 20);
        for (size, image) in
            [(ImageSize::AsStored, 3 * pixels), (ImageSize::square(64), 3 * 64 * 64)]
        {
            let (dir, config) = folder(&[("image.png", &bytes)], size);
            let ((count, problems), peak) = peak(|| load(dir.path(), &config));
            assert_eq!(count, 1, "{problems}");
            assert!(peak <= expected + image + (1 << 18), "{:?}: {peak}", &bytes[..12]);
        }
    }
}

#[test]
fn all_threads_together_keep_within_one_budget() {
    let _turn = turn();
    // Each takes 60 MB decoded, and is estimated at 280 MB: two fit the budget.
    let large = encoded(RgbImage::new(5000, 4000), ImageFormat::Png);
    let names: Vec<String> = (0..8).map(|number| format!("{number}.png")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &large[..])).collect();
    let (dir, config) = folder(&files, ImageSize::square(8));
    let config = ImageFolderConfig { threads: 8, ..config };
    let ((count, _), peak) = peak(|| load(dir.path(), &config));
    assert_eq!(count, 8);
    assert!(peak < 200 << 20, "{peak}");
}

#[test]
fn images_that_say_to_be_large_are_skipped() {
    let _turn = turn();
    // 13,000 x 13,000 pixels of one colour in a lossless WebP file of 40 bytes.
    let webp = b"RIFF\x20\0\0\0WEBPVP8L\x14\0\0\0\x2f\xc7\xf2\xb1\x0c\x07\x50\x81\x54\x08\x20\0\
        \x0a\x9a\xfe\xc7\x88\x88\xfe\x07";
    let mut bmp = encoded(RgbImage::new(4, 4), ImageFormat::Bmp);
    bmp[18..22].copy_from_slice(&16_000_u32.to_le_bytes());
    bmp[22..26].copy_from_slice(&16_000_u32.to_le_bytes());
    let good = encoded(RgbImage::new(4, 4), ImageFormat::Png);
    let files: [(&str, &[u8]); 4] =
        [("a.webp", webp), ("b.bmp", &bmp), ("c.ppm", b"P6\n16000 16000\n255\n"), ("d.png", &good)];
    for size in [ImageSize::AsStored, ImageSize::square(4)] {
        let (dir, config) = folder(&files, size);
        let ((count, skipped), peak) = peak(|| load(dir.path(), &config));
        assert_eq!(count, 1);
        assert_eq!(skipped.matches("pixels in a file of only").count(), 3, "{skipped}");
        assert!(peak < 4 << 20, "{peak}");
    }
}

/// Bits, the lowest of each byte first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    count: usize,
}

impl Bits {
    fn push(&mut self, value: usize, count: usize) {
        for bit in 0..count {
            if self.count.is_multiple_of(8) {
                self.bytes.push(0);
            }
            *self.bytes.last_mut().unwrap() |= ((value >> bit & 1) as u8) << (self.count % 8);
            self.count += 1;
        }
    }

    /// A code of one symbol.
    fn single(&mut self, symbol: usize) {
        self.push(0b101, 3);
        self.push(symbol, 8);
    }

    /// A code of eleven symbols with 1 to 10 bits, whose table has 1024 entries: the shortest that there is.
    fn long(&mut self) {
        self.push(0, 1);
        // Of the code for the lengths: 1 to 6 have 3 bits, 7 to 10 have 4.
        self.push(10, 4);
        for length in [0, 0, 0, 3, 3, 3, 3, 3, 0, 3, 4, 4, 4, 4] {
            self.push(length, 3);
        }
        self.push(1 | 1 << 1 | 9 << 4, 8);
        for length in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10_usize] {
            let (code, bits) = if length < 7 { (length - 1, 3) } else { (length + 5, 4) };
            (0..bits).rev().for_each(|bit| self.push(code >> bit & 1, 1));
        }
    }
}

/// A lossless WebP image of 16 x 16 pixels with so many groups of codes.
fn with_prefix_codes(groups: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.push(0x2f | 15 << 8 | 15 << 22, 40);
    // No transform, no cache; one block of codes of 16 x 16 pixels, which is an image of one pixel: of the last group.
    bits.push(0b1_0_0 | 2 << 3, 6);
    bits.push(0, 1);
    for value in [(groups - 1) & 255, (groups - 1) >> 8, 0, 0, 0] {
        bits.single(value);
    }
    (0..5 * groups).for_each(|_| bits.long());
    bits.push(0, 0);
    bits.bytes.extend([0; 256]);
    let length = (bits.bytes.len() as u32).to_le_bytes();
    let whole = (bits.bytes.len() as u32 + 12).to_le_bytes();
    [b"RIFF", &whole[..], b"WEBPVP8L", &length, &bits.bytes].concat()
}

#[test]
fn prefix_codes_of_webp_images_are_counted_before_they_are_read() {
    let _turn = turn();
    let load_one = |bytes: &[u8]| {
        let (dir, config) = folder(&[("image.webp", bytes)], ImageSize::AsStored);
        peak(|| load(dir.path(), &config))
    };
    // These decode, and take 20 KiB of tables for each group.
    for groups in [1, 100, 2000] {
        let bytes = with_prefix_codes(groups);
        let ((count, problems), peak) = load_one(&bytes);
        assert_eq!(count, 1, "{problems}");
        let tables = groups * 5 * 4096;
        assert!((tables..tables + tables / 4 + (3 << 20)).contains(&peak), "{groups}: {peak}");
    }
    // 3.8 MB that would take 1.3 GB.
    let bytes = with_prefix_codes(65_536);
    let ((count, problems), peak) = load_one(&bytes);
    assert_eq!(count, 0);
    assert!(problems.contains("bytes of memory, more than the 805306368 allowed"), "{problems}");
    assert!(peak < 3 * bytes.len() + (1 << 20), "{peak}");
}

/// What a small PNG file that says to have `side` x `side` pixels is refused for, and the memory that this takes.
fn claimed(image: DynamicImage, side: u32) -> (String, usize) {
    let mut png = encoded(image, ImageFormat::Png);
    png[16..20].copy_from_slice(&side.to_be_bytes());
    png[20..24].copy_from_slice(&side.to_be_bytes());
    let mut crc = flate2::Crc::new();
    crc.update(&png[12..29]);
    png[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    let (dir, config) = folder(&[("image.png", &png)], ImageSize::square(8));
    let ((count, problems), peak) = peak(|| load(dir.path(), &config));
    assert_eq!(count, 0);
    (problems, peak)
}

#[test]
fn a_small_file_is_allowed_as_much_memory_whatever_its_pixels_take() {
    let _turn = turn();
    let rgb = DynamicImage::from(RgbImage::new(4, 4));
    let (problems, peak) = claimed(rgb.clone(), 4096);
    assert!(!problems.contains("in a file of only"), "{problems}");
    assert!(peak < 128 << 20, "{peak}");
    for image in [rgb.to_rgba8().into(), rgb.to_rgb16().into(), rgb.to_rgba16().into()] {
        let (problems, peak) = claimed(image, 4096);
        assert!(problems.contains("4096 x 4096 pixels in a file of only"), "{problems}");
        assert!(peak < 4 << 20, "{peak}");
    }
}

#[test]
fn images_of_floats_are_refused_before_they_are_decoded() {
    let _turn = turn();
    let image = DynamicImage::from(RgbImage::new(1000, 1000)).to_rgba32f();
    let tiff = encoded(image, ImageFormat::Tiff);
    let (dir, config) = folder(&[("image.tiff", &tiff)], ImageSize::square(8));
    let ((count, problems), peak) = peak(|| load(dir.path(), &config));
    assert_eq!(count, 0);
    assert!(problems.contains("floating-point"), "{problems}");
    assert!(peak < tiff.len() + (4 << 20), "{peak}");
}

#[test]
fn a_long_and_narrow_image_is_scaled_only_where_it_is_cut() {
    let _turn = turn();
    // Scaled as a whole, it would have 256 x 108,441 pixels.
    let tall = encoded(image::GrayImage::new(20, 8472), ImageFormat::Png);
    let size = ImageSize::ResizeCrop { resize: 256, crop: 224 };
    let (dir, config) = folder(&[("tall.png", &tall)], size);
    let ((count, _), peak) = peak(|| load(dir.path(), &config));
    assert_eq!(count, 1);
    assert!(peak < 4 << 20, "{peak}");
}

fn error(result: Result<Splits, DataError>) -> String {
    result.err().unwrap().to_string()
}

fn zeros(count: u64) -> impl Read {
    io::repeat(0).take(count)
}

#[test]
fn a_compressed_array_of_zeros_is_refused_by_its_dimensions() {
    let _turn = turn();
    const COUNT: u32 = 80_000;
    let values = 3072 * COUNT;
    let words =
        |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let mut head = words(&[14, 56 + values, 6, 8, 9, 0, 5, 16, 32, 32, 3, COUNT, 0x0001_0001]);
    head.extend(b"X\0\0\0");
    head.extend(words(&[2, values]));
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&head).unwrap();
    io::copy(&mut zeros(values.into()), &mut encoder).unwrap();
    let compressed = encoder.finish().unwrap();
    let mut file = vec![b' '; 124];
    file.extend([0, 1, b'I', b'M']);
    file.extend(words(&[15, compressed.len() as u32]));
    file.extend(compressed);
    assert!(file.len() < 1 << 20);
    let dir = tempfile::tempdir().unwrap();
    for name in ["train_32x32.mat", "test_32x32.mat"] {
        fs::write(dir.path().join(name), &file).unwrap();
    }
    let (message, peak) = peak(|| error(svhn::load(dir.path())));
    assert!(message.contains("`X`: 80000 images in"), "{message}");
    assert!(peak < 2 << 20, "{peak}");
}

#[test]
fn gzip_data_is_read_no_further_than_its_header_promises() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, header: &[u32], count: u64| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        header.iter().for_each(|word| encoder.write_all(&word.to_be_bytes()).unwrap());
        io::copy(&mut zeros(count), &mut encoder).unwrap();
        fs::write(dir.path().join(name), encoder.finish().unwrap()).unwrap();
    };
    for part in ["train", "t10k"] {
        write(&format!("{part}-labels-idx1-ubyte.gz"), &[0x801, 10], 10);
        write(&format!("{part}-images-idx3-ubyte.gz"), &[0x803, 10, 28, 28], 200 << 20);
    }
    let (message, small) = peak(|| error(mnist::load(dir.path())));
    assert!(message.contains("continues after byte 7856"), "{message}");
    write("train-images-idx3-ubyte.gz", &[0x803, 1_000_000, 28, 28], 200 << 20);
    let (message, large) = peak(|| error(mnist::load(dir.path())));
    assert!(message.contains("more than the 67108864 bytes allowed"), "{message}");
    write("t10k-labels-idx1-ubyte.gz", &[0x801, 200 << 20], 200 << 20);
    let (_, labels) = peak(|| releq_data::detect(dir.path()));
    for peak in [small, large, labels] {
        assert!(peak < 1 << 20, "{peak}");
    }
}

#[test]
fn names_and_members_of_an_archive_are_bounded() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cifar-10-binary.tar.gz");
    let write = |kind: tar::EntryType, name: &str, size: u64| {
        let file = fs::File::create(&path).unwrap();
        let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::fast()));
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        archive.append_data(&mut header, name, zeros(size)).unwrap();
        archive.into_inner().unwrap().finish().unwrap();
        peak(|| error(cifar10::load(dir.path())))
    };
    // A long name, and the records of the newer format.
    for kind in [tar::EntryType::GNULongName, tar::EntryType::XHeader] {
        let (message, peak) = write(kind, "name", 200 << 20);
        assert!(message.contains("missing data_batch_1"), "{message}");
        assert!(peak < 1 << 20, "{peak}");
    }
    let (message, peak) = write(tar::EntryType::Regular, "data_batch_1.bin", 300 << 20);
    assert!(message.contains("the batch has more than 67108864 bytes"), "{message}");
    assert!(peak < 200 << 20, "{peak}");
}
