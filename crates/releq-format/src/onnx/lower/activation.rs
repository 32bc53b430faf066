//! Functions of one value, dropout, and the softmax at the end.

use releq_core::{Activation, Op};

use super::{Became, Data, Done, End, Lowering, Node, Role, Source, Stop, affine::Affine};

impl Lowering<'_> {
    pub(super) fn activation(&mut self, node: &Node) -> Result<Done, Stop> {
        let attribute = |name, default| node.attributes.float(name, default);
        let function = match node.op.as_str() {
            "Relu" => return self.relu(node),
            "Clip" | "Max" | "Min" => return self.clip(node),
            "Sigmoid" => Activation::Sigmoid,
            "HardSigmoid" => Activation::HardSigmoid {
                alpha: attribute("alpha", 0.2),
                beta: attribute("beta", 0.5),
            },
            "HardSwish" => Activation::HardSwish,
            "Swish" if attribute("alpha", 1.0) == 1.0 => Activation::Silu,
            "LeakyRelu" => Activation::LeakyRelu { slope: attribute("alpha", 0.01) },
            "PRelu" => Activation::LeakyRelu { slope: self.slope(node)? },
            "Tanh" => Activation::Tanh,
            "Gelu" if node.attributes.text("approximate").unwrap_or("none") == "none" => {
                Activation::Gelu
            }
            "Erf" => return self.erf(node),
            _ => return Err(missing(node, self.opset)),
        };
        let data = self.data(node, 0)?;
        self.apply(node, data, Op::Activation(function))
    }

    /// The layer that does `op` to every value of `data`.
    fn apply(&mut self, node: &Node, data: Data, op: Op) -> Result<Done, Stop> {
        let data = self.plain(data)?;
        let name = self.name(node, None);
        let layer = self.push(name, op, vec![data.source], Vec::new())?;
        Ok(Done::data(Data::of(layer, data.view), Role::Layer(layer)))
    }

    fn relu(&mut self, node: &Node) -> Result<Done, Stop> {
        let data = self.data(node, 0)?;
        self.apply(node, data, Op::Relu)
    }

    /// The one slope of all channels.
    fn slope(&self, node: &Node) -> Result<f32, Stop> {
        let slopes = self.required(node, 1)?;
        if let Some(slope) = slopes.uniform() {
            return Ok(slope);
        }
        let slopes = Self::weights(&slopes)?;
        match slopes.as_slice() {
            [first, rest @ ..] if rest.iter().all(|slope| slope == first) => Ok(*first),
            _ => Err("it has a slope for each channel; layers have one for all".into()),
        }
    }

    /// The bounds of a `Clip`, by attributes or inputs, or of a `Max` or `Min` with a number.
    fn bounds(&self, node: &Node) -> Result<(f32, f32), Stop> {
        let number = |index: usize| -> Result<Option<f32>, Stop> {
            let Some(tensor) = self.constant(node, index)? else { return Ok(None) };
            tensor.scalar().map(Some).ok_or_else(|| "its bounds are not one number for all".into())
        };
        let attribute = |name| node.attributes.optional_float(name);
        let (least, most) = match node.op.as_str() {
            "Max" => (number(1)?, None),
            "Min" => (None, number(1)?),
            _ => (number(1)?.or(attribute("min")), number(2)?.or(attribute("max"))),
        };
        // Without a bound, it is that of the type.
        let bound = |bound: Option<f32>, free: f32| bound.unwrap_or(free).clamp(f32::MIN, f32::MAX);
        Ok((bound(least, f32::MIN), bound(most, f32::MAX)))
    }

    fn clip(&mut self, node: &Node) -> Result<Done, Stop> {
        if node.op != "Clip" && node.inputs.len() != 2 {
            return Err("only the larger or smaller of a value and a number is read".into());
        }
        let data = self.data(node, 0)?;
        let (min, max) = self.bounds(node)?;
        if let Some(done) = self.hard_sigmoid(node, &data, min, max)? {
            return Ok(done);
        }
        match (min, max) {
            (f32::MIN, f32::MAX) => Ok(Done::nothing(data)),
            (0.0, f32::MAX) => self.apply(node, data, Op::Relu),
            _ => self.apply(node, data, Op::Activation(Activation::Clip { min, max })),
        }
    }

    /// `clip(a x + b, 0, m)` is `m` times a hard sigmoid. Where `b` cannot be the bias of the layer before, it is what
    /// exporters write hard sigmoids and hard swishes with.
    fn hard_sigmoid(
        &mut self,
        node: &Node,
        data: &Data,
        min: f32,
        max: f32,
    ) -> Result<Option<Done>, Stop> {
        let Some(affine) = &data.affine else { return Ok(None) };
        let Some((scale, shift)) = affine.uniform() else { return Ok(None) };
        let is_taken_in =
            data.alone && data.source.is_some_and(|layer| self.can_take_in(layer, affine));
        if min != 0.0
            || max == f32::MAX
            || max <= 0.0
            || scale <= 0.0
            || shift == 0.0
            || is_taken_in
        {
            return Ok(None);
        }
        let function = Activation::HardSigmoid { alpha: scale / max, beta: shift / max };
        let bare = Data { affine: None, ..data.clone() };
        let nodes = affine.nodes().to_vec();
        let done = self.apply(node, bare, Op::Activation(function))?;
        let layer = self.layers.len() - 1;
        for index in nodes {
            self.roles[index] = Role::Part(layer);
        }
        let [super::Value::Data(data)] = done.values.as_slice() else { return Ok(None) };
        let data = data.clone().then(Affine::new(vec![max], vec![0.0], Vec::new()));
        Ok(Some(Done::data(data, done.role)))
    }

    /// `erf(x / sqrt 2)`, which is a part of a GELU and nothing without the rest of it.
    fn erf(&mut self, node: &Node) -> Result<Done, Stop> {
        let data = self.data(node, 0)?;
        let scale = data.affine.as_ref().and_then(Affine::uniform);
        match scale {
            Some((scale, 0.0)) if is_near(scale, std::f32::consts::FRAC_1_SQRT_2) => {
                let bare = Data { affine: None, ..data };
                let bare = self.plain(bare)?;
                let layer = self.gelu_factor(bare.source)?;
                // The factor of a GELU is (1 + erf) / 2, so erf is twice that, less 1.
                let data = Data::of(layer, bare.view);
                let data = data.then(Affine::new(vec![2.0], vec![-1.0], Vec::new()));
                Ok(Done::data(data, Role::Part(layer)))
            }
            _ => Err(missing(node, self.opset)),
        }
    }

    /// A layer that stands for the factor that a GELU multiplies its input by, until it does.
    fn gelu_factor(&mut self, source: Source) -> Result<usize, Stop> {
        let layer = self.insert(Op::Activation(Activation::Gelu), vec![source])?;
        self.layers[layer].is_gelu_factor = true;
        Ok(layer)
    }

    pub(super) fn dropout(&mut self, node: &Node) -> Result<Done, Stop> {
        let data = self.data(node, 0)?;
        let ratio = match self.constant(node, 1)? {
            Some(ratio) => ratio.scalar().ok_or("its ratio is not one number")?,
            None => node.attributes.float("ratio", 0.5),
        };
        if ratio == 0.0 {
            return Ok(Done::nothing(data));
        }
        let probability = (f64::from(ratio) * 1e6).round() / 1e6;
        self.apply(node, data, Op::Dropout { probability })
    }

    pub(super) fn softmax(&mut self, node: &Node) -> Result<Done, Stop> {
        let data = self.data(node, 0)?;
        let data = self.plain(data)?;
        let sizes = data.view.sizes();
        // Before version 13, everything from the axis on is one vector.
        let is_old = self.opset < 13;
        let axis = node.attributes.integer("axis", if is_old { 1 } else { -1 });
        let axis = crate::onnx::forms::axis_of(axis, sizes.len())?;
        let all: usize = sizes.iter().product::<usize>() / self.batch;
        let over: usize = if is_old { sizes[axis..].iter().product() } else { sizes[axis] };
        if over != all || data.view.is_batch(axis) && over != 1 {
            return Err(format!(
                "it goes over dimension {axis} of {sizes:?}, not over the classes"
            )
            .into());
        }
        let end = if node.op == "Softmax" { End::Softmax } else { End::LogSoftmax };
        Ok(Done::data(Data { end, ..data }, Role::Other(Became::Softmax)))
    }
}

/// Whether two constants are the same up to how an exporter rounded them.
pub(super) fn is_near(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-5 * b.abs()
}

/// Why there is no layer for an operation.
fn missing(node: &Node, opset: i64) -> Stop {
    let reason = match node.op.as_str() {
        "Resize" | "Upsample" | "ConvTranspose" => {
            "networks that enlarge images, for detection or segmentation, are not read"
        }
        "LSTM" | "GRU" | "RNN" | "Loop" | "Scan" => "recurrent networks are not read",
        "LayerNormalization" | "Attention" | "MultiHeadAttention" | "Einsum"
        | "RMSNormalization" => "transformers are not read",
        "If" => {
            "networks that branch on values are not read; export with the size of an image fixed"
        }
        "Gelu" => "only the exact form is a layer, not its approximation by a tanh",
        "InstanceNormalization" | "GroupNormalization" => "only batch norms are layers",
        _ => return format!("there is no layer for this operation (version {opset})").into(),
    };
    reason.into()
}
