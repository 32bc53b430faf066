//! A factor and a summand for every channel, until a layer takes them in.

use std::ops::Range;

use releq_core::{Op, ParameterRole, Shape};

use super::{Data, Lowering, Role, Stop, layers::Values};

/// `scale * x + shift`, each one number or one for every channel of the layer that it comes after.
#[derive(Clone, Debug)]
pub(super) struct Affine {
    scale: Vec<f32>,
    shift: Vec<f32>,
    /// The nodes that it was written with.
    nodes: Vec<usize>,
}

impl Affine {
    pub(super) const fn new(scale: Vec<f32>, shift: Vec<f32>, nodes: Vec<usize>) -> Self {
        Self { scale, shift, nodes }
    }

    /// Factor and summand, if they are the same for every channel.
    pub(super) fn uniform(&self) -> Option<(f32, f32)> {
        match (self.scale.as_slice(), self.shift.as_slice()) {
            (&[scale], &[shift]) => Some((scale, shift)),
            _ => None,
        }
    }

    /// What is done to some channels by each of several.
    pub(super) fn of_parts(parts: &[(Option<&Self>, Range<usize>)]) -> Self {
        let mut joined = Self::new(Vec::new(), Vec::new(), Vec::new());
        for (affine, channels) in parts {
            let list = |list: Option<&Vec<f32>>, neutral: f32| match list.map(Vec::as_slice) {
                None => vec![neutral; channels.len()],
                Some(&[value]) => vec![value; channels.len()],
                Some(values) => values[channels.clone()].to_vec(),
            };
            joined.scale.extend(list(affine.map(|affine| &affine.scale), 1.0));
            joined.shift.extend(list(affine.map(|affine| &affine.shift), 0.0));
            joined.nodes.extend(affine.iter().flat_map(|affine| &affine.nodes));
        }
        joined
    }

    pub(super) fn nodes(&self) -> &[usize] {
        &self.nodes
    }

    /// Whether it changes nothing, up to how an exporter rounded its constants.
    fn is_identity(&self) -> bool {
        self.scale.iter().all(|scale| (scale - 1.0).abs() <= 2.0 * f32::EPSILON)
            && self.shift.iter().all(|&shift| shift == 0.0)
    }

    fn only_shifts(&self) -> bool {
        self.scale.iter().all(|&scale| scale == 1.0)
    }

    /// `then` after this.
    fn followed_by(self, then: &Self) -> Self {
        let scale = zip(&self.scale, &then.scale, |a, b| a * b);
        let shift = zip(&zip(&self.shift, &then.scale, |a, b| a * b), &then.shift, |a, b| a + b);
        let mut nodes = self.nodes;
        nodes.extend(&then.nodes);
        Self { scale, shift, nodes }
    }
}

/// `f` of two lists of the same length, or of length 1 for the same number everywhere.
fn zip(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    let at = |list: &[f32], index: usize| if list.len() == 1 { list[0] } else { list[index] };
    (0..a.len().max(b.len())).map(|index| f(at(a, index), at(b, index))).collect()
}

/// One number for each of `channels`.
fn spread(list: &[f32], channels: usize) -> Vec<f32> {
    if list.len() == 1 { vec![list[0]; channels] } else { list.to_vec() }
}

impl Data {
    /// This, with something more done to every channel.
    pub(super) fn then(self, affine: Affine) -> Self {
        let affine = match self.affine {
            Some(before) => before.followed_by(&affine),
            None => affine,
        };
        Self { affine: Some(affine), ..self }
    }
}

impl Lowering<'_> {
    /// `data` with nothing left to be done to its channels: the layer before takes it in, or a layer is appended.
    pub(super) fn settled(&mut self, mut data: Data) -> Result<Data, Stop> {
        let Some(affine) = data.affine.take() else { return Ok(data) };
        if affine.is_identity() {
            return Ok(data);
        }
        let nodes = affine.nodes.clone();
        let (layer, role) = if let Some(layer) = data.source.filter(|_| data.alone)
            && self.takes_in(layer, &affine)
        {
            (layer, Role::Part(layer))
        } else {
            let layer = self.scale_shift(&data, &affine)?;
            (layer, Role::Layer(layer))
        };
        for node in nodes {
            if let Some(place) = self.roles.get_mut(node) {
                *place = role.clone();
            }
        }
        Ok(Data { source: Some(layer), ..data })
    }

    /// Appends the layer of its own.
    fn scale_shift(&mut self, data: &Data, affine: &Affine) -> Result<usize, Stop> {
        let channels = self.shape(data.source).channels();
        self.take(2 * channels)?;
        let parameters = vec![
            (ParameterRole::Weight, Values::computed(spread(&affine.scale, channels))),
            (ParameterRole::Bias, Values::computed(spread(&affine.shift, channels))),
        ];
        let name = match affine.nodes.first() {
            Some(&node) => self.name(&self.graph.nodes[node], None),
            None => self.free(Op::ScaleShift.kind().to_owned()),
        };
        self.push(name, Op::ScaleShift, vec![data.source], parameters)
    }

    /// Whether `layer` can do it as well, for the same cost.
    pub(super) fn can_take_in(&self, layer: usize, affine: &Affine) -> bool {
        match self.layers[layer].node.op {
            Op::BatchNorm { .. } | Op::ScaleShift => true,
            // A factor for every channel is kept beside the weights, which are rounded on one grid.
            Op::Conv2d(_) | Op::Linear { .. } => affine.only_shifts() || affine.scale.len() == 1,
            _ => false,
        }
    }

    /// Makes it part of `layer`, if that can be.
    fn takes_in(&mut self, layer: usize, affine: &Affine) -> bool {
        if !self.can_take_in(layer, affine) {
            return false;
        }
        let layer = &mut self.layers[layer];
        let channels = layer.shape.channels();
        let has_norm = matches!(layer.node.op, Op::BatchNorm { .. } | Op::ScaleShift);
        if layer.parameter(ParameterRole::Bias).is_none() {
            match &mut layer.node.op {
                Op::Conv2d(conv) => conv.bias = true,
                Op::Linear { bias, .. } => *bias = true,
                _ => return false,
            }
            layer.parameters.push((ParameterRole::Bias, Values::computed(vec![0.0; channels])));
        }
        if let Some(bias) = layer.parameter(ParameterRole::Bias) {
            let scaled = zip(&bias.values, &affine.scale, |a, b| a * b);
            *bias = Values::computed(zip(&scaled, &spread(&affine.shift, channels), |a, b| a + b));
        }
        if !affine.only_shifts()
            && let Some(weight) = layer.parameter(ParameterRole::Weight)
        {
            weight.origin = None;
            weight.grid = None;
            weight.values = match has_norm {
                true => zip(&weight.values, &affine.scale, |a, b| a * b),
                // One number for all, so that the order of the weights does not matter.
                false => weight.values.iter().map(|weight| weight * affine.scale[0]).collect(),
            };
        }
        true
    }

    /// Number of channels that a factor for `data` would be of.
    pub(super) fn channels(&self, data: &Data) -> (usize, usize) {
        match self.shape(data.source) {
            Shape::Image { channels, height, width } => (channels, height * width),
            Shape::Vector { features } => (features, 1),
        }
    }
}
