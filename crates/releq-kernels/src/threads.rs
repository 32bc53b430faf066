//! Work shared out among threads: pixels first and, where these are few, panels of outputs.

use std::{num::NonZeroUsize, ops::Range, thread};

/// Pixels of a thread, below which panels are shared out instead.
const FEW: usize = 24;

/// Results `[pixels][outputs]`, whose outputs are computed in panels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub(crate) outputs: usize,
    /// Outputs of a panel.
    pub(crate) panel: usize,
}

/// What one thread computes.
#[derive(Debug)]
pub(crate) struct Part<'a, T> {
    pub(crate) first_pixel: usize,
    pub(crate) panels: Range<usize>,
    /// `[pixels][pitch]`, the outputs of the panels alone.
    pub(crate) out: &'a mut [T],
    pub(crate) pitch: usize,
}

/// Gives every thread pixels of its own or, where pixels are few, panels of its own.
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
        // A multiple of 24 fills the tiles of every kernel.
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
        if pixels == 1 {
            return each(out.chunks_mut(size * panel), run);
        }
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

/// Runs every item on a thread of its own, the first on this one.
fn each<T: Send>(items: impl Iterator<Item = T>, run: impl Fn(usize, T) + Sync) {
    let mut items = items.enumerate();
    let first = items.next();
    thread::scope(|scope| {
        let run = &run;
        for (index, item) in items {
            scope.spawn(move || run(index, item));
        }
        if let Some((index, item)) = first {
            run(index, item);
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
