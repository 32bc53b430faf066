//! How a tensor of the model lies in the output of a layer.
//!
//! A layer gives an image of channels, rows and columns, or a vector. The model's tensors hold the same values in other
//! orders and groupings: after a transposition, a flattening, a channel shuffle, a slice. Each dimension of such a tensor
//! is a product of steps through the layer's values, so that all of these are done by arithmetic on strides, and whoever
//! reads the tensor sees what is left to do.

use releq_core::Shape;

/// Stride of the batch, which is outside of all values of a layer.
const BATCH: usize = usize::MAX;

/// One factor of a dimension: `size` values, `stride` apart in the output of the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Steps {
    pub(super) size: usize,
    pub(super) stride: usize,
}

/// A tensor as a way through the values of a layer, outermost dimension first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// Where the tensor begins.
    pub(super) offset: usize,
    /// For every dimension the factors that it is made of; none for a dimension of 1.
    dims: Vec<Vec<Steps>>,
}

impl View {
    /// `[batch, channels, height, width]` or `[batch, features]`, as a layer gives it.
    pub(super) fn of(batch: usize, shape: Shape) -> Self {
        let sizes: &[usize] = match shape {
            Shape::Image { channels, height, width } => &[channels, height, width],
            Shape::Vector { features } => &[features],
        };
        let mut stride = 1;
        let mut dims: Vec<Vec<Steps>> = Vec::new();
        for &size in sizes.iter().rev() {
            dims.push(vec![Steps { size, stride }]);
            stride *= size;
        }
        dims.push(vec![Steps { size: batch, stride: BATCH }]);
        dims.reverse();
        Self { offset: 0, dims: dims.into_iter().map(merged).collect() }
    }

    /// Sizes of the dimensions.
    pub(super) fn sizes(&self) -> Vec<usize> {
        self.dims.iter().map(|dim| dim.iter().map(|steps| steps.size).product()).collect()
    }

    pub(super) fn rank(&self) -> usize {
        self.dims.len()
    }

    /// The factors of a dimension, none for a size of 1.
    pub(super) fn dim(&self, axis: usize) -> &[Steps] {
        &self.dims[axis]
    }

    /// Whether a dimension is the batch, and nothing but it.
    pub(super) fn is_batch(&self, axis: usize) -> bool {
        self.dims[axis].iter().all(|steps| steps.stride == BATCH)
    }

    /// The values of one image in their order, without the batch before them.
    fn values(&self) -> Vec<Steps> {
        let all = self.dims.iter().flatten().copied();
        merged(all.filter(|steps| steps.stride != BATCH).collect())
    }

    /// Whether these are all the values of a layer that gives `shape`, in their order, whatever the grouping.
    pub(super) fn is_whole(&self, shape: Shape) -> bool {
        self.offset == 0
            && self.values() == Self::of(1, Shape::Vector { features: shape.len() }).values()
    }

    /// Whether each of the `len` values of a layer is there once, in whatever order.
    pub(super) fn is_permutation(&self, len: usize) -> bool {
        let mut steps = self.values();
        steps.sort_unstable_by_key(|steps| std::cmp::Reverse(steps.stride));
        self.offset == 0 && merged(steps) == merged(vec![Steps { size: len, stride: 1 }])
    }

    /// For each value of one image in the tensor's order, its place among the values of the layer.
    pub(super) fn places(&self) -> Vec<usize> {
        let mut places = vec![self.offset];
        for Steps { size, stride } in self.values() {
            let steps = |start: usize| (0..size).map(move |step| start + step * stride);
            places = places.into_iter().flat_map(steps).collect();
        }
        places
    }

    /// The same values in other dimensions; `None` if one of them would be no product of steps.
    pub(super) fn reshaped(&self, sizes: &[usize]) -> Option<Self> {
        let mut rest = merged(self.dims.iter().flatten().copied().collect());
        rest.reverse();
        let mut dims = Vec::with_capacity(sizes.len());
        for &size in sizes {
            let (mut needed, mut dim) = (size, Vec::new());
            while needed != 1 {
                let Steps { size, stride } = rest.pop()?;
                if size != 0 && needed.is_multiple_of(size) {
                    dim.push(Steps { size, stride });
                    needed /= size;
                } else if needed != 0 && size.is_multiple_of(needed) && stride != BATCH {
                    let inner = size / needed;
                    dim.push(Steps { size: needed, stride: stride * inner });
                    rest.push(Steps { size: inner, stride });
                    needed = 1;
                } else {
                    return None;
                }
            }
            dims.push(merged(dim));
        }
        rest.is_empty().then_some(Self { offset: self.offset, dims })
    }

    /// Dimension `perm[i]` becomes dimension `i`; `perm` is a permutation.
    pub(super) fn transposed(&self, perm: &[usize]) -> Self {
        Self {
            offset: self.offset,
            dims: perm.iter().map(|&axis| self.dims[axis].clone()).collect(),
        }
    }

    /// Every `step`-th value of a dimension from `start` on, `size` of them; `None` for the batch or a dimension whose
    /// values are not evenly spaced.
    pub(super) fn sliced(
        &self,
        axis: usize,
        start: usize,
        step: usize,
        size: usize,
    ) -> Option<Self> {
        let mut view = self.clone();
        match self.dims[axis].as_slice() {
            [] => (start == 0 && size == 1).then_some(view),
            [steps] if start == 0 && step == 1 && size == steps.size => Some(view),
            [steps] if steps.stride != BATCH => {
                view.offset += start * steps.stride;
                view.dims[axis] = merged(vec![Steps { size, stride: steps.stride * step }]);
                Some(view)
            }
            _ => None,
        }
    }

    /// The view without these dimensions, or with dimensions of 1 in their place.
    pub(super) fn without(&self, axes: &[usize], keep: bool) -> Self {
        let dims = self.dims.iter().enumerate();
        let dims = dims.filter_map(|(axis, dim)| match axes.contains(&axis) {
            false => Some(dim.clone()),
            true => keep.then(Vec::new),
        });
        Self { offset: self.offset, dims: dims.collect() }
    }

    /// The same grouping of another layer's values, of which this one's channels are all that is left: for the mean
    /// of each channel.
    pub(super) fn of_vector(&self, plane: usize) -> Self {
        let scaled = |&Steps { size, stride }: &Steps| match stride {
            BATCH => Steps { size, stride },
            _ => Steps { size, stride: stride / plane },
        };
        let dims = self.dims.iter().map(|dim| dim.iter().map(scaled).collect());
        Self { offset: self.offset / plane, dims: dims.collect() }
    }
}

/// Factors without those of size 1, and with neighbours joined that are one longer way.
fn merged(factors: Vec<Steps>) -> Vec<Steps> {
    let mut merged: Vec<Steps> = Vec::with_capacity(factors.len());
    for steps in factors.into_iter().filter(|steps| steps.size != 1) {
        match merged.last_mut() {
            Some(last)
                if steps.stride != BATCH
                    && last.stride != BATCH
                    && last.stride == steps.size * steps.stride =>
            {
                *last = Steps { size: last.size * steps.size, stride: steps.stride };
            }
            _ => merged.push(steps),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: Shape = Shape::Image { channels: 6, height: 2, width: 3 };

    fn steps(size: usize, stride: usize) -> Vec<Steps> {
        vec![Steps { size, stride }]
    }

    #[test]
    fn flattening_in_another_order_is_a_permutation() {
        let nhwc = View::of(1, IMAGE).transposed(&[0, 2, 3, 1]);
        assert_eq!(nhwc.sizes(), [1, 2, 3, 6]);
        let flat = nhwc.reshaped(&[1, 36]).unwrap();
        assert!(!flat.is_whole(IMAGE));
        // By hand: row 0, column 0 of channels 0, 1, 2 ..., whose planes have 6 pixels.
        assert_eq!(flat.places()[..8], [0, 6, 12, 18, 24, 30, 1, 7]);
        let back = flat.reshaped(&[1, 2, 3, 6]).unwrap().transposed(&[0, 3, 1, 2]);
        assert_eq!(back, View::of(1, IMAGE));
        assert!(back.is_whole(IMAGE));
    }

    #[test]
    fn a_channel_shuffle_is_two_factors_in_another_order() {
        let shuffled = View::of(1, IMAGE)
            .reshaped(&[1, 2, 3, 2, 3])
            .unwrap()
            .transposed(&[0, 2, 1, 3, 4])
            .reshaped(&[1, 6, 2, 3])
            .unwrap();
        assert_eq!(shuffled.dim(1), [steps(3, 6), steps(2, 18)].concat());
        let channels = shuffled.places().into_iter().step_by(6).map(|place| place / 6);
        assert_eq!(channels.collect::<Vec<_>>(), [0, 3, 1, 4, 2, 5]);
    }

    #[test]
    fn slices_are_offsets_and_longer_strides() {
        let view = View::of(1, IMAGE);
        let half = view.sliced(1, 3, 1, 3).unwrap();
        assert_eq!((half.offset, half.sizes()), (18, vec![1, 3, 2, 3]));
        let every_other = view.sliced(3, 0, 2, 2).unwrap();
        assert_eq!(every_other.dim(3), steps(2, 2));
        assert!(every_other.reshaped(&[1, 24]).is_some());
        assert_eq!(view.sliced(0, 0, 1, 1).unwrap(), view);
        assert!(view.reshaped(&[1, 36]).unwrap().transposed(&[1, 0]).sliced(1, 1, 1, 1).is_none());
    }

    #[test]
    fn a_batch_stays_outside() {
        let view = View::of(4, IMAGE);
        assert!(view.is_batch(0) && !view.is_batch(1));
        assert_eq!(view.reshaped(&[4, 36]).unwrap().sizes(), [4, 36]);
        let joined = view.reshaped(&[144]).unwrap();
        assert!(!joined.is_batch(0));
        assert!(view.reshaped(&[2, 72]).is_none());
        assert!(view.reshaped(&[4, 35]).is_none());
        assert!(view.sliced(0, 0, 1, 2).is_none());
        assert!(View::of(1, IMAGE).is_batch(0));
    }

    #[test]
    fn the_mean_of_each_channel_keeps_the_place_of_the_channels() {
        let nhwc = View::of(1, IMAGE).transposed(&[0, 2, 3, 1]);
        let means = nhwc.without(&[1, 2], true).of_vector(6);
        assert_eq!(means.sizes(), [1, 1, 1, 6]);
        assert!(means.is_whole(Shape::Vector { features: 6 }));
        assert_eq!(nhwc.without(&[1, 2], false).sizes(), [1, 6]);
    }
}
