//! Temporary memory of a thread.

use std::cell::Cell;

use crate::int::{epilogue::LANES, int8::Line};

thread_local! {
    /// Kept from call to call, so that a thread that computes the same layers again allocates nothing. It is as large as
    /// the largest layer needed. Whoever uses it takes it, and puts it back.
    pub(crate) static SCRATCH: Cell<Scratch> = const { Cell::new(Scratch::new()) };
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
