//! From the bytes of an image file to planes of pixels.

use std::{fmt, io::Cursor, path::PathBuf};

use image::{DynamicImage, ImageError, ImageReader, Limits, imageops::FilterType};
use serde::{Deserialize, Serialize};

/// Largest side and largest buffer of an image that is decoded, so that a damaged header or a hostile
/// file cannot ask for all memory.
const LARGEST_SIDE: u32 = 1 << 14;
const LARGEST_BUFFER: u64 = 1 << 29;

/// What becomes of the size of an image while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageSize {
    /// Nothing; all images must have one size.
    #[default]
    AsStored,
    /// The shorter side is scaled to `resize` pixels, and a square of `crop` pixels is cut out of the
    /// centre: what ImageNet networks are tested with, mostly 256 and 224.
    ResizeCrop {
        /// Shorter side after scaling.
        resize: u32,
        /// Side of the square, not larger than `resize`.
        crop: u32,
    },
}

impl ImageSize {
    /// The whole of every image scaled to `side`, but for what is not square.
    #[must_use]
    pub const fn square(side: u32) -> Self {
        Self::ResizeCrop { resize: side, crop: side }
    }
}

/// The channels of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Color {
    /// Red, green, blue; grey images have three equal channels.
    #[default]
    Rgb,
    /// One channel: the luma of ITU-R BT.601, as in most image libraries.
    Gray,
}

impl Color {
    /// Number of channels.
    #[must_use]
    pub const fn channels(self) -> usize {
        match self {
            Self::Rgb => 3,
            Self::Gray => 1,
        }
    }
}

/// An image that does not decode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadImage {
    /// The file.
    pub path: PathBuf,
    /// What the decoder said.
    pub reason: String,
}

impl fmt::Display for BadImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path.display(), self.reason)
    }
}

/// Why the bytes of a file give no image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("no JPEG, PNG or WebP file")]
    Foreign,
    #[error("the JPEG data ends early")]
    Truncated,
    #[error("no pixels")]
    Empty,
    #[error("{0} x {1} pixels are too long and narrow to be scaled")]
    Narrow(u32, u32),
    #[error(transparent)]
    Image(#[from] ImageError),
}

fn reader(bytes: &[u8]) -> Result<ImageReader<Cursor<&[u8]>>, DecodeError> {
    // By content: names lie. ImageNet itself has a PNG file that is named `.JPEG`.
    let format = image::guess_format(bytes).map_err(|_| DecodeError::Foreign)?;
    if !format.reading_enabled() {
        return Err(DecodeError::Foreign);
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_image_width = Some(LARGEST_SIDE);
    limits.max_image_height = Some(LARGEST_SIDE);
    limits.max_alloc = Some(LARGEST_BUFFER);
    reader.limits(limits);
    Ok(reader)
}

/// Height and width, from the header alone.
pub(crate) fn size(bytes: &[u8]) -> Result<[usize; 2], DecodeError> {
    let (width, height) = reader(bytes)?.into_dimensions()?;
    Ok([height as usize, width as usize])
}

/// Decodes an image file and brings it to `size`.
pub(crate) fn decode(bytes: &[u8], size: ImageSize) -> Result<DynamicImage, DecodeError> {
    let reader = reader(bytes)?;
    // The decoder fills what is missing with grey and says nothing.
    if reader.format() == Some(image::ImageFormat::Jpeg) && !jpeg_ends(bytes) {
        return Err(DecodeError::Truncated);
    }
    let image = reader.decode()?;
    if image.width() == 0 || image.height() == 0 {
        return Err(DecodeError::Empty);
    }
    Ok(match size {
        ImageSize::AsStored => image,
        ImageSize::ResizeCrop { resize, crop } => return resize_crop(image, resize, crop),
    })
}

/// Whether an end marker follows the last scan (ITU-T T.81, annex B): segments are stepped over by their
/// length, thumbnails with them; in a scan's data, 0xff stands before 0, a restart or the next marker.
/// What follows the end is not looked at.
fn jpeg_ends(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(2..).unwrap_or_default();
    loop {
        // Bytes between segments are data of a scan, or for the decoder to judge.
        let Some(at) = rest.iter().position(|&byte| byte == 0xff) else { return false };
        rest = &rest[at + 1..];
        match *rest {
            [] => return false,
            [0xd9, ..] => return true,
            // Fill bytes, stuffed zeros, restarts, and markers without a segment.
            [0xff, ..] => {}
            [0 | 1 | 0xd0..=0xd8, ..] => rest = &rest[1..],
            [_, high, low, ..] => {
                let length = usize::from(u16::from_be_bytes([high, low]));
                let Some(after) = rest.get(1 + length..) else { return false };
                rest = after;
            }
            _ => return false,
        }
    }
}

/// As torchvision's `Resize(resize)` and `CenterCrop(crop)` on images of the Python Imaging Library:
/// a triangle filter as wide as the scale asks for, the longer side rounded down, the crop's corner
/// rounded to even.
fn resize_crop(image: DynamicImage, resize: u32, crop: u32) -> Result<DynamicImage, DecodeError> {
    let (width, height) = (image.width(), image.height());
    let longer = |long: u32, short: u32| {
        let scaled = u64::from(resize) * u64::from(long) / u64::from(short);
        u32::try_from(scaled).unwrap_or(u32::MAX).max(resize)
    };
    let (new_width, new_height) = if width <= height {
        (resize, longer(height, width))
    } else {
        (longer(width, height), resize)
    };
    let image = if (new_width, new_height) == (width, height) {
        image
    } else {
        // The filter scales the height first and holds four channels of `f32`.
        let pixels = u64::from(new_width.max(width)) * u64::from(new_height);
        if pixels.saturating_mul(16) > LARGEST_BUFFER {
            return Err(DecodeError::Narrow(width, height));
        }
        image.resize_exact(new_width, new_height, FilterType::Triangle)
    };
    let corner = |side: u32| (f64::from(side - crop) / 2.0).round_ties_even() as u32;
    Ok(image.crop_imm(corner(new_width), corner(new_height), crop, crop))
}

/// Copies the pixels of `image` to `planes`.
///
/// # Shapes
/// - `planes`: `[color.channels(), height, width]`
pub(crate) fn to_planes(image: DynamicImage, color: Color, planes: &mut [u8]) {
    // Transparency is dropped, not blended; 16-bit samples keep their upper half.
    if let (DynamicImage::ImageLuma8(_) | DynamicImage::ImageLumaA8(_), Color::Gray) =
        (&image, color)
    {
        planes.copy_from_slice(image.into_luma8().as_raw());
        return;
    }
    let pixels = image.into_rgb8();
    let plane_size = pixels.as_raw().len() / 3;
    let pixels = pixels.as_raw().chunks_exact(3);
    match color {
        Color::Rgb => {
            let (red, rest) = planes.split_at_mut(plane_size);
            let (green, blue) = rest.split_at_mut(plane_size);
            for (((pixel, r), g), b) in pixels.zip(red).zip(green).zip(blue) {
                (*r, *g, *b) = (pixel[0], pixel[1], pixel[2]);
            }
        }
        Color::Gray => {
            for (pixel, luma) in pixels.zip(planes) {
                let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
                // 0.299, 0.587 and 0.114 in units of 2^-16; the sum is below 2^24.
                *luma = ((19_595 * r + 38_470 * g + 7_471 * b + (1 << 15)) >> 16) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, ImageFormat, Rgb, RgbImage};

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
        let pixels = image.width() as usize * image.height() as usize;
        let mut planes = vec![0; color.channels() * pixels];
        to_planes(image, color, &mut planes);
        planes
    }

    #[test]
    fn lossless_formats_give_back_their_pixels_in_planes() {
        let image = gradient(6, 4);
        let expected: Vec<u8> =
            (0..3).flat_map(|channel| image.pixels().map(move |pixel| pixel[channel])).collect();
        for format in [ImageFormat::Png, ImageFormat::WebP] {
            let bytes = encoded(&image.clone().into(), format);
            assert_eq!(size(&bytes).unwrap(), [4, 6]);
            assert_eq!(planes(&bytes, ImageSize::AsStored, Color::Rgb), expected, "{format:?}");
        }
        let jpeg = encoded(&image.into(), ImageFormat::Jpeg);
        let got = planes(&jpeg, ImageSize::AsStored, Color::Rgb);
        assert!(got.iter().zip(&expected).all(|(a, b)| a.abs_diff(*b) < 12), "{got:?}");
    }

    #[test]
    fn grey_is_luma_and_grey_images_have_equal_channels() {
        let colours: RgbImage =
            RgbImage::from_raw(4, 1, vec![255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9]).unwrap();
        let bytes = encoded(&colours.into(), ImageFormat::Png);
        // 255 times 0.299, 0.587 and 0.114, rounded.
        assert_eq!(planes(&bytes, ImageSize::AsStored, Color::Gray), [76, 150, 29, 9]);
        let grey = GrayImage::from_raw(3, 1, vec![0, 100, 255]).unwrap();
        let bytes = encoded(&grey.into(), ImageFormat::Png);
        assert_eq!(planes(&bytes, ImageSize::AsStored, Color::Gray), [0, 100, 255]);
        let rgb = planes(&bytes, ImageSize::AsStored, Color::Rgb);
        assert_eq!(rgb, [0, 100, 255, 0, 100, 255, 0, 100, 255]);
    }

    #[test]
    fn the_shorter_side_is_scaled_and_the_centre_cut_out() {
        for (width, height) in [(60, 40), (40, 60), (40, 40), (41, 97)] {
            let size = ImageSize::ResizeCrop { resize: 20, crop: 16 };
            let bytes = encoded(&gradient(width, height).into(), ImageFormat::Png);
            let image = decode(&bytes, size).unwrap();
            assert_eq!((image.width(), image.height()), (16, 16));
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
            let error = decode(bytes, ImageSize::AsStored).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(b"", "no JPEG, PNG or WebP");
        check(b"GIF89a and so on", "no JPEG, PNG or WebP");
        check(b"just text", "no JPEG, PNG or WebP");
        for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Jpeg] {
            let whole = encoded(&image, format);
            for length in [12, 20, whole.len() / 2, whole.len() - 8] {
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
        // Few pixels that would become many.
        let narrow = encoded(&gradient(1, 1 << 13).into(), ImageFormat::Png);
        let error = decode(&narrow, ImageSize::ResizeCrop { resize: 256, crop: 224 }).unwrap_err();
        assert!(error.to_string().contains("1 x 8192 pixels are too long and narrow"), "{error}");
        // A header that asks for more than is allowed.
        let mut png = encoded(&image, ImageFormat::Png);
        png[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(decode(&png, ImageSize::AsStored).is_err());
    }
}
