//! Temporary memory of a thread.

use std::{cell::Cell, thread::LocalKey};

use crate::int::{epilogue::LANES, int8::Line};

thread_local! {
    /// Kept from call to call, so that a thread that computes the same layers again allocates nothing. It is as large as
    /// the largest layer needed. Whoever uses it takes it, and puts it back.
    pub(crate) static SCRATCH: Cell<Scratch> = const { Cell::new(Scratch::new()) };
    static CODES: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static SUMS: Cell<Vec<i32>> = const { Cell::new(Vec::new()) };
    static VALUES: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Temporary memory that the layers of a thread share.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Weights of few bits that were expanded.
    pub(crate) lines: Vec<Line>,
    /// Sums that the epilogue reads.
    pub(crate) sums: Vec<[i32; LANES]>,
    /// The last pixels of a product, padded.
    pub(crate) acts: Vec<u8>,
}

impl Scratch {
    const fn new() -> Self {
        Self { lines: Vec::new(), sums: Vec::new(), acts: Vec::new() }
    }
}

/// Results of layers, for which every thread keeps some memory.
pub(crate) trait Kept: Copy + Default + Send + 'static {
    fn kept() -> &'static LocalKey<Cell<Vec<Self>>>;

    /// Calls `work` with memory for `len` results, whatever is in it.
    fn with_kept(len: usize, work: impl FnOnce(&mut [Self])) {
        let mut kept = Self::kept().take();
        if kept.len() < len {
            kept.resize(len, Self::default());
        }
        work(&mut kept[..len]);
        Self::kept().set(kept);
    }
}

impl Kept for u8 {
    fn kept() -> &'static LocalKey<Cell<Vec<Self>>> {
        &CODES
    }
}

impl Kept for i32 {
    fn kept() -> &'static LocalKey<Cell<Vec<Self>>> {
        &SUMS
    }
}

impl Kept for f32 {
    fn kept() -> &'static LocalKey<Cell<Vec<Self>>> {
        &VALUES
    }
}
