//! Tensors in all the forms in which PyTorch writes them.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod support;

use support::*;

/// The values of the parameter `name`, where the tensor is what `tensor` makes.
fn values(name: &str, tensor: impl Fn(&mut Saved) -> Vec<u8>) -> Vec<f32> {
    let mut saved = Saved::default();
    let tensor = tensor(&mut saved);
    let root = saved.state_with("", &[(name, tensor)]);
    Folder::new().read(&saved.file(&root)).unwrap().1.0[name].values.clone()
}

/// The message where the bias `fc.bias` is what `tensor` makes.
fn refused(tensor: impl Fn(&mut Saved) -> Vec<u8>) -> String {
    let mut saved = Saved::default();
    let tensor = tensor(&mut saved);
    let root = saved.state_with("", &[("fc.bias", tensor)]);
    let message = Folder::new().refused(&saved.file(&root));
    assert!(!message.contains("damaged"), "{message}");
    message
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A tensor with what `Tensor.is_neg` and `Tensor.is_conj` say.
fn marked(saved: &mut Saved, class: &str, bytes: Vec<u8>, mark: &str) -> Vec<u8> {
    marked_as(saved, class, bytes, mark, boolean(true))
}

/// As [`marked`], with another value of the mark than true.
fn marked_as(saved: &mut Saved, class: &str, bytes: Vec<u8>, mark: &str, is: Vec<u8>) -> Vec<u8> {
    let storage = saved.storage(class, bytes);
    let mark = dict(&[(mark, is)]);
    let arguments = [storage, int(0), ints(&[3]), ints(&[1]), boolean(false), b"N".to_vec(), mark];
    call("torch._utils", "_rebuild_tensor_v2", &arguments)
}

#[test]
fn negative_views_are_negated() {
    let bytes = floats(&[1.0, -2.0, 0.0]);
    let bias = values("fc.bias", |saved| marked(saved, "FloatStorage", bytes.clone(), "neg"));
    assert_eq!(bias, [-1.0, 2.0, -0.0]);
    // By a number, for truth is a number in Python.
    for (mark, expected) in [(1, [-1.0, 2.0, -0.0]), (0, [1.0, -2.0, 0.0])] {
        let bias = values("fc.bias", |saved| {
            marked_as(saved, "FloatStorage", bytes.clone(), "neg", int(mark))
        });
        assert_eq!(bias, expected, "{mark}");
    }
    // What is conjugated is complex, which no weight is.
    let message = refused(|saved| marked(saved, "ComplexFloatStorage", vec![0; 24], "conj"));
    assert!(message.contains("`fc.bias` has type complex64"), "{message}");
    // A conjugate of real numbers is the same numbers.
    let bias = values("fc.bias", |saved| marked(saved, "FloatStorage", bytes.clone(), "conj"));
    assert_eq!(bias, [1.0, -2.0, 0.0]);
}

#[test]
fn views_follow_their_strides() {
    let storage = floats(&(0_u8..20).map(f32::from).collect::<Vec<_>>());
    let view = |shape: &'static [usize], strides: &'static [usize], offset| {
        let storage = storage.clone();
        move |saved: &mut Saved| {
            let storage = saved.storage("FloatStorage", storage.clone());
            Saved::view(storage, offset, shape, strides)
        }
    };
    assert_eq!(values("fc.bias", view(&[3], &[7], 2)), [2.0, 9.0, 16.0]);
    assert_eq!(values("fc.bias", view(&[3], &[0], 19)), [19.0; 3]);
    // Channels last: the stride of the only input channel does not matter.
    let conv = values("conv1.weight", view(&[2, 1, 3, 3], &[9, 1000, 1, 3], 1));
    let expected = [1, 4, 7, 2, 5, 8, 3, 6, 9, 10, 13, 16, 11, 14, 17, 12, 15, 18];
    assert_eq!(conv, expected.map(|value: u8| f32::from(value)));
    for (shape, strides, offset) in
        [(&[3][..], &[1][..], 18), (&[3], &[10], 0), (&[3], &[2_147_483_647], 0)]
    {
        let message = refused(|saved| {
            let storage = saved.storage("FloatStorage", storage.clone());
            Saved::view(storage, offset, shape, strides)
        });
        assert!(message.contains("`fc.bias`") && message.contains("ends beyond the 80 bytes"));
    }
}

#[test]
fn wrappers_of_tensors_are_seen_through() {
    let bias = floats(&[1.0, 2.0, 3.0]);
    let tensor = |saved: &mut Saved| {
        let storage = saved.storage("FloatStorage", bias.clone());
        Saved::view(storage, 0, &[3], &[1])
    };
    let empty = || dict::<&str>(&[]);
    let check = |tensor: &dyn Fn(&mut Saved) -> Vec<u8>| {
        assert_eq!(values("fc.bias", tensor), [1.0, 2.0, 3.0]);
    };
    let utils = "torch._utils";
    check(&|saved| {
        let arguments = [tensor(saved), boolean(true), empty()];
        call(utils, "_rebuild_parameter", &arguments)
    });
    check(&|saved| {
        let state = dict(&[("tag", text("x"))]);
        call(
            utils,
            "_rebuild_parameter_with_state",
            &[tensor(saved), boolean(true), empty(), state],
        )
    });
    check(&|saved| {
        let storage = saved.storage("FloatStorage", bias.clone());
        let arguments = tuple(&[storage, int(0), ints(&[3]), ints(&[1]), boolean(false), empty()]);
        let function = global(utils, "_rebuild_tensor_v2");
        let class = global("torch", "Tensor");
        call("torch._tensor", "_rebuild_from_type_v2", &[function, class, arguments, empty()])
    });
    // With the type beside a storage of bytes.
    check(&|saved| {
        let storage = saved.storage("UntypedStorage", bias.clone());
        let dtype = global("torch", "float32");
        let arguments = [storage, int(0), ints(&[3]), ints(&[1]), boolean(false), empty(), dtype];
        call(utils, "_rebuild_tensor_v3", &arguments)
    });
    // Old versions had one function less.
    check(&|saved| {
        let storage = saved.storage("FloatStorage", bias.clone());
        call(utils, "_rebuild_tensor", &[storage, int(0), ints(&[3]), ints(&[1])])
    });
}

#[test]
fn quantized_tensors_are_what_they_stand_for() {
    let quantized =
        |saved: &mut Saved, class: &str, bytes: &[u8], shape: &[usize], parameters: &[Vec<u8>]| {
            let storage = saved.storage(class, bytes.to_vec());
            let arguments = [
                storage,
                int(0),
                ints(shape),
                ints(&strides(shape)),
                tuple(parameters),
                boolean(false),
                b"N".to_vec(),
            ];
            call("torch._utils", "_rebuild_qtensor", &arguments)
        };
    let scheme = |name| global("torch", name);
    // By hand: 0.5 * (integer - 2).
    let bias = values("fc.bias", |saved| {
        let parameters = [scheme("per_tensor_affine"), float(0.5), int(2)];
        quantized(saved, "QInt8Storage", &[0xFF, 2, 127], &[3], &parameters)
    });
    assert_eq!(bias, [-1.5, 0.0, 62.5]);
    let bias = values("fc.bias", |saved| {
        let parameters = [scheme("per_tensor_affine"), float(0.5), int(2)];
        quantized(saved, "QUInt8Storage", &[0xFF, 2, 127], &[3], &parameters)
    });
    assert_eq!(bias, [126.5, 0.0, 62.5]);
    // Of the two output channels, the first has scale 1 and zero point 0, the second 0.25 and 4.
    let per_channel = |axis: usize, channels: usize| {
        move |saved: &mut Saved| {
            let scales =
                saved.storage("DoubleStorage", [1.0, 0.25_f64].map(f64::to_le_bytes).concat());
            let points = saved.storage("LongStorage", [0, 4_u64].map(u64::to_le_bytes).concat());
            let parameters = [
                scheme("per_channel_affine"),
                Saved::view(scales, 0, &[channels], &[1]),
                Saved::view(points, 0, &[channels], &[1]),
                int(axis),
            ];
            quantized(saved, "QInt8Storage", &[8; 18], &[2, 1, 3, 3], &parameters)
        }
    };
    let conv = values("conv1.weight", per_channel(0, 2));
    assert_eq!(conv, [[8.0; 9], [1.0; 9]].concat());
    for wrong in [per_channel(1, 2), per_channel(9, 2), per_channel(0, 1)] {
        let mut saved = Saved::default();
        let tensor = wrong(&mut saved);
        let root = saved.state_with("", &[("conv1.weight", tensor)]);
        assert!(Folder::new().refused(&saved.file(&root)).contains("scales or zero points"));
    }
    // What is computed is said.
    let mut saved = Saved::default();
    let conv = per_channel(0, 2)(&mut saved);
    let root = saved.state_with("", &[("conv1.weight", conv)]);
    let (found, _) = Folder::new().read(&saved.file(&root)).unwrap();
    assert_eq!(found.computed, ["conv1.weight = scale * (qint8 - zero_point)"]);
}

#[test]
fn kinds_that_are_not_read_are_named_where_they_are_parameters() {
    let special = |name: &'static str| call("torch._utils", name, &[int(0)]);
    let cases = [
        ("_rebuild_sparse_tensor", "`fc.bias` is a sparse tensor"),
        ("_rebuild_meta_tensor_no_storage", "`fc.bias` is a meta tensor without values"),
        ("_rebuild_wrapper_subclass", "`fc.bias` is a tensor of a subclass"),
    ];
    for (name, expected) in cases {
        let message = refused(|_| special(name));
        assert!(message.contains(expected), "{message}");
    }
    for (class, expected) in [
        ("CharStorage", "int8"),
        ("BoolStorage", "bool"),
        ("ComplexDoubleStorage", "complex128"),
        ("QUInt4x2Storage", "quint4x2"),
    ] {
        let message = refused(|saved| {
            let storage = saved.storage(class, vec![0; 48]);
            Saved::view(storage, 0, &[3], &[1])
        });
        assert!(message.contains(&format!("`fc.bias` has type {expected}")), "{message}");
    }
    // Beside the parameters, they do no harm; nor do types and schemes alone.
    let mut saved = Saved::default();
    let mut pairs: Vec<(&str, Vec<u8>)> =
        cases.iter().map(|(name, _)| (*name, special(name))).collect();
    let float8 = saved.storage("UntypedStorage", vec![0; 4]);
    let arguments = [
        float8,
        int(0),
        ints(&[4]),
        ints(&[1]),
        boolean(false),
        b"N".to_vec(),
        global("torch", "float8_e4m3fn"),
    ];
    pairs.extend([
        ("float8", call("torch._utils", "_rebuild_tensor_v3", &arguments)),
        ("dtype", global("torch", "uint16")),
        ("scheme", global("torch", "per_channel_symmetric")),
        ("layout", call("torch.serialization", "_get_layout", &[text("torch.sparse_coo")])),
        ("state_dict", saved.state("")),
    ]);
    let (found, state) = Folder::new().read(&saved.file(&dict(&pairs))).unwrap();
    assert_eq!(state, weights());
    assert_eq!(found.key, "state_dict");
    let ignored = [cases[1].0, cases[0].0, cases[2].0, "float8"];
    assert_eq!(found.ignored, ignored);
}

/// `numpy.array(values, dtype)` as protocol 2 writes it.
fn numpy(shape: &[usize], dtype: &str, order: &str, columns_first: bool, data: &[u8]) -> Vec<u8> {
    let latin1: String = data.iter().map(|&byte| char::from(byte)).collect();
    let encoded = |text: Vec<u8>| {
        let latin1 = self::text("latin1");
        call("_codecs", "encode", &[text, latin1])
    };
    let empty = [global("numpy", "ndarray"), ints(&[0]), encoded(text("b"))];
    let array = call("numpy._core.multiarray", "_reconstruct", &empty);
    let dtype = call("numpy", "dtype", &[text(dtype), boolean(false), boolean(true)]);
    let dtype = [dtype, tuple(&[int(3), text(order), b"N".to_vec()]), b"b".to_vec()].concat();
    let data = encoded(text(&latin1));
    let state = tuple(&[int(1), ints(shape), dtype, boolean(columns_first), data]);
    [array, state, b"b".to_vec()].concat()
}

#[test]
fn numpy_arrays_are_tensors() {
    let doubles: Vec<u8> = [1.5, -2.0, 240.0_f64].iter().flat_map(|v| v.to_be_bytes()).collect();
    let bias = values("fc.bias", |_| numpy(&[3], "f8", ">", false, &doubles));
    assert_eq!(bias, [1.5, -2.0, 240.0]);
    // Columns first: the value of each place is its number in the storage.
    let places = floats(&(0_u8..18).map(f32::from).collect::<Vec<_>>());
    let conv = values("conv1.weight", |_| numpy(&[2, 1, 3, 3], "f4", "<", true, &places));
    assert_eq!(conv[..4], [0.0, 6.0, 12.0, 2.0]);
    // Protocol 5 has another function and bytes as they are.
    let bias = values("fc.bias", |_| {
        let dtype = call("numpy", "dtype", &[text("<f4")]);
        let arguments = [bytes(&floats(&[1.0, 2.0, 3.0])), dtype, tuple(&[int(3)]), text("C")];
        call("numpy._core.numeric", "_frombuffer", &arguments)
    });
    assert_eq!(bias, [1.0, 2.0, 3.0]);
    let message = refused(|_| numpy(&[3], "O", "|", false, &[0; 24]));
    assert!(message.contains("`fc.bias` has type non-numeric"), "{message}");
    let message = refused(|_| numpy(&[3], "f4", "<", false, &[0; 8]));
    assert!(message.contains("ends beyond the 8 bytes"), "{message}");
}

#[test]
fn numbers_beyond_single_precision_are_no_divergence() {
    let folder = Folder::new();
    let check = |values: [f64; 3], strides: [usize; 1], offset: usize, expected: &str| {
        let mut saved = Saved::default();
        let mut bytes: Vec<u8> = vec![0; 8 * offset];
        for value in values {
            bytes.extend(value.to_le_bytes());
            bytes.resize(bytes.len() + 8 * (strides[0] - 1), 0);
        }
        let storage = saved.storage("DoubleStorage", bytes);
        let bias = Saved::view(storage, offset, &[3], &strides);
        let root = saved.state_with("", &[("fc.bias", bias)]);
        let message = folder.refused(&saved.file(&root));
        assert!(message.contains(expected), "`{message}` lacks `{expected}`");
    };
    check([0.5, 1e300, 0.5], [1], 0, "`fc.bias` holds 1e300 at index 1, which is out of the range");
    check([0.5, 1.0, -1e39], [2], 3, "`fc.bias` holds -1e39 at index 2, which is out of the range");
    check([0.5, f64::INFINITY, 1e300], [1], 0, "holds inf at index 1; the training it comes from");
    check([f64::NAN, 0.5, 1.0], [1], 0, "holds NaN at index 0; the training it comes from");
}
