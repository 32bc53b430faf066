//! The seam between images and what learns from them.

use crate::{DataError, Normalization};

/// The class of an image, from 0.
pub type Label = u16;

/// Labelled images of one shape that can be read one at a time, in any order.
///
/// [`ImageSet`](crate::ImageSet) keeps them in memory, [`ImageFolder`](crate::ImageFolder) reads them
/// from disk when they are asked for. Training and measuring take either, or your own; what asks for
/// an `ImageSet` takes your own through [`ImageSet::read`](crate::ImageSet::read).
///
/// # Examples
///
/// ```
/// use releq_data::{DataError, Dataset, ImageSet, Label};
///
/// /// Two kinds of stripes.
/// struct Stripes;
///
/// impl Dataset for Stripes {
///     fn name(&self) -> &str {
///         "stripes"
///     }
///     fn shape(&self) -> [usize; 3] {
///         [1, 8, 8]
///     }
///     fn classes(&self) -> usize {
///         2
///     }
///     fn len(&self) -> usize {
///         100
///     }
///     fn label(&self, index: usize) -> Label {
///         Label::from(index % 2 == 1)
///     }
///     fn read_image(&self, index: usize, pixels: &mut [u8]) -> Result<(), DataError> {
///         for (position, pixel) in pixels.iter_mut().enumerate() {
///             let line = if index % 2 == 0 { position % 8 } else { position / 8 };
///             *pixel = if (line + index / 2) % 4 < 2 { 255 } else { 0 };
///         }
///         Ok(())
///     }
/// }
///
/// let stripes = ImageSet::read(&Stripes)?;
/// assert_eq!(stripes.image(0)[..5], [255, 255, 0, 0, 255]);
/// # Ok::<(), DataError>(())
/// ```
pub trait Dataset: Sync {
    /// Name for messages and reports.
    fn name(&self) -> &str;

    /// Channels, height, width of every image.
    fn shape(&self) -> [usize; 3];

    /// Number of classes; labels are smaller.
    fn classes(&self) -> usize;

    /// Number of images.
    fn len(&self) -> usize;

    /// Whether there is no image.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Class of image `index`, which is below [`len`](Self::len).
    fn label(&self, index: usize) -> Label;

    /// Writes the bytes of image `index`, which is below [`len`](Self::len), to `pixels`.
    ///
    /// # Shapes
    /// - `pixels`: `[channels, height, width]`
    ///
    /// # Errors
    /// When the image cannot be read.
    fn read_image(&self, index: usize, pixels: &mut [u8]) -> Result<(), DataError>;

    /// Gathers images as normalized floats, replacing what `images` and `labels` held.
    ///
    /// # Shapes
    /// - `images`: `[indices.len(), channels, height, width]`
    /// - `labels`: `[indices.len()]`
    ///
    /// # Errors
    /// When an image cannot be read.
    ///
    /// # Panics
    /// When an index is not below [`len`](Self::len) or `normalization` has another number of
    /// channels.
    fn gather(
        &self,
        indices: &[usize],
        normalization: &Normalization,
        images: &mut Vec<f32>,
        labels: &mut Vec<Label>,
    ) -> Result<(), DataError> {
        let mut pixels = vec![0; self.shape().iter().product()];
        let mut normalize = normalization.start(self.shape(), indices.len(), images);
        for &index in indices {
            self.read_image(index, &mut pixels)?;
            normalize.push(&pixels);
        }
        labels.clear();
        labels.extend(indices.iter().map(|&index| self.label(index)));
        Ok(())
    }
}
