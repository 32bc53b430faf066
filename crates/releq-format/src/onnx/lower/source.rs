//! What a layer reads: an image or a vector in the order that layers have, made so where it is not.

use releq_core::{Op, Shape};

use super::{Data, End, Lowering, Source, Stop, View};
use crate::onnx::view::Steps;

/// Why values cannot be read.
const ORDER: &str = "its input has its values in an order that no layer makes";

/// Whether a dimension is `size` values, `stride` apart.
pub(super) fn is_steps(dim: &[Steps], size: usize, stride: usize) -> bool {
    match dim {
        [] => size == 1,
        [steps] => *steps == Steps { size, stride },
        _ => false,
    }
}

/// An image or a vector that a layer gives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    pub(super) source: Source,
    pub(super) shape: Shape,
}

impl Lowering<'_> {
    /// `data` with nothing left to be done but to be looked at in its order.
    pub(super) fn plain(&mut self, data: Data) -> Result<Data, Stop> {
        if data.end != End::Logits {
            return Err("it reads the result of a softmax, which may only end a network".into());
        }
        if data.padding.is_some() {
            return Err("zeros around its input are added by convolutions and pools alone".into());
        }
        self.settled(data)
    }

    /// The image `[batch, channels, height, width]` that `data` is, or the vector that is an image of one pixel.
    pub(super) fn image(&mut self, data: Data) -> Result<Read, Stop> {
        let data = self.plain(data)?;
        if data.view.rank() != 4 || !data.view.is_batch(0) {
            return Err(format!(
                "it needs an image, [batch, channels, height, width], and gets {:?}",
                data.view.sizes()
            )
            .into());
        }
        let shape = self.shape(data.source);
        match shape {
            Shape::Vector { features } => {
                let dims = [1, 2, 3].map(|axis| data.view.dim(axis));
                let is_pixel = dims[1].is_empty() && dims[2].is_empty();
                match is_pixel && data.view.offset == 0 && is_steps(dims[0], features, 1) {
                    true => Ok(Read { source: data.source, shape }),
                    false if is_pixel => {
                        let flat = data.view.without(&[2, 3], false);
                        let source = self.vector_parts(data.source, features, &flat)?;
                        Ok(Read { source, shape: self.shape(source) })
                    }
                    false => Err(ORDER.into()),
                }
            }
            Shape::Image { channels, height, width } => {
                let source = self.image_parts(&data, [channels, height, width])?;
                Ok(Read { source, shape: self.shape(source) })
            }
        }
    }

    /// Channels or pixels of an image, picked by a layer if not all of them are read.
    fn image_parts(
        &mut self,
        data: &Data,
        [channels, height, width]: [usize; 3],
    ) -> Result<Source, Stop> {
        let View { offset, .. } = data.view;
        let [outer, rows, columns] = [1, 2, 3].map(|axis| data.view.dim(axis));
        let plane = height * width;
        let all_channels = is_steps(outer, channels, plane) && offset == 0;
        if is_steps(rows, height, width) && is_steps(columns, width, 1) {
            if all_channels {
                return Ok(data.source);
            }
            let op = match *outer {
                [] if offset.is_multiple_of(plane) => {
                    Op::ChannelSlice { start: offset / plane, channels: 1 }
                }
                [Steps { size, stride }] if stride == plane && offset.is_multiple_of(plane) => {
                    Op::ChannelSlice { start: offset / plane, channels: size }
                }
                [Steps { size, stride }, Steps { size: groups, stride: far }]
                    if offset == 0
                        && stride == plane
                        && far == plane * size
                        && groups * size == channels =>
                {
                    Op::ChannelShuffle { groups }
                }
                _ => return Err(ORDER.into()),
            };
            return self.insert(op, vec![data.source]).map(Some);
        }
        if all_channels && let Some(stride) = subsampling(rows, columns, [height, width]) {
            let op = Op::PaddedShortcut { out_channels: channels, stride };
            return self.insert(op, vec![data.source]).map(Some);
        }
        Err(ORDER.into())
    }

    /// Features of a vector, picked by a layer if not all of them are read.
    fn vector_parts(
        &mut self,
        source: Source,
        features: usize,
        view: &View,
    ) -> Result<Source, Stop> {
        let start = view.offset;
        let op = match *view.dim(1) {
            [Steps { size, stride: 1 }] => match (start, size) {
                (0, size) if size == features => return Ok(source),
                (start, size) => Op::ChannelSlice { start, channels: size },
            },
            [] => Op::ChannelSlice { start, channels: 1 },
            [Steps { size, stride: 1 }, Steps { size: groups, stride }]
                if start == 0 && stride == size && groups * size == features =>
            {
                Op::ChannelShuffle { groups }
            }
            _ => return Err(ORDER.into()),
        };
        self.insert(op, vec![source]).map(Some)
    }

    /// The vector `[batch, features]` that `data` is, which may be an image that is flattened, and for each value in
    /// the model's order its place in the layer's, where that differs.
    pub(super) fn vector(&mut self, data: Data) -> Result<(Source, Option<Vec<usize>>), Stop> {
        let data = self.plain(data)?;
        let sizes = data.view.sizes();
        let wide = sizes.iter().skip(1).filter(|&&size| size > 1).count();
        if sizes.len() < 2 || !data.view.is_batch(0) || wide > 1 {
            return Err(format!("it needs a vector, [batch, features], and gets {sizes:?}").into());
        }
        let shape = self.shape(data.source);
        let values: usize = sizes[1..].iter().product();
        let flat = data.view.reshaped(&[sizes[0], values]).ok_or(ORDER)?;
        if values == shape.len() {
            let source = self.flattened(data.source)?;
            if flat.is_whole(shape) {
                return Ok((source, None));
            }
            self.take(values)?;
            return Ok((source, Some(flat.places())));
        }
        match shape {
            Shape::Vector { features } => {
                Ok((self.vector_parts(data.source, features, &flat)?, None))
            }
            Shape::Image { .. } => Err(ORDER.into()),
        }
    }

    /// `data` for what does something of its own to each channel: as [`canonical`](Self::canonical), or a vector that is an image
    /// flattened in another order, as from networks whose channels come last. Then the place of each value among the layer's comes
    /// with it, and the model goes on to see the order that it saw.
    pub(super) fn by_channel(&mut self, data: Data) -> Result<(Data, Option<Vec<usize>>), Stop> {
        let shape = self.shape(data.source);
        let is_reordered = data.view.rank() == 2
            && data.view.is_batch(0)
            && data.view.is_permutation(shape.len())
            && !data.view.is_whole(shape);
        if !is_reordered || data.padding.is_some() || data.end != End::Logits {
            return self.canonical(data).map(|data| (data, None));
        }
        let places = data.view.places();
        self.take(places.len())?;
        if let Shape::Vector { .. } = shape {
            return Ok((data, Some(places)));
        }
        let data = self.plain(data)?;
        let source = self.flattened(data.source)?;
        Ok((Data { source, alone: false, ..data }, Some(places)))
    }

    /// All values of a layer as a vector.
    pub(super) fn flattened(&mut self, source: Source) -> Result<Source, Stop> {
        if let Shape::Vector { .. } = self.shape(source) {
            return Ok(source);
        }
        if let Some(&layer) = self.flattened.get(&source) {
            return Ok(Some(layer));
        }
        let layer = self.insert(Op::Flatten, vec![source])?;
        self.flattened.insert(source, layer);
        Ok(Some(layer))
    }

    /// `data` in the order that its layer has, for what works on whole channels: an image, or a vector. Gives the order
    /// as well in which the model goes on to see it.
    pub(super) fn canonical(&mut self, data: Data) -> Result<Data, Stop> {
        let data = self.plain(data)?;
        let shape = self.shape(data.source);
        let sizes = data.view.sizes();
        if data.view == View::of(self.batch, shape) {
            return Ok(data);
        }
        let source = if sizes.len() == 4 {
            self.image(data)?.source
        } else {
            match self.vector(data)? {
                (source, None) => source,
                (_, Some(_)) => return Err(ORDER.into()),
            }
        };
        let view = View::of(self.batch, self.shape(source)).reshaped(&sizes).ok_or(ORDER)?;
        Ok(Data { source, view, affine: None, padding: None, end: End::Logits, alone: false })
    }
}

/// Values that come in the model's order, one for each of `places` among a layer's, in the order of the layer.
pub(super) fn ordered(values: Vec<f32>, places: Option<&[usize]>) -> Vec<f32> {
    let Some(places) = places else { return values };
    let mut ordered = vec![0.0; values.len()];
    for (&place, value) in places.iter().zip(values) {
        ordered[place] = value;
    }
    ordered
}

/// The distance between the pixels that are kept, if every so many-th is in both directions.
pub(super) fn subsampling(
    rows: &[Steps],
    columns: &[Steps],
    [height, width]: [usize; 2],
) -> Option<usize> {
    let stride = match (rows, columns) {
        (_, [columns]) => columns.stride,
        ([rows], []) => rows.stride / width,
        _ => height.max(width),
    };
    let fits = |dim: &[Steps], side: usize, scale: usize| {
        stride > 0 && is_steps(dim, side.div_ceil(stride), stride * scale)
    };
    (fits(rows, height, width) && fits(columns, width, 1)).then_some(stride)
}
