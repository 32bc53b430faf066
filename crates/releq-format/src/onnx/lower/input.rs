//! What the input of a model is as an image.

use releq_core::Shape;

use crate::onnx::{
    Layout, OnnxError,
    graph::{Graph, TensorId},
    view::View,
};

/// The order of the input's dimensions, its image, and how the model sees that.
pub(super) fn layout_of(graph: &Graph, batch: usize) -> Result<(Layout, Shape, View), OnnxError> {
    let image = |channels, height, width| Shape::Image { channels, height, width };
    let error = |reason: String| OnnxError::Graph { reason };
    let name = &graph.names[graph.input.tensor];
    let sizes = graph.input.sizes.as_slice();
    let fits = sizes.iter().try_fold(batch, |len, &size| len.checked_mul(size));
    if fits.is_none_or(|len| len > 1 << 34) {
        return Err(error(format!("input `{name}` of {sizes:?} does not fit in memory")));
    }
    let (layout, shape) = match *sizes {
        [height, width, channels] if is_channels_last(graph, [height, width, channels]) => {
            (Layout::ChannelsLast, image(channels, height, width))
        }
        [channels, height, width] => (Layout::ChannelsFirst, image(channels, height, width)),
        [height, width] => (Layout::ChannelsFirst, image(1, height, width)),
        [features] => (Layout::Features, image(features, 1, 1)),
        _ => {
            let rank = sizes.len() + 1;
            return Err(error(format!(
                "input `{name}` has {rank} dimensions; images have 4: batch, channels, height, width"
            )));
        }
    };
    let view = View::of(batch, shape);
    let view = match layout {
        Layout::ChannelsLast => view.transposed(&[0, 2, 3, 1]),
        _ => {
            let sizes: Vec<usize> = std::iter::once(batch).chain(sizes.iter().copied()).collect();
            view.reshaped(&sizes).unwrap_or(view)
        }
    };
    Ok((layout, shape, view))
}

/// Whether the dimensions of the input, three behind the batch, end with the channels: they do if those are brought to the
/// front before any layer sees them. Where the first layer takes a vector, sizes tell: images have 1, 3 or 4 channels.
fn is_channels_last(graph: &Graph, [first, _, last]: [usize; 3]) -> bool {
    let mut tensor: TensorId = graph.input.tensor;
    for node in &graph.nodes {
        if !node.inputs.contains(&Some(tensor)) {
            continue;
        }
        match node.op.as_str() {
            "Transpose" => return node.attributes.integers("perm") == Some(&[0, 3, 1, 2]),
            "Reshape" | "Flatten" | "Gemm" | "MatMul" => {
                return matches!(last, 1 | 3 | 4) && first > 4;
            }
            // Normalization of the pixels, and what is around an image.
            "Identity" | "Cast" | "Sub" | "Add" | "Mul" | "Div" | "Pad" => {
                match node.outputs.first().copied().flatten() {
                    Some(output) => tensor = output,
                    None => return false,
                }
            }
            _ => return false,
        }
    }
    false
}
