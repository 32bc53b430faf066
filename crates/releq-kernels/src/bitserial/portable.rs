//! The kernel in plain Rust.

use super::{Job, LANES};

pub(super) fn run(job: &Job<'_>, out: &mut [i32]) {
    let (weights, runs) = (job.weights, job.runs);
    let plane_count = usize::from(weights.bits);
    for panel in 0..weights.panels() {
        let (lanes, width) = weights.panel(panel);
        for (pixel, &start) in job.starts.iter().enumerate() {
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
                let row = &mut out[pixel * weights.outputs..][..weights.outputs];
                for (out, sum) in row[first..].iter_mut().zip(sums) {
                    *out = sum;
                }
            }
        }
    }
}
