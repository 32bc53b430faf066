//! The machine on which a latency was measured.

use std::fmt;

use releq_kernels::Isa;
use serde::{Deserialize, Serialize};

/// What distinguishes machines whose kernels differ in speed: the processor and the instruction set that kernels
/// use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Architecture, such as `x86_64`.
    pub architecture: String,
    /// Name that the processor reports; empty if it reports none.
    pub processor: String,
    /// Family, model and stepping of an x86 processor.
    pub revision: Option<[u8; 3]>,
    /// The widest instruction set for which there are kernels.
    pub isa: String,
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn this() -> Self {
        let (processor, revision) = processor();
        let architecture = std::env::consts::ARCH.to_owned();
        Self { architecture, processor, revision, isa: Isa::best().to_string() }
    }
}

#[cfg(target_arch = "x86_64")]
fn processor() -> (String, Option<[u8; 3]>) {
    let cpuid = raw_cpuid::CpuId::new();
    let name = cpuid.get_processor_brand_string();
    let name = name.map(|name| name.as_str().trim().to_owned()).unwrap_or_default();
    let revision = cpuid
        .get_feature_info()
        .map(|info| [info.family_id(), info.model_id(), info.stepping_id()]);
    (name, revision)
}

#[cfg(not(target_arch = "x86_64"))]
fn processor() -> (String, Option<[u8; 3]>) {
    (String::new(), None)
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.processor.is_empty() { &self.architecture } else { &self.processor };
        f.write_str(name)?;
        if let Some([family, model, stepping]) = self.revision {
            write!(f, " family {family} model {model} stepping {stepping}")?;
        }
        write!(f, ", {}", self.isa)
    }
}
