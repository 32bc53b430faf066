//! From an image file to planes of pixels.

use std::{
    fmt,
    fs::File,
    io::{self, Cursor, Read},
    path::{Path, PathBuf},
};

use image::{ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use releq_core::StandIn;
use serde::{Deserialize, Serialize};

use super::{
    budget::{Budget, Reserved},
    jpeg::jpeg_ends,
    planes::{Color, to_planes},
    resize::resize_crop,
    webp::prefix_codes,
};

/// Largest side of an image that is decoded, and of what it can be scaled to.
pub(crate) const LARGEST_SIDE: u32 = 1 << 14;
/// Largest header.
const LARGEST_HEADER: u64 = 1 << 24;
/// Memory for the files and for decoding them, of all threads together. ImageNet's largest image has
/// 50 million pixels, which take 700 MB.
static FILES: Budget = Budget::new(2 * LARGEST_FILE);
static DECODING: Budget = Budget::new(3 << 28);
/// Largest image file that is read.
const LARGEST_FILE: u64 = 1 << 27;
/// Images of more than `SPARSE_PIXELS` must have a byte for so many pixels; a PNG image of one colour and one bit
/// per pixel has one for 8,000.
const PIXELS_PER_BYTE: u64 = 1 << 14;
const SPARSE_PIXELS: u64 = 1 << 24;
/// The same for decoded bytes, of which a pixel can have eight. Such a PNG image with a palette decodes to three for
/// each pixel.
const DECODED_PER_BYTE: u64 = 2 * PIXELS_PER_BYTE;
const SPARSE_DECODED: u64 = 3 * SPARSE_PIXELS;
/// Tables of a decoder.
const SMALL: u64 = 1 << 20;
/// Largest part of a lossy WebP file, reserved before it is read.
const PARTITION: u64 = 1 << 24;

/// How the size of images is changed when they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageSize {
    /// Not at all; all images must have the same size.
    #[default]
    AsStored,
    /// The shorter side is scaled to `resize` pixels, then a square of `crop` pixels is cut out of the centre, as
    /// ImageNet networks are tested, usually with 256 and 224.
    ResizeCrop {
        /// Shorter side after scaling, at most 16,384.
        resize: u32,
        /// Side of the square, from 1 to `resize`.
        crop: u32,
    },
}

impl ImageSize {
    /// Scales the shorter side to `side` pixels and cuts the longer one to the same length.
    #[must_use]
    pub const fn square(side: u32) -> Self {
        Self::ResizeCrop { resize: side, crop: side }
    }
}

/// An image that does not decode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadImage {
    /// The file.
    pub path: PathBuf,
    /// The decoder's error.
    pub reason: String,
}

impl fmt::Display for BadImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path.display(), self.reason)
    }
}

/// Why a file gives no image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("not a JPEG, PNG, WebP, BMP, TIFF or PNM file")]
    Foreign,
    #[error("the file {0}")]
    StandIn(StandIn),
    #[error("the JPEG data ends early")]
    Truncated,
    #[error("no pixels")]
    Empty,
    #[error("samples are floating-point numbers; convert them to 8 bits")]
    Float,
    #[error("{0} x {1} pixels; at most {LARGEST_SIDE} on a side are read")]
    Side(u32, u32),
    #[error("a file of {0} bytes is too large for an image; at most {LARGEST_FILE} are read")]
    LargeFile(u64),
    #[error(
        "decoding {width} x {height} pixels takes {needed} bytes of memory, more than the {} allowed; \
         scale the image down",
        DECODING.limit()
    )]
    Large { width: u32, height: u32, needed: u64 },
    #[error("{width} x {height} pixels in a file of only {bytes} bytes")]
    Sparse { width: u32, height: u32, bytes: usize },
    #[error("a broken link")]
    BrokenLink,
    #[error("it is no file")]
    NoFile,
    #[error("it may not be read: {0}")]
    Forbidden(io::Error),
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// Why a file was not read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The file gives no image; others may.
    Bad(DecodeError),
    /// The disk fails, or the file has just been removed.
    Fatal(io::Error),
}

impl<E: Into<DecodeError>> From<E> for ReadError {
    fn from(error: E) -> Self {
        Self::Bad(error.into())
    }
}

/// The contents of an image file, which count as used memory until they are dropped.
struct FileBytes {
    bytes: Vec<u8>,
    _reserved: Reserved<'static>,
}

fn read_file(path: &Path) -> Result<FileBytes, ReadError> {
    let fail = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => DecodeError::Forbidden(error).into(),
        // To nothing or in a circle. Anything else was there when the folder was listed.
        _ if path.is_symlink() && path.metadata().is_err() => DecodeError::BrokenLink.into(),
        _ => ReadError::Fatal(error),
    };
    // Before it is opened, which waits for a writer if it is a pipe; of a device, there may be no end.
    if !path.metadata().map_err(fail)?.is_file() {
        return Err(DecodeError::NoFile.into());
    }
    let file = File::open(path).map_err(fail)?;
    let length = file.metadata().map_err(fail)?.len();
    // Decoders of JPEG copy the file.
    let reserved = FILES.reserve(length.saturating_mul(2));
    let reserved = reserved.ok_or(DecodeError::LargeFile(length))?;
    let mut bytes = Vec::with_capacity(length as usize);
    // If the file grows meanwhile, only what it had is read.
    file.take(length).read_to_end(&mut bytes).map_err(fail)?;
    Ok(FileBytes { bytes, _reserved: reserved })
}

/// A decoder of `bytes` that has read the header, and the memory that decoding takes at most.
fn decoder(bytes: &[u8]) -> Result<(impl ImageDecoder, ImageFormat, u64), DecodeError> {
    // By content: names lie. ImageNet itself has a PNG file that is named `.JPEG`.
    let foreign = |_| StandIn::of(bytes).map_or(DecodeError::Foreign, DecodeError::StandIn);
    let format = image::guess_format(bytes).map_err(foreign)?;
    if !format.reading_enabled() {
        return Err(DecodeError::Foreign);
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(LARGEST_HEADER);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err(DecodeError::Empty);
    }
    if width.max(height) > LARGEST_SIDE {
        return Err(DecodeError::Side(width, height));
    }
    // What the numbers mean is up to whoever wrote them: 0 to 1, 0 to 255, or heights of mountains.
    if matches!(decoder.color_type(), ColorType::Rgb32F | ColorType::Rgba32F) {
        return Err(DecodeError::Float);
    }
    let decoded = decoder.total_bytes();
    let most = |least: u64, per_byte: u64| least.max(per_byte.saturating_mul(bytes.len() as u64));
    if pixels > most(SPARSE_PIXELS, PIXELS_PER_BYTE)
        || decoded > most(SPARSE_DECODED, DECODED_PER_BYTE)
    {
        return Err(DecodeError::Sparse { width, height, bytes: bytes.len() });
    }
    // Decoders hold the image up to twice, progressive JPEG its coefficients, WebP four channels.
    let needed = decoded.saturating_mul(2) + pixels.saturating_mul(8) + SMALL;
    if needed > DECODING.limit() {
        return Err(DecodeError::Large { width, height, needed });
    }
    limits.max_alloc = Some(needed);
    decoder.set_limits(limits)?;
    Ok((decoder, format, needed))
}

/// Height and width of the image at `path`, from its header alone.
pub(crate) fn size(path: &Path) -> Result<[usize; 2], ReadError> {
    let file = read_file(path)?;
    let (width, height) = decoder(&file.bytes)?.0.dimensions();
    Ok([height as usize, width as usize])
}

/// An image that counts as used memory until it is dropped.
pub(crate) struct Decoded {
    image: DynamicImage,
    _reserved: Reserved<'static>,
}

/// Decodes the image at `path` and brings it to `size`.
pub(crate) fn read(path: &Path, size: ImageSize) -> Result<Decoded, ReadError> {
    Ok(decode(&read_file(path)?.bytes, size)?)
}

fn decode(bytes: &[u8], size: ImageSize) -> Result<Decoded, DecodeError> {
    let (decoder, format, needed) = decoder(bytes)?;
    let (width, height) = decoder.dimensions();
    let scaled = match size {
        ImageSize::AsStored => 0,
        ImageSize::ResizeCrop { crop, .. } => 8 * u64::from(crop).pow(2),
    };
    let needed = needed + scaled;
    if needed > DECODING.limit() {
        return Err(DecodeError::Large { width, height, needed });
    }
    let most = needed.saturating_add(match format {
        ImageFormat::WebP => PARTITION.max(prefix_codes(bytes, width, height)),
        _ => 0,
    });
    // Threads that hold files wait here, and those that go on need no more files.
    let large = || DecodeError::Large { width, height, needed: most };
    let reserved = DECODING.reserve(most).ok_or_else(large)?;
    // The decoder fills what is missing with grey and says nothing.
    if format == ImageFormat::Jpeg && !jpeg_ends(bytes) {
        return Err(DecodeError::Truncated);
    }
    let image = DynamicImage::from_decoder(decoder)?;
    let image = match size {
        ImageSize::AsStored => image,
        ImageSize::ResizeCrop { resize, crop } => resize_crop(image, resize, crop),
    };
    Ok(Decoded { image, _reserved: reserved })
}

impl Decoded {
    /// Height and width.
    pub(crate) fn size(&self) -> [usize; 2] {
        [self.image.height() as usize, self.image.width() as usize]
    }

    /// Copies the pixels to `planes`.
    ///
    /// # Shapes
    /// - `planes`: `[color.channels(), height, width]`
    pub(crate) fn into_planes(self, color: Color, planes: &mut [u8]) {
        to_planes(self.image, color, planes);
    }
}

#[cfg(test)]
mod tests {
    use image::{ImageFormat, Rgb, Rgb32FImage, RgbImage};

    use super::*;

    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([(x * 5) as u8, (y * 7) as u8, 90]))
    }

    fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn planes(bytes: &[u8], size: ImageSize, color: Color) -> Vec<u8> {
        let image = decode(bytes, size).unwrap();
        let [height, width] = image.size();
        let mut planes = vec![0; color.channels() * height * width];
        image.into_planes(color, &mut planes);
        planes
    }

    fn dimensions(bytes: &[u8]) -> (u32, u32) {
        decoder(bytes).unwrap().0.dimensions()
    }

    #[test]
    fn lossless_formats_give_back_their_pixels_in_planes() {
        let image = gradient(6, 4);
        let expected: Vec<u8> =
            (0..3).flat_map(|channel| image.pixels().map(move |pixel| pixel[channel])).collect();
        let formats = [
            ImageFormat::Png,
            ImageFormat::WebP,
            ImageFormat::Bmp,
            ImageFormat::Tiff,
            ImageFormat::Pnm,
        ];
        for format in formats {
            let bytes = encoded(&image.clone().into(), format);
            assert_eq!(dimensions(&bytes), (6, 4));
            assert_eq!(planes(&bytes, ImageSize::AsStored, Color::Rgb), expected, "{format:?}");
        }
        let jpeg = encoded(&image.into(), ImageFormat::Jpeg);
        let got = planes(&jpeg, ImageSize::AsStored, Color::Rgb);
        assert!(got.iter().zip(&expected).all(|(a, b)| a.abs_diff(*b) < 12), "{got:?}");
    }

    #[test]
    fn the_shorter_side_is_scaled_and_the_centre_cut_out() {
        for (width, height) in [(60, 40), (40, 60), (40, 40), (41, 97)] {
            let size = ImageSize::ResizeCrop { resize: 20, crop: 16 };
            let bytes = encoded(&gradient(width, height).into(), ImageFormat::Png);
            let image = decode(&bytes, size).unwrap();
            assert_eq!(image.size(), [16, 16]);
            // Colours rise evenly, so the mean of the square is that of the centre.
            let got = planes(&bytes, size, Color::Rgb);
            let mean = |plane: &[u8]| plane.iter().map(|&v| f32::from(v)).sum::<f32>() / 256.0;
            let centre = [5.0 * (width - 1) as f32 / 2.0, 7.0 * (height - 1) as f32 / 2.0];
            for (plane, centre) in got.chunks_exact(256).zip(centre) {
                // Values wrap at 256 in the tall one; there the size alone counts.
                if centre < 127.0 {
                    assert!(
                        (mean(plane) - centre).abs() < 3.0,
                        "{width}x{height}: {}",
                        mean(plane)
                    );
                }
            }
        }
    }

    #[test]
    fn damaged_and_foreign_files_say_what_they_are() {
        let image: DynamicImage = gradient(64, 64).into();
        let check = |bytes: &[u8], expected: &str| {
            let error = decode(bytes, ImageSize::AsStored).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(b"", "the file is empty");
        check(b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull");
        check(b"<!DOCTYPE html>", "is a web page");
        check(b"GIF89a and so on", "not a JPEG, PNG, WebP");
        check(b"just text", "not a JPEG, PNG, WebP");
        let formats = [
            ImageFormat::Png,
            ImageFormat::WebP,
            ImageFormat::Jpeg,
            ImageFormat::Bmp,
            ImageFormat::Tiff,
            ImageFormat::Pnm,
        ];
        for format in formats {
            let whole = encoded(&image, format);
            for length in [7, 12, 20, whole.len() / 2, whole.len() - 8] {
                assert!(
                    decode(&whole[..length], ImageSize::AsStored).is_err(),
                    "{format:?} cut to {length} of {}",
                    whole.len()
                );
            }
        }
        let jpeg = encoded(&image, ImageFormat::Jpeg);
        check(&jpeg[..jpeg.len() - 2], "ends early");
        // What follows the end of a JPEG file does no harm, be it the start of another.
        for trailer in [&b"trailer"[..], &jpeg[..jpeg.len() - 2]] {
            assert!(decode(&[&jpeg, trailer].concat(), ImageSize::AsStored).is_ok());
        }
        // A whole thumbnail in a segment does not stand for the image's own end.
        let length = u16::try_from(jpeg.len() + 2).unwrap().to_be_bytes();
        let thumbnail = [&[0xff, 0xe1], &length[..], &jpeg].concat();
        let with_thumbnail = [&jpeg[..2], &thumbnail, &jpeg[2..]].concat();
        check(&with_thumbnail[..with_thumbnail.len() - 2], "ends early");
        assert!(decode(&with_thumbnail, ImageSize::AsStored).is_ok());
        let float = Rgb32FImage::from_pixel(4, 4, Rgb([0.5; 3]));
        check(&encoded(&float.into(), ImageFormat::Tiff), "floating-point numbers");
    }

    #[test]
    fn a_header_cannot_ask_for_more_than_an_image_takes() {
        let check = |bytes: &[u8], size, expected: &str| {
            let error = decode(bytes, size).err().unwrap().to_string();
            assert!(error.contains(expected), "`{error}` lacks `{expected}`");
        };
        let with_size = |width: u32, height: u32| {
            let mut bmp = encoded(&gradient(64, 64).into(), ImageFormat::Bmp);
            bmp[18..22].copy_from_slice(&width.to_le_bytes());
            bmp[22..26].copy_from_slice(&height.to_le_bytes());
            bmp
        };
        check(&with_size(1 << 15, 1), ImageSize::AsStored, "32768 x 1 pixels; at most 16384");
        let bmp = &with_size(16_000, 12_000)[..1000];
        check(bmp, ImageSize::AsStored, "16000 x 12000 pixels in a file of only 1000 bytes");
        let mut long = with_size(16_000, 12_000);
        long.resize(1 << 20, 0);
        check(&long, ImageSize::square(4), "16000 x 12000 pixels takes");
        // 13,000 x 13,000 pixels of one colour in a lossless WebP file of 40 bytes.
        let webp =
            b"RIFF\x20\0\0\0WEBPVP8L\x14\0\0\0\x2f\xc7\xf2\xb1\x0c\x07\x50\x81\x54\x08\x20\0\
            \x0a\x9a\xfe\xc7\x88\x88\xfe\x07";
        check(webp, ImageSize::square(4), "13000 x 13000 pixels in a file of only 40 bytes");
    }
}
