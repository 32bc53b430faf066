//! A limit on the cost of an assignment.

use std::{fmt, str::FromStr, sync::Arc};

use releq_core::{
    Bitwidth, Cost, CostError, CostModel, LayerBits, LayerProfile, checked_network_cost,
};
use serde::{Deserialize, Serialize};

use crate::{CostKind, HwError, speedup::ratio};

/// The most that an assignment may cost.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Bound {
    /// An amount in the unit of the cost model.
    Absolute(f64),
    /// A share of what the same layers cost with all weights and activations at 8 bits.
    OfEightBits(f64),
    /// A mean over the layers, in the unit of the cost model: what a limit on [`MeanBits`](crate::MeanBits) means, whose cost
    /// is the sum.
    PerLayer(f64),
}

/// A cost model and the most that an assignment may cost under it, such as the size of a flash memory.
///
/// ```
/// use std::sync::Arc;
///
/// use releq_core::LayerProfile;
/// use releq_hw::{Bound, CostLimit, ModelSize, uniform};
///
/// let limit = CostLimit::new(Arc::new(ModelSize::weights_only()), Bound::Absolute(60e3))?;
/// let layers = [LayerProfile::linear("fc", 400, 300)];
/// assert!(limit.usage(&layers, &uniform(4, 1)?)?.fits());
/// assert_eq!(limit.usage(&layers, &uniform(6, 1)?)?.fraction(), 1.5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct CostLimit {
    model: Arc<dyn CostModel>,
    at_most: Bound,
}

/// How much of a [`CostLimit`] an assignment uses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitUsage {
    /// Cost of the assignment, in the model's unit.
    pub cost: Cost,
    /// The most that it may be, in the same unit.
    pub limit: Cost,
}

impl LimitUsage {
    /// Whether the cost is at most the limit.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.cost <= self.limit
    }

    /// Cost over limit; above 1 if the assignment does not fit.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        ratio(self.cost.0, self.limit.0)
    }

    /// Share of the limit by which the cost exceeds it; 0 if the assignment fits.
    #[must_use]
    pub fn excess(&self) -> f64 {
        (self.fraction() - 1.0).max(0.0)
    }
}

impl CostLimit {
    /// A limit of `at_most` under `model`.
    ///
    /// # Errors
    /// [`HwError::Limit`] unless the bound is positive and finite.
    pub fn new(model: Arc<dyn CostModel>, at_most: Bound) -> Result<Self, HwError> {
        let limit = Self { model, at_most };
        match check_bound(at_most) {
            Ok(()) => Ok(limit),
            Err(reason) => Err(HwError::Limit { limit: limit.to_string(), reason }),
        }
    }

    /// The cost model.
    #[must_use]
    pub const fn model(&self) -> &Arc<dyn CostModel> {
        &self.model
    }

    /// The bound.
    #[must_use]
    pub const fn at_most(&self) -> Bound {
        self.at_most
    }

    /// How much of the limit `bits` use.
    ///
    /// # Errors
    /// As [`checked_network_cost`], also for 8 bits if the bound is relative to them.
    pub fn usage(
        &self,
        layers: &[LayerProfile],
        bits: &[LayerBits],
    ) -> Result<LimitUsage, CostError> {
        let mut cost = checked_network_cost(&self.model, layers, bits)?;
        let limit = match self.at_most {
            Bound::Absolute(limit) => limit,
            Bound::PerLayer(limit) => {
                cost.0 /= layers.len().max(1) as f64;
                limit
            }
            Bound::OfEightBits(share) => {
                let eight = vec![LayerBits::weights_only(Bitwidth::EIGHT); layers.len()];
                share * checked_network_cost(&self.model, layers, &eight)?.0
            }
        };
        Ok(LimitUsage { cost, limit: Cost(limit) })
    }
}

impl fmt::Display for CostLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = bound_text(self.at_most, self.model.unit());
        f.pad(&format!("{}{AT_MOST}{bound}", self.model.name()))
    }
}

impl fmt::Debug for CostLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CostLimit({self})")
    }
}

/// A [`CostLimit`] in configuration, written as text such as `size<=60kB` or `stripes-energy<=0.8x`.
///
/// On the left is a [`CostKind`], on the right either a share of the cost at 8 bits, marked by `x` or `%`, or an
/// amount in the unit of the cost model. The unit can be left out and can have a prefix: `k` for 10^3, `M` for
/// 10^6 or `G` for 10^9, or `Ki`, `Mi` or `Gi` for the powers of 1024. Bytes may be written `B`. Instead of `<=`,
/// which shells take for something else, there may be `=`. An amount of `mean-bits` is [per layer](Bound::PerLayer).
///
/// ```
/// use releq_hw::{Bound, LimitConfig};
///
/// let limit: LimitConfig = "size <= 60 kB".parse()?;
/// assert_eq!(limit.at_most, Bound::Absolute(60_000.0));
/// assert_eq!(limit.to_string(), "size<=60kB");
///
/// let limit: LimitConfig = "stripes-energy<=0.8x".parse()?;
/// assert_eq!(limit.at_most, Bound::OfEightBits(0.8));
/// assert_eq!("stripes-energy=80%".parse(), Ok(limit));
/// # Ok::<(), releq_hw::HwError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LimitConfig {
    /// The cost that is limited.
    pub cost: CostKind,
    /// The most that it may be.
    pub at_most: Bound,
}

const AT_MOST: &str = "<=";

/// Prefixes of units with which limits are written, the largest first.
const PREFIXES: [(&str, f64); 3] = [("G", 1e9), ("M", 1e6), ("k", 1e3)];

/// Prefixes of units that are read besides.
const BINARY_PREFIXES: [(&str, f64); 4] =
    [("Gi", 1_073_741_824.0), ("Mi", 1_048_576.0), ("Ki", 1024.0), ("ki", 1024.0)];

impl LimitConfig {
    /// The limit itself.
    ///
    /// # Errors
    /// As [`CostKind::build`] and [`CostLimit::new`].
    pub fn build(&self) -> Result<CostLimit, HwError> {
        CostLimit::new(self.cost.build()?, self.at_most)
    }
}

impl fmt::Display for LimitConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Settings that do not build have no unit; the bare number can be read back as well.
        let bound = bound_text(self.at_most, &self.cost.unit());
        f.pad(&format!("{}{AT_MOST}{bound}", self.cost))
    }
}

impl FromStr for LimitConfig {
    type Err = HwError;
    fn from_str(text: &str) -> Result<Self, HwError> {
        let fail = |reason: String| HwError::Limit { limit: text.to_owned(), reason };
        // No settings of a cost model contain this sign.
        let parts = text.rsplit_once(AT_MOST).or_else(|| text.rsplit_once('='));
        let (cost, bound) = parts.ok_or_else(|| {
            fail(
                "expected a cost model and its limit, such as `size<=60kB` or `stripes<=0.8x`"
                    .into(),
            )
        })?;
        let cost: CostKind = cost.parse()?;
        let at_most = parse_bound(bound.trim(), &cost.unit()).map_err(&fail)?;
        check_bound(at_most).map_err(fail)?;
        let at_most = match at_most {
            Bound::Absolute(bits) if cost == CostKind::MeanBits => Bound::PerLayer(bits),
            other => other,
        };
        Ok(Self { cost, at_most })
    }
}

impl TryFrom<String> for LimitConfig {
    type Error = HwError;
    fn try_from(text: String) -> Result<Self, HwError> {
        text.parse()
    }
}

impl From<LimitConfig> for String {
    fn from(limit: LimitConfig) -> Self {
        limit.to_string()
    }
}

fn check_bound(at_most: Bound) -> Result<(), String> {
    let (Bound::Absolute(number) | Bound::OfEightBits(number) | Bound::PerLayer(number)) = at_most;
    if number.is_finite() && number > 0.0 {
        return Ok(());
    }
    Err(format!("a limit must be positive and finite, got {number:?}"))
}

fn is_bytes(unit: &str) -> bool {
    unit == "bytes"
}

/// The shortest text that [`parse_bound`] reads as exactly this bound.
fn bound_text(bound: Bound, unit: &str) -> String {
    match bound {
        Bound::OfEightBits(share) => format!("{share}x"),
        Bound::Absolute(bytes) if is_bytes(unit) => {
            match PREFIXES.iter().find(|(_, factor)| bytes >= *factor && bytes % factor == 0.0) {
                Some((prefix, factor)) => format!("{}{prefix}B", bytes / factor),
                None => format!("{bytes}B"),
            }
        }
        Bound::Absolute(number) | Bound::PerLayer(number) => {
            format!("{number} {unit}").trim_end().to_owned()
        }
    }
}

/// Reads a number with a unit; the error is the reason alone.
fn parse_bound(text: &str, unit: &str) -> Result<Bound, String> {
    // The longest prefix that is a number: `1e3k` starts with `1e3`.
    let ends = text.char_indices().map(|(start, c)| start + c.len_utf8()).rev();
    let (end, number) = ends
        .filter_map(|end| Some((end, text[..end].parse::<f64>().ok()?)))
        .next()
        .ok_or_else(|| format!("`{text}` does not start with a number"))?;
    let suffix = text[end..].trim();
    let is_unit = |name: &str| name.is_empty() || name == unit || (name == "B" && is_bytes(unit));
    match suffix {
        "x" => return Ok(Bound::OfEightBits(number)),
        "%" => return Ok(Bound::OfEightBits(number / 100.0)),
        _ => {}
    }
    if is_unit(suffix) {
        return Ok(Bound::Absolute(number));
    }
    BINARY_PREFIXES
        .iter()
        .chain(&PREFIXES)
        .find(|(prefix, _)| suffix.strip_prefix(*prefix).is_some_and(|rest| is_unit(rest.trim())))
        .map(|(_, factor)| Bound::Absolute(number * factor))
        .ok_or_else(|| {
            format!(
                "`{suffix}` is not its unit: expected `x` or `%` for a share of the cost at 8 bits, or \
                 `{unit}`, with or without a prefix such as k, M or Ki"
            )
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        MeanBits, ModelSize,
        price::layers::{at, lenet},
    };

    fn limit(text: &str) -> LimitConfig {
        text.parse().unwrap()
    }

    #[test]
    fn a_cost_equal_to_the_limit_fits() {
        let layers = lenet();
        let model = Arc::new(ModelSize::weights_only());
        let limit = CostLimit::new(model, Bound::Absolute(215_250.0)).unwrap();
        let half = limit.usage(&layers, &[at(4, 8); 4]).unwrap();
        assert!(half.fits());
        assert_eq!((half.fraction(), half.excess()), (1.0, 0.0));
        let more = limit.usage(&layers, &[at(5, 8); 4]).unwrap();
        assert!(!more.fits());
        assert_eq!((more.fraction(), more.excess()), (1.25, 0.25));
        let less = limit.usage(&layers, &[at(2, 8); 4]).unwrap();
        assert_eq!((less.fraction(), less.excess()), (0.5, 0.0));
        assert!(limit.usage(&layers, &[at(5, 8); 3]).is_err());
    }

    #[test]
    fn a_share_is_of_the_cost_at_8_bits() {
        let limit = CostLimit::new(Arc::new(MeanBits), Bound::OfEightBits(0.5)).unwrap();
        let usage = limit.usage(&lenet(), &[at(2, 8); 4]).unwrap();
        assert_eq!(usage, LimitUsage { cost: Cost(8.0), limit: Cost(16.0) });
        let mean = self::limit("mean-bits<=2.5").build().unwrap();
        let bits = [at(2, 8), at(2, 8), at(3, 8), at(2, 8)];
        let usage = mean.usage(&lenet(), &bits).unwrap();
        assert_eq!(usage, LimitUsage { cost: Cost(2.25), limit: Cost(2.5) });
        // Activations count too: 8 x 8 bits are the reference, not the weights' activations.
        let limit = self::limit("bitops<=0.5x").build().unwrap();
        assert_eq!(limit.usage(&lenet(), &[at(4, 4); 4]).unwrap().fraction(), 0.5);
    }

    #[test]
    fn nothing_of_nothing_fits() {
        let nothing = LimitUsage { cost: Cost(0.0), limit: Cost(0.0) };
        assert!(nothing.fits());
        assert_eq!(nothing.fraction(), 1.0);
    }

    #[test]
    fn text_forms() {
        for (text, at_most, written) in [
            ("size<=60kB", Bound::Absolute(60e3), "size<=60kB"),
            ("size <= 1.5 MB", Bound::Absolute(1.5e6), "size<=1500kB"),
            ("size<=2GB", Bound::Absolute(2e9), "size<=2GB"),
            ("traffic<=100.5", Bound::Absolute(100.5), "traffic<=100.5B"),
            ("size<=64kbytes", Bound::Absolute(64e3), "size<=64kB"),
            ("stripes<=2335", Bound::Absolute(2335.0), "stripes<=2335 cycles"),
            ("stripes<=2.5M cycles", Bound::Absolute(2.5e6), "stripes<=2500000 cycles"),
            ("bitops <= 1e9", Bound::Absolute(1e9), "bitops<=1000000000 bit operations"),
            ("stripes-energy<=0.8x", Bound::OfEightBits(0.8), "stripes-energy<=0.8x"),
            ("stripes-energy = 80 %", Bound::OfEightBits(0.8), "stripes-energy<=0.8x"),
            ("mean-bits=3.5", Bound::PerLayer(3.5), "mean-bits<=3.5 bits"),
            ("mean-bits=50%", Bound::OfEightBits(0.5), "mean-bits<=0.5x"),
            ("size=80kB", Bound::Absolute(80e3), "size<=80kB"),
            ("size=80KiB", Bound::Absolute(81_920.0), "size<=81920B"),
            ("size=1.5 MiB", Bound::Absolute(1_572_864.0), "size<=1572864B"),
            ("size=2kibytes", Bound::Absolute(2048.0), "size<=2048B"),
            (
                r#"size{"scales":"none","without_biases":true}<=1kB"#,
                Bound::Absolute(1e3),
                r#"size{"scales":"none","without_biases":true}<=1kB"#,
            ),
        ] {
            let limit = limit(text);
            assert_eq!((limit.at_most, limit.to_string().as_str()), (at_most, written), "{text}");
            assert_eq!(self::limit(written), limit);
            let json = serde_json::to_string(&limit).unwrap();
            assert_eq!(json, serde_json::to_string(written).unwrap());
            assert_eq!(serde_json::from_str::<LimitConfig>(&json).unwrap(), limit);
        }
        let built = limit("size<=60kB").build().unwrap();
        assert_eq!(format!("{built} {built:?}"), "size<=60kB CostLimit(size<=60kB)");
    }

    #[test]
    fn bad_limits_are_named() {
        for (text, expected) in [
            ("size", "limit `size`: expected a cost model and its limit"),
            ("sise<=60kB", "unknown cost model `sise`: did you mean `size`?"),
            ("size<=", "limit `size<=`: `` does not start with a number"),
            ("size<=kB", "`kB` does not start with a number"),
            ("size<=60 cycles", "`cycles` is not its unit: expected `x` or `%`"),
            ("size=", "limit `size=`: `` does not start with a number"),
            ("size=-5%", "a limit must be positive"),
            ("=60kB", "unknown cost model ``"),
            ("stripes<=60kB", "`kB` is not its unit"),
            ("size<=60KB", "`KB` is not its unit"),
            ("size<=60kx", "`kx` is not its unit"),
            ("size<=0kB", "limit `size<=0kB`: a limit must be positive and finite, got 0"),
            ("size<=-1x", "limit `size<=-1x`: a limit must be positive"),
            ("size<=inf", "must be positive and finite, got inf"),
            ("size<=nanx", "must be positive and finite, got NaN"),
        ] {
            let message = text.parse::<LimitConfig>().unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
            let json = serde_json::to_string(text).unwrap();
            assert!(serde_json::from_str::<LimitConfig>(&json).is_err(), "{json}");
        }
    }

    proptest! {
        #[test]
        fn every_bound_round_trips(number in 1e-6..1e15f64, whole in 1u64..1 << 50, kind in 0usize..12) {
            let cost = CostKind::all()[kind].clone();
            let amount = |number| match &cost {
                CostKind::MeanBits => Bound::PerLayer(number),
                _ => Bound::Absolute(number),
            };
            for at_most in [amount(number), amount(whole as f64), Bound::OfEightBits(number)] {
                let limit = LimitConfig { cost: cost.clone(), at_most };
                prop_assert_eq!(limit.to_string().parse(), Ok(limit));
            }
        }
    }
}
