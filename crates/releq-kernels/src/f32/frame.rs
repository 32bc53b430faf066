//! Copies of images as the loops of a convolution read them: with zeros around them, of some channels, in f32, in bf16, or in
//! pairs of bf16.
#![allow(unsafe_code, reason = "vector instructions on slices whose lengths are known")]

use std::ops::Range;

use super::{
    bf16::{PairCpu, PairFamily, PairTask, Paired, dispatch_pairs},
    rectifier::Rectifier,
    vector::{Family, Task, Vector},
};

/// Where images are and where their copies go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Channels of a pixel, the first that is copied, and the number that are copied.
    pub(super) channels: [usize; 3],
    /// Rows and columns of an image.
    pub(super) sides: [usize; 2],
    /// Zeros above and on the left.
    pub(super) margin: [usize; 2],
    /// Rows and columns with the zeros on all sides.
    pub(super) framed: [usize; 2],
    /// Values of a pixel of the copy; zeros follow the channels.
    pub(super) lanes: usize,
}

impl Layout {
    /// All `channels` of images without zeros around them.
    pub(super) const fn plain(channels: usize, sides: [usize; 2]) -> Self {
        let all = [channels, 0, channels];
        Self { channels: all, sides, margin: [0; 2], framed: sides, lanes: channels }
    }

    /// Whether the copy is what is there already.
    pub(super) const fn is_identity(self) -> bool {
        let ([rows, columns], [framed_rows, framed_columns]) = (self.sides, self.framed);
        self.is_whole() && rows == framed_rows && columns == framed_columns
    }

    /// Whether nothing changes between the margins.
    const fn is_whole(self) -> bool {
        let [all, _, copied] = self.channels;
        copied == all && all == self.lanes
    }

    /// Values of a row of the copy.
    const fn row(self) -> usize {
        self.framed[1] * self.lanes
    }

    /// Values of the copy of an image.
    pub(super) const fn image(self) -> usize {
        self.framed[0] * self.row()
    }

    /// For every row of the copies, image by image without end, the values that go there, if it is not of zeros.
    fn rows(self) -> impl Iterator<Item = Option<Range<usize>>> {
        let Self { channels: [all, first, copied], sides: [height, width], margin, framed, lanes } =
            self;
        assert!(first + copied <= all && copied <= lanes, "room for all channels of a pixel");
        (0..).flat_map(move |image| {
            (0..framed[0]).map(move |row| {
                let row = row.checked_sub(margin[0]).filter(|&row| row < height)?;
                let at = (image * height + row) * width * all;
                Some(at..at + width * all)
            })
        })
    }

    /// Writes zeros to both margins of a row, and gives what is between them.
    fn inside<T: Copy>(self, row: &mut [T], zero: T) -> &mut [T] {
        let (left, row) = row.split_at_mut(self.margin[1] * self.lanes);
        let (inside, right) = row.split_at_mut(self.sides[1] * self.lanes);
        left.fill(zero);
        right.fill(zero);
        inside
    }
}

/// Copies some channels of images to a buffer, with zero padding around each image and after the channels of
/// each pixel.
pub(super) struct Frame<'a> {
    pub(super) from: &'a [f32],
    /// If given, `from` is the gradient of what this rectifier gave, and its backward pass is done on the way.
    pub(super) output: Option<(Rectifier, &'a [f32])>,
    pub(super) layout: Layout,
    pub(super) to: &'a mut [f32],
    /// If given, the sum over all pixels is added to it, channel by channel: the gradient of the bias.
    pub(super) sums: Option<&'a mut [f32]>,
}

impl Task for Frame<'_> {
    #[inline(always)]
    fn run<F: Family>(self, _family: F) {
        let Self { from, output, layout, to, mut sums } = self;
        let Layout { channels: [all, first, copied], lanes, .. } = layout;
        let plain = output.is_none() && sums.is_none() && layout.is_whole();
        for (to, row) in to.chunks_exact_mut(layout.row()).zip(layout.rows()) {
            let Some(part) = row else {
                to.fill(0.0);
                continue;
            };
            let to = layout.inside(to, 0.0);
            let from = &from[part.clone()];
            if plain {
                to.copy_from_slice(from);
                continue;
            }
            let output = output.map(|(rectifier, output)| (rectifier, &output[part]));
            let pixels = to.chunks_exact_mut(lanes).zip(from.chunks_exact(all)).enumerate();
            for (pixel, (to, from)) in pixels {
                let from = &from[first..first + copied];
                let output = output.map(|(rectifier, output)| {
                    (rectifier, &output[pixel * all + first..][..copied])
                });
                let mut at = 0;
                while at < copied {
                    let len = copied - at;
                    // SAFETY: `_family` proves that the processor has the instructions. At most `len`
                    // values are read from and written to slices of `copied` values, or of `lanes`, which
                    // is no fewer.
                    unsafe {
                        let mut values = F::Full::load_up_to(from.as_ptr().add(at), len);
                        if let Some((rectifier, output)) = output {
                            let output = F::Full::load_up_to(output.as_ptr().add(at), len);
                            values = rectifier.backward(values, output);
                        }
                        values.store_up_to(to.as_mut_ptr().add(at), len);
                        if let Some(sums) = &mut sums {
                            let sums = sums[..copied].as_mut_ptr().add(at);
                            F::Full::load_up_to(sums, len).add(values).store_up_to(sums, len);
                        }
                    }
                    at += F::Full::LANES;
                }
                to[copied..].fill(0.0);
            }
        }
    }
}

/// As [`Frame`], with the values rounded to bf16.
pub(super) struct RoundFrame<'a> {
    pub(super) from: &'a [f32],
    pub(super) layout: Layout,
    pub(super) to: &'a mut [u16],
}

impl PairTask for RoundFrame<'_> {
    #[inline(always)]
    fn run<F: PairFamily>(self, _family: F) {
        let Self { from, layout, to } = self;
        let Layout { channels: [all, first, copied], lanes, .. } = layout;
        for (to, row) in to.chunks_exact_mut(layout.row()).zip(layout.rows()) {
            let Some(part) = row else {
                to.fill(0);
                continue;
            };
            let (from, to) = (&from[part], layout.inside(to, 0));
            // SAFETY: `_family` proves that the processor has the instructions, those of bf16 included.
            unsafe {
                if layout.is_whole() {
                    round::<F::Full>(from, to);
                    continue;
                }
                for (to, from) in to.chunks_exact_mut(lanes).zip(from.chunks_exact(all)) {
                    round::<F::Full>(&from[first..first + copied], &mut to[..copied]);
                    to[copied..].fill(0);
                }
            }
        }
    }
}

/// Rounds every value.
///
/// # Safety
/// The processor has those of [`Paired`] for `V`.
#[inline(always)]
unsafe fn round<V: Paired>(from: &[f32], to: &mut [u16]) {
    assert_eq!(from.len(), to.len(), "room for all values");
    for at in (0..from.len()).step_by(V::LANES) {
        let len = from.len() - at;
        // SAFETY: the caller's promise; at most `len` values are read and written, behind `at`, of slices that are as long as
        // each other.
        unsafe {
            let values = V::load_up_to(from.as_ptr().add(at), len);
            values.store_bf16(to.as_mut_ptr().add(at), len);
        }
    }
}

/// As [`RoundFrame`], with every pixel beside the one `distance` to its right, or zeros where there is none:
/// `to[pixel][channel] = [from[pixel][channel], from[pixel + distance][channel]]`, for every `step`-th pixel of a row. Rows above and
/// below an image stay as they are, since no loop reads them.
pub(super) struct PairFrame<'a> {
    pub(super) from: &'a [f32],
    /// As many lanes as channels are copied.
    pub(super) layout: Layout,
    pub(super) step: usize,
    pub(super) distance: usize,
    /// Room for the pairs of all rows.
    pub(super) to: &'a mut [u16],
}

impl PairFrame<'_> {
    /// Values of a row of pairs.
    pub(super) const fn row(layout: Layout, step: usize) -> usize {
        layout.framed[1].div_ceil(step) * layout.lanes * 2
    }
}

impl PairTask for PairFrame<'_> {
    #[inline(always)]
    fn run<F: PairFamily>(self, _family: F) {
        let Self { from, layout, step, distance, to } = self;
        let Layout { channels: [all, first, copied], sides, margin, lanes, .. } = layout;
        assert_eq!(copied, lanes, "no lanes without a channel");
        for (to, row) in to.chunks_exact_mut(Self::row(layout, step)).zip(layout.rows()) {
            let Some(part) = row else { continue };
            let from = &from[part];
            let pixel = |at: usize| {
                let at = at.checked_sub(margin[1]).filter(|&at| at < sides[1])?;
                Some(&from[at * all + first..][..copied])
            };
            for (index, to) in to.chunks_exact_mut(2 * copied).enumerate() {
                let (one, other) = (pixel(index * step), pixel(index * step + distance));
                for at in (0..copied).step_by(F::Full::LANES) {
                    let len = copied - at;
                    // SAFETY: `_family` proves that the processor has the instructions; at most `len` values behind `at` are
                    // read of slices of `copied` values, and as many pairs are written to one of twice as many.
                    unsafe {
                        let one = match one {
                            Some(one) => F::Full::load_up_to(one.as_ptr().add(at), len),
                            None => F::Full::splat(0.0),
                        };
                        let other = match other {
                            Some(other) => F::Full::load_up_to(other.as_ptr().add(at), len),
                            None => F::Full::splat(0.0),
                        };
                        one.store_pairs(other, to.as_mut_ptr().add(2 * at), len);
                    }
                }
            }
        }
    }
}

/// Packed weights of pairs of taps in bf16, from those of single ones, `[runs][taps][width]`: `[runs][pairs][width][2]`, for
/// every `(runs, taps, width)`. A run of an odd number of taps ends with zeros.
pub(super) fn pair_taps(
    cpu: PairCpu,
    mut packed: &[f32],
    parts: impl Iterator<Item = (usize, usize, usize)>,
    to: &mut Vec<u16>,
) {
    let mut at = 0;
    for (runs, taps, width) in parts {
        let (part, others) = packed.split_at(runs * taps * width);
        packed = others;
        let end = at + runs * taps.next_multiple_of(2) * width;
        to.resize(to.len().max(end), 0);
        let (layout, to) = (Layout::plain(width, [runs, taps]), &mut to[at..end]);
        dispatch_pairs(cpu, PairFrame { from: part, layout, step: 2, distance: 1, to });
        at = end;
    }
    to.truncate(at);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{
            bf16::rounded,
            vector::{FloatCpu, dispatch},
        },
        *,
    };
    use crate::Isa;

    fn cpus() -> Vec<PairCpu> {
        Isa::available().filter_map(|isa| PairCpu::new(isa).ok()).collect()
    }

    prop_compose! {
        /// Some channels of images with zeros around them.
        fn layout()(
            copied in 1_usize..40, before in 0_usize..3, behind in 0_usize..3, extra in 0_usize..9,
            sides in [1_usize..6, 1_usize..6], margin in [0_usize..3, 0_usize..3], ends in [0_usize..3, 0_usize..3],
        ) -> Layout {
            let framed = [0, 1].map(|axis| margin[axis] + sides[axis] + ends[axis]);
            let channels = [before + copied + behind, before, copied];
            Layout { channels, sides, margin, framed, lanes: copied + extra }
        }
    }

    fn images(layout: Layout, images: usize) -> Vec<f32> {
        let values = images * layout.sides[0] * layout.sides[1] * layout.channels[0];
        (0..values).map(|at| (at % 251 + 1) as f32).collect()
    }

    /// The value of a copy, by the definition; `None` in a row above or below the image.
    fn value(layout: Layout, from: &[f32], [image, row, column, lane]: [usize; 4]) -> Option<f32> {
        let Layout { channels: [all, first, copied], sides: [height, width], margin, .. } = layout;
        let row = row.checked_sub(margin[0]).filter(|&row| row < height)?;
        let column =
            column.checked_sub(margin[1]).filter(|&column| column < width && lane < copied);
        Some(column.map_or(0.0, |column| {
            from[((image * height + row) * width + column) * all + first + lane]
        }))
    }

    /// The values of copies in their order, those of every `step`-th column.
    fn places(layout: Layout, images: usize, step: usize) -> impl Iterator<Item = [usize; 4]> {
        let [rows, columns] = layout.framed;
        (0..images).flat_map(move |image| {
            (0..rows).flat_map(move |row| {
                (0..columns).step_by(step).flat_map(move |column| {
                    (0..layout.lanes).map(move |lane| [image, row, column, lane])
                })
            })
        })
    }

    proptest! {
        #[test]
        fn values_go_where_the_layout_says(layout in layout(), count in 1_usize..4) {
            let from = images(layout, count);
            let expected: Vec<f32> = places(layout, count, 1)
                .map(|place| value(layout, &from, place).unwrap_or(0.0))
                .collect();
            let in_bf16: Vec<u16> = expected.iter().map(|&value| rounded(value)).collect();
            for cpu in cpus() {
                let mut to = vec![u16::MAX; expected.len()];
                dispatch_pairs(cpu, RoundFrame { from: &from, layout, to: &mut to });
                prop_assert_eq!(&to, &in_bf16, "{:?}", cpu);
            }
            for isa in Isa::available() {
                let mut to = vec![f32::NAN; expected.len()];
                let frame = Frame { from: &from, output: None, layout, to: &mut to, sums: None };
                dispatch(FloatCpu::new(isa).unwrap(), frame);
                prop_assert_eq!(&to, &expected, "{}", isa);
            }
        }

        #[test]
        fn every_processor_rounds_alike(
            bits in proptest::collection::vec(any::<u32>(), 1..100),
        ) {
            let from: Vec<f32> = bits.iter().copied().map(f32::from_bits).collect();
            let expected: Vec<u16> = from.iter().map(|&value| rounded(value)).collect();
            let layout = Layout::plain(from.len(), [1, 1]);
            for cpu in cpus() {
                let mut to = vec![0; from.len()];
                dispatch_pairs(cpu, RoundFrame { from: &from, layout, to: &mut to });
                prop_assert_eq!(&to, &expected, "{:?}", cpu);
            }
        }

        #[test]
        fn pixels_are_paired_with_those_to_their_right(
            layout in layout(), count in 1_usize..4, step in 1_usize..3, distance in 1_usize..4,
        ) {
            let layout = Layout { lanes: layout.channels[2], ..layout };
            let from = images(layout, count);
            let rows = layout.framed[0];
            for cpu in cpus() {
                let mut to = vec![7; count * rows * PairFrame::row(layout, step)];
                dispatch_pairs(cpu, PairFrame { from: &from, layout, step, distance, to: &mut to });
                for (place, pair) in places(layout, count, step).zip(to.chunks_exact(2)) {
                    let [image, row, column, lane] = place;
                    let other = [image, row, column + distance, lane];
                    let expected = match (value(layout, &from, place), value(layout, &from, other)) {
                        // What was there before.
                        (None, _) => [7, 7],
                        (Some(one), other) => [rounded(one), rounded(other.unwrap_or(0.0))],
                    };
                    prop_assert_eq!(pair, expected, "{:?} of {:?}", place, layout);
                }
            }
        }

        #[test]
        fn taps_are_paired_block_by_block(
            blocks in proptest::collection::vec((0_usize..3, 1_usize..6, 1_usize..33), 1..4),
        ) {
            let values = blocks.iter().map(|(runs, taps, width)| runs * taps * width).sum::<usize>();
            let packed: Vec<f32> = (0..values).map(|at| at as f32).collect();
            let mut expected = Vec::new();
            let mut rest = &packed[..];
            for &(runs, taps, width) in &blocks {
                for _ in 0..runs {
                    let (run, others) = rest.split_at(taps * width);
                    rest = others;
                    for pair in run.chunks(2 * width) {
                        for lane in 0..width {
                            let other = pair.get(width + lane).copied().unwrap_or(0.0);
                            expected.extend([rounded(pair[lane]), rounded(other)]);
                        }
                    }
                }
            }
            for cpu in cpus() {
                let mut to = vec![7; 5];
                pair_taps(cpu, &packed, blocks.iter().copied(), &mut to);
                prop_assert_eq!(&to, &expected, "{:?}", cpu);
            }
        }
    }
}
