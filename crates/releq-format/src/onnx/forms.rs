//! Axes, sizes, permutations and slices as ONNX writes them: arithmetic on shapes, whatever the values are.

use super::{
    graph::Node,
    tensor::{Reason, Tensor, len_of},
};

/// Places in memory, in row-major order of `dims`, of a tensor with these strides.
pub(super) fn places<'a>(
    dims: &'a [usize],
    strides: &'a [usize],
) -> impl Iterator<Item = usize> + 'a {
    let len = dims.iter().product();
    (0..len).map(move |index: usize| {
        let mut rest = index;
        let axes = dims.iter().zip(strides).rev();
        axes.fold(0usize, |place, (&size, &stride)| {
            let step = rest % size;
            rest /= size;
            place.wrapping_add(step.wrapping_mul(stride))
        })
    })
}

/// Strides of a tensor of shape `dims` in one of shape `target`: 0 where it repeats.
pub(super) fn strides(dims: &[usize], target: &[usize]) -> Vec<usize> {
    let mut stride = 1;
    let mut strides = vec![0; target.len()];
    for (&size, place) in dims.iter().rev().zip(strides.iter_mut().rev()) {
        *place = if size == 1 { 0 } else { stride };
        stride *= size;
    }
    strides
}

/// Sizes before and behind a dimension.
pub(super) fn around(dims: &[usize], axis: usize) -> (usize, usize) {
    (dims[..axis].iter().product(), dims[axis + 1..].iter().product())
}

/// The shape that two shapes have together.
pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, Reason> {
    let rank = a.len().max(b.len());
    let size = |dims: &[usize], axis: usize| {
        (axis + dims.len()).checked_sub(rank).map_or(1, |axis| dims[axis])
    };
    let sizes = (0..rank).map(|axis| match (size(a, axis), size(b, axis)) {
        (a, b) if a == b => Ok(a),
        (1, size) | (size, 1) => Ok(size),
        _ => Err(format!("shapes {a:?} and {b:?} do not go together")),
    });
    sizes.collect()
}

/// A list of integers: an attribute in old operators, an input in new ones.
pub(super) fn integers(
    node: &Node,
    inputs: &[Option<&Tensor>],
    index: usize,
    attribute: &str,
) -> Result<Option<Vec<i64>>, Reason> {
    match inputs.get(index).copied().flatten() {
        Some(tensor) => tensor.whole().map(Some),
        None => Ok(node.attributes.integers(attribute).map(<[i64]>::to_vec)),
    }
}

/// Sizes from integers.
pub(super) fn sizes(values: &[i64]) -> Result<Vec<usize>, Reason> {
    let size = |&value: &i64| {
        usize::try_from(value).map_err(|_| format!("asks for a dimension of {value}"))
    };
    values.iter().map(size).collect()
}

/// An axis, which may be counted from the end.
pub(super) fn axis_of(axis: i64, rank: usize) -> Result<usize, Reason> {
    let counted = if axis < 0 { axis.checked_add_unsigned(rank as u64) } else { Some(axis) };
    let counted = counted.and_then(|axis| usize::try_from(axis).ok());
    counted
        .filter(|&counted| counted < rank)
        .ok_or_else(|| format!("asks for axis {axis} of {rank} dimensions"))
}

/// The permutation of a `Transpose`, backwards unless it says otherwise.
pub(super) fn permutation(node: &Node, rank: usize) -> Result<Vec<usize>, Reason> {
    let Some(perm) = node.attributes.integers("perm") else { return Ok((0..rank).rev().collect()) };
    let perm = sizes(perm)?;
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    match sorted.into_iter().eq(0..rank) {
        true => Ok(perm),
        false => Err(format!("permutes {rank} dimensions by {perm:?}")),
    }
}

/// The shape that a `Reshape` of `dims` reaches.
pub(super) fn reshape_target(
    dims: &[usize],
    target: &[i64],
    zero_is_size: bool,
) -> Result<Vec<usize>, Reason> {
    let no = || format!("does not bring {dims:?} into shape {target:?}");
    let mut reached = Vec::with_capacity(target.len());
    let mut open = None;
    for (axis, &size) in target.iter().enumerate() {
        reached.push(match size {
            -1 if open.replace(axis).is_none() => 1,
            0 if !zero_is_size => *dims.get(axis).ok_or_else(no)?,
            _ => usize::try_from(size).map_err(|_| no())?,
        });
    }
    let (len, known) = (len_of(dims)?, len_of(&reached)?);
    if let Some(axis) = open {
        if known == 0 || !len.is_multiple_of(known) {
            return Err(no());
        }
        reached[axis] = len / known;
    } else if len != known {
        return Err(no());
    }
    Ok(reached)
}

/// The shape behind a `Squeeze` or an `Unsqueeze`.
pub(super) fn squeezed(
    op: &str,
    dims: &[usize],
    axes: Option<&[i64]>,
) -> Result<Vec<usize>, Reason> {
    let removes = op == "Squeeze";
    let Some(axes) = axes else {
        return match removes {
            true => Ok(dims.iter().copied().filter(|&size| size != 1).collect()),
            false => Err("has no axes".to_owned()),
        };
    };
    let rank = dims.len() + if removes { 0 } else { axes.len() };
    let axes = axes.iter().map(|&axis| axis_of(axis, rank)).collect::<Result<Vec<_>, _>>()?;
    if removes {
        if let Some(&axis) = axes.iter().find(|&&axis| dims[axis] != 1) {
            return Err(format!("removes a dimension of {}", dims[axis]));
        }
        let kept = dims.iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
        return Ok(kept.map(|(_, &size)| size).collect());
    }
    let mut sizes = dims.iter().copied();
    let inserted = (0..rank).map(|axis| if axes.contains(&axis) { Some(1) } else { sizes.next() });
    let inserted = inserted.collect::<Option<Vec<_>>>();
    inserted
        .filter(|inserted| inserted.len() == rank)
        .ok_or_else(|| "names an axis twice".to_owned())
}

/// A part of one dimension: `size` values from `start` on, `step` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) axis: usize,
    pub(super) start: usize,
    pub(super) step: i64,
    pub(super) size: usize,
}

/// The parts that a `Slice` takes of a tensor of shape `dims`.
pub(super) fn slices(
    node: &Node,
    inputs: &[Option<&Tensor>],
    dims: &[usize],
) -> Result<Vec<Slice>, Reason> {
    let list = |index, name| integers(node, inputs, index, name);
    let (Some(starts), Some(ends)) = (list(1, "starts")?, list(2, "ends")?) else {
        return Err("lacks where to begin and to end".to_owned());
    };
    let axes = list(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = list(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err("has lists of different lengths".to_owned());
    }
    let slice = |index: usize| {
        let axis = axis_of(axes[index], dims.len())?;
        let (size, step) = (dims[axis] as i64, steps[index]);
        if size == 0 {
            return Err("takes nothing".to_owned());
        }
        // As Python counts: from the end where negative, then cut to what is there.
        let place = |place: i64, least: i64, most: i64| {
            (if place < 0 { place.saturating_add(size) } else { place }).clamp(least, most)
        };
        let (start, end) = match step {
            0 => return Err("has a step of 0".to_owned()),
            1.. => (place(starts[index], 0, size), place(ends[index], 0, size)),
            _ => (place(starts[index], 0, size - 1), place(ends[index], -1, size - 1)),
        };
        let room = if step > 0 { end - start } else { start - end };
        if room <= 0 {
            return Err("takes nothing".to_owned());
        }
        let size = (room as u64).div_ceil(step.unsigned_abs());
        Ok(Slice { axis, start: start as usize, step, size: size as usize })
    };
    (0..starts.len()).map(slice).collect()
}
