//! The kernel in plain Rust, for processors without AVX2.

use super::{GROUP, drive::Piece};
use crate::int::epilogue::LANES;

/// Multiplies a piece, one pixel and 16 outputs at a time.
pub(super) fn run(piece: &Piece<'_>, starts: &[usize], sums: &mut [i32]) {
    for (pixel, &start) in starts.iter().enumerate() {
        for column in 0..piece.width {
            let mut acc = [0_i32; LANES];
            let mut lines = piece.lines.iter().skip(column).step_by(piece.width);
            for segment in piece.segments {
                let acts = &piece.acts[start + segment.offset..][..segment.groups * GROUP];
                for (acts, line) in acts.as_chunks::<GROUP>().0.iter().zip(&mut lines) {
                    for (acc, weights) in acc.iter_mut().zip(line.0.as_chunks::<GROUP>().0) {
                        for (&weight, &act) in weights.iter().zip(acts) {
                            *acc += i32::from(weight) * i32::from(act);
                        }
                    }
                }
            }
            let channels = (piece.channels - column * LANES).min(LANES);
            let sums = &mut sums[pixel * piece.pitch + column * LANES..][..channels];
            for (sum, acc) in sums.iter_mut().zip(acc) {
                *sum = if piece.add { *sum + acc } else { acc };
            }
        }
    }
}
