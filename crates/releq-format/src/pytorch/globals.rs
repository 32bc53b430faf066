//! The classes and functions that a pickle may import.
//!
//! A pickle is a program that can do no more than what it imports. Few imports are needed to rebuild
//! tensors; any other is refused, as `torch.load(weights_only=True)` does. Nothing of it is executed
//! here in any case, but a checkpoint that could run code elsewhere should be refused, not read.

use crate::dtype::Dtype;

/// What an import does when it is called.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Global {
    /// Makes a dictionary from nothing, a dictionary or a list of pairs.
    Dict,
    /// Makes an object whose attributes are set afterwards.
    Object,
    /// Makes a sequence from nothing or a sequence.
    Sequence,
    /// Returns its first argument, as far as is of interest here.
    First,
    /// Rebuilds a tensor on a storage. Type and remaining arguments differ between the versions.
    Tensor,
    TensorV2,
    TensorV3,
    Quantized,
    /// Calls its first argument with its third.
    FromType,
    /// Rebuilds a tensor of a kind that is not read.
    Special(&'static str),
    /// The class of a storage; `None` where the type stands elsewhere.
    Storage(Option<Dtype>),
    Dtype(Dtype),
    Scheme {
        per_channel: bool,
    },
    NumpyDtype,
    NumpyReconstruct,
    NumpyFromBuffer,
    Encode,
    /// Makes something that has no weights in it.
    Other,
}

impl Global {
    /// The import of `module.name`; `None` if it may run code.
    pub(super) fn of(module: &str, name: &str) -> Option<Self> {
        Some(match module {
            "collections" => match name {
                "OrderedDict" | "Counter" | "defaultdict" => Self::Dict,
                _ => return None,
            },
            "builtins" | "__builtin__" => match name {
                "dict" => Self::Dict,
                "list" | "set" | "frozenset" => Self::Sequence,
                "bool" | "bytearray" | "bytes" | "complex" | "float" | "int" => Self::Other,
                _ => return None,
            },
            "torch" => return torch(name),
            "torch.cuda" | "torch.storage" | "torch.sparse" | "torch.cuda.sparse" => match name {
                "UntypedStorage" | "TypedStorage" | "_UntypedStorage" | "_TypedStorage" => {
                    Self::Storage(None)
                }
                name if is_tensor_class(name) => Self::Other,
                name => Self::Storage(Some(Dtype::of_storage(name)?)),
            },
            "torch._utils" => match name {
                "_rebuild_tensor" => Self::Tensor,
                "_rebuild_tensor_v2" => Self::TensorV2,
                "_rebuild_tensor_v3" => Self::TensorV3,
                "_rebuild_parameter"
                | "_rebuild_parameter_with_state"
                | "_rebuild_device_tensor_from_numpy"
                | "_rebuild_device_tensor_from_cpu_tensor" => Self::First,
                "_rebuild_qtensor" => Self::Quantized,
                "_rebuild_sparse_tensor" => Self::Special("a sparse tensor"),
                "_rebuild_meta_tensor_no_storage" => Self::Special("a meta tensor without values"),
                "_rebuild_wrapper_subclass" => Self::Special("a tensor of a subclass"),
                _ => return None,
            },
            "torch._tensor" => match name {
                "_rebuild_from_type_v2" => Self::FromType,
                _ => return None,
            },
            "torch.nn.parameter" if name == "Parameter" => Self::First,
            "torch.serialization" if name == "_get_layout" => Self::Other,
            "numpy" => match name {
                "dtype" => Self::NumpyDtype,
                "ndarray" => Self::Other,
                _ => return None,
            },
            "numpy.core.multiarray" | "numpy._core.multiarray" => match name {
                "_reconstruct" => Self::NumpyReconstruct,
                "scalar" => Self::Other,
                _ => return None,
            },
            "numpy.core.numeric" | "numpy._core.numeric" if name == "_frombuffer" => {
                Self::NumpyFromBuffer
            }
            "numpy.dtypes" if name.ends_with("DType") => Self::NumpyDtype,
            "_codecs" if name == "encode" => Self::Encode,
            "argparse" if name == "Namespace" => Self::Object,
            "pathlib" | "pathlib._local" if matches!(name, "PosixPath" | "WindowsPath") => {
                Self::Other
            }
            _ => return None,
        })
    }
}

fn torch(name: &str) -> Option<Global> {
    Some(match name {
        "Size" => Global::Sequence,
        "device" | "Tensor" => Global::Other,
        "per_tensor_affine" | "per_tensor_symmetric" => Global::Scheme { per_channel: false },
        "per_channel_affine" | "per_channel_symmetric" | "per_channel_affine_float_qparams" => {
            Global::Scheme { per_channel: true }
        }
        "UntypedStorage" | "TypedStorage" => Global::Storage(None),
        name if name.ends_with("Storage") => Global::Storage(Some(Dtype::of_storage(name)?)),
        name if is_tensor_class(name) => Global::Other,
        name => Global::Dtype(Dtype::of_torch(name)?),
    })
}

/// Classes such as `FloatTensor`, of old versions.
fn is_tensor_class(name: &str) -> bool {
    name.strip_suffix("Tensor").is_some_and(|kind| {
        matches!(
            kind,
            "Float"
                | "Double"
                | "Half"
                | "BFloat16"
                | "Long"
                | "Int"
                | "Short"
                | "Char"
                | "Byte"
                | "Bool"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `torch.load(weights_only=True)` of PyTorch 2.15.0 allows, by module.
    const WEIGHTS_ONLY: [(&str, &str); 12] = [
        ("_codecs", "encode"),
        ("builtins", "bytearray complex set"),
        ("collections", "Counter OrderedDict"),
        (
            "torch",
            "BFloat16Storage BFloat16Tensor BoolStorage BoolTensor ByteStorage ByteTensor CharStorage CharTensor ComplexDoubleStorage ComplexFloatStorage DoubleStorage DoubleTensor FloatStorage FloatTensor HalfStorage HalfTensor IntStorage IntTensor LongStorage LongTensor QInt32Storage QInt8Storage QUInt2x4Storage QUInt4x2Storage QUInt8Storage ShortStorage ShortTensor Size Tensor bcomplex32 bfloat16 bits16 bits1x8 bits2x4 bits4x2 bits8 bool complex128 complex32 complex64 device float16 float32 float4_e2m1fn_x2 float64 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu int1 int16 int2 int3 int32 int4 int5 int6 int64 int7 int8 per_channel_affine per_channel_affine_float_qparams per_channel_symmetric per_tensor_affine per_tensor_symmetric qint32 qint8 quint2x4 quint4x2 quint8 uint1 uint16 uint2 uint3 uint32 uint4 uint5 uint6 uint64 uint7 uint8",
        ),
        ("torch._tensor", "_rebuild_from_type_v2"),
        (
            "torch._utils",
            "_rebuild_device_tensor_from_cpu_tensor _rebuild_device_tensor_from_numpy _rebuild_meta_tensor_no_storage _rebuild_parameter _rebuild_parameter_with_state _rebuild_qtensor _rebuild_sparse_tensor _rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_wrapper_subclass",
        ),
        (
            "torch.cuda",
            "BFloat16Storage BFloat16Tensor BoolStorage BoolTensor ByteStorage ByteTensor CharStorage CharTensor ComplexDoubleStorage ComplexFloatStorage DoubleStorage DoubleTensor FloatStorage FloatTensor HalfStorage HalfTensor IntStorage IntTensor LongStorage LongTensor ShortStorage ShortTensor",
        ),
        (
            "torch.cuda.sparse",
            "BFloat16Tensor ByteTensor CharTensor DoubleTensor FloatTensor HalfTensor IntTensor LongTensor ShortTensor",
        ),
        ("torch.nn.parameter", "Parameter"),
        ("torch.serialization", "_get_layout"),
        (
            "torch.sparse",
            "BFloat16Tensor ByteTensor CharTensor DoubleTensor FloatTensor HalfTensor IntTensor LongTensor ShortTensor",
        ),
        ("torch.storage", "TypedStorage UntypedStorage"),
    ];

    #[test]
    fn what_pytorch_calls_harmless_is_harmless() {
        for (module, names) in WEIGHTS_ONLY {
            for name in names.split(' ') {
                assert!(Global::of(module, name).is_some(), "{module}.{name}");
            }
        }
    }

    #[test]
    fn everything_else_is_not() {
        for (module, name) in [
            ("os", "system"),
            ("builtins", "eval"),
            ("torch", "load"),
            ("torch", "tensor"),
            ("torch", "compile"),
            ("torch", "Storage"),
            ("torch.storage", "_load_from_bytes"),
            ("torch.serialization", "load"),
            ("torch.nn.modules.linear", "Linear"),
            ("torch._utils", "_import_dotted_name"),
            ("numpy", "load"),
            ("collections", "namedtuple"),
            ("__main__", "Net"),
        ] {
            assert_eq!(Global::of(module, name), None, "{module}.{name}");
        }
    }
}
