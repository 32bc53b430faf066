//! Kernels, strides and padding, as ONNX writes them.

use releq_core::{Axes, Sides};

use super::{Data, Lowering, Node, Stop};

/// How a kernel goes over an image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) kernel: [usize; 2],
    pub(super) stride: [usize; 2],
    pub(super) dilation: [usize; 2],
    pub(super) padding: Sides,
}

/// Zeros above, left, below and right.
type Padding = [usize; 4];

impl Window {
    /// The window of `node` on an image of these sides, around which zeros have been put already.
    pub(super) fn of(
        node: &Node,
        kernel: [usize; 2],
        sides: [usize; 2],
        zeros: Padding,
    ) -> Result<Self, Stop> {
        let stride = pair(node, "strides")?;
        let dilation = pair(node, "dilations")?;
        let own = padding(node, |axis| {
            let side = sides[axis] + zeros[axis] + zeros[axis + 2];
            let extent = (kernel[axis] - 1).checked_mul(dilation[axis])?.checked_add(1)?;
            let places = side.div_ceil(stride[axis]);
            Some(((places - 1) * stride[axis] + extent).saturating_sub(side))
        })?;
        let mut sum = [0; 4];
        for (sum, (own, zeros)) in sum.iter_mut().zip(own.iter().zip(zeros)) {
            *sum = own.checked_add(zeros).ok_or("its padding is out of range")?;
        }
        Ok(Self { kernel, stride, dilation, padding: sum.into() })
    }

    pub(super) fn kernel(&self) -> Axes {
        self.kernel.into()
    }

    /// Whether it covers an image of these sides in one place.
    pub(super) fn covers(&self, sides: [usize; 2]) -> bool {
        self.kernel == sides && self.padding.is_zero()
    }

    /// Whether it is a single pixel that goes over all.
    pub(super) fn is_pixel(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.padding.is_zero()
    }
}

/// Two positive numbers of an attribute, 1 unless it is there.
pub(super) fn pair(node: &Node, name: &str) -> Result<[usize; 2], Stop> {
    let Some(values) = node.attributes.integers(name) else { return Ok([1, 1]) };
    let sizes: Vec<usize> = values.iter().filter_map(|&size| usize::try_from(size).ok()).collect();
    match *sizes {
        [height, width] if height > 0 && width > 0 && values.len() == 2 => Ok([height, width]),
        _ => {
            Err(format!("its {name} are {values:?}, where two positive numbers are expected")
                .into())
        }
    }
}

/// The padding of a node; `total` is what an axis lacks where the node says only that the size is to be kept.
fn padding(node: &Node, total: impl Fn(usize) -> Option<usize>) -> Result<Padding, Stop> {
    match node.attributes.text("auto_pad").unwrap_or("NOTSET") {
        "NOTSET" | "" => {
            let Some(pads) = node.attributes.integers("pads") else { return Ok([0; 4]) };
            let sizes: Vec<usize> =
                pads.iter().filter_map(|&pad| usize::try_from(pad).ok()).collect();
            match *sizes {
                [top, left, bottom, right] if pads.len() == 4 => Ok([top, left, bottom, right]),
                _ => Err(format!("its padding is {pads:?}, where four sizes are expected").into()),
            }
        }
        "VALID" => Ok([0; 4]),
        auto @ ("SAME_UPPER" | "SAME_LOWER") => {
            let split = |axis: usize| {
                let total = total(axis)?;
                let (less, more) = (total / 2, total.div_ceil(2));
                Some(if auto == "SAME_UPPER" { (less, more) } else { (more, less) })
            };
            let sides = split(0).zip(split(1));
            let ((top, bottom), (left, right)) = sides.ok_or("its kernel is out of range")?;
            Ok([top, left, bottom, right])
        }
        auto => Err(format!("auto_pad is `{auto}`, which is not known").into()),
    }
}

impl Lowering<'_> {
    /// `data` without the zeros around it, and those. They are around rows and columns alone.
    pub(super) fn without_padding(&self, data: Data) -> Result<(Data, Padding), Stop> {
        let padding = match data.padding.as_deref() {
            None => [0; 4],
            Some(&[[0, 0], [0, 0], [top, bottom], [left, right]]) => [top, left, bottom, right],
            Some(_) => {
                return Err(
                    "zeros are added to its input in other places than around an image".into()
                );
            }
        };
        Ok((Data { padding: None, ..data }, padding))
    }
}
