//! Safetensors files of ours with the right checksum, so that changes get past it.

use std::collections::HashMap;

use releq_core::Checksum;
use releq_format::safetensors::CHECKSUM;
use safetensors::SafeTensors;

/// The file with its description changed by `change`; `None` for what is no packed file.
pub fn safetensors(bytes: &[u8], change: impl Fn(String) -> String) -> Option<Vec<u8>> {
    let tensors = SafeTensors::deserialize(bytes).ok()?;
    let (_, header) = SafeTensors::read_metadata(bytes).ok()?;
    let text = change(header.metadata().as_ref()?.get("releq")?.clone());
    let mut views = tensors.tensors();
    views.sort_by(|(a, _), (b, _)| a.cmp(b));
    let sum = views.iter().fold(Checksum::new().part("releq").part(&text), |sum, (name, view)| {
        let header = format!("{:?} {:?}", view.dtype(), view.shape());
        sum.part(name).part(header).part(view.data())
    });
    let metadata = HashMap::from([("releq".to_owned(), text), (CHECKSUM.to_owned(), sum.finish())]);
    safetensors::serialize(views, Some(metadata)).ok()
}
