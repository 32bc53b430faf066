//! Costs by name on the command line, one or several with weights.

use std::path::Path;

use anyhow::Result;
use releq::{
    core::{LayerProfile, checked_network_cost},
    hw::{CostKind, WeightedTerm, uniform},
};

use super::UsageError;

/// The value of one `--cost`: costs separated by commas, each with a weight or without.
#[derive(Clone, Debug, PartialEq)]
pub struct Costs(pub Vec<CostTerm>);

/// A cost and its weight.
#[derive(Clone, Debug, PartialEq)]
pub struct CostTerm {
    /// The cost.
    pub cost: CostKind,
    /// Its weight, if one is given.
    pub weight: Option<f64>,
}

/// Reads `stripes-energy=2,size=1`. Settings of a cost, which contain commas, stand in brackets.
///
/// # Errors
/// For a name that no cost has, with the nearest; for settings that do not fit it, and for a weight that is none.
pub fn parse(text: &str) -> Result<Costs, String> {
    let term = |part: &str| {
        // Nothing in the settings of a cost contains this sign.
        let (cost, weight) = match part.rsplit_once('=') {
            Some((cost, weight)) => (cost, Some(weight.trim())),
            None => (part, None),
        };
        let weight = weight.map(|text| {
            let number = text.parse().ok().filter(|weight| (0.0..=f64::MAX).contains(weight));
            number
                .ok_or_else(|| format!("`{text}` is not a weight; expected a number of 0 or more"))
        });
        let cost = cost.parse().map_err(|error: releq::hw::HwError| error.to_string())?;
        Ok(CostTerm { cost, weight: weight.transpose()? })
    };
    split(text).into_iter().map(term).collect::<Result<_, String>>().map(Costs)
}

/// The parts between commas that are not within brackets or quotes.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut quoted) = (Vec::new(), 0, 0, false);
    for (index, character) in text.char_indices() {
        match character {
            '"' => quoted = !quoted,
            '{' | '[' if !quoted => depth += 1,
            '}' | ']' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// All terms of an option that may be given several times.
pub fn terms(costs: &[Costs]) -> impl Iterator<Item = &CostTerm> {
    costs.iter().flat_map(|costs| &costs.0)
}

/// The files that costs are read from.
pub fn files(costs: &[Costs]) -> impl Iterator<Item = &Path> {
    terms(costs).filter_map(|term| file(&term.cost))
}

/// The file that a cost is read from, if it is.
pub(super) fn file(cost: &CostKind) -> Option<&Path> {
    match cost {
        CostKind::CpuLatency { table } => Some(table),
        _ => None,
    }
}

/// One cost of all: itself where it is only one, or else the weighted sum of their shares of what each is at 8 bits
/// in all of `layers`. `None` without any.
///
/// # Errors
/// [`UsageError`] for a cost that cannot be a share, as it is 0 at 8 bits or not known there.
pub fn sum(costs: &[Costs], layers: &[LayerProfile]) -> Result<Option<CostKind>> {
    let terms: Vec<&CostTerm> = terms(costs).collect();
    if !terms.is_empty() && terms.iter().all(|term| term.weight == Some(0.0)) {
        return Err(UsageError("--cost: all weights are 0; give one above 0".to_owned()).into());
    }
    if let [] | [_] = terms.as_slice() {
        return Ok(terms.first().map(|term| term.cost.clone()));
    }
    let term = |term: &CostTerm| -> Result<WeightedTerm> {
        let refused = |reason: String| {
            UsageError(format!("--cost: `{}` cannot be weighed with others: {reason}", term.cost))
        };
        let model = term.cost.build()?;
        let at_8 = checked_network_cost(&model, layers, &uniform(8, layers.len())?)
            .map_err(|error| refused(error.to_string()))?;
        if at_8.0 <= 0.0 {
            return Err(refused("it is 0 at 8 bits".to_owned()).into());
        }
        Ok(WeightedTerm { weight: term.weight.unwrap_or(1.0) / at_8.0, cost: term.cost.clone() })
    };
    Ok(Some(CostKind::WeightedSum(terms.into_iter().map(term).collect::<Result<_>>()?)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use releq::zoo::lenet;

    use super::*;

    fn text(costs: &Costs) -> Vec<String> {
        let term = |term: &CostTerm| match term.weight {
            Some(weight) => format!("{} x {weight}", term.cost),
            None => term.cost.to_string(),
        };
        costs.0.iter().map(term).collect()
    }

    #[test]
    fn lists_are_split_outside_of_settings() {
        for (given, expected) in [
            ("size", &["size"][..]),
            ("stripes-energy=2, size=1", &["stripes-energy x 2", "size x 1"]),
            ("cost-weighted:200=0.5,bitops", &["cost-weighted:200 x 0.5", "bitops"]),
            (
                r#"size{"scales": "none", "without_biases": true}=3,traffic"#,
                &[r#"size{"scales":"none","without_biases":true} x 3"#, "traffic"],
            ),
        ] {
            assert_eq!(text(&parse(given).unwrap()), expected, "{given}");
        }
        for given in ["", "size,", "size=", "size=-1", "size=inf", "size=nan", "sizes{", "a,b"] {
            assert!(parse(given).is_err(), "{given}");
        }
    }

    #[test]
    fn terms_are_shares_of_what_they_cost_at_8_bits() {
        let layers = lenet().profiles();
        let costs = [parse("stripes=2").unwrap(), parse("size=1,mean-bits").unwrap()];
        let cost = sum(&costs, &layers).unwrap().unwrap().build().unwrap();
        let at = |bits| {
            let bits = uniform(bits, layers.len()).unwrap();
            checked_network_cost(&cost, &layers, &bits).unwrap().0
        };
        assert!((at(8) - 4.0).abs() < 1e-9, "{}", at(8));
        assert!(at(4) > 1.9 && at(4) < 2.2, "{}", at(4));
        assert_eq!(sum(&[], &layers).unwrap(), None);
        let one = sum(&[parse("size=3").unwrap()], &layers).unwrap().unwrap();
        assert_eq!(one.to_string(), "size");
        let message = sum(&[parse("size=0,bitops=0").unwrap()], &layers).unwrap_err().to_string();
        assert!(message.contains("all weights are 0"), "{message}");
    }
}
