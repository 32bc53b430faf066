//! The kernel in plain Rust, for processors without AVX2.

use super::{BYTE_WORDS, Job, LANES, Lanes, WORD};

/// The planes of whole words of codes.
pub(super) fn split(codes: &[u8], bits: u8, words: &mut [u32]) {
    let (codes, _) = codes.as_chunks::<WORD>();
    for (codes, words) in codes.iter().zip(words.chunks_exact_mut(bits.into())) {
        for (plane, word) in words.iter_mut().enumerate() {
            *word = 0;
            for (index, codes) in codes.as_chunks::<8>().0.iter().enumerate() {
                let lowest = u64::from_le_bytes(*codes) >> plane & 0x0101_0101_0101_0101;
                // The product adds shifted copies, one of which moves the lowest bit of byte i to bit 56 + i;
                // no two bits meet, so nothing carries.
                let gathered = lowest.wrapping_mul(0x0102_0408_1020_4080) >> 56;
                *word |= (gathered as u32) << (8 * index);
            }
        }
    }
}

/// The sums of all panels of a job.
pub(super) fn run(job: &Job<'_>, out: &mut [i32]) {
    let (weights, runs) = (job.weights, job.runs);
    let planes = usize::from(weights.bits);
    for panel in job.panels.clone() {
        let (lanes, width) = weights.panel(panel);
        for (start, out) in job.starts.iter().zip(out.chunks_mut(job.pitch)) {
            for group in 0..width {
                let mut sums = [0_i32; LANES];
                let mut lines = lanes.chunks_exact(runs.words * width);
                for plane in 0..planes {
                    for (run, lines) in (0..runs.count).zip(&mut lines) {
                        let acts = &job.acts[start + run * runs.stride..][..runs.words * job.bits];
                        let acts = acts.chunks(BYTE_WORDS * job.bits);
                        for (lines, acts) in lines.chunks(BYTE_WORDS * width).zip(acts) {
                            let lines = lines.iter().skip(group).step_by(width);
                            for bit in 0..job.bits {
                                let acts = acts.iter().skip(bit).step_by(job.bits);
                                let counts = count(lines.clone().zip(acts));
                                for (sum, counts) in sums.iter_mut().zip(counts) {
                                    *sum += counts.map(i32::from).iter().sum::<i32>() << bit;
                                }
                            }
                        }
                    }
                    // The sign plane comes first and is negative; every further plane doubles what was summed before.
                    if plane == 0 {
                        sums = sums.map(|sum| -sum);
                    }
                    if plane + 1 < planes {
                        sums = sums.map(|sum| 2 * sum);
                    }
                }
                let (left, column) = job.outputs(2 * LANES * panel + LANES * group);
                for (out, sum) in out[column..].iter_mut().zip(sums).take(left) {
                    *out = sum;
                }
            }
        }
    }
}

/// Counts the common bits of up to [`BYTE_WORDS`] words, separately for the four bytes of each lane.
fn count<'a>(words: impl Iterator<Item = (&'a Lanes, &'a u32)>) -> [[u8; 4]; LANES] {
    let mut counts = [[0; 4]; LANES];
    for (line, act) in words {
        let both = line.0.map(|lane| (lane & act).to_ne_bytes());
        for (count, both) in counts.as_flattened_mut().iter_mut().zip(both.as_flattened()) {
            *count += both.count_ones() as u8;
        }
    }
    counts
}
