//! Views of data sets.

use std::{fmt, sync::Arc};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::{DataError, Dataset, DatasetInfo, Label, Normalization};

/// A view of some images of a data set, in any order, without copying them.
///
/// [`split`](Self::split) and [`take`](Self::take) choose the same images as those of
/// [`ImageSet`](crate::ImageSet), and work for data sets larger than memory.
///
/// # Examples
///
/// ```
/// use releq_data::{Dataset, Subset, digits};
///
/// let config = digits::DigitsConfig { train: 200, test: 50, ..Default::default() };
/// let train = digits::generate(&config)?.train;
/// let (rest, validation) = Subset::all(&train).split(40, 7)?;
/// let few = validation.take(10, 7)?;
/// // Ten classes, each in its share.
/// let labels = (0..few.len()).map(|index| few.label(index));
/// assert_eq!((rest.len(), labels.flatten().sum::<u16>()), (160, 45));
/// # Ok::<(), releq_data::DataError>(())
/// ```
#[derive(Clone)]
pub struct Subset<D = Arc<dyn Dataset>> {
    data: D,
    indices: Vec<usize>,
}

impl<D: Dataset> Subset<D> {
    /// All images of `data`, to [`split`](Self::split) or [`take`](Self::take) from.
    pub fn all(data: D) -> Self {
        let indices = (0..data.len()).collect();
        Self { data, indices }
    }

    /// The images of `data` at `indices`, in that order.
    ///
    /// # Errors
    /// When there are no indices, or one is not below the number of images.
    pub fn new(data: D, indices: Vec<usize>) -> Result<Self, DataError> {
        let DatasetInfo { name, len, .. } = data.info();
        if indices.is_empty() {
            return Err(DataError::Empty { name: name.to_owned() });
        }
        if let Some(&index) = indices.iter().find(|&&index| index >= len) {
            return Err(DataError::IndexOutOfRange { name: name.to_owned(), index, len });
        }
        Ok(Self { data, indices })
    }

    /// Splits off `holdout` random images with the classes in proportion: (rest, held out), both in the order
    /// of this view. Images without labels count as one class.
    ///
    /// The same seed gives the same split.
    ///
    /// # Errors
    /// When `holdout` is 0 or not below the number of images, or a label is missing or out of range.
    pub fn split(self, holdout: usize, seed: u64) -> Result<(Self, Self), DataError>
    where
        D: Clone,
    {
        let (labels, classes) = self.labels()?;
        let (rest, held_out) = split(self.name(), &labels, classes, holdout, seed)?;
        Ok((self.only(&rest), self.only(&held_out)))
    }

    /// A view of `n` random images with the classes in proportion, in the order of this view. Images without
    /// labels count as one class.
    ///
    /// The same seed gives the same images. `n` is clamped to the range from 1 to the number of images.
    ///
    /// # Errors
    /// When there are no images, or a label is missing or out of range.
    pub fn take(&self, n: usize, seed: u64) -> Result<Self, DataError>
    where
        D: Clone,
    {
        if self.indices.is_empty() {
            return Err(DataError::Empty { name: self.name().to_owned() });
        }
        let (labels, classes) = self.labels()?;
        Ok(self.only(&stratified(&labels, classes, n.clamp(1, labels.len()), seed)))
    }

    /// The data set that this is a view of.
    pub fn data(&self) -> &D {
        &self.data
    }

    /// The images of the view, as indices into [`data`](Self::data).
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// Labels of all images, checked, and the number of classes.
    fn labels(&self) -> Result<(Vec<Label>, usize), DataError> {
        let DatasetInfo { name, classes, .. } = self.data.info();
        let Some(classes) = classes else { return Ok((vec![0; self.indices.len()], 1)) };
        if classes > usize::from(Label::MAX) + 1 {
            return Err(DataError::InvalidClasses { name: name.to_owned(), found: classes });
        }
        let label = |&index| {
            let name = || name.to_owned();
            let missing = || DataError::MissingLabel { name: name(), index };
            let found = self.data.label(index).ok_or_else(missing)?;
            if usize::from(found) >= classes {
                return Err(DataError::LabelOutOfRange { name: name(), index, found, classes });
            }
            Ok(found)
        };
        Ok((self.indices.iter().map(label).collect::<Result<_, _>>()?, classes))
    }

    /// A view of some images of this view.
    fn only(&self, positions: &[usize]) -> Self
    where
        D: Clone,
    {
        Self { data: self.data.clone(), indices: self.map(positions) }
    }

    /// Positions in this view as indices into the data set.
    fn map(&self, positions: &[usize]) -> Vec<usize> {
        positions.iter().map(|&position| self.indices[position]).collect()
    }
}

impl<D: Dataset> Dataset for Subset<D> {
    fn info(&self) -> DatasetInfo<'_> {
        DatasetInfo { len: self.indices.len(), ..self.data.info() }
    }

    fn label(&self, index: usize) -> Option<Label> {
        self.data.label(self.indices[index])
    }

    fn read_image(&self, index: usize, pixels: &mut [u8]) -> Result<(), DataError> {
        self.data.read_image(self.indices[index], pixels)
    }

    fn gather(
        &self,
        indices: &[usize],
        normalization: &Normalization,
        images: &mut Vec<f32>,
        labels: &mut Vec<Label>,
    ) -> Result<(), DataError> {
        self.data.gather(&self.map(indices), normalization, images, labels)
    }
}

impl<D: Dataset> fmt::Debug for Subset<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subset").field("info", &self.info()).finish_non_exhaustive()
    }
}

/// Splits the indices of `labels` into (rest, held out), both ascending, each class in proportion.
///
/// # Errors
/// When `holdout` is 0 or not below the number of labels.
pub(crate) fn split(
    name: &str,
    labels: &[Label],
    classes: usize,
    holdout: usize,
    seed: u64,
) -> Result<(Vec<usize>, Vec<usize>), DataError> {
    let len = labels.len();
    if holdout == 0 || holdout >= len {
        return Err(DataError::Holdout { name: name.to_owned(), holdout, len });
    }
    let held_out = stratified(labels, classes, holdout, seed);
    let mut rest = Vec::with_capacity(len - holdout);
    let mut held = held_out.iter().copied().peekable();
    rest.extend((0..len).filter(|&index| held.next_if_eq(&index).is_none()));
    Ok((rest, held_out))
}

/// `n` of the indices of `labels` in ascending order, with the classes in proportion. What rounding down
/// leaves over goes to the largest remainders (the lower class first).
pub(crate) fn stratified(labels: &[Label], classes: usize, n: usize, seed: u64) -> Vec<usize> {
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); classes];
    for (index, &label) in labels.iter().enumerate() {
        members[usize::from(label)].push(index);
    }
    // In u128, so that no count can overflow the product.
    let share = |class: &Vec<usize>| class.len() as u128 * n as u128;
    let len = labels.len() as u128;
    let mut quotas: Vec<usize> =
        members.iter().map(|class| (share(class) / len) as usize).collect();
    let mut by_remainder: Vec<usize> = (0..classes).collect();
    by_remainder.sort_by_key(|&class| std::cmp::Reverse(share(&members[class]) % len));
    let left_over = n - quotas.iter().sum::<usize>();
    by_remainder.iter().take(left_over).for_each(|&class| quotas[class] += 1);

    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut chosen = Vec::with_capacity(n);
    for (class, &quota) in members.iter_mut().zip(&quotas) {
        class.shuffle(&mut rng);
        chosen.extend_from_slice(&class[..quota]);
    }
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ImageSet;

    /// Images of one byte, which is their index.
    fn numbered(labels: Vec<Label>) -> ImageSet {
        let pixels = (0..labels.len()).map(|index| index as u8).collect();
        ImageSet::new("numbered", [1, 1, 1], 4, pixels, labels).unwrap()
    }

    fn numbers(data: &dyn Dataset) -> Vec<u8> {
        ImageSet::read(data).unwrap().pixels().to_vec()
    }

    proptest! {
        #[test]
        fn views_choose_the_images_that_copies_choose(
            labels in prop::collection::vec(0_u16..4, 2..60),
            holdout in 0_usize..62,
            n in 0_usize..70,
            seed in any::<u64>(),
        ) {
            let set = numbered(labels);
            let view = Subset::all(&set);
            prop_assert_eq!(numbers(&view.take(n, seed).unwrap()), numbers(&set.take(n, seed)));
            match (view.split(holdout, seed), set.clone().split(holdout, seed)) {
                (Ok((rest, held_out)), Ok((rest_copy, held_out_copy))) => {
                    prop_assert_eq!(numbers(&rest), rest_copy.pixels());
                    prop_assert_eq!(numbers(&held_out), held_out_copy.pixels());
                    // A part of a part too.
                    let part = held_out.take(n, seed).unwrap();
                    prop_assert_eq!(numbers(&part), numbers(&held_out_copy.take(n, seed)));
                }
                (Err(view), Err(copy)) => prop_assert_eq!(view.to_string(), copy.to_string()),
                (view, copy) => prop_assert!(false, "{:?} {:?}", view, copy),
            }
        }
    }

    #[test]
    fn impossible_subsets_are_refused() {
        let set = numbered(vec![0, 1, 2]);
        let message =
            |result: Result<Subset<&ImageSet>, DataError>| result.unwrap_err().to_string();
        assert!(message(Subset::new(&set, vec![])).contains("no images"));
        let found = message(Subset::new(&set, vec![2, 3]));
        assert_eq!(found, "numbered: no image 3, expected an index below 3");
        assert_eq!(numbers(&Subset::new(&set, vec![2, 0, 2]).unwrap()), [2, 0, 2]);

        struct Odd(Option<usize>, Option<Label>);
        impl Dataset for Odd {
            fn info(&self) -> DatasetInfo<'_> {
                DatasetInfo { name: "odd", shape: [1, 1, 1], classes: self.0, len: 4 }
            }
            fn label(&self, _: usize) -> Option<Label> {
                self.1
            }
            fn read_image(&self, index: usize, pixels: &mut [u8]) -> Result<(), DataError> {
                pixels.fill(index as u8);
                Ok(())
            }
        }
        let message = |data: Odd| Subset::all(&data).take(2, 0).unwrap_err().to_string();
        assert_eq!(message(Odd(Some(3), None)), "odd: image 0 has no label");
        assert_eq!(message(Odd(Some(3), Some(3))), "odd: label of image 0 is 3, expected 0 to 2");
        assert!(message(Odd(Some(usize::MAX), Some(3))).contains("classes"));
        // Without labels, all images are of one class.
        let odd = Odd(None, None);
        assert_eq!(Subset::all(&odd).take(2, 0).unwrap().len(), 2);
        assert_eq!(ImageSet::read(&odd).unwrap().classes(), 0);
    }
}
