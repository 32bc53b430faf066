//! Cost models by name and settings, for configuration.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

use releq_core::{CostModel, UnknownName};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, value::MapAccessDeserializer},
};

use crate::{
    BitOperations, BitOperationsNncf, BitSerialCpu, ConstantPower, CostWeighted, CpuLatency,
    DaDianNao, Energy, HwError, LatencyTable, MeanBits, MemoryTraffic, ModelSize, Roofline,
    ScaleStorage, Stripes, WeightedSum, error::not_negative,
};

/// A cost model of this crate, by name and settings.
///
/// The written form is the name where the settings are the default ones, and otherwise the name and the
/// settings, which may be a part of all: in JSON, `"stripes"` and `{"stripes": {"lanes": 8}}`; as text,
/// `stripes` and `stripes{"lanes": 8}`. `cost-weighted:200` is short for `cost-weighted{"memory_over_mac": 200}`, and
/// `cpu-latency:lenet.json` for `cpu-latency{"table": "lenet.json"}`.
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
#[serde(remote = "Self", rename_all = "kebab-case", deny_unknown_fields)]
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
    /// [`CpuLatency`], from a table that was measured on this machine; there is no default table.
    CpuLatency {
        /// The file of the [`LatencyTable`], which is read when the model is built.
        table: PathBuf,
    },
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
const CPU_LATENCY: &str = "cpu-latency";
const COST_WEIGHTED: &str = "cost-weighted";

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
            Self::CpuLatency { .. } => CPU_LATENCY,
            Self::WeightedSum(_) => WEIGHTED_SUM,
        }
    }

    /// The same, but every size counts these scales where it counts one for a layer, the default: what a quantizer needs.
    #[must_use]
    pub fn with_scales(self, scales: ScaleStorage) -> Self {
        match self {
            Self::Size(model) if model.scales == ScaleStorage::default() => {
                Self::Size(ModelSize { scales, ..model })
            }
            Self::WeightedSum(mut terms) => {
                for term in &mut terms {
                    term.cost = std::mem::take(&mut term.cost).with_scales(scales);
                }
                Self::WeightedSum(terms)
            }
            other => other,
        }
    }

    /// The model itself.
    ///
    /// # Errors
    /// [`HwError`] if a constant of [`Energy`] or a weight is negative or not finite, a sum has no terms, or a table
    /// cannot be read or is of another machine.
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
            Self::CpuLatency { table } => {
                let model = LatencyTable::load(table).and_then(CpuLatency::new);
                Arc::new(model.map_err(|error| self.settings_error(error.to_string()))?)
            }
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

    /// Checks the settings, as [`build`](Self::build) does, but reads no file: a configuration can be read where its
    /// tables are not.
    fn check(&self) -> Result<(), HwError> {
        match self {
            Self::CpuLatency { .. } => Ok(()),
            Self::WeightedSum(terms) if !terms.is_empty() => terms.iter().try_for_each(|term| {
                not_negative(WEIGHTED_SUM, "weight", term.weight)?;
                term.cost.check()
            }),
            _ => self.build().map(drop),
        }
    }

    /// The unit of the model, without reading a file; empty if the settings are invalid.
    pub(crate) fn unit(&self) -> String {
        match self {
            Self::CpuLatency { .. } => "us".to_owned(),
            Self::WeightedSum(_) => WeightedSum::new(self.name()).unit().to_owned(),
            _ => self.build().map_or_else(|_| String::new(), |model| model.unit().to_owned()),
        }
    }

    /// The written form without settings, if there is one.
    fn short(&self) -> Option<String> {
        match self {
            _ if Self::all().contains(self) => Some(self.name().to_owned()),
            Self::CostWeighted(model) => {
                Some(format!("{}:{}", self.name(), model.memory_over_mac()))
            }
            Self::CpuLatency { table } => Some(format!("{CPU_LATENCY}:{}", table.to_str()?)),
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
        kind.check()?;
        Ok(kind)
    }
}

fn known_names() -> Vec<&'static str> {
    let all = CostKind::all();
    all.iter().map(CostKind::name).chain([ROOFLINE, CPU_LATENCY, WEIGHTED_SUM]).collect()
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
        // Before the bracket, which a path may contain.
        if let Some((CPU_LATENCY, table)) = text.split_once(':') {
            let table = PathBuf::from(table.trim());
            if !table.as_os_str().is_empty() {
                return Ok(Self::CpuLatency { table });
            }
        }
        if let Some(bracket) = text.find(['{', '[']) {
            return Self::parse_settings(text, bracket);
        }
        if let Some((COST_WEIGHTED, ratio)) = text.split_once(':') {
            let reason = || format!("`{ratio}` is not a number");
            let ratio = ratio.parse().map_err(|_| HwError::Settings {
                name: COST_WEIGHTED.to_owned(),
                reason: reason(),
            })?;
            return Ok(Self::CostWeighted(CostWeighted::new(ratio)?));
        }
        if let Some(kind) = Self::all().into_iter().find(|kind| kind.name() == text) {
            return Ok(kind);
        }
        let example = match text.trim_end_matches(':') {
            CPU_LATENCY => ":lenet.json, a file of measured layers",
            ROOFLINE => r#"{"macs_per_s": 1e12, "bytes_per_s": 1e10}"#,
            WEIGHTED_SUM => {
                r#"[{"weight": 1, "cost": "stripes"}, {"weight": 0.5, "cost": "size"}]"#
            }
            _ => return Err(UnknownName::new("cost model", text, known_names()).into()),
        };
        let name = text.trim_end_matches(':').to_owned();
        let reason = format!("it needs settings, such as {name}{example}");
        Err(HwError::Settings { name, reason })
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
                kind.check().map_err(de::Error::custom)?;
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
    fn sizes_get_other_scales_wherever_they_stand() {
        let scales = ScaleStorage::PerChannel;
        let size = |scales| CostKind::Size(ModelSize { scales, ..ModelSize::default() });
        let sum = |cost| CostKind::WeightedSum(vec![WeightedTerm { weight: 2.0, cost }]);
        let of_layers = size(ScaleStorage::PerTensor);
        assert_eq!(of_layers.clone().with_scales(scales), size(scales));
        assert_eq!(sum(of_layers).with_scales(scales), sum(size(scales)));
        // Who stores none means it.
        for other in [size(ScaleStorage::None), CostKind::MeanBits] {
            assert_eq!(other.clone().with_scales(scales), other);
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
    fn a_table_of_latencies_is_read_when_the_model_is_built() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cpu [1], a=b.json");
        let text = format!("cpu-latency:{}", path.display());
        let kind: CostKind = text.parse().unwrap();
        assert_eq!((kind.name(), kind.to_string()), ("cpu-latency", text.clone()));
        let json = serde_json::to_string(&kind).unwrap();
        assert_eq!(serde_json::from_str::<CostKind>(&json).unwrap(), kind);
        let tagged = serde_json::json!({"cpu-latency": {"table": path}});
        assert_eq!(serde_json::from_value::<CostKind>(tagged).unwrap(), kind);
        let limit: crate::LimitConfig = format!("{text}=0.8x").parse().unwrap();
        assert_eq!(limit.to_string(), format!("{text}<=0.8x"));
        let limit: crate::LimitConfig = format!("{text}<=120 us").parse().unwrap();
        assert_eq!(limit.to_string(), format!("{text}<=120 us"));
        let sum = vec![WeightedTerm { weight: 1.0, cost: kind.clone() }];
        let sum = CostKind::WeightedSum(sum);
        assert_eq!(sum.to_string().parse().as_ref(), Ok(&sum));

        let missing = kind.build().err().unwrap().to_string();
        assert!(missing.starts_with("cost model `cpu-latency`: ") && missing.contains("cpu [1]"));
        let layers = [releq_core::LayerProfile::linear("fc", 64, 10)];
        let bits = crate::uniform(8, 1).unwrap();
        let config = crate::LatencyConfig {
            repeats: 3.try_into().unwrap(),
            ..crate::LatencyConfig::default()
        };
        CpuLatency::measure(&layers, &bits, &config).unwrap().table().save(&path).unwrap();
        let model = kind.build().unwrap();
        assert!(model.network_cost(&layers, &bits).unwrap().0 > 0.0);
        let limit = limit.build().unwrap();
        assert!(limit.usage(&layers, &bits).unwrap().fraction() > 0.0);
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
            ("cpu-latency", "it needs settings, such as cpu-latency:lenet.json, a file"),
            ("cpu-latency:", "cost model `cpu-latency`: it needs settings"),
            (r#"cpu-latency{"file": "a"}"#, "unknown field `file`"),
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
