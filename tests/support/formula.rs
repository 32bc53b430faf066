//! Parameters and images that follow from a formula, which `golden/make_forward.py` has, too.

use releq::{
    core::{Network, Parameter, Weights},
    train::initial_weights,
};

/// Numbers in [-1, 1), multiples of 2^-23: the integer hash `lowbias32`, started by FNV-1a of a name.
#[must_use]
pub fn noise(name: &str, count: usize) -> Vec<f32> {
    let start = name
        .bytes()
        .fold(0x811C_9DC5_u32, |state, byte| (state ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let value = |index: usize| {
        let mut x = (index as u32).wrapping_add(start);
        x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
        x = (x ^ (x >> 15)).wrapping_mul(0x846C_A68B);
        x ^= x >> 16;
        (x >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..count).map(value).collect()
}

/// The parameters of `network` by formula.
///
/// # Panics
/// If a parameter has no role in its name.
#[must_use]
#[allow(clippy::unwrap_used, reason = "a test may fail loudly")]
pub fn by_formula(network: &Network) -> Weights {
    let mut state = initial_weights(network, 0);
    for (name, Parameter { shape, values }) in &mut state.0 {
        *values = noise(name, values.len());
        let (offset, scale) = match name.rsplit_once('.').unwrap().1 {
            "weight" if shape.len() > 1 => {
                let fan_in: usize = shape[1..].iter().product();
                (0.0, (6.0 / fan_in as f64).sqrt() as f32)
            }
            "weight" => (1.0, 0.25),
            "running_var" => (1.0, 0.5),
            _ => (0.0, 0.125),
        };
        values.iter_mut().for_each(|value| *value = offset + scale * *value);
    }
    state
}

/// Two images of noise.
#[must_use]
pub fn images(network: &Network) -> Vec<f32> {
    noise("input", 2 * network.input().iter().product::<usize>())
}
