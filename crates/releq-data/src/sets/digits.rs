//! Draws handwriting-like digits.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{DataError, ImageSet, Label, Splits};

/// Side of an image in pixels, as in MNIST.
const SIDE: usize = 28;
/// Most images of a set: 3 GiB.
const LARGEST: usize = 1 << 22;
/// Side of the grid whose shifts bend an image.
const GRID: usize = 5;

/// What to draw and how difficult to make it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", default, deny_unknown_fields)]
pub struct DigitsConfig {
    /// Images to train on.
    pub train: usize,
    /// Images to test on.
    pub test: usize,
    /// The same seed gives the same images.
    pub seed: u64,
    /// Largest rotation and slant, in radians.
    pub rotation: f32,
    /// Largest shift by elastic distortion, in units of the image side.
    pub distortion: f32,
    /// Standard deviation of the noise on every pixel, black being 0 and white 1.
    pub noise: f32,
    /// Probability of a stray stroke through the image.
    pub clutter: f64,
}

releq_core::named_fields!(DigitsConfig);

impl Default for DigitsConfig {
    /// 25,000 and 5,000 images, of a difficulty at which a full-precision LeNet reaches about 98 %.
    fn default() -> Self {
        Self {
            train: 25_000,
            test: 5_000,
            seed: 0,
            rotation: 0.35,
            distortion: 0.06,
            noise: 0.12,
            clutter: 0.5,
        }
    }
}

type Point = [f32; 2];

/// One stroke of a digit in the unit square, y downwards.
enum Stroke {
    /// Straight pieces from point to point.
    Line(&'static [Point]),
    /// Part of an ellipse: centre, radii, first and last angle in turns, clockwise from the right.
    Arc(Point, Point, f32, f32),
}

use Stroke::{Arc, Line};

/// The ways to write each digit.
const GLYPHS: [&[&[Stroke]]; 10] = [
    &[&[Arc([0.5, 0.5], [0.25, 0.38], 0.0, 1.0)], &[Arc([0.5, 0.5], [0.33, 0.36], 0.1, 1.1)]],
    &[
        &[Line(&[[0.5, 0.12], [0.5, 0.88]])],
        &[Line(&[[0.34, 0.28], [0.54, 0.12], [0.54, 0.88]])],
        &[Line(&[[0.34, 0.28], [0.54, 0.12], [0.54, 0.88]]), Line(&[[0.34, 0.88], [0.74, 0.88]])],
    ],
    &[
        &[
            Arc([0.5, 0.32], [0.24, 0.2], 0.5, 1.08),
            Line(&[[0.71, 0.42], [0.26, 0.86], [0.78, 0.86]]),
        ],
        &[
            Arc([0.48, 0.34], [0.26, 0.22], 0.55, 1.15),
            Line(&[[0.63, 0.52], [0.38, 0.8]]),
            Arc([0.34, 0.8], [0.08, 0.07], 0.0, 1.0),
            Line(&[[0.38, 0.84], [0.8, 0.86]]),
        ],
    ],
    &[
        &[Arc([0.46, 0.31], [0.24, 0.19], 0.55, 1.25), Arc([0.46, 0.68], [0.27, 0.2], 0.75, 1.45)],
        &[
            Line(&[[0.26, 0.14], [0.72, 0.14], [0.46, 0.44]]),
            Arc([0.46, 0.66], [0.27, 0.22], 0.75, 1.45),
        ],
    ],
    &[
        &[Line(&[[0.62, 0.88], [0.62, 0.12], [0.22, 0.62], [0.82, 0.62]])],
        &[Line(&[[0.28, 0.14], [0.26, 0.52], [0.76, 0.52]]), Line(&[[0.7, 0.14], [0.66, 0.88]])],
    ],
    &[
        &[
            Line(&[[0.74, 0.14], [0.32, 0.14], [0.29, 0.46]]),
            Arc([0.46, 0.64], [0.28, 0.22], 0.66, 1.42),
        ],
        &[
            Line(&[[0.36, 0.14], [0.34, 0.44], [0.52, 0.42]]),
            Arc([0.5, 0.64], [0.24, 0.22], 0.75, 1.4),
            Line(&[[0.36, 0.14], [0.74, 0.12]]),
        ],
    ],
    &[
        &[
            Line(&[[0.64, 0.12], [0.4, 0.36], [0.28, 0.62]]),
            Arc([0.5, 0.66], [0.22, 0.2], 0.0, 1.0),
        ],
        &[Arc([0.66, 0.52], [0.4, 0.42], 0.42, 0.72), Arc([0.48, 0.68], [0.21, 0.18], 0.0, 1.0)],
    ],
    &[
        &[Line(&[[0.24, 0.14], [0.76, 0.14], [0.42, 0.88]])],
        &[Line(&[[0.24, 0.14], [0.76, 0.14], [0.42, 0.88]]), Line(&[[0.36, 0.5], [0.72, 0.5]])],
        &[Line(&[[0.24, 0.28], [0.26, 0.14], [0.76, 0.16], [0.56, 0.5], [0.48, 0.88]])],
    ],
    &[
        &[Arc([0.5, 0.31], [0.2, 0.18], 0.0, 1.0), Arc([0.5, 0.68], [0.25, 0.2], 0.0, 1.0)],
        &[
            Line(&[[0.7, 0.2], [0.34, 0.66]]),
            Arc([0.48, 0.28], [0.22, 0.16], 0.45, 1.0),
            Arc([0.5, 0.72], [0.2, 0.16], 0.0, 1.0),
            Line(&[[0.3, 0.3], [0.66, 0.64]]),
        ],
    ],
    &[
        &[
            Arc([0.5, 0.34], [0.22, 0.21], 0.0, 1.0),
            Line(&[[0.72, 0.36], [0.66, 0.64], [0.56, 0.88]]),
        ],
        &[
            Arc([0.48, 0.32], [0.21, 0.19], 0.0, 1.0),
            Line(&[[0.69, 0.32], [0.69, 0.7]]),
            Arc([0.5, 0.7], [0.19, 0.17], 0.0, 0.45),
        ],
    ],
];

/// Draws the data set: every image shows one of several ways to write its digit, rotated, slanted, scaled,
/// shifted and bent at random, with a pen of random width, an occasional stray stroke, and noise.
///
/// Image `i` shows the digit `i mod 10` and depends only on the seed and `i`.
///
/// # Errors
/// When a parameter of `config` is out of range.
pub fn generate(config: &DigitsConfig) -> Result<Splits, DataError> {
    let check = |field, value: f64, high: f64, expected| {
        if (0.0..=high).contains(&value) {
            Ok(())
        } else {
            let (of, found) = ("digits", value.to_string());
            Err(DataError::Parameter { of, field, found, expected })
        }
    };
    check("rotation", config.rotation.into(), 3.2, "0 to 3.2")?;
    check("distortion", config.distortion.into(), 0.5, "0 to 0.5")?;
    check("noise", config.noise.into(), 1.0, "0 to 1")?;
    check("clutter", config.clutter, 1.0, "0 to 1")?;
    check("train", config.train as f64, LARGEST as f64, "1 to 4194304")?;
    check("test", config.test as f64, LARGEST as f64, "1 to 4194304")?;
    let draw_set = |name: &str, stream: u64, count: usize| {
        let mut pixels = Vec::with_capacity(count * SIDE * SIDE);
        let labels: Vec<Label> = (0..count).map(|index| (index % 10) as Label).collect();
        for (index, &label) in labels.iter().enumerate() {
            let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
            rng.set_stream(2 * index as u64 + stream);
            draw(config, usize::from(label), &mut rng, &mut pixels);
        }
        ImageSet::new(name, [1, SIDE, SIDE], 10, pixels, labels)
    };
    Ok(Splits {
        train: draw_set("digits train", 0, config.train)?,
        test: draw_set("digits test", 1, config.test)?,
        source: format!(
            "digits drawn from seed {} ({} to train on, {} to test on; not MNIST)",
            config.seed, config.train, config.test
        ),
    })
}

/// Appends one image.
fn draw(config: &DigitsConfig, digit: usize, rng: &mut impl Rng, pixels: &mut Vec<u8>) {
    let glyphs = GLYPHS[digit];
    let glyph = &glyphs[rng.random_range(0..glyphs.len())];
    let mut segments: Vec<[Point; 2]> = Vec::new();
    for stroke in *glyph {
        let points: Vec<Point> = match stroke {
            Line(points) => points.to_vec(),
            Arc(centre, radii, first, last) => (0..=16)
                .map(|step| {
                    let turn = first + (last - first) * step as f32 / 16.0;
                    let (sin, cos) = (turn * std::f32::consts::TAU).sin_cos();
                    [centre[0] + radii[0] * cos, centre[1] + radii[1] * sin]
                })
                .collect(),
        };
        segments.extend(points.windows(2).map(|pair| [pair[0], pair[1]]));
    }

    // Affine map about the centre, then a smooth bend by a grid of random shifts.
    let mut within = |limit: f32| if limit > 0.0 { rng.random_range(-limit..limit) } else { 0.0 };
    let (sin, cos) = within(config.rotation).sin_cos();
    let slant = within(config.rotation);
    let scale = [0.78 + within(0.16), 0.78 + within(0.14)];
    let shift = [within(0.09), within(0.09)];
    let bends: Vec<Point> =
        (0..GRID * GRID).map(|_| [within(config.distortion), within(config.distortion)]).collect();
    let width = 0.045 + within(0.02);
    let place = |point: Point| -> Point {
        let (x, y) = (scale[0] * (point[0] - 0.5), scale[1] * (point[1] - 0.5));
        let x = x - slant * y;
        let moved = [cos * x - sin * y + 0.5 + shift[0], sin * x + cos * y + 0.5 + shift[1]];
        let bend = bend_at(&bends, moved);
        [moved[0] + bend[0], moved[1] + bend[1]]
    };
    // Long pieces are cut so that they bend too.
    let mut ink: Vec<[Point; 2]> = Vec::new();
    for [from, to] in segments {
        let between = |t: f32| [from[0] + t * (to[0] - from[0]), from[1] + t * (to[1] - from[1])];
        let pieces = (distance(from, to) / 0.12).ceil().max(1.0) as usize;
        for piece in 0..pieces {
            let at = |index: usize| place(between(index as f32 / pieces as f32));
            ink.push([at(piece), at(piece + 1)]);
        }
    }
    if rng.random_bool(config.clutter) {
        let mut edge = || [rng.random_range(0.0..1.0f32), rng.random_range(0.0..1.0f32)];
        let (from, to) = (edge(), edge());
        // At most a third of the image long, so that it cannot pass for a stroke of the digit.
        let stretch = (0.33 / distance(from, to).max(0.33)).min(1.0);
        let end = [from[0] + stretch * (to[0] - from[0]), from[1] + stretch * (to[1] - from[1])];
        ink.push([from, end]);
    }

    let strength = rng.random_range(0.6..1.0f32);
    for row in 0..SIDE {
        for column in 0..SIDE {
            let centre = [(column as f32 + 0.5) / SIDE as f32, (row as f32 + 0.5) / SIDE as f32];
            let nearest = ink
                .iter()
                .map(|segment| distance_to_segment(centre, segment))
                .fold(f32::INFINITY, f32::min);
            // Full ink within the pen's width, fading over one pixel.
            let ink = (1.0 - (nearest - width) * SIDE as f32).clamp(0.0, 1.0) * strength;
            // The sum of four uniform numbers is near enough to normal; its deviation is 0.577.
            let noise: f32 = (0..4).map(|_| rng.random_range(-0.5..0.5f32)).sum();
            let value = ink + config.noise / 0.577 * noise;
            pixels.push((value.clamp(0.0, 1.0) * 255.0).round() as u8);
        }
    }
}

/// The grid's shift at a point, between its knots along straight lines.
fn bend_at(bends: &[Point], point: Point) -> Point {
    let knot = |value: f32| {
        let scaled = value.clamp(0.0, 1.0) * (GRID - 1) as f32;
        let index = (scaled as usize).min(GRID - 2);
        (index, scaled - index as f32)
    };
    let ((column, right), (row, down)) = (knot(point[0]), knot(point[1]));
    let at = |r: usize, c: usize, axis: usize| bends[r * GRID + c][axis];
    std::array::from_fn(|axis| {
        let top = at(row, column, axis) * (1.0 - right) + at(row, column + 1, axis) * right;
        let bottom =
            at(row + 1, column, axis) * (1.0 - right) + at(row + 1, column + 1, axis) * right;
        top * (1.0 - down) + bottom * down
    })
}

fn distance(a: Point, b: Point) -> f32 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

fn distance_to_segment(point: Point, [from, to]: &[Point; 2]) -> f32 {
    let along = [to[0] - from[0], to[1] - from[1]];
    let length = along[0] * along[0] + along[1] * along[1];
    let offset = [point[0] - from[0], point[1] - from[1]];
    let t = if length > 0.0 {
        ((offset[0] * along[0] + offset[1] * along[1]) / length).clamp(0.0, 1.0)
    } else {
        0.0
    };
    distance(point, [from[0] + t * along[0], from[1] + t * along[1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_every_pixel() {
        let small = |seed| DigitsConfig { train: 40, test: 10, seed, ..DigitsConfig::default() };
        let (a, b) = (generate(&small(1)).unwrap(), generate(&small(1)).unwrap());
        for index in 0..40 {
            assert_eq!(a.train.image(index), b.train.image(index));
            assert_eq!(usize::from(a.train.label(index)), index % 10);
        }
        assert_ne!(a.train.image(0), generate(&small(2)).unwrap().train.image(0));
        assert_ne!(a.train.image(0), a.test.image(0));
        // A longer set begins with the shorter one.
        let longer = generate(&DigitsConfig { train: 60, ..small(1) }).unwrap();
        assert_eq!(longer.train.image(39), a.train.image(39));
        assert!(a.source.contains("not MNIST"));
    }

    #[test]
    fn images_hold_ink_and_background() {
        let quiet =
            DigitsConfig { train: 200, test: 1, noise: 0.0, clutter: 0.0, ..Default::default() };
        let data = generate(&quiet).unwrap();
        for index in 0..data.train.len() {
            let inked = data.train.image(index).iter().filter(|&&pixel| pixel > 100).count();
            assert!((15..350).contains(&inked), "image {index}: {inked} inked pixels");
        }
    }

    #[test]
    fn parameters_are_checked() {
        let check = |config: DigitsConfig, expected: &str| {
            let message = generate(&config).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        check(DigitsConfig { noise: f32::NAN, ..Default::default() }, "`noise` is NaN");
        check(DigitsConfig { clutter: 2.0, ..Default::default() }, "`clutter` is 2");
        check(DigitsConfig { rotation: -1.0, ..Default::default() }, "`rotation`");
        check(DigitsConfig { distortion: 1.0, ..Default::default() }, "`distortion`");
        check(DigitsConfig { train: usize::MAX, ..Default::default() }, "`train` is 1844674407");
        check(DigitsConfig { train: 0, ..Default::default() }, "no images");
    }
}
