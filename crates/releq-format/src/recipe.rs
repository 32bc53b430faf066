//! Parameters that are stored as several tensors: pruned, normalized, or beside a quantized copy.

use std::collections::BTreeMap;

use crate::stored::{Stored, View};

/// What a tensor is to its parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// The parameter.
    Whole,
    /// The parameter in full precision, where a quantized copy of it has its name (Distiller).
    Float,
    /// The parameter before it is multiplied by the mask (`torch.nn.utils.prune`).
    Original,
    Mask,
    /// The norms of the parameter (`torch.nn.utils.weight_norm`).
    Norm,
    /// The parameter before it is given these norms.
    Direction,
}

impl Part {
    /// What the tensor called `parts` is to a parameter, and the name of that.
    pub(crate) fn of(parts: &[&str]) -> Option<(Vec<String>, Self)> {
        let owned = |parts: &[&str]| parts.iter().map(|&part| part.to_owned()).collect::<Vec<_>>();
        let with = |parts: &[&str], last: &str| [owned(parts), vec![last.to_owned()]].concat();
        match *parts {
            [ref layer @ .., "parametrizations", name, "original0"] => {
                Some((with(layer, name), Self::Norm))
            }
            [ref layer @ .., "parametrizations", name, "original1"] => {
                Some((with(layer, name), Self::Direction))
            }
            // Quantized linear layers of PyTorch keep both as one tuple.
            [ref layer @ .., "_packed_params", "_packed_params", "0"] => {
                Some((with(layer, "weight"), Self::Whole))
            }
            [ref layer @ .., "_packed_params", "_packed_params", "1"] => {
                Some((with(layer, "bias"), Self::Whole))
            }
            [ref layer @ .., last] => {
                let suffixes = [
                    ("_orig", Self::Original),
                    ("_mask", Self::Mask),
                    ("_g", Self::Norm),
                    ("_v", Self::Direction),
                ];
                let float = last.strip_prefix("float_").map(|name| (name, Self::Float));
                let (name, part) = float.or_else(|| {
                    let mut suffixes = suffixes.into_iter();
                    suffixes.find_map(|(suffix, part)| Some((last.strip_suffix(suffix)?, part)))
                })?;
                Some((with(layer, name), part))
            }
            [] => None,
        }
    }
}

/// How a parameter follows from tensors, by their names in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Recipe<'a> {
    Whole(&'a str),
    Float(&'a str),
    Masked { original: &'a str, mask: &'a str },
    Normalized { direction: &'a str, norm: &'a str },
}

impl<'a> Recipe<'a> {
    /// The recipes for what is there, the best first.
    pub(crate) fn all(parts: &BTreeMap<Part, &'a str>) -> Vec<Self> {
        let part = |part| parts.get(&part).copied();
        let masked = part(Part::Original).zip(part(Part::Mask));
        let normalized = part(Part::Direction).zip(part(Part::Norm));
        [
            part(Part::Float).map(Self::Float),
            part(Part::Whole).map(Self::Whole),
            masked.map(|(original, mask)| Self::Masked { original, mask }),
            normalized.map(|(direction, norm)| Self::Normalized { direction, norm }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The tensors that are read, first the one that has the parameter's shape.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &'a str> {
        let (first, second) = match *self {
            Self::Whole(name) | Self::Float(name) => (name, None),
            Self::Masked { original, mask } => (original, Some(mask)),
            Self::Normalized { direction, norm } => (direction, Some(norm)),
        };
        std::iter::once(first).chain(second)
    }

    /// The tensor that has the parameter's shape.
    pub(crate) fn main(&self) -> &'a str {
        match *self {
            Self::Whole(name) | Self::Float(name) => name,
            Self::Masked { original, .. } => original,
            Self::Normalized { direction, .. } => direction,
        }
    }

    /// The equation, for `parameter` of the network; `None` if it is the tensor of that name.
    pub(crate) fn equation(&self, parameter: &str) -> Option<String> {
        let role = parameter.rsplit('.').next().unwrap_or(parameter);
        match self {
            Self::Whole(_) => None,
            Self::Float(_) => Some(format!("{parameter} = float_{role}")),
            Self::Masked { .. } => Some(format!("{parameter} = {role}_orig * {role}_mask")),
            Self::Normalized { .. } => {
                Some(format!("{parameter} = {role}_g * {role}_v / norm({role}_v)"))
            }
        }
    }

    /// The first of its tensors whose shape does not go with `shape`. Kinds that are not read have no shape and go
    /// with any.
    pub(crate) fn misfit(
        &self,
        shape: &[usize],
        tensors: &BTreeMap<String, Stored>,
    ) -> Option<&'a str> {
        let is = |name: &str| match &tensors[name] {
            Stored::Plain(view) => *view.shape == *shape,
            Stored::Special(_) => true,
        };
        let is_norm = |name: &str| {
            let norm = tensors[name].shape();
            let each = || norm.iter().zip(shape).all(|(&norm, &size)| norm == 1 || norm == size);
            norm.iter().all(|&size| size == 1) || norm.len() == shape.len() && each()
        };
        self.tensors().find(|&name| match *self {
            Self::Normalized { norm, .. } if name == norm => !is_norm(name),
            _ => !is(name),
        })
    }
}

/// `values * mask`.
pub(crate) fn masked(mut values: Vec<f32>, mask: &[f32]) -> Vec<f32> {
    values.iter_mut().zip(mask).for_each(|(value, mask)| *value *= mask);
    values
}

/// `norm * direction / |direction|`, with a norm for every index along the dimensions that `norm` has.
///
/// # Source
/// Salimans and Kingma 2016, equation 2, as `torch._weight_norm` computes it.
pub(crate) fn normalized(
    mut values: Vec<f32>,
    direction: &View,
    norm: &View,
    norms: &[f32],
) -> Vec<f32> {
    let shape = &direction.shape;
    // For every element, which norm it has: the flat index in the norms' shape.
    let group = |mut index: usize| {
        let (mut group, mut stride) = (0, 1);
        for (axis, &size) in shape.iter().enumerate().rev() {
            let place = index % size;
            index /= size;
            if let Some(&norms @ 2..) = norm.shape.get(axis) {
                group += place * stride;
                stride *= norms;
            }
        }
        group
    };
    let mut squares = vec![0.0_f64; norms.len()];
    for (index, &value) in values.iter().enumerate() {
        squares[group(index)] += f64::from(value).powi(2);
    }
    let scales: Vec<f32> =
        norms.iter().zip(squares).map(|(norm, square)| norm / square.sqrt() as f32).collect();
    for (index, value) in values.iter_mut().enumerate() {
        *value *= scales[group(index)];
    }
    values
}
