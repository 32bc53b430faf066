//! Cost models by name, for configuration.

use std::{fmt, str::FromStr};

use releq_core::CostModel;
use serde::{Deserialize, Serialize};

use crate::{
    BitOperations, BitOperationsNncf, BitSerialCpu, DaDianNao, Energy, HwError, MemoryTraffic,
    ModelSize, Stripes,
};

/// One of this crate's models with its default constants, by name. [`Roofline`](crate::Roofline) is not among
/// them, since it has no default machine.
///
/// ```
/// use releq_core::CostModel;
/// use releq_hw::CostModelKind;
///
/// let kind: CostModelKind = "stripes-proportional".parse()?;
/// assert_eq!(kind.build().name(), kind.to_string());
/// # Ok::<(), releq_hw::HwError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CostModelKind {
    /// [`Stripes`] as built.
    #[default]
    Stripes,
    /// [`Stripes`] with fully connected layers in proportion.
    StripesProportional,
    /// [`DaDianNao`].
    #[serde(rename = "dadiannao")]
    DaDianNao,
    /// [`BitOperations`].
    Bitops,
    /// [`BitOperationsNncf`].
    BitopsNncf,
    /// [`BitSerialCpu`].
    #[serde(rename = "bitserial-cpu")]
    BitSerialCpu,
    /// [`ModelSize`].
    Size,
    /// [`MemoryTraffic`].
    Traffic,
    /// [`Energy`].
    Energy,
}

impl CostModelKind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Stripes,
        Self::StripesProportional,
        Self::DaDianNao,
        Self::Bitops,
        Self::BitopsNncf,
        Self::BitSerialCpu,
        Self::Size,
        Self::Traffic,
        Self::Energy,
    ];

    /// The name in configuration, as `stripes-proportional`; also the model's own.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stripes => "stripes",
            Self::StripesProportional => "stripes-proportional",
            Self::DaDianNao => "dadiannao",
            Self::Bitops => "bitops",
            Self::BitopsNncf => "bitops-nncf",
            Self::BitSerialCpu => "bitserial-cpu",
            Self::Size => "size",
            Self::Traffic => "traffic",
            Self::Energy => "energy",
        }
    }

    /// The model that this name stands for.
    #[must_use]
    pub fn build(self) -> Box<dyn CostModel> {
        match self {
            Self::Stripes => Box::new(Stripes::default()),
            Self::StripesProportional => Box::new(Stripes::proportional()),
            Self::DaDianNao => Box::new(DaDianNao),
            Self::Bitops => Box::new(BitOperations),
            Self::BitopsNncf => Box::new(BitOperationsNncf),
            Self::BitSerialCpu => Box::new(BitSerialCpu::default()),
            Self::Size => Box::new(ModelSize::default()),
            Self::Traffic => Box::new(MemoryTraffic::default()),
            Self::Energy => Box::new(Energy::default()),
        }
    }
}

impl fmt::Display for CostModelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for CostModelKind {
    type Err = HwError;
    fn from_str(text: &str) -> Result<Self, HwError> {
        Self::ALL.into_iter().find(|kind| kind.name() == text.trim()).ok_or_else(|| {
            HwError::UnknownName {
                what: "cost model",
                got: text.to_owned(),
                allowed: Self::ALL.map(Self::name).join(", "),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for kind in CostModelKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            assert_eq!(kind.build().name(), kind.name());
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
        let message = "gpu".parse::<CostModelKind>().unwrap_err().to_string();
        assert!(message.contains("unknown cost model `gpu`"), "{message}");
    }
}
