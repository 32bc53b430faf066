//! What is said of images and of layers.

use std::num::NonZeroUsize;

use anyhow::Result;
use releq_runtime::Model;
use serde::Serialize;
use serde_json::json;

use super::input::Images;
use crate::{plot::number::amount, terminal::tables};

/// The likeliest classes of an image.
#[derive(Serialize)]
pub(super) struct Likeliest {
    image: String,
    classes: Vec<Class>,
}

/// What a network says of one class.
#[derive(Serialize)]
struct Class {
    class: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    output: f32,
}

/// The likeliest classes of every image.
pub(super) fn likeliest(
    images: &Images,
    logits: &[f32],
    outputs: usize,
    names: &[String],
    top: NonZeroUsize,
) -> Vec<Likeliest> {
    let of_image = |(image, logits): (usize, &[f32])| {
        let mut order: Vec<usize> = (0..outputs).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        let class = |class: usize| {
            let name = names.get(class).filter(|name| !name.is_empty()).cloned();
            Class { class, name, output: logits[class] }
        };
        let classes = order.into_iter().take(top.get()).map(class).collect();
        Likeliest { image: images.name(image), classes }
    };
    logits.chunks_exact(outputs).enumerate().map(of_image).collect()
}

/// They as a table, or as JSON.
pub(super) fn told(images: &[Likeliest], json: bool) -> Result<String> {
    if json {
        return Ok(serde_json::to_string_pretty(&json!({ "images": images }))?);
    }
    let mut table = tables::plain();
    table.set_header(["image", "class", "output"]);
    for Likeliest { image, classes } in images {
        for Class { class, name, output } in classes {
            let class = name.clone().unwrap_or_else(|| class.to_string());
            table.add_row([image.clone(), class, format!("{output:.4}")]);
        }
    }
    Ok(tables::text(&table))
}

/// How each layer is computed, as a table or as JSON.
pub(super) fn explained(model: &Model, json: bool) -> Result<String> {
    if json {
        let layers: Vec<_> = model
            .layers()
            .map(|plan| {
                json!({
                    "layer": plan.layer, "operation": plan.kind, "bits": plan.bits, "kernel": plan.kernel,
                    "bytes": plan.bytes, "float": plan.is_float, "why": plan.reason,
                })
            })
            .collect();
        return Ok(serde_json::to_string_pretty(&json!({ "layers": layers }))?);
    }
    let mut table = tables::plain();
    table.set_header(["layer", "operation", "bits", "kernel", "weights", "why"]);
    for plan in model.layers() {
        let bits = plan.bits.map_or_else(String::new, |bits| format!("{bits} x 8"));
        let bytes = amount(plan.bytes as f64, "bytes");
        table.add_row([plan.layer, plan.kind.to_owned(), bits, plan.kernel, bytes, plan.reason]);
    }
    Ok(tables::text(&table))
}
