//! The channels of an image, one after the other.

use image::DynamicImage;
use serde::{Deserialize, Serialize};

/// The channels of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Color {
    /// Red, green, blue; grey images have three equal channels.
    #[default]
    Rgb,
    /// Blue, green, red, as Caffe's networks take them.
    Bgr,
    /// One channel: the luma of ITU-R BT.601, as in most image libraries.
    Gray,
}

impl Color {
    /// Number of channels.
    #[must_use]
    pub const fn channels(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Gray => 1,
        }
    }
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
        Color::Rgb | Color::Bgr => {
            let (first, rest) = planes.split_at_mut(plane_size);
            let (green, last) = rest.split_at_mut(plane_size);
            let (red, blue) = if color == Color::Rgb { (first, last) } else { (last, first) };
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
    use image::{GrayImage, RgbImage};

    use super::*;

    fn planes(image: impl Into<DynamicImage>, color: Color) -> Vec<u8> {
        let image = image.into();
        let pixels = image.width() as usize * image.height() as usize;
        let mut planes = vec![0; color.channels() * pixels];
        to_planes(image, color, &mut planes);
        planes
    }

    #[test]
    fn grey_is_luma_and_grey_images_have_equal_channels() {
        let colours: RgbImage =
            RgbImage::from_raw(4, 1, vec![255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9]).unwrap();
        // 255 times 0.299, 0.587 and 0.114, rounded.
        assert_eq!(planes(colours, Color::Gray), [76, 150, 29, 9]);
        let grey = GrayImage::from_raw(3, 1, vec![0, 100, 255]).unwrap();
        assert_eq!(planes(grey.clone(), Color::Gray), [0, 100, 255]);
        let rgb = planes(grey, Color::Rgb);
        assert_eq!(rgb, [0, 100, 255, 0, 100, 255, 0, 100, 255]);
        let mixed = RgbImage::from_raw(2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(planes(mixed.clone(), Color::Rgb), [1, 4, 2, 5, 3, 6]);
        assert_eq!(planes(mixed, Color::Bgr), [3, 6, 2, 5, 1, 4]);
    }
}
