//! The weights of an integer layer, which are read from codes a few outputs at a time: kernels store them as they want them, and
//! nobody else keeps them.

use releq_format::{Codes, IntegerLayer};

use crate::RuntimeError;

/// Weights that are read at once, unless a single output has more. So what is held on the way is no more where rows are long.
const BLOCK: usize = 1 << 17;

/// Reads levels, row by row, from the first one of the given output on.
type Read<'a> = dyn Fn(usize, &mut [i16]) -> Result<(), RuntimeError> + Send + Sync + 'a;

/// The weights of an integer layer.
pub(crate) struct Weights<'a> {
    read: Box<Read<'a>>,
    outputs: usize,
    /// Weights of one output: `channels`, each of so many pixels.
    row: usize,
    channels: usize,
}

/// What there is to know of the weights of one output.
pub(crate) struct Totals {
    pub(crate) sum: i64,
    /// The sum of their magnitudes.
    pub(crate) magnitude: i64,
}

impl<'a> Weights<'a> {
    /// Those of a layer of that name, `[outputs][channels][row / channels]`.
    pub(crate) fn new<C: Codes>(
        name: &'a str,
        layer: IntegerLayer<'a, C>,
        [outputs, row, channels]: [usize; 3],
    ) -> Self {
        let read = move |output: usize, out: &mut [i16]| {
            layer.read_levels(output * row, out).map_err(|error| unread(name, error))
        };
        Self { read: Box::new(read), outputs, row, channels }
    }

    /// The lowest and the highest level, zero among them, and what there is to know of each output.
    pub(crate) fn survey(&self) -> Result<([i16; 2], Vec<Totals>), RuntimeError> {
        let ([mut low, mut high], mut totals) = ([0; 2], Vec::with_capacity(self.outputs));
        self.each_block(0, self.outputs, |_, levels| {
            low = levels.iter().fold(low, |low, &level| low.min(level));
            high = levels.iter().fold(high, |high, &level| high.max(level));
            totals.extend(levels.chunks_exact(self.row).map(Totals::of));
        })?;
        Ok(([low, high], totals))
    }

    /// Writes the weights of whole outputs from `output` on, in the kernels' order: `[outputs][kernel][kernel][channels]`. Their
    /// levels fit in 8 bits, as a survey has shown.
    pub(crate) fn write(&self, output: usize, out: &mut [i8]) -> Result<(), RuntimeError> {
        self.each_block(output, out.len() / self.row, |done, levels| {
            let rows = out[done * self.row..].chunks_exact_mut(self.row);
            for (to, from) in rows.zip(levels.chunks_exact(self.row)) {
                channels_last(from, self.channels, to, |level| level as i8);
            }
        })
    }

    /// All of them, in the kernels' order.
    pub(crate) fn all(&self) -> Result<Vec<i8>, RuntimeError> {
        let mut weights = vec![0; self.outputs * self.row];
        self.write(0, &mut weights)?;
        Ok(weights)
    }

    /// Hands out the levels of `count` outputs from `first` on, those of a few whole outputs at a time, with the number of outputs
    /// before them.
    fn each_block(
        &self,
        first: usize,
        count: usize,
        mut use_block: impl FnMut(usize, &[i16]),
    ) -> Result<(), RuntimeError> {
        let most = (BLOCK / self.row).clamp(1, count.max(1));
        let mut levels = vec![0; most * self.row];
        for done in (0..count).step_by(most) {
            let levels = &mut levels[..most.min(count - done) * self.row];
            (self.read)(first + done, levels)?;
            use_block(done, levels);
        }
        Ok(())
    }
}

impl Totals {
    fn of(levels: &[i16]) -> Self {
        // Sums of 32 bits vectorize, and hold those of as many as this.
        let parts = levels.chunks(1 << 16);
        let add = |part: &[i16]| part.iter().map(|&level| i32::from(level)).sum::<i32>();
        let add_magnitudes =
            |part: &[i16]| part.iter().map(|&level| i32::from(level).abs()).sum::<i32>();
        Self {
            sum: parts.clone().map(|part| i64::from(add(part))).sum(),
            magnitude: parts.map(|part| i64::from(add_magnitudes(part))).sum(),
        }
    }
}

/// Why the weights of a layer are not there.
pub(crate) fn unread(
    layer: &str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> RuntimeError {
    RuntimeError::Codes { layer: layer.to_owned(), source: Box::new(error) }
}

/// The weights of one output from `[channels][area]` to `[area][channels]`.
pub(crate) fn channels_last<A: Copy, B>(
    from: &[A],
    channels: usize,
    to: &mut [B],
    convert: impl Fn(A) -> B,
) {
    let area = from.len() / channels;
    if area == 1 || channels == 1 {
        return to.iter_mut().zip(from).for_each(|(to, &from)| *to = convert(from));
    }
    for (pixel, to) in to.chunks_exact_mut(channels).enumerate() {
        for (to, &from) in to.iter_mut().zip(from[pixel..].iter().step_by(area)) {
            *to = convert(from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Level `at` of a layer.
    fn level(at: usize) -> i16 {
        (at * 31 % 241) as i16 - 120
    }

    #[test]
    fn blocks_of_whole_outputs_make_all_of_a_layer() {
        // Many outputs in a block, two, and one that has more weights than a block.
        for [outputs, row] in [[300, 9], [7, 50_000], [3, BLOCK + 4]] {
            let read = move |output: usize, out: &mut [i16]| {
                assert!(out.len() <= BLOCK.max(row));
                let levels = out.iter_mut().zip(output * row..);
                levels.for_each(|(to, at)| *to = level(at));
                Ok(())
            };
            let weights = Weights { read: Box::new(read), outputs, row, channels: 1 };
            let ([low, high], totals) = weights.survey().unwrap();
            assert_eq!(([low, high], totals.len()), ([-120, 120], outputs));
            for (output, totals) in totals.iter().enumerate() {
                let levels = (output * row..(output + 1) * row).map(|at| i64::from(level(at)));
                assert_eq!(totals.sum, levels.clone().sum::<i64>());
                assert_eq!(totals.magnitude, levels.map(i64::abs).sum::<i64>());
            }
            let all = weights.all().unwrap();
            assert!(all.iter().zip(0..).all(|(&weight, at)| weight == level(at) as i8));
            let mut last = vec![0; 2 * row];
            weights.write(outputs - 2, &mut last).unwrap();
            assert_eq!(last, all[(outputs - 2) * row..]);
        }
    }
}
