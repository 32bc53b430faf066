//! Shared by the workspace's tests.

pub mod deployed;
pub mod formula;
mod landscape;

use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

pub use landscape::Landscape;

/// The folder with real data sets and tables that `RELEQ_DATA_DIR` names; tests that need it skip
/// themselves, and say so, where it is not set.
#[must_use]
#[allow(clippy::print_stderr, reason = "a skipped test should be seen")]
pub fn data_dir() -> Option<PathBuf> {
    let dir = std::env::var_os("RELEQ_DATA_DIR").map(PathBuf::from);
    if dir.is_none() {
        eprintln!("skipped: RELEQ_DATA_DIR is not set");
    }
    dir
}

/// Vendor of this machine's processor and the widest float instructions that it has: recorded answers
/// hold for processors that agree in both.
#[must_use]
pub fn processor() -> String {
    let vendor = raw_cpuid::CpuId::new()
        .get_vendor_info()
        .map_or_else(|| "unknown".to_owned(), |vendor| vendor.as_str().to_owned());
    format!("{vendor}, {}", releq_kernels::Isa::best())
}

/// A report or another result as indented JSON, without wall times: what equal runs have in common.
///
/// # Panics
/// If the result cannot be expressed in JSON.
#[must_use]
#[allow(clippy::unwrap_used, reason = "a test may fail loudly")]
pub fn timeless(result: &impl Serialize) -> String {
    let mut value = serde_json::to_value(result).unwrap();
    without_times(&mut value);
    serde_json::to_string_pretty(&value).unwrap()
}

/// Removes the wall times from a result.
pub fn without_times(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.remove("times");
            object.values_mut().for_each(without_times);
        }
        Value::Array(array) => array.iter_mut().for_each(without_times),
        _ => {}
    }
}
