//! Images under other labels than their own.

use crate::{DataError, Dataset, DatasetInfo, Label, Normalization};

/// A data set whose images have labels from elsewhere, such as the classes that a network sees in them.
///
/// ```
/// use releq_data::{Dataset, WithLabels, digits};
///
/// let config = digits::DigitsConfig { train: 20, test: 10, ..Default::default() };
/// let drawn = digits::generate(&config)?.test;
/// let odd = (0..10).map(|index| drawn.label(index) % 2).collect();
/// let odd = WithLabels::new(drawn, 2, odd)?;
/// assert_eq!((odd.info().classes, odd.len()), (Some(2), 10));
/// # Ok::<(), releq_data::DataError>(())
/// ```
#[derive(Clone, Debug)]
pub struct WithLabels<D> {
    data: D,
    classes: usize,
    labels: Vec<Label>,
}

impl<D: Dataset> WithLabels<D> {
    /// The images of `data` with one label each, below `classes`.
    ///
    /// # Errors
    /// When there are more or fewer labels than images, `classes` is not from 1 to 65,536, or a label is not below it.
    pub fn new(data: D, classes: usize, labels: Vec<Label>) -> Result<Self, DataError> {
        let name = || data.name().to_owned();
        if !(1..=usize::from(Label::MAX) + 1).contains(&classes) {
            return Err(DataError::InvalidClasses { name: name(), found: classes });
        }
        if labels.len() != data.len() {
            let (expected, found) = (data.len(), labels.len());
            return Err(DataError::LabelCount { name: name(), expected, found });
        }
        if let Some(index) = labels.iter().position(|&label| usize::from(label) >= classes) {
            let found = labels[index];
            return Err(DataError::LabelOutOfRange { name: name(), index, found, classes });
        }
        Ok(Self { data, classes, labels })
    }
}

impl<D: Dataset> Dataset for WithLabels<D> {
    fn info(&self) -> DatasetInfo<'_> {
        DatasetInfo { classes: Some(self.classes), ..self.data.info() }
    }

    fn label(&self, index: usize) -> Option<Label> {
        self.labels.get(index).copied()
    }

    fn read_image(&self, index: usize, pixels: &mut [u8]) -> Result<(), DataError> {
        self.data.read_image(index, pixels)
    }

    fn gather(
        &self,
        indices: &[usize],
        normalization: &Normalization,
        images: &mut Vec<f32>,
        labels: &mut Vec<Label>,
    ) -> Result<(), DataError> {
        self.data.gather(indices, normalization, images, labels)?;
        labels.clear();
        labels.extend(indices.iter().map(|&index| self.labels[index]));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ImageSet, check_dataset};

    #[test]
    fn labels_are_the_new_ones_and_pixels_the_old() {
        let pixels: Vec<u8> = (0..5 * 4).collect();
        let data = ImageSet::unlabelled("five", [1, 2, 2], pixels).unwrap();
        let labelled = WithLabels::new(&data, 3, vec![2, 0, 1, 1, 0]).unwrap();
        check_dataset(&labelled);
        let normalization = Normalization { mean: vec![0.0], std: vec![1.0 / 255.0] };
        let (mut images, mut labels) = (Vec::new(), Vec::new());
        labelled.gather(&[2, 0], &normalization, &mut images, &mut labels).unwrap();
        assert_eq!((labels, images[0].round()), (vec![1, 2], 8.0));
        for (classes, labels, expected) in [
            (3, vec![0; 4], "five: there are 5 images, but 4 labels"),
            (3, vec![0, 0, 3, 0, 0], "label of image 2 is 3"),
            (0, vec![0; 5], "0 classes"),
        ] {
            let message = WithLabels::new(&data, classes, labels).unwrap_err().to_string();
            assert!(message.contains(expected), "`{message}` lacks `{expected}`");
        }
    }
}
