//! Random changes to training images that preserve their class.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::Normalization;

/// How training images are changed at random; the default changes nothing.
///
/// For CIFAR-10, a shift of 4 and mirroring are the usual choice (He et al. 2015, section 4.2). Digits
/// should not be mirrored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", default, deny_unknown_fields)]
pub struct Augmentation {
    /// Every image is padded with this many black pixels on each side and cropped to its own size at a random
    /// place: a shift by up to this many pixels along each axis.
    pub max_shift: usize,
    /// Images are mirrored left to right with probability 1/2.
    pub mirror: bool,
}

releq_core::named_fields!(Augmentation);

impl Augmentation {
    /// Changes a gathered batch in place.
    ///
    /// `first` is the number of images that training has gathered before this batch. It gives every
    /// image a random stream of its own in every epoch, so that what happens to it depends on `seed`
    /// and on its place in training alone: not on the batch size, nor on who gathers it.
    ///
    /// # Shapes
    /// - `images`: `[batch, channels, height, width]`, where `shape` is all but the batch
    ///
    /// # Panics
    /// When `normalization` has fewer channels than `shape`, or a dimension is zero.
    pub fn apply(
        &self,
        images: &mut [f32],
        shape: [usize; 3],
        normalization: &Normalization,
        seed: u64,
        first: u64,
    ) {
        if *self == Self::default() {
            return;
        }
        let [channels, height, width] = shape;
        let plane_size = height * width;
        let black: Vec<f32> =
            (0..channels).map(|c| -normalization.mean[c] / normalization.std[c]).collect();
        let start = ChaCha8Rng::seed_from_u64(seed);
        let mut old = vec![0.0; plane_size];
        for (image, number) in images.chunks_exact_mut(channels * plane_size).zip(first..) {
            let mut rng = start.clone();
            // Stream 0 of the same seed is what training shuffles with.
            rng.set_stream(number.wrapping_add(1));
            let [down, right] =
                [(); 2].map(|()| rng.random_range(0..=self.max_shift.saturating_mul(2)));
            let mirrored = self.mirror && rng.random::<bool>();
            for (plane, &black) in image.chunks_exact_mut(plane_size).zip(&black) {
                if self.max_shift > 0 {
                    old.copy_from_slice(plane);
                    shift(&old, plane, [height, width], [down, right], self.max_shift, black);
                }
                if mirrored {
                    plane.chunks_exact_mut(width).for_each(<[f32]>::reverse);
                }
            }
        }
    }
}

/// Cuts `new` out of `old` after it was padded by `padding`, at the corner given.
fn shift(
    old: &[f32],
    new: &mut [f32],
    [height, width]: [usize; 2],
    [down, right]: [usize; 2],
    padding: usize,
    black: f32,
) {
    // Columns of `new` that come from `old`, and the first column they come from.
    let begin = padding.saturating_sub(right).min(width);
    let from = right.saturating_sub(padding).min(width);
    let count = width - begin.max(from);
    for (y, row) in new.chunks_exact_mut(width).enumerate() {
        row.fill(black);
        if let Some(y) = y.saturating_add(down).checked_sub(padding).filter(|&y| y < height) {
            row[begin..begin + count].copy_from_slice(&old[y * width + from..][..count]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SHAPE: [usize; 3] = [2, 5, 4];
    const SIZE: usize = 40;

    fn normalization() -> Normalization {
        Normalization { mean: vec![0.5, 0.25], std: vec![0.5, 0.5] }
    }

    fn batch(len: usize) -> Vec<f32> {
        (0..len * SIZE).map(|i| 10.0 + i as f32).collect()
    }

    fn applied(augmentation: Augmentation, seed: u64, first: u64, images: &[f32]) -> Vec<f32> {
        let mut images = images.to_vec();
        augmentation.apply(&mut images, SHAPE, &normalization(), seed, first);
        images
    }

    /// The slow and obvious way to move an image.
    fn moved(old: &[f32], down: isize, right: isize, mirrored: bool) -> Vec<f32> {
        let [_, height, width] = SHAPE;
        let pixel = |i: usize| {
            let (channel, y, x) = (i / (height * width), i / width % height, i % width);
            let x = if mirrored { width - 1 - x } else { x };
            let y = y.checked_add_signed(down).filter(|&y| y < height);
            let x = x.checked_add_signed(right).filter(|&x| x < width);
            // By hand: black is (0 - 0.5) / 0.5 and (0 - 0.25) / 0.5.
            let black = [-1.0, -0.5][channel];
            y.zip(x).map_or(black, |(y, x)| old[(channel * height + y) * width + x])
        };
        (0..SIZE).map(pixel).collect()
    }

    #[test]
    fn images_are_shifted_and_mirrored_whole_and_black_fills_in() {
        let start = batch(200);
        // A shift may be larger than the image.
        for (max_shift, mirror) in [(2, false), (2, true), (0, true), (7, true)] {
            let reach = max_shift as isize;
            let images = applied(Augmentation { max_shift, mirror }, 3, 0, &start);
            let mut seen: BTreeSet<(isize, isize, bool)> = BTreeSet::new();
            for (old, new) in start.chunks_exact(SIZE).zip(images.chunks_exact(SIZE)) {
                let mut ways = (-reach..=reach)
                    .flat_map(|down| (-reach..=reach).map(move |right| (down, right)))
                    .flat_map(|(down, right)| [(down, right, false), (down, right, true)]);
                let way = ways.find(|&(d, r, m)| moved(old, d, r, m) == new);
                seen.insert(way.expect("every image is the old one, moved"));
            }
            let (mirrored, plain): (Vec<(isize, isize, bool)>, Vec<_>) =
                seen.iter().copied().partition(|way| way.2);
            assert_eq!(!mirrored.is_empty(), mirror);
            // 200 draws meet nearly all of the 25 shifts.
            assert!(max_shift != 2 || plain.len() > 20, "{plain:?}");
        }
        assert_eq!(applied(Augmentation::default(), 3, 0, &start), start);
    }

    #[test]
    fn an_image_is_changed_alike_in_whatever_batch_it_comes() {
        let augmentation = Augmentation { max_shift: 2, mirror: true };
        let start = batch(12);
        let whole = applied(augmentation, 9, 100, &start);
        for size in [1, 5, 12] {
            let parts = start.chunks(size * SIZE).enumerate();
            let parts: Vec<f32> = parts
                .flat_map(|(i, part)| applied(augmentation, 9, 100 + (i * size) as u64, part))
                .collect();
            assert_eq!(parts, whole, "batches of {size}");
        }
        assert_ne!(applied(augmentation, 9, 112, &start), whole, "another epoch");
        assert_ne!(applied(augmentation, 10, 100, &start), whole, "another seed");
    }
}
