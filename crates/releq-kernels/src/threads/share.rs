//! Splits the results of a product: by pixels or by panels of outputs.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

use super::{Parts, Threads};
use crate::int::Kept;

/// Pixels are split at multiples of this. Kernels work on tiles of 3, 4, 6 or 12 pixels, and few on tiles of 8.
const TILE: usize = 12;
/// Pixels of a part where there are many: enough that reading all weights for it is little of its work.
const PIXELS: usize = 8 * TILE;

/// Results `[pixels][outputs]`, with the outputs computed in panels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub(crate) outputs: usize,
    /// Outputs of a panel.
    pub(crate) panel: usize,
    /// Products of a result.
    pub(crate) depth: usize,
}

/// The part of the results that one thread computes.
#[derive(Debug)]
pub(crate) struct Part<'a, T> {
    pub(crate) first_pixel: usize,
    pub(crate) panels: Range<usize>,
    /// `[pixels][pitch]`, only the outputs of `panels`.
    pub(crate) out: &'a mut [T],
    pub(crate) pitch: usize,
}

/// Calls `work` for disjoint parts that cover all results. A part has some of the pixels with all panels, or all pixels with some
/// of the panels.
pub(crate) fn share<T: Kept>(
    grid: Grid,
    out: &mut [T],
    threads: &Threads,
    work: impl Fn(Part<'_, T>) + Sync,
) {
    if out.is_empty() {
        return;
    }
    let Grid { outputs, panel, depth } = grid;
    let pixels = out.len() / outputs;
    let panels = outputs.div_ceil(panel);
    let most = threads.parts(out.len(), depth);
    let side_by_side = threads.count().get().min(most);
    if side_by_side <= 1 {
        return work(Part { first_pixel: 0, panels: 0..panels, out, pitch: outputs });
    }
    if are_panels_better(pixels, panels, outputs, side_by_side) {
        return by_panels(grid, out, threads, most.min(panels), &work);
    }
    let tiles = pixels.div_ceil(TILE);
    let parts = threads.rounded((pixels / PIXELS).max(side_by_side)).min(most).min(tiles);
    threads.each(Parts::of(out, TILE * outputs, parts), |(first, out)| {
        work(Part { first_pixel: first * TILE, panels: 0..panels, out, pitch: outputs });
    });
}

/// Whether so many threads end sooner if they get panels. If there are more outputs than pixels, then weights are what takes time
/// to read, and panels let every thread read its own; otherwise threads that split pixels need not put their results together.
fn are_panels_better(pixels: usize, panels: usize, outputs: usize, threads: usize) -> bool {
    // What the thread computes that has most, out of `pixels * panels`.
    let by_pixels = (pixels.div_ceil(TILE).div_ceil(threads) * TILE).min(pixels) * panels;
    let by_panels = panels.div_ceil(threads) * pixels;
    let handicap = if outputs >= pixels { 0 } else { by_panels / 8 };
    by_panels + handicap <= by_pixels
}

fn by_panels<T: Kept>(
    grid: Grid,
    out: &mut [T],
    threads: &Threads,
    parts: usize,
    work: &(impl Fn(Part<'_, T>) + Sync),
) {
    let Grid { outputs, panel, .. } = grid;
    let (pixels, panels) = (out.len() / outputs, outputs.div_ceil(panel));
    // The outputs of a single pixel are contiguous, so that threads can write in place.
    if pixels == 1 {
        return threads.each(Parts::of(out, panel, parts), |(first, out)| {
            let (panels, pitch) = (first..first + out.len().div_ceil(panel), out.len());
            work(Part { first_pixel: 0, panels, out, pitch });
        });
    }
    // Panels of several pixels interleave in `out`, which safe code cannot split. Each thread writes to memory of its own and
    // copies that, which is little: there are few pixels.
    let out = Mutex::new(out);
    threads.each(0..parts, |part| {
        let panels = panels * part / parts..panels * (part + 1) / parts;
        let first = panels.start * panel;
        let pitch = outputs.min(panels.end * panel) - first;
        T::with_kept(pixels * pitch, |own| {
            work(Part { first_pixel: 0, panels, out: &mut *own, pitch });
            // Lengths were divided above: copying does not panic.
            let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
            for (row, own) in out.chunks_exact_mut(outputs).zip(own.chunks_exact(pitch)) {
                row[first..][..pitch].copy_from_slice(own);
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "minutes")]
    fn every_result_is_computed_once_by_its_panel() {
        for (pixels, outputs, panel) in [
            (0, 5, 2),
            (1, 1, 4),
            (1, 70, 16),
            (5, 70, 16),
            (23, 33, 64),
            (49, 512, 64),
            (100, 33, 16),
            (500, 3, 16),
            (2000, 3, 16),
        ] {
            for threads in 1..=5 {
                let mut out = vec![0_i32; pixels * outputs];
                let threads = Threads::eager(NonZeroUsize::new(threads).expect("positive"));
                for turn in 0..2 {
                    share(Grid { outputs, panel, depth: 1 }, &mut out, &threads, |part| {
                        let first = part.panels.start * panel;
                        assert!(part.pitch <= part.panels.len() * panel);
                        assert!(part.pitch > (part.panels.len() - 1) * panel);
                        for (at, out) in part.out.iter_mut().enumerate() {
                            let pixel = part.first_pixel + at / part.pitch;
                            *out = (turn + pixel * outputs + first + at % part.pitch) as i32;
                        }
                    });
                    for (at, result) in out.iter().enumerate() {
                        assert_eq!(*result as usize, turn + at, "{pixels} {outputs} {panel}");
                    }
                }
            }
        }
    }

    #[test]
    fn threads_get_equal_parts() {
        // ResNet-18's layers: 49 pixels are a bad number to split, and so are 196.
        assert!(are_panels_better(49, 8, 512, 2));
        assert!(are_panels_better(196, 4, 256, 2));
        assert!(!are_panels_better(784, 2, 128, 2));
        assert!(!are_panels_better(3136, 1, 64, 2));
        // Three threads leave one of two panels' worth of nothing to do.
        assert!(!are_panels_better(784, 2, 128, 3));
    }
}
