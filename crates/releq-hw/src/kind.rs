//! Cost models by name and settings, for configuration.

use std::{fmt, str::FromStr, sync::Arc};

use releq_core::{CostModel, UnknownName};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, value::MapAccessDeserializer},
};

use crate::{
    BitOperations, BitOperationsNncf, BitSerialCpu, ConstantPower, CostWeighted, DaDianNao, Energy,
    HwError, MeanBits, MemoryTraffic, ModelSize, Roofline, Stripes, WeightedSum,
};

/// A cost model of this crate, by name and settings.
///
/// All of the crate's models are here except [`CpuLatency`](crate::CpuLatency), which needs a file.
///
/// The written form is the name where the settings are the default ones, and otherwise the name and the
/// settings, which may be a part of all: in JSON, `"stripes"` and `{"stripes": {"lanes": 8}}`; as text,
/// `stripes` and `stripes{"lanes": 8}`. `cost-weighted:200` is short for `cost-weighted{"memory_over_mac": 200}`.
///
/// ```
/// use releq_core::{CostModel, UnknownName};
/// use releq_hw::{CostKind, ModelSize};
///
/// let kind: CostKind = "stripes-proportional".parse()?;
/// assert_eq!(kind.build()?.name(), "stripes-proportional");
///
/// let kind: CostKind = r#"size{"without_biases": true}"#.parse()?;
/// assert_eq!(kind, CostKind::Size(ModelSize { without_biases: true, ..ModelSize::default() }));
///
/// let roofline: CostKind = r#"roofline{"macs_per_s": 1e12, "bytes_per_s": 1e10}"#.parse()?;
/// assert_eq!(roofline.build()?.unit(), "us");
///
/// let error = "stirpes".parse::<CostKind>().unwrap_err();
/// assert!(error.to_string().contains("did you mean `stripes`?"));
/// # Ok::<(), releq_hw::HwError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CostKind {
    /// [`MeanBits`], the default because all presets search by it.
    #[default]
    MeanBits,
    /// [`CostWeighted`].
    CostWeighted(CostWeighted),
    /// Cycles of [`Stripes`]; `stripes-proportional` is [`Stripes::proportional`].
    Stripes(Stripes),
    /// Energy of [`Stripes`], relative, at [`ConstantPower`].
    StripesEnergy(Stripes),
    /// [`DaDianNao`].
    #[serde(rename = "dadiannao")]
    DaDianNao,
    /// [`BitOperations`].
    Bitops,
    /// [`BitOperationsNncf`].
    BitopsNncf,
    /// [`BitSerialCpu`].
    #[serde(rename = "bitserial-cpu")]
    BitSerialCpu(BitSerialCpu),
    /// [`ModelSize`].
    Size(ModelSize),
    /// [`MemoryTraffic`].
    Traffic(MemoryTraffic),
    /// [`Energy`].
    Energy(Energy),
    /// [`Roofline`]; there is no default machine.
    Roofline(Roofline),
    /// [`WeightedSum`] of other kinds; there are no default terms.
    WeightedSum(Vec<WeightedTerm>),
}

/// A term of [`CostKind::WeightedSum`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightedTerm {
    /// Factor of the cost, not negative.
    pub weight: f64,
    /// The cost.
    pub cost: CostKind,
}

const ROOFLINE: &str = "roofline";
const WEIGHTED_SUM: &str = "weighted-sum";

impl CostKind {
    /// Every kind that needs no settings, with its default ones.
    #[must_use]
    pub fn all() -> Vec<Self> {
        vec![
            Self::MeanBits,
            Self::CostWeighted(CostWeighted::default()),
            Self::Stripes(Stripes::default()),
            Self::Stripes(Stripes::proportional()),
            Self::StripesEnergy(Stripes::default()),
            Self::DaDianNao,
            Self::Bitops,
            Self::BitopsNncf,
            Self::BitSerialCpu(BitSerialCpu::default()),
            Self::Size(ModelSize::default()),
            Self::Traffic(MemoryTraffic::default()),
            Self::Energy(Energy::default()),
        ]
    }

    /// The name, such as `stripes-proportional`; also that of the model.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::MeanBits => "mean-bits",
            Self::CostWeighted(_) => "cost-weighted",
            Self::Stripes(stripes) => stripes.config().name(),
            Self::StripesEnergy(_) => "stripes-energy",
            Self::DaDianNao => "dadiannao",
            Self::Bitops => "bitops",
            Self::BitopsNncf => "bitops-nncf",
            Self::BitSerialCpu(_) => "bitserial-cpu",
            Self::Size(_) => "size",
            Self::Traffic(_) => "traffic",
            Self::Energy(_) => "energy",
            Self::Roofline(_) => ROOFLINE,
            Self::WeightedSum(_) => WEIGHTED_SUM,
        }
    }

    /// The model itself.
    ///
    /// # Errors
    /// [`HwError`] if a constant of [`Energy`] or a weight is negative or not finite, or a sum has no terms.
    pub fn build(&self) -> Result<Arc<dyn CostModel>, HwError> {
        Ok(match self {
            Self::MeanBits => Arc::new(MeanBits),
            Self::CostWeighted(model) => Arc::new(*model),
            Self::Stripes(model) => Arc::new(*model),
            Self::StripesEnergy(model) => {
                Arc::new(ConstantPower::relative(*model).named(self.name()))
            }
            Self::DaDianNao => Arc::new(DaDianNao),
            Self::Bitops => Arc::new(BitOperations),
            Self::BitopsNncf => Arc::new(BitOperationsNncf),
            Self::BitSerialCpu(model) => Arc::new(*model),
            Self::Size(model) => Arc::new(*model),
            Self::Traffic(model) => Arc::new(*model),
            Self::Energy(model) => Arc::new(model.checked()?),
            Self::Roofline(model) => Arc::new(*model),
            Self::WeightedSum(terms) => {
                if terms.is_empty() {
                    return Err(self.settings_error("a sum needs at least one term"));
                }
                let mut sum = WeightedSum::new(self.name());
                for term in terms {
                    sum = sum.with(term.weight, term.cost.build()?)?;
                }
                Arc::new(sum)
            }
        })
    }

    /// The written form without settings, if there is one.
    fn short(&self) -> Option<String> {
        match self {
            _ if Self::all().contains(self) => Some(self.name().to_owned()),
            Self::CostWeighted(model) => {
                Some(format!("{}:{}", self.name(), model.memory_over_mac()))
            }
            _ => None,
        }
    }

    fn settings_error(&self, reason: impl Into<String>) -> HwError {
        HwError::Settings { name: self.name().to_owned(), reason: reason.into() }
    }

    /// Reads `name{settings}`, with the position of the bracket.
    fn parse_settings(text: &str, bracket: usize) -> Result<Self, HwError> {
        let (name, settings) = (text[..bracket].trim(), &text[bracket..]);
        let fail = |error: serde_json::Error| HwError::Settings {
            name: name.to_owned(),
            reason: error.to_string(),
        };
        if !known_names().contains(&name) {
            return Err(UnknownName::new("cost model", name, known_names()).into());
        }
        let settings: serde_json::Value = serde_json::from_str(settings).map_err(fail)?;
        let tagged = serde_json::Map::from_iter([(name.to_owned(), settings)]);
        let kind = Self::deserialize(serde_json::Value::Object(tagged)).map_err(fail)?;
        kind.build()?;
        Ok(kind)
    }
}

fn known_names() -> Vec<&'static str> {
    let all = CostKind::all();
    all.iter().map(CostKind::name).chain([ROOFLINE, WEIGHTED_SUM]).collect()
}

impl fmt::Display for CostKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(short) = self.short() {
            return f.pad(&short);
        }
        match Self::serialize(self, serde_json::value::Serializer) {
            Ok(serde_json::Value::Object(tagged)) => match tagged.iter().next() {
                Some((name, settings)) => f.pad(&format!("{name}{settings}")),
                None => f.pad(self.name()),
            },
            _ => f.pad(self.name()),
        }
    }
}

impl FromStr for CostKind {
    type Err = HwError;
    fn from_str(text: &str) -> Result<Self, HwError> {
        let text = text.trim();
        if let Some(bracket) = text.find(['{', '[']) {
            return Self::parse_settings(text, bracket);
        }
        if let Some(("cost-weighted", ratio)) = text.split_once(':') {
            let reason = || format!("`{ratio}` is not a number");
            let ratio = ratio.parse().map_err(|_| HwError::Settings {
                name: "cost-weighted".to_owned(),
                reason: reason(),
            })?;
            return Ok(Self::CostWeighted(CostWeighted::new(ratio)?));
        }
        if let Some(kind) = Self::all().into_iter().find(|kind| kind.name() == text) {
            return Ok(kind);
        }
        let example = match text {
            ROOFLINE => r#"{"macs_per_s": 1e12, "bytes_per_s": 1e10}"#,
            WEIGHTED_SUM => {
                r#"[{"weight": 1, "cost": "stripes"}, {"weight": 0.5, "cost": "size"}]"#
            }
            _ => return Err(UnknownName::new("cost model", text, known_names()).into()),
        };
        let reason = format!("it needs settings, such as {text}{example}");
        Err(HwError::Settings { name: text.to_owned(), reason })
    }
}

impl Serialize for CostKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.short() {
            Some(short) => serializer.serialize_str(&short),
            None => Self::serialize(self, serializer),
        }
    }
}

impl<'de> Deserialize<'de> for CostKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = CostKind;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a cost model, or its name and settings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<CostKind, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<CostKind, A::Error> {
                let kind = CostKind::deserialize(MapAccessDeserializer::new(map))?;
                kind.build().map_err(de::Error::custom)?;
                Ok(kind)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PeakScaling, StripesConfig};

    #[test]
    fn names_round_trip() {
        for kind in CostKind::all() {
            assert_eq!(kind.to_string().parse().as_ref(), Ok(&kind));
            assert_eq!(kind.to_string(), kind.name());
            assert_eq!(kind.build().unwrap().name(), kind.name());
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
    }

    #[test]
    fn settings_round_trip() {
        let roofline = Roofline::new(1e12, 1e10, PeakScaling::Product).unwrap();
        let narrow = Stripes::new(StripesConfig { lanes: 8, ..StripesConfig::default() }).unwrap();
        let terms = [(1.0, CostKind::Stripes(narrow)), (0.5, CostKind::default())];
        for (kind, text) in [
            (CostKind::CostWeighted(CostWeighted::new(200.0).unwrap()), "cost-weighted:200"),
            (CostKind::Roofline(roofline), "roofline{"),
            (CostKind::Stripes(narrow), "stripes{"),
            (CostKind::StripesEnergy(narrow), "stripes-energy{"),
            (CostKind::Size(ModelSize::weights_only()), "size{"),
            (
                CostKind::WeightedSum(
                    terms.map(|(weight, cost)| WeightedTerm { weight, cost }).into(),
                ),
                "weighted-sum[",
            ),
        ] {
            assert!(kind.to_string().starts_with(text), "{kind}");
            assert_eq!(kind.to_string().parse().as_ref(), Ok(&kind));
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(serde_json::from_str::<CostKind>(&json).unwrap(), kind, "{json}");
            assert!(kind.build().is_ok(), "{kind}");
        }
    }

    #[test]
    fn part_of_the_settings_is_enough() {
        let json = r#"{"stripes": {"lanes": 8}}"#;
        let kind: CostKind = serde_json::from_str(json).unwrap();
        assert_eq!("stripes {\"lanes\": 8}".parse(), Ok(kind));
    }

    #[test]
    fn errors_name_what_is_wrong() {
        for (text, expected) in [
            ("gpu", "unknown cost model `gpu`: expected one of mean-bits, cost-weighted, stripes"),
            ("stripe", "did you mean `stripes`?"),
            ("sizes{}", "did you mean `size`?"),
            ("size{", "cost model `size`: EOF"),
            (r#"size{"scale": 1}"#, "unknown field `scale`"),
            (r#"stripes{"lanes": 0}"#, "lanes must be positive"),
            ("roofline", r#"it needs settings, such as roofline{"macs_per_s": 1e12"#),
            ("weighted-sum[]", "a sum needs at least one term"),
            (r#"weighted-sum[{"weight": -1, "cost": "size"}]"#, "weight must be finite"),
            (r#"energy{"sram_pj_per_bit": -1}"#, "sram_pj_per_bit must be finite"),
            ("cost-weighted:x", "`x` is not a number"),
            ("cost-weighted:-1", "memory_over_mac must be finite and not negative"),
        ] {
            let message = text.parse::<CostKind>().unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
        let message = |kind: CostKind| kind.build().err().unwrap().to_string();
        assert!(message(CostKind::WeightedSum(Vec::new())).contains("at least one term"));
        let term = WeightedTerm { weight: -1.0, cost: CostKind::Bitops };
        assert!(message(CostKind::WeightedSum(vec![term])).contains("weight must be"));
        let energy = Energy { dram_pj_per_bit: f64::NAN, ..Energy::default() };
        assert!(message(CostKind::Energy(energy)).contains("dram_pj_per_bit"));
        let json = r#"{"weighted-sum": [{"weight": -1, "cost": "size"}]}"#;
        let wrong = serde_json::from_str::<CostKind>(json).unwrap_err().to_string();
        assert!(wrong.contains("weight must be finite"), "{wrong}");
        let wrong = serde_json::from_str::<CostKind>("3").unwrap_err().to_string();
        assert!(wrong.contains("the name of a cost model"), "{wrong}");
    }
}
