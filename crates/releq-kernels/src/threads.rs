//! Splits the results of a product among threads: by pixels or, if there are few pixels, by panels of outputs.

use std::{
    num::NonZeroUsize,
    ops::Range,
    sync::{Mutex, PoisonError},
    thread,
};

/// Pixels that a thread should get at least. If there are fewer for all threads, panels are split instead.
const FEW: usize = 24;

/// Results `[pixels][outputs]`, with the outputs computed in panels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub(crate) outputs: usize,
    /// Outputs of a panel.
    pub(crate) panel: usize,
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

/// Calls `work` for disjoint parts that cover all results, each on a thread of its own. A part has some of the pixels
/// with all panels or, if pixels are few, all pixels with some of the panels.
pub(crate) fn share<T: Copy + Default + Send>(
    grid: Grid,
    out: &mut [T],
    threads: NonZeroUsize,
    work: impl Fn(Part<'_, T>) + Sync,
) {
    if out.is_empty() {
        return;
    }
    let Grid { outputs, panel } = grid;
    let (pixels, threads) = (out.len() / outputs, threads.get());
    let panels = outputs.div_ceil(panel);
    let by_pixels = threads.min(pixels / FEW);
    let by_panels = threads.min(panels);
    if by_pixels.max(by_panels) <= 1 {
        work(Part { first_pixel: 0, panels: 0..panels, out, pitch: outputs });
    } else if by_pixels >= by_panels {
        // Kernels work on tiles of 3, 4, 6, 8 or 12 pixels: a multiple of 24 fills all of them.
        let size = pixels.div_ceil(by_pixels).next_multiple_of(FEW);
        each(out.chunks_mut(size * outputs), |index, out| {
            work(Part { first_pixel: index * size, panels: 0..panels, out, pitch: outputs });
        });
    } else {
        let size = panels.div_ceil(by_panels);
        let channels = |index: usize| (size * panel).min(outputs - index * size * panel);
        let run = |index: usize, out: &mut [T]| {
            let panels = index * size..panels.min((index + 1) * size);
            work(Part { first_pixel: 0, panels, out, pitch: channels(index) });
        };
        // The outputs of a single pixel are contiguous, so that threads can write in place.
        if pixels == 1 {
            return each(out.chunks_mut(size * panel), run);
        }
        // Panels of several pixels interleave in `out`, which safe code cannot split. Each thread writes to a
        // part of its own, which is copied afterwards; there are few pixels, so this is cheap.
        let mut parts = vec![T::default(); out.len()];
        let part = pixels * size * panel;
        each(parts.chunks_mut(part), run);
        for (index, part) in parts.chunks(part).enumerate() {
            let rows = out.chunks_exact_mut(outputs).zip(part.chunks_exact(channels(index)));
            for (row, part) in rows {
                row[index * size * panel..][..part.len()].copy_from_slice(part);
            }
        }
    }
}

/// Calls `run` for every item, each on a thread of its own, except that one runs on the calling thread. So do those
/// for which the system gives no thread.
fn each<T: Send>(items: impl ExactSizeIterator<Item = T> + Send, run: impl Fn(usize, T) + Sync) {
    let count = items.len();
    let items = Mutex::new(items.enumerate());
    let one = || {
        // Nothing panics while the lock is held.
        let next = items.lock().unwrap_or_else(PoisonError::into_inner).next();
        if let Some((index, item)) = next {
            run(index, item);
        }
    };
    thread::scope(|scope| {
        let spawned =
            (1..count).take_while(|_| thread::Builder::new().spawn_scoped(scope, one).is_ok());
        for _ in spawned.count()..count {
            one();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_is_computed_once_by_its_panel() {
        for (pixels, outputs, panel) in [
            (0, 5, 2),
            (1, 1, 4),
            (1, 70, 16),
            (5, 70, 16),
            (23, 33, 64),
            (100, 33, 16),
            (500, 3, 16),
        ] {
            for threads in 1..=5 {
                let mut out = vec![(0_usize, 0_usize); pixels * outputs];
                let threads = NonZeroUsize::new(threads).expect("positive");
                share(Grid { outputs, panel }, &mut out, threads, |part| {
                    let first = part.panels.start * panel;
                    assert!(part.pitch <= part.panels.len() * panel);
                    for (at, out) in part.out.iter_mut().enumerate() {
                        let pixel = part.first_pixel + at / part.pitch;
                        *out = (out.0 + 1, pixel * outputs + first + at % part.pitch);
                    }
                });
                for (at, result) in out.into_iter().enumerate() {
                    assert_eq!(result, (1, at), "{pixels} {outputs} {panel} {threads}");
                }
            }
        }
    }
}
