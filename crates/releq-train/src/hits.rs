//! Which images a network classified correctly, and what that says of two networks.

use serde::{Deserialize, Serialize, de};

use crate::AccuracyReport;

/// Which images of a set a network classified correctly, in the order of the set.
///
/// Two networks that are compared on the same images fail at mostly the same ones. What remains uncertain of the difference of
/// their accuracies comes of the others alone, which a number of correct images does not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hits(Vec<bool>);

impl Hits {
    /// From one value for each image.
    #[must_use]
    pub const fn new(hits: Vec<bool>) -> Self {
        Self(hits)
    }

    /// Number of images.
    #[must_use]
    pub fn total(&self) -> usize {
        self.0.len()
    }

    /// How many there are.
    #[must_use]
    pub fn report(&self) -> AccuracyReport {
        let correct = self.0.iter().filter(|hit| **hit).count();
        AccuracyReport { correct, total: self.0.len() }
    }

    /// Standard error of the difference between the accuracies of two networks on the same images, each the mean over several
    /// trainings: that of the mean over the images of what the two differ by in each. `None` with fewer than two images, without
    /// a training, or where the sets differ in size.
    #[must_use]
    pub fn paired_standard_error(ours: &[&Self], theirs: &[&Self]) -> Option<f64> {
        let images = ours.first()?.total();
        if images < 2 || theirs.is_empty() || ours.iter().chain(theirs).any(|h| h.total() != images)
        {
            return None;
        }
        let mean = |trainings: &[&Self], image: usize| {
            let correct = trainings.iter().filter(|hits| hits.0[image]).count();
            correct as f64 / trainings.len() as f64
        };
        let differences: Vec<f64> =
            (0..images).map(|image| mean(ours, image) - mean(theirs, image)).collect();
        let n = images as f64;
        let average = differences.iter().sum::<f64>() / n;
        let squares: f64 = differences.iter().map(|d| (d - average).powi(2)).sum();
        Some((squares / (n * (n - 1.0))).sqrt())
    }
}

/// As it is written: the images as hexadecimal digits, four to a digit, the first image in the highest bit.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    correct: usize,
    total: usize,
    images: String,
}

impl Serialize for Hits {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let AccuracyReport { correct, total } = self.report();
        let digit = |images: &[bool]| {
            let four = (0..4).filter(|&at| images.get(at) == Some(&true)).map(|at| 8 >> at).sum();
            char::from_digit(four, 16).unwrap_or_default()
        };
        let images = self.0.chunks(4).map(digit).collect();
        Written { correct, total, images }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Hits {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Written { correct, total, images } = Written::deserialize(deserializer)?;
        let mut hits = Vec::with_capacity(4 * images.len());
        for digit in images.chars() {
            let four = digit.to_digit(16).ok_or_else(|| {
                de::Error::custom(format!("`{digit}` among the images is no hexadecimal digit"))
            })?;
            hits.extend((0..4).map(|at| four & (8 >> at) != 0));
        }
        let surplus = hits.len().checked_sub(total).filter(|surplus| *surplus < 4);
        if surplus.is_none() || hits[total..].contains(&true) {
            let digits = images.len();
            return Err(de::Error::custom(format!("{digits} digits are not for {total} images")));
        }
        hits.truncate(total);
        let hits = Self(hits);
        if hits.report().correct != correct {
            let counted = hits.report().correct;
            return Err(de::Error::custom(format!("{correct} images are correct, or {counted}")));
        }
        Ok(hits)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_written_in_hexadecimal_digits() {
        let hits = Hits::new(vec![true, false, false, true, true]);
        let text = serde_json::to_string(&hits).unwrap();
        assert_eq!(text, r#"{"correct":3,"total":5,"images":"98"}"#);
        for (bad, expected) in [
            (r#"{"correct":2,"total":5,"images":"98"}"#, "2 images are correct, or 3"),
            (r#"{"correct":3,"total":4,"images":"98"}"#, "2 digits are not for 4 images"),
            (r#"{"correct":3,"total":9,"images":"98"}"#, "2 digits are not for 9 images"),
            (r#"{"correct":3,"total":5,"images":"9c"}"#, "2 digits are not for 5 images"),
            (r#"{"correct":3,"total":5,"images":"9x"}"#, "`x` among the images"),
        ] {
            let message = serde_json::from_str::<Hits>(bad).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn the_error_of_a_difference_is_that_of_mc_nemar() {
        // Of 100 images, 6 are correct for the first alone and 2 for the second alone: with b and c such images,
        // the variance of the difference is (b + c - (b - c)^2 / n) / (n (n - 1)).
        let first: Vec<bool> = (0..100).map(|image| image < 86).collect();
        let second = (0..100).map(|image| (image < 80) || image == 90 || image == 91).collect();
        let (first, second) = (Hits::new(first), Hits::new(second));
        let error = Hits::paired_standard_error(&[&first], &[&second]).unwrap();
        let expected = ((8.0 - 16.0 / 100.0) / (100.0 * 99.0_f64)).sqrt();
        assert!((error - expected).abs() < 1e-12, "{error} is not {expected}");
        // A network does not differ from itself, whatever its accuracy.
        assert_eq!(Hits::paired_standard_error(&[&first], &[&first]), Some(0.0));
        // Without a partner, or with one on other images, there is no difference.
        assert_eq!(Hits::paired_standard_error(&[&first], &[]), None);
        assert_eq!(Hits::paired_standard_error(&[&first], &[&Hits::new(vec![true; 99])]), None);
        let one = Hits::new(vec![true]);
        assert_eq!(Hits::paired_standard_error(&[&one], &[&one]), None);
    }

    proptest! {
        #[test]
        fn it_is_read_back(hits in prop::collection::vec(any::<bool>(), 0..70)) {
            let hits = Hits::new(hits);
            let text = serde_json::to_string(&hits).unwrap();
            prop_assert_eq!(serde_json::from_str::<Hits>(&text).unwrap(), hits);
        }

        /// Repeating a training changes nothing; another one makes the mean of two at most as uncertain as the worse.
        #[test]
        fn more_trainings_do_not_add_uncertainty(
            images in prop::collection::vec(any::<[bool; 3]>(), 2..60),
        ) {
            let column = |at: usize| Hits::new(images.iter().map(|image| image[at]).collect());
            let [a, b, reference] = [0, 1, 2].map(column);
            let error = |ours: &[&Hits]| Hits::paired_standard_error(ours, &[&reference]).unwrap();
            prop_assert!((error(&[&a, &a]) - error(&[&a])).abs() < 1e-12);
            prop_assert!(error(&[&a, &b]) <= error(&[&a]).max(error(&[&b])) + 1e-12);
        }
    }
}
