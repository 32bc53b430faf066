//! Valid inputs of every reader, made here or saved by PyTorch.

use std::io::{Cursor, Read, Write};

use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use releq_core::{Bitwidth, BitwidthAssignment, Parameter, Weights, parameter_shapes};
use releq_data::{ImageSet, bundle};
use releq_format::{
    QuantizedNetwork,
    onnx::{self, ExportConfig, Form, Frame},
    packed::{self, Packed},
};
use releq_quant::{ActivationGrid, ActivationGrids, QuantizerKind};
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

use crate::readers::{resealed, tiny};

/// Names of CIFAR-10's Python batches.
pub const BATCHES: [&str; 6] =
    ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"];

const TINY_ZIP: &[u8] = include_bytes!("../../golden/tiny_zip.pt");
const TINY_LEGACY: &[u8] = include_bytes!("../../golden/tiny_legacy.pth");

/// `to` with all of `bytes` written; nothing here is written to what can fail.
pub(crate) fn write_all<W: Write>(mut to: W, bytes: &[u8]) -> W {
    to.write_all(bytes).unwrap_or_default();
    to
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    write_all(GzEncoder::new(Vec::new(), Compression::best()), bytes).finish().unwrap_or_default()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Images and labels.
pub fn idx() -> Vec<Vec<u8>> {
    let images = [0x803_u32, 3, 4, 5].into_iter().flat_map(u32::to_be_bytes).chain(0..60);
    let labels = [0x801_u32, 7].into_iter().flat_map(u32::to_be_bytes).chain([5, 0, 4, 1, 9, 2, 1]);
    let (images, labels) = (images.collect(), labels.collect());
    vec![images, labels]
}

/// The same in gzip, in one part and in two.
pub fn gzip() -> Vec<Vec<u8>> {
    let mut files: Vec<_> = idx().iter().map(|bytes| gz(bytes)).collect();
    files.extend(idx().iter().map(|bytes| [gz(&bytes[..9]), gz(&bytes[9..])].concat()));
    files
}

/// An archive of binary batches of one image, plain and in gzip, and one of Python batches.
pub fn tar() -> Vec<Vec<u8>> {
    let archive = |suffix: &str, bytes: &[u8]| {
        let mut archive = tar::Builder::new(Vec::new());
        for name in BATCHES {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            let name = format!("cifar-10/{name}{suffix}");
            archive.append_data(&mut header, name, bytes).unwrap_or_default();
        }
        archive.into_inner().unwrap_or_default()
    };
    let record: Vec<u8> = (0..3073).map(|at: u32| (at % 7) as u8).collect();
    let binary = archive(".bin", &record);
    let packed = gz(&binary);
    vec![binary, packed, archive("", &cifar_pickle()[0])]
}

/// A batch of one image, as Python 2 wrote the published ones and with labels in an array.
pub fn cifar_pickle() -> Vec<Vec<u8>> {
    let array = |dims: &[u8], bytes: &[u8]| {
        let mut pickle = b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\n".to_vec();
        pickle.extend(b"K\x00\x85U\x01b\x87R(K\x01");
        pickle.extend(dims);
        pickle.extend(b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff");
        pickle.extend(b"J\xff\xff\xff\xffK\x00tb\x89T");
        pickle.extend((bytes.len() as u32).to_le_bytes());
        pickle.extend(bytes);
        pickle.extend(b"tb");
        pickle
    };
    let image: Vec<u8> = (0..3072).map(|at: u32| (at % 251) as u8).collect();
    let data = array(b"K\x01M\x00\x0c\x86", &image);
    let list = b"]q\x05K\x03a".to_vec();
    let labels = array(b"K\x01\x85", &[3]);
    let batch = |labels: &[u8]| {
        [b"\x80\x02}q\x01(U\x06labelsq\x04", labels, b"U\x04dataq\x06", &data, b"u."].concat()
    };
    vec![batch(&list), batch(&labels)]
}

/// One image of SVHN and its label, plain and compressed.
pub fn matlab() -> Vec<Vec<u8>> {
    let part = |kind: u32, bytes: &[u8]| {
        let mut part = words(&[kind, bytes.len() as u32]);
        part.extend(bytes);
        part.resize(part.len().next_multiple_of(8), 0);
        part
    };
    let variable = |name: &str, dims: &[u32], values: &[u8]| {
        let flags = [9, 0, 0, 0, 0, 0, 0, 0];
        let (dims, name) = (part(5, &words(dims)), part(1, name.as_bytes()));
        part(14, &[part(6, &flags), dims, name, part(2, values)].concat())
    };
    let image: Vec<u8> = (0..3072).map(|at: u32| (at % 253) as u8).collect();
    let variables = [variable("X", &[32, 32, 3, 1], &image), variable("y", &[1, 1], &[10])];
    let header = [&[b' '; 124][..], &[0, 1, b'I', b'M']].concat();
    let pack = |variable: &Vec<u8>| {
        let encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        let bytes = write_all(encoder, variable).finish().unwrap_or_default();
        [words(&[15, bytes.len() as u32]), bytes].concat()
    };
    let packed = variables.each_ref().map(pack);
    vec![[&header[..], &variables.concat()].concat(), [header, packed.concat()].concat()]
}

fn picture(number: u32) -> RgbImage {
    let pixel = |x: u32, y: u32| Rgb([x * y + number, 9 * x + y, x ^ y].map(|value| value as u8));
    RgbImage::from_fn(19, 14, pixel)
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap_or_default();
    bytes.into_inner()
}

/// A small PNG image; each number gives another.
pub fn png(number: u32) -> Vec<u8> {
    encoded(&picture(number).into(), ImageFormat::Png)
}

/// Images in all formats: in colour, gray, transparent, with 16 bits per sample.
pub fn image() -> Vec<Vec<u8>> {
    let rgb = DynamicImage::from(picture(0));
    let forms = [
        rgb.clone(),
        rgb.to_luma8().into(),
        rgb.to_luma_alpha8().into(),
        rgb.to_rgba8().into(),
        rgb.to_luma16().into(),
        rgb.to_rgb16().into(),
        rgb.to_rgba16().into(),
    ];
    let formats = [
        ImageFormat::Jpeg,
        ImageFormat::Png,
        ImageFormat::WebP,
        ImageFormat::Bmp,
        ImageFormat::Tiff,
        ImageFormat::Pnm,
    ];
    let all =
        formats.iter().flat_map(|&format| forms.iter().map(move |form| encoded(form, format)));
    // Some formats do not have some forms.
    let mut files: Vec<Vec<u8>> = all.filter(|bytes| bytes.len() > 64).collect();
    files.push(b"P3\n2 2\n255\n1 2 3 4 5 6 7 8 9 10 11 12\n".to_vec());
    files.push(b"P1\n4 2\n0 1 1 0\n1 0 0 1\n".to_vec());
    files.push(b"P4\n9 2\n\xaa\x80\x55\0".to_vec());
    files
}

/// Tiny ImageNet's list, with the corners of the objects.
pub fn class_list() -> Vec<Vec<u8>> {
    vec![
        b"val_0.png\tn0344\t0\t32\t44\t62\nval_1.png\tn0406\t52\t55\t57\t59\n".to_vec(),
        b"val_0.png one\nval_1.png two\n".to_vec(),
    ]
}

pub fn class_numbers() -> Vec<Vec<u8>> {
    vec![
        b"\"index\",\"name\"\n0,cat\n2,\"dog, brown\"\n".to_vec(),
        b"cat\nsea lion\nsea\n".to_vec(),
        b"cat 1\ndog\t0\n".to_vec(),
        br#"{"cat": 0, "dog": "1"}"#.to_vec(),
        br#"{"0": ["n1", "cat"], "1": ["n2", "dog"]}"#.to_vec(),
        br#"["cat", "dog"]"#.to_vec(),
    ]
}

pub fn image_list() -> Vec<Vec<u8>> {
    vec![
        b"path,label,split\n0.png,cat,train\n1.png,dog,test\n".to_vec(),
        b"file;class\n0.png;0.0\n1.png;1.0\n".to_vec(),
        b"path\tfile\n./0.png\t0.png\n1.png\t1.png\n".to_vec(),
    ]
}

/// Pickles of protocols 0, 2 and 4.
pub fn pickle() -> Vec<Vec<u8>> {
    let mut files = vec![
        b"(dp0\nS'a'\np1\nI1\nsVb\np2\n(lp3\nF1.5\naL7L\nasccollections\nOrderedDict\n(tR.".to_vec(),
        b"\x80\x04\x95\x1a\0\0\0\0\0\0\0}\x94(\x8c\x01a\x94K\x01\x8c\x01b\x94]\x94(G?\xf8\0\0\0\0\0\0\x88Neu."
            .to_vec(),
    ];
    files.push(cifar_pickle().swap_remove(1));
    files.push(TINY_LEGACY.to_vec());
    files.extend(pytorch_pickle());
    files
}

/// PyTorch's archive, as it was saved and compressed.
pub fn pytorch_zip() -> Vec<Vec<u8>> {
    let entries = entries();
    let entries: Vec<(&str, &[u8])> =
        entries.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
    vec![TINY_ZIP.to_vec(), zipped(&entries, CompressionMethod::Deflated)]
}

/// The pickle in it.
pub fn pytorch_pickle() -> Vec<Vec<u8>> {
    let pickles = entries().into_iter().filter(|(name, _)| name.ends_with("data.pkl"));
    pickles.map(|(_, bytes)| bytes).collect()
}

/// What PyTorch wrote before it had an archive.
pub fn pytorch_legacy() -> Vec<Vec<u8>> {
    vec![TINY_LEGACY.to_vec()]
}

/// An archive of PyTorch with this pickle and a few storages.
pub fn archive(pickle: &[u8]) -> Vec<u8> {
    let storages: Vec<String> = (0..13).map(|number| format!("tiny_zip/data/{number}")).collect();
    let mut entries = vec![("tiny_zip/data.pkl", pickle), ("tiny_zip/byteorder", b"little")];
    entries.extend(storages.iter().map(|name| (name.as_str(), &[1_u8; 96][..])));
    zipped(&entries, CompressionMethod::Stored)
}

fn entries() -> Vec<(String, Vec<u8>)> {
    let Ok(mut archive) = ZipArchive::new(Cursor::new(TINY_ZIP)) else { return Vec::new() };
    let entry = |index| {
        let mut entry = archive.by_index(index).ok()?;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).ok()?;
        Some((entry.name().ok()?.into_owned(), bytes))
    };
    (0..19).map_while(entry).collect()
}

fn zipped(entries: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in entries {
        archive.start_file(*name, options).unwrap_or_default();
        archive.write_all(bytes).unwrap_or_default();
    }
    archive.finish().map(Cursor::into_inner).unwrap_or_default()
}

/// The network's weights, in single and in half precision.
pub fn safetensors() -> Vec<Vec<u8>> {
    let shapes: [(&str, &[usize]); 7] = [
        ("0.weight", &[2, 1, 3, 3]),
        ("1.weight", &[2]),
        ("1.bias", &[2]),
        ("1.running_mean", &[2]),
        ("1.running_var", &[2]),
        ("3.weight", &[3, 8]),
        ("3.bias", &[3]),
    ];
    let file = |dtype: &str, size: usize| {
        let (mut header, mut at) = (Vec::new(), 0);
        for (name, shape) in shapes {
            let end = at + size * shape.iter().product::<usize>();
            header.push(format!(
                r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{at},{end}]}}"#
            ));
            at = end;
        }
        let header = format!("{{{}}}", header.join(","));
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![1; at]].concat()
    };
    vec![file("F32", 4), file("F16", 2)]
}

/// Accuracies, with commas, and with semicolons and decimal commas.
pub fn table() -> Vec<Vec<u8>> {
    vec![
        b"bits,accuracy,layer\n2-2-3-2,0.991,1\n\"8-8-8-8\",0.995,2\n".to_vec(),
        "\u{feff}Bits;Accuracy;Layer\r\n2-2;92,5;1\r\n4-4;93;2.0\r\n".as_bytes().to_vec(),
        b"sep=\t\nbits\taccuracy\tlayer\n2\t1e-3\t5\n".to_vec(),
    ]
}

/// The layers of a network.
pub fn layers() -> Vec<Vec<u8>> {
    vec![
        b"network,layer,type,in_ch,in_h,in_w,out_ch,kernel,stride,pad,groups\n\
          lenet,conv1,conv,1,28,28,20,5,1,0,1\nlenet,fc1,fc,800,1,1,500,1,1,0,1\n\
          lenet,dw,dw,16,8,8,16,3,2,1,16\n"
            .to_vec(),
    ]
}

/// Latencies of one layer.
pub fn latencies() -> Vec<Vec<u8>> {
    let row = |name: &str, inputs: u32| {
        format!(
            r#"{{"layer":{{"name":"{name}","kind":"linear","in_channels":{inputs},"in_height":1,"in_width":1,
            "out_channels":16,"kernel":1,"stride":1,"padding":0,"groups":1,"out_height":1,"out_width":1,
            "bias":true}},"bits":{{"weight":4,"activation":8}},"kernel":"packed","timing":{{"median_us":1.5,
            "min_us":1.25,"low_us":1.4,"high_us":1.6,"repeats":11}}}}"#
        )
    };
    let table = format!(
        r#"{{"format":2,"machine":{{"architecture":"x86_64","processor":"Some processor","revision":[6,143,8],
        "isa":"avx2"}},"date":"2026-11-27T00:00:00Z","commit":null,"kernels":"best","isa":"avx2","threads":1,
        "rows":[{},{}]}}"#,
        row("fc1", 8),
        row("fc2", 16)
    );
    vec![resealed(table.as_bytes())]
}

/// Numbers in UTF-8 and UTF-16.
pub fn text() -> Vec<Vec<u8>> {
    let text = "[0.5, -1e-3; 2.0]\n3 4.25\r\n";
    let utf16 = std::iter::once(0xfeff).chain(text.encode_utf16());
    vec![
        text.as_bytes().to_vec(),
        utf16.clone().flat_map(u16::to_le_bytes).collect(),
        utf16.flat_map(u16::to_be_bytes).collect(),
        b"3,0\n3.000 1,234.5 \xef\xbb\xbf".to_vec(),
    ]
}

/// Weights beside one of the models, and what the model calls their file.
pub const ONNX_DATA: &[u8] =
    include_bytes!("../../golden/onnx/residual_a_dynamo_external.onnx.data");
/// Its name.
pub const ONNX_DATA_NAME: &str = "residual_a_dynamo_external.onnx.data";

/// Models of all exporters.
pub fn onnx() -> Vec<Vec<u8>> {
    let models: [&[u8]; 6] = [
        include_bytes!("../../golden/onnx/caffe_inputs.onnx"),
        include_bytes!("../../golden/onnx/functions_legacy.onnx"),
        include_bytes!("../../golden/onnx/keras_channels_last.onnx"),
        include_bytes!("../../golden/onnx/paddle_constants.onnx"),
        include_bytes!("../../golden/onnx/residual_a_dynamo_external.onnx"),
        include_bytes!("../../golden/onnx/shuffle_dynamo.onnx"),
    ];
    let exports = Form::ALL.iter().flat_map(|&form| {
        let config = ExportConfig { form, ..ExportConfig::default() };
        quantized().into_iter().filter_map(move |model| {
            let frame = Frame::of(model.network());
            Some(onnx::export(&model, &frame, &config).ok()?.bytes)
        })
    });
    models.iter().map(|model| model.to_vec()).chain(exports).collect()
}

/// Packed files, with a scale for each layer and for each channel.
pub fn packed() -> Vec<Vec<u8>> {
    let plain = quantized().into_iter().map(Packed::from);
    let with_activations = quantized().into_iter().map(|model| {
        let grid = ActivationGrid { scale: 0.5, zero_point: 7, bits: Bitwidth::EIGHT };
        let nodes = model.network().nodes();
        let layers = nodes.iter().map(|node| (node.name.clone(), grid)).collect();
        let activations = Some(ActivationGrids { input: grid, layers });
        Packed { activations, ..Packed::from(model) }
    });
    plain.chain(with_activations).filter_map(|packed| packed::encode(&packed).ok()).collect()
}

/// The network of the readers at few bits.
fn quantized() -> Vec<QuantizedNetwork> {
    let quantized = |bits: [u8; 2], kind: QuantizerKind| {
        let network = tiny()?;
        let parameter = |(name, shape): (String, Vec<usize>)| {
            let values =
                (0..shape.iter().product()).map(|index| index as f32 / 7.0 + 0.1).collect();
            (name, Parameter { shape, values })
        };
        let weights = Weights(parameter_shapes(&network).map(parameter).collect());
        let bits = BitwidthAssignment::from_bits(bits).ok()?;
        QuantizedNetwork::new(network, weights, &bits, &*kind.build()).ok()
    };
    [
        quantized([3, 1], QuantizerKind::WrpnScaled),
        quantized([2, 8], QuantizerKind::WrpnScaledPerChannel),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Two sets, with and without labels.
pub fn bundle() -> Vec<Vec<u8>> {
    let labelled = ImageSet::new("one", [1, 2, 2], 300, (0..12).collect(), vec![299, 0, 7]);
    let unlabelled = ImageSet::unlabelled("two", [3, 1, 1], (0..6).collect());
    let sets = labelled.and_then(|one| bundle::to_bytes(&[&one, &unlabelled?]));
    sets.into_iter().collect()
}

/// Images in an archive, as they are and compressed, and alone.
pub fn npz() -> Vec<Vec<u8>> {
    let archive = include_bytes!("../../golden/onnx/mlp_softmax_dynamo.npz");
    let array = || {
        let mut array = Vec::new();
        let mut archive = ZipArchive::new(Cursor::new(archive)).ok()?;
        archive.by_name("x.npy").ok()?.read_to_end(&mut array).ok()?;
        Some(array)
    };
    let array = array().unwrap_or_default();
    vec![archive.to_vec(), zipped(&[("x.npy", &array)], CompressionMethod::Deflated), array]
}
