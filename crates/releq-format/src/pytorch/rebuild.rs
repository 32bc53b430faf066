//! From the values of a pickle to tensors.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use super::{
    globals::Global,
    value::{Id, Value, Values},
};
use crate::{
    bytes::Bytes,
    dtype::Dtype,
    stored::{Quantization, Stored, View, contiguous},
};

/// Most dimensions of a tensor, as in PyTorch.
const MOST_DIMENSIONS: usize = 64;

/// Finds the bytes of a storage by its key.
pub(super) type Storages<'a> = &'a dyn Fn(&str) -> Bytes;

/// A reference to a storage, as PyTorch writes it.
#[derive(Debug)]
pub(super) struct Storage<'a> {
    pub(super) key: &'a str,
    /// `None` if it holds bytes.
    pub(super) dtype: Option<Dtype>,
    /// Where a view of old versions begins in the storage, in elements.
    pub(super) offset: u64,
}

/// Rebuilds tensors. Each is built once, however often it is referred to.
pub(super) struct Rebuild<'a> {
    values: &'a Values,
    storages: Storages<'a>,
    big_endian: bool,
    tensors: RefCell<HashMap<Id, Stored>>,
    sizes: RefCell<HashMap<Id, Option<Arc<[usize]>>>>,
}

impl<'a> Rebuild<'a> {
    pub(super) fn new(values: &'a Values, storages: Storages<'a>, big_endian: bool) -> Self {
        let (tensors, sizes) = Default::default();
        Self { values, storages, big_endian, tensors, sizes }
    }

    /// The tensor that is value `id`; `None` if it is something else.
    pub(super) fn tensor(&self, id: Id) -> Option<Stored> {
        if let Some(stored) = self.tensors.borrow().get(&id) {
            return Some(stored.clone());
        }
        let view = match *self.values.get(id) {
            Value::Tensor(Global::NumpyFromBuffer, arguments) => self.buffer(arguments),
            Value::Tensor(function, arguments) => self.view(function, arguments),
            Value::NumpyArray(Some(state)) => self.array(state),
            Value::Special(kind) => return Some(Stored::Special(kind)),
            _ => return None,
        };
        let stored = match view {
            Some(view) => Stored::Plain(Arc::new(view)),
            None => Stored::Special("a tensor of a form that PyTorch does not write"),
        };
        self.tensors.borrow_mut().insert(id, stored.clone());
        Some(stored)
    }

    fn plain(&self, id: Id) -> Option<Arc<View>> {
        // Scales and zero points are no quantized tensors, so this ends here.
        let Value::Tensor(Global::Tensor | Global::TensorV2 | Global::TensorV3, _) =
            self.values.get(id)
        else {
            return None;
        };
        match self.tensor(id)? {
            Stored::Plain(view) => Some(view),
            Stored::Special(_) => None,
        }
    }

    /// A tensor on a storage: `(storage, offset, size, stride, ...)`.
    fn view(&self, function: Global, arguments: Id) -> Option<View> {
        let arguments = self.values.items(arguments);
        let &[storage, offset, size, stride, ref rest @ ..] = arguments else { return None };
        let storage = storage_of(self.values, storage)?;
        let (dtype, metadata) = match function {
            Global::Tensor => (storage.dtype?, None),
            // Whether it has a gradient, hooks, metadata.
            Global::TensorV2 => (storage.dtype?, rest.get(2)),
            Global::TensorV3 => match self.values.get(*rest.get(2)?) {
                Value::Global(Global::Dtype(dtype)) => (*dtype, rest.get(3)),
                _ => return None,
            },
            Global::Quantized => (storage.dtype?, None),
            _ => return None,
        };
        let is_set = |key| metadata.is_some_and(|&metadata| self.values.is_set(metadata, key));
        let quantization = match function {
            Global::Quantized => Some(self.quantization(*rest.first()?)?),
            _ => None,
        };
        let (shape, strides) = (self.size(size)?, self.size(stride)?);
        if shape.len() != strides.len() {
            return None;
        }
        Some(View {
            dtype,
            shape,
            strides,
            offset: u64::try_from(self.values.int(offset)?).ok()?.checked_add(storage.offset)?,
            bytes: (self.storages)(storage.key),
            big_endian: self.big_endian,
            negative: is_set("neg"),
            quantization,
        })
    }

    /// `(scheme, scale, zero point)` or `(scheme, scales, zero points, axis)`.
    fn quantization(&self, parameters: Id) -> Option<Quantization> {
        match *self.values.items(parameters) {
            [scheme, scale, zero_point] if !self.is_per_channel(scheme)? => {
                Some(Quantization::PerTensor {
                    scale: self.values.float(scale)?,
                    zero_point: self.values.float(zero_point)?,
                })
            }
            [scheme, scales, zero_points, axis] if self.is_per_channel(scheme)? => {
                Some(Quantization::PerChannel {
                    axis: usize::try_from(self.values.int(axis)?).ok()?,
                    scales: self.plain(scales)?,
                    zero_points: self.plain(zero_points)?,
                })
            }
            _ => None,
        }
    }

    fn is_per_channel(&self, scheme: Id) -> Option<bool> {
        match *self.values.get(scheme) {
            Value::Global(Global::Scheme { per_channel }) => Some(per_channel),
            _ => None,
        }
    }

    /// Sizes or strides.
    fn size(&self, tuple: Id) -> Option<Arc<[usize]>> {
        if let Some(size) = self.sizes.borrow().get(&tuple) {
            return size.clone();
        }
        let Value::Sequence(items) = self.values.get(tuple) else { return None };
        let item = |&id: &Id| usize::try_from(self.values.int(id)?).ok();
        let size: Option<Vec<usize>> =
            if items.len() > MOST_DIMENSIONS { None } else { items.iter().map(item).collect() };
        let size = size.map(Arc::from);
        self.sizes.borrow_mut().insert(tuple, size.clone());
        size
    }

    // NumPy.

    /// The state of an array: version, shape, type, whether columns come first, data.
    fn array(&self, state: Id) -> Option<View> {
        let &[_, shape, dtype, columns_first, data] = self.values.items(state) else { return None };
        let columns_first = self.values.int(columns_first)? != 0;
        self.numpy(shape, dtype, columns_first, data)
    }

    /// Data, type, shape, order.
    fn buffer(&self, arguments: Id) -> Option<View> {
        let &[data, dtype, shape, order] = self.values.items(arguments) else { return None };
        self.numpy(shape, dtype, self.values.text(order) == Some("F"), data)
    }

    fn numpy(&self, shape: Id, dtype: Id, columns_first: bool, data: Id) -> Option<View> {
        let shape = self.size(shape)?;
        let (dtype, big_endian) = self.numpy_dtype(dtype)?;
        let pickle = || Arc::clone(&self.values.pickle);
        let bytes = match self.values.get(data) {
            Value::Bytes(range) => Bytes::Memory { bytes: pickle(), range: range.clone() },
            Value::Latin1(range) => Bytes::Latin1 { bytes: pickle(), range: range.clone() },
            _ => Bytes::Missing("the array has no values of its own".to_owned()),
        };
        let strides = if columns_first {
            let reversed: Vec<usize> = shape.iter().rev().copied().collect();
            contiguous(&reversed).iter().rev().copied().collect()
        } else {
            contiguous(&shape)
        };
        let (offset, negative, quantization) = (0, false, None);
        Some(View { dtype, shape, strides, offset, bytes, big_endian, negative, quantization })
    }

    /// A type and whether its bytes have the highest first.
    fn numpy_dtype(&self, id: Id) -> Option<(Dtype, bool)> {
        let Value::NumpyDtype(arguments, state) = *self.values.get(id) else { return None };
        let code = self.values.text(*self.values.items(arguments).first()?)?;
        let bare = code.trim_start_matches(['<', '>', '|', '=']);
        let order = state.and_then(|state| self.values.text(*self.values.items(state).get(1)?));
        Some((Dtype::of_numpy(bare), code.starts_with('>') || order == Some(">")))
    }
}

/// What a persistent value refers to: `("storage", class, key, device, elements)`, in old versions with a
/// view `(key, offset, elements)` after it.
pub(super) fn storage_of(values: &Values, id: Id) -> Option<Storage<'_>> {
    let Value::Persistent(description) = *values.get(id) else { return None };
    let &[kind, class, key, _, _, ref view @ ..] = values.items(description) else { return None };
    let Value::Global(Global::Storage(dtype)) = *values.get(class) else { return None };
    if values.text(kind) != Some("storage") {
        return None;
    }
    let offset = match view.first().map(|&view| values.items(view)) {
        Some(&[_, offset, _]) => u64::try_from(values.int(offset)?).ok()?,
        _ => 0,
    };
    Some(Storage { key: values.text(key)?, dtype, offset })
}
