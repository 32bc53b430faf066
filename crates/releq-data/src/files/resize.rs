//! Scales images and cuts out their centre.

use std::ops::Range;

use image::{DynamicImage, ImageBuffer, Pixel};

/// As torchvision's `Resize(resize)` and `CenterCrop(crop)` on images of the Python Imaging Library:
/// a triangle filter as wide as the scale asks for, the longer side rounded down, the crop's corner
/// rounded to even.
///
/// Only what becomes part of the crop is scaled, so that a long and narrow image takes no more time
/// and memory than its pixels do.
///
/// `image` must not be empty, and `crop` must be from 1 to `resize`.
pub(crate) fn resize_crop(image: DynamicImage, resize: u32, crop: u32) -> DynamicImage {
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
    let corner = |side: u32| (f64::from(side - crop) / 2.0).round_ties_even() as u32;
    let (x, y) = (corner(new_width), corner(new_height));
    if (new_width, new_height) == (width, height) {
        return image.crop_imm(x, y, crop, crop);
    }
    let columns = taps(width, new_width, x..x + crop);
    let rows = taps(height, new_height, y..y + crop);
    use DynamicImage as D;
    match image {
        D::ImageLuma8(image) => D::ImageLuma8(resample(&image, &columns, &rows)),
        D::ImageLumaA8(image) => D::ImageLumaA8(resample(&image, &columns, &rows)),
        D::ImageRgb8(image) => D::ImageRgb8(resample(&image, &columns, &rows)),
        D::ImageRgba8(image) => D::ImageRgba8(resample(&image, &columns, &rows)),
        D::ImageLuma16(image) => D::ImageLuma16(resample(&image, &columns, &rows)),
        D::ImageLumaA16(image) => D::ImageLumaA16(resample(&image, &columns, &rows)),
        D::ImageRgb16(image) => D::ImageRgb16(resample(&image, &columns, &rows)),
        D::ImageRgba16(image) => D::ImageRgba16(resample(&image, &columns, &rows)),
        other => D::ImageRgb8(resample(&other.into_rgb8(), &columns, &rows)),
    }
}

/// The samples that one sample of the result is the weighted sum of.
struct Taps {
    first: usize,
    weights: Vec<f32>,
}

impl Taps {
    fn range(&self) -> Range<usize> {
        self.first..self.first + self.weights.len()
    }
}

/// Taps of the samples `wanted` when `old` samples are scaled to `new`, calculated as in
/// [`image::imageops::resize`], so that the result is the same.
fn taps(old: u32, new: u32, wanted: Range<u32>) -> Vec<Taps> {
    let ratio = old as f32 / new as f32;
    let scale = ratio.max(1.0);
    let taps = wanted.map(|position| {
        let centre = (position as f32 + 0.5) * ratio;
        let first = ((centre - scale).floor() as i64).clamp(0, i64::from(old) - 1);
        let end = ((centre + scale).ceil() as i64).clamp(first + 1, i64::from(old));
        let triangle = |index| {
            let distance = ((index as f32 - (centre - 0.5)) / scale).abs();
            if distance < 1.0 { 1.0 - distance } else { 0.0 }
        };
        let mut weights: Vec<f32> = (first..end).map(triangle).collect();
        let sum: f32 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= sum);
        Taps { first: first as usize, weights }
    });
    taps.collect()
}

/// A sample of a pixel: `u8` or `u16`.
trait Sample: Copy {
    fn to_f32(self) -> f32;
    /// The nearest sample.
    fn from_f32(value: f32) -> Self;
}

impl Sample for u8 {
    fn to_f32(self) -> f32 {
        self.into()
    }
    fn from_f32(value: f32) -> Self {
        value.round() as Self
    }
}

impl Sample for u16 {
    fn to_f32(self) -> f32 {
        self.into()
    }
    fn from_f32(value: f32) -> Self {
        value.round() as Self
    }
}

/// The height first, row by row, and of each row only the columns that are needed.
fn resample<P: Pixel<Subpixel: Sample>>(
    image: &ImageBuffer<P, Vec<P::Subpixel>>,
    columns: &[Taps],
    rows: &[Taps],
) -> ImageBuffer<P, Vec<P::Subpixel>> {
    let channels = usize::from(P::CHANNEL_COUNT);
    let stride = image.width() as usize * channels;
    let first = columns.iter().map(|taps| taps.range().start).min().unwrap_or(0);
    let end = columns.iter().map(|taps| taps.range().end).max().unwrap_or(0);
    let samples = image.as_raw();
    let mut sums = vec![0.0_f32; (end - first) * channels];
    let mut scaled = Vec::with_capacity(columns.len() * rows.len() * channels);
    for row in rows {
        sums.fill(0.0);
        for (y, weight) in row.range().zip(&row.weights) {
            let line = &samples[y * stride..][first * channels..end * channels];
            for (sum, sample) in sums.iter_mut().zip(line) {
                *sum += sample.to_f32() * weight;
            }
        }
        for column in columns {
            let start = (column.first - first) * channels;
            let sums = &sums[start..][..column.weights.len() * channels];
            for channel in 0..channels {
                let values = sums[channel..].iter().step_by(channels);
                let mut sum = 0.0;
                values.zip(&column.weights).for_each(|(value, weight)| sum += value * weight);
                scaled.push(P::Subpixel::from_f32(sum));
            }
        }
    }
    // One sample for each column, row and channel: the buffer fits.
    ImageBuffer::from_raw(columns.len() as u32, rows.len() as u32, scaled).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use image::{GrayAlphaImage, GrayImage, RgbImage, RgbaImage, imageops::FilterType};

    use super::*;

    /// Scales the whole image with the library and then cuts out the centre.
    fn whole(image: &DynamicImage, resize: u32, crop: u32) -> DynamicImage {
        let (width, height) = (image.width(), image.height());
        let longer = |long, short| (u64::from(resize) * u64::from(long) / u64::from(short)) as u32;
        let (new_width, new_height) = match width <= height {
            true => (resize, longer(height, width)),
            false => (longer(width, height), resize),
        };
        let corner = |side: u32| (f64::from(side - crop) / 2.0).round_ties_even() as u32;
        image.resize_exact(new_width, new_height, FilterType::Triangle).crop_imm(
            corner(new_width),
            corner(new_height),
            crop,
            crop,
        )
    }

    fn noise(seed: u32) -> impl FnMut() -> u8 {
        let mut state = seed;
        move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        }
    }

    /// Noise of one size in all pixel types.
    fn pictures(width: u32, height: u32) -> Vec<DynamicImage> {
        let mut next = noise(width * 31 + height);
        let mut samples =
            |channels: u32| (0..width * height * channels).map(|_| next()).collect::<Vec<u8>>();
        let eight: Vec<DynamicImage> = vec![
            GrayImage::from_raw(width, height, samples(1)).unwrap().into(),
            GrayAlphaImage::from_raw(width, height, samples(2)).unwrap().into(),
            RgbImage::from_raw(width, height, samples(3)).unwrap().into(),
            RgbaImage::from_raw(width, height, samples(4)).unwrap().into(),
        ];
        let sixteen = [
            DynamicImage::ImageLuma16(eight[0].to_luma16()),
            DynamicImage::ImageLumaA16(eight[1].to_luma_alpha16()),
            DynamicImage::ImageRgb16(eight[2].to_rgb16()),
            DynamicImage::ImageRgba16(eight[3].to_rgba16()),
        ];
        eight.into_iter().chain(sixteen).collect()
    }

    #[test]
    fn cutting_first_changes_no_pixel() {
        for (width, height) in [(1, 1), (5, 3), (32, 32), (33, 20), (50, 37), (20, 61), (200, 150)]
        {
            for (resize, crop) in [(1, 1), (16, 14), (28, 28), (32, 32), (37, 30), (64, 56)] {
                for image in pictures(width, height) {
                    let expected = whole(&image, resize, crop);
                    let found = resize_crop(image, resize, crop);
                    assert_eq!(found, expected, "{width} x {height} to {resize}, {crop}");
                }
            }
        }
    }

    #[test]
    fn long_and_narrow_images_are_scaled_where_the_crop_is() {
        for (width, height) in [(3, 700), (700, 3), (1, 200), (200, 1)] {
            let image = pictures(width, height).swap_remove(2);
            assert_eq!(resize_crop(image.clone(), 24, 20), whole(&image, 24, 20));
        }
        // Scaled as a whole, this would have 4,294,967,295 rows.
        let image = GrayImage::from_fn(1, 16_384, |_, y| [(y / 64) as u8].into());
        let found = resize_crop(image.into(), 16_384, 2);
        // Around the middle the rows turn from 127 to 128.
        assert!(found.to_luma8().pixels().all(|pixel| (127..=128).contains(&pixel[0])));
    }
}
