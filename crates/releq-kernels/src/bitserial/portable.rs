//! The kernel in plain Rust.

use super::{Job, LANES, WORD};

/// The planes of whole words of codes.
pub(super) fn split(codes: &[u8], bits: u8, words: &mut [u32]) {
    let (codes, _) = codes.as_chunks::<WORD>();
    for (codes, words) in codes.iter().zip(words.chunks_exact_mut(bits.into())) {
        for (plane, word) in words.iter_mut().enumerate() {
            *word = 0;
            for (index, codes) in codes.as_chunks::<8>().0.iter().enumerate() {
                let lowest = u64::from_le_bytes(*codes) >> plane & 0x0101_0101_0101_0101;
                // Moves the lowest bit of byte i to bit 56 + i.
                let gathered = lowest.wrapping_mul(0x0102_0408_1020_4080) >> 56;
                *word |= (gathered as u32) << (8 * index);
            }
        }
    }
}

pub(super) fn run(job: &Job<'_>, out: &mut [i32]) {
    let (weights, runs) = (job.weights, job.runs);
    let plane_count = usize::from(weights.bits);
    for panel in 0..weights.panels() {
        let (lanes, width) = weights.panel(panel);
        for (start, out) in job.starts.iter().zip(out.chunks_exact_mut(weights.outputs)) {
            for group in 0..width {
                let mut sums = [0_i32; LANES];
                for plane in 0..plane_count {
                    for run in 0..runs.count {
                        let acts = &job.acts[start + run * runs.stride..][..runs.words * job.bits];
                        for (word, acts) in acts.chunks_exact(job.bits).enumerate() {
                            let at = (plane * weights.words + run * runs.words + word) * width;
                            let lanes = &lanes[at + group].0;
                            for (bit, act) in acts.iter().enumerate() {
                                for (sum, lane) in sums.iter_mut().zip(lanes) {
                                    *sum += ((lane & act).count_ones() << bit) as i32;
                                }
                            }
                        }
                    }
                    // The sign plane comes first and counts negative; what follows doubles it.
                    if plane == 0 {
                        sums = sums.map(|sum| -sum);
                    }
                    if plane + 1 < plane_count {
                        sums = sums.map(|sum| 2 * sum);
                    }
                }
                let first = 2 * LANES * panel + LANES * group;
                for (out, sum) in out[first..].iter_mut().zip(sums) {
                    *out = sum;
                }
            }
        }
    }
}
