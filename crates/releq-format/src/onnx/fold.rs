//! Nodes that are known at import: weights in other shapes, and the integers that shapes are computed from.

use super::{
    forms::{
        Slice, around, axis_of, broadcast, integers, permutation, places, reshape_target, sizes,
        slices, squeezed, strides,
    },
    graph::Node,
    tensor::{MOST_INTEGERS, Reason, Tensor, len_of},
};

/// Computes a node from constants; `None` for an operation that is not done here.
///
/// Only small tensors are computed with. Large ones, which are weights, are moved and copied at most, within what `most`
/// still allows.
pub(super) fn fold(
    node: &Node,
    inputs: &[Option<&Tensor>],
    most: &mut usize,
) -> Result<Option<Tensor>, Reason> {
    let input = |index: usize| {
        let tensor = inputs.get(index).copied().flatten();
        tensor.ok_or_else(|| format!("lacks its input no. {index}"))
    };
    let folded = match node.op.as_str() {
        "Constant" => constant(node)?,
        "ConstantOfShape" => {
            let dims = sizes(&input(0)?.whole()?)?;
            match node.attributes.tensor("value") {
                None => Tensor::same(dims, 0.0)?,
                Some(value) => {
                    let value = Tensor::from_proto(value.clone(), &mut |_| {
                        Err(std::io::Error::other("one number is no reason for another file"))
                    })?;
                    let number = value.scalar().ok_or("needs one number to repeat")?;
                    match value.is_integer() {
                        true if len_of(&dims)? > MOST_INTEGERS => {
                            return Err(format!("asks for integers of shape {dims:?}"));
                        }
                        true => {
                            let len = len_of(&dims)?;
                            Tensor::integers(dims, vec![number as i64; len])
                        }
                        false => Tensor::same(dims, number)?,
                    }
                }
            }
        }
        "Identity" | "CastLike" | "Dropout" => input(0)?.clone(),
        "Cast" => cast(input(0)?, node.attributes.integer("to", 1))?,
        "Reshape" => {
            let tensor = input(0)?;
            let target = integers(node, inputs, 1, "shape")?.ok_or("has no shape to reach")?;
            let zero_is_size = node.attributes.integer("allowzero", 0) == 1;
            tensor.reshaped(reshape_target(&tensor.dims, &target, zero_is_size)?)?
        }
        "Flatten" => {
            let tensor = input(0)?;
            let axis = axis_of(node.attributes.integer("axis", 1), tensor.dims.len() + 1)?;
            let (outer, inner) = tensor.dims.split_at(axis);
            tensor.reshaped(vec![outer.iter().product(), inner.iter().product()])?
        }
        "Squeeze" | "Unsqueeze" => {
            let tensor = input(0)?;
            let axes = integers(node, inputs, 1, "axes")?;
            tensor.reshaped(squeezed(&node.op, &tensor.dims, axes.as_deref())?)?
        }
        "Transpose" => {
            let tensor = input(0)?;
            let perm = permutation(node, tensor.dims.len())?;
            take(most, tensor)?;
            transposed(tensor, &perm)?
        }
        "Expand" => {
            let tensor = input(0)?;
            let target = sizes(&input(1)?.whole()?)?;
            let dims = broadcast(&tensor.dims, &target)?;
            expanded(tensor, dims, most)?
        }
        "Gather" => gather(node, input(0)?, input(1)?)?,
        "Slice" => {
            let tensor = input(0)?;
            let slices = slices(node, inputs, &tensor.dims)?;
            take(most, tensor)?;
            sliced(tensor, &slices)?
        }
        "Concat" => {
            let tensors: Vec<&Tensor> = inputs.iter().copied().flatten().collect();
            concat(node, &tensors)?
        }
        "Add" | "Sub" | "Mul" | "Div" => {
            let pair = [input(0)?, input(1)?];
            pair.iter().try_for_each(|tensor| take(most, tensor))?;
            arithmetic(&node.op, pair)?
        }
        "Sqrt" | "Reciprocal" | "Neg" => {
            let tensor = input(0)?;
            take(most, tensor)?;
            let function: fn(f32) -> f32 = match node.op.as_str() {
                "Sqrt" => f32::sqrt,
                "Reciprocal" => f32::recip,
                _ => std::ops::Neg::neg,
            };
            let values = tensor.values()?.iter().map(|&value| function(value)).collect();
            Tensor::floats(tensor.dims.clone(), values)
        }
        _ => return Ok(None),
    };
    Ok(Some(folded))
}

/// Counts what is about to be copied.
fn take(most: &mut usize, tensor: &Tensor) -> Result<(), Reason> {
    *most = most.checked_sub(tensor.len()).ok_or("copies more weights than the model has")?;
    Ok(())
}

fn constant(node: &Node) -> Result<Tensor, Reason> {
    let attributes = &node.attributes;
    if let Some(values) = attributes.integers("value_ints") {
        return Ok(Tensor::integers(vec![values.len()], values.to_vec()));
    }
    if let Some(values) = attributes.floats("value_floats") {
        return Ok(Tensor::floats(vec![values.len()], values.to_vec()));
    }
    if let Some(value) = attributes.optional_float("value_float") {
        return Ok(Tensor::floats(Vec::new(), vec![value]));
    }
    if attributes.has("value_int") {
        return Ok(Tensor::integers(Vec::new(), vec![attributes.integer("value_int", 0)]));
    }
    Err("has none of the kinds of constants that are read".to_owned())
}

fn cast(tensor: &Tensor, to: i64) -> Result<Tensor, Reason> {
    // Floating-point types of any width are one here.
    let to_integer = matches!(to, 2..=7 | 9 | 12 | 13);
    if to_integer == tensor.is_integer() {
        return Ok(tensor.clone());
    }
    let dims = tensor.dims.clone();
    match to_integer {
        true if tensor.len() <= MOST_INTEGERS => {
            let values = tensor.values()?.iter().map(|&value| value as i64).collect();
            Ok(Tensor::integers(dims, values))
        }
        true => Err("makes whole numbers of weights".to_owned()),
        false => {
            let values = tensor.whole()?.into_iter().map(|value| value as f32).collect();
            Ok(Tensor::floats(dims, values))
        }
    }
}

fn gather(node: &Node, tensor: &Tensor, indices: &Tensor) -> Result<Tensor, Reason> {
    let axis = axis_of(node.attributes.integer("axis", 0), tensor.dims.len())?;
    let size = tensor.dims[axis];
    let places = indices.whole()?.into_iter().map(|index| {
        let index = if index < 0 { index.checked_add_unsigned(size as u64)? } else { index };
        usize::try_from(index).ok().filter(|&index| index < size)
    });
    let places = places.collect::<Option<Vec<usize>>>();
    let places = places.ok_or_else(|| format!("asks for more than the {size} there are"))?;
    let (outer, inner) = around(&tensor.dims, axis);
    let mut dims = tensor.dims[..axis].to_vec();
    dims.extend(&indices.dims);
    dims.extend(&tensor.dims[axis + 1..]);
    if outer.saturating_mul(inner).saturating_mul(places.len()) > MOST_INTEGERS {
        return Err("gathers weights".to_owned());
    }
    let from = |outer: usize| {
        let row = move |place: &usize| (outer * size + place) * inner;
        places.iter().flat_map(move |place| row(place)..row(place) + inner)
    };
    // Rows of nothing need not be counted.
    let outer = if inner == 0 || places.is_empty() { 0 } else { outer };
    tensor.picked(dims, (0..outer).flat_map(from))
}

fn concat(node: &Node, tensors: &[&Tensor]) -> Result<Tensor, Reason> {
    let first = *tensors.first().ok_or("joins nothing")?;
    let axis = axis_of(node.attributes.integer("axis", 0), first.dims.len())?;
    let mut dims = first.dims.clone();
    let fits = |tensor: &&&Tensor| {
        let without = |dims: &[usize]| [&dims[..axis], &dims[axis + 1..]].concat();
        tensor.dims.len() == dims.len() && without(&tensor.dims) == without(&dims)
    };
    if tensors.iter().filter(fits).count() != tensors.len() {
        return Err("joins tensors of different shapes".to_owned());
    }
    dims[axis] = tensors.iter().map(|tensor| tensor.dims[axis]).sum();
    if len_of(&dims)? > MOST_INTEGERS {
        return Err("joins weights".to_owned());
    }
    let (outer, _) = around(&first.dims, axis);
    if tensors.iter().all(|tensor| tensor.is_integer()) {
        let parts = tensors.iter().map(|tensor| tensor.whole()).collect::<Result<Vec<_>, _>>()?;
        return Ok(Tensor::integers(dims, joined(&parts, outer)));
    }
    let parts = tensors.iter().map(|tensor| tensor.values().map(Vec::from));
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    Ok(Tensor::floats(dims, joined(&parts, outer)))
}

/// A row of the first part, then of the second, and so on, for each of `outer` rows.
fn joined<T: Copy>(parts: &[Vec<T>], outer: usize) -> Vec<T> {
    let row = |part: &[T], row: usize| {
        let len = part.len() / outer.max(1);
        part[row * len..][..len].to_vec()
    };
    // Rows of nothing need not be counted.
    let outer = if parts.iter().all(Vec::is_empty) { 0 } else { outer };
    (0..outer).flat_map(|outer| parts.iter().flat_map(move |part| row(part, outer))).collect()
}

fn arithmetic(op: &str, [a, b]: [&Tensor; 2]) -> Result<Tensor, Reason> {
    let dims = broadcast(&a.dims, &b.dims)?;
    let (left, right) = (strides(&a.dims, &dims), strides(&b.dims, &dims));
    if a.is_integer() && b.is_integer() {
        let (x, y) = (a.whole()?, b.whole()?);
        if len_of(&dims)? > MOST_INTEGERS {
            return Err("computes many integers".to_owned());
        }
        let compute = |(i, j): (usize, usize)| match op {
            "Add" => x[i].checked_add(y[j]),
            "Sub" => x[i].checked_sub(y[j]),
            "Mul" => x[i].checked_mul(y[j]),
            _ => x[i].checked_div(y[j]),
        };
        let values = places(&dims, &left).zip(places(&dims, &right)).map(compute);
        let values: Option<Vec<i64>> = values.collect();
        return Ok(Tensor::integers(dims, values.ok_or("computes an integer out of range")?));
    }
    if len_of(&dims)? > a.len().max(b.len()) {
        return Err("multiplies out weights".to_owned());
    }
    let (x, y) = (a.values()?, b.values()?);
    let compute = |(i, j): (usize, usize)| match op {
        "Add" => x[i] + y[j],
        "Sub" => x[i] - y[j],
        "Mul" => x[i] * y[j],
        _ => x[i] / y[j],
    };
    let values = places(&dims, &left).zip(places(&dims, &right)).map(compute).collect();
    Ok(Tensor::floats(dims, values))
}

fn expanded(tensor: &Tensor, dims: Vec<usize>, most: &mut usize) -> Result<Tensor, Reason> {
    if tensor.dims == dims {
        return Ok(tensor.clone());
    }
    if let (1, false) = (tensor.len(), tensor.is_integer()) {
        return Tensor::same(dims, tensor.values()?[0]);
    }
    let len = len_of(&dims)?;
    *most = most.checked_sub(len).ok_or("repeats more weights than the model has")?;
    let strides = strides(&tensor.dims, &dims);
    Ok(tensor.picked(dims.clone(), places(&dims, &strides))?.named(None))
}

fn transposed(tensor: &Tensor, perm: &[usize]) -> Result<Tensor, Reason> {
    let dims: Vec<usize> = perm.iter().map(|&axis| tensor.dims[axis]).collect();
    let whole = strides(&tensor.dims, &tensor.dims);
    let strides: Vec<usize> = perm.iter().map(|&axis| whole[axis]).collect();
    tensor.picked(dims.clone(), places(&dims, &strides))
}

fn sliced(tensor: &Tensor, slices: &[Slice]) -> Result<Tensor, Reason> {
    let (mut dims, mut strides) = (tensor.dims.clone(), strides(&tensor.dims, &tensor.dims));
    let mut offset = 0usize;
    for slice in slices {
        offset += slice.start * strides[slice.axis];
        dims[slice.axis] = slice.size;
        // Backwards is a stride that wraps around, as are the sums with it.
        strides[slice.axis] = strides[slice.axis].wrapping_mul(slice.step as usize);
    }
    let places = places(&dims, &strides).map(|place| place.wrapping_add(offset));
    Ok(tensor.picked(dims.clone(), places)?.named(None))
}
