//! Layers of networks, read from a table.

use std::{collections::HashSet, path::Path};

use releq_core::{
    LayerKind, LayerProfile,
    tables::{TextRow, TextTable},
    text::TextError,
};

/// Columns that a table of layers must have.
const COLUMNS: [&str; 11] = [
    "network", "layer", "type", "in_ch", "in_h", "in_w", "out_ch", "kernel", "stride", "pad",
    "groups",
];

/// Largest channel count or image side that is accepted; keeps every product below 2^63.
const MAX_SIZE: u64 = 1 << 20;

/// Reads the layers of a network from a table of comma-separated values; `network` may be left out where the table
/// has only one.
///
/// The table has one row for each layer and the columns `network,layer,type,in_ch,in_h,in_w,out_ch,kernel,stride,
/// pad,groups`, in any order; `type` is `conv`, `dw` or `fc`. The columns `layer_index`, `out_h`, `out_w` and
/// `weights` are optional and are checked against the others; any further column is ignored. Dialects are those of
/// [`releq_core::tables`]. The table has no biases.
///
/// A `conv` in as many groups as it has input channels is a depthwise convolution, as in the profiles of a network.
///
/// # Errors
/// [`TextError`] if the file cannot be read, lacks a column or the network, or contains a value that is not a valid
/// size or contradicts other values. The message names file, line and column.
pub fn read_layers(
    path: impl AsRef<Path>,
    network: Option<&str>,
) -> Result<Vec<LayerProfile>, TextError> {
    layers(&TextTable::read(path, &COLUMNS)?, network)
}

fn layers(table: &TextTable, network: Option<&str>) -> Result<Vec<LayerProfile>, TextError> {
    let mut names: Vec<&str> = Vec::new();
    for row in table.rows() {
        let name = row.text("network")?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let network = match (network, names.as_slice()) {
        (_, []) => return Err(table.error("no layers below the header")),
        (None, [only]) => *only,
        (None, several) => {
            let reason = format!("contains several networks; choose one of {}", several.join(", "));
            return Err(table.error(reason));
        }
        (Some(name), known) if known.contains(&name) => name,
        (Some(name), known) => {
            let reason = format!("no network `{name}`; the table contains {}", known.join(", "));
            return Err(table.error(reason));
        }
    };
    let (mut layers, mut known) = (Vec::new(), HashSet::new());
    for row in table.rows() {
        if row.text("network")? == network {
            let row = LayerRow(row);
            let layer = row.layer()?;
            row.must_be("layer_index", "the row's position in its network", layers.len() as u64)?;
            if !known.insert(layer.name.clone()) {
                let reason =
                    format!("`{network}` has two layers `{}`; give each its name", layer.name);
                return Err(row.0.error("layer", reason));
            }
            layers.push(layer);
        }
    }
    Ok(layers)
}

/// A row that describes a layer.
struct LayerRow<'t>(TextRow<'t>);

impl LayerRow<'_> {
    fn layer(&self) -> Result<LayerProfile, TextError> {
        let kind = match self.0.text("type")?.to_lowercase().as_str() {
            "conv" | "conv2d" => LayerKind::Conv2d,
            "dw" | "depthwise" => LayerKind::DepthwiseConv2d,
            "fc" | "linear" => LayerKind::Linear,
            other => {
                return Err(self
                    .0
                    .error("type", format!("expected conv, dw or fc, got `{other}`")));
            }
        };
        let name = self.0.text("layer")?.to_owned();
        if name.is_empty() || name == "total" {
            return Err(self.0.error("layer", format!("`{name}` is not a valid layer name")));
        }
        let (inputs, outputs) = (self.size("in_ch", 1)?, self.size("out_ch", 1)?);
        let mut layer = LayerProfile::linear(name, inputs, outputs);
        layer.in_height = self.size("in_h", 1)?;
        layer.in_width = self.size("in_w", 1)?;
        let (kernel, stride) = (self.size("kernel", 1)?, self.size("stride", 1)?);
        let padding = self.size("pad", 0)?;
        layer.kernel = kernel.into();
        layer.stride = stride.into();
        layer.padding = padding.into();
        layer.groups = self.size("groups", 1)?;
        let window = [kernel, stride, padding];
        layer.out_height = self.out_side(window, "in_h", layer.in_height)?;
        layer.out_width = self.out_side(window, "in_w", layer.in_width)?;
        layer.kind = self.checked_kind(kind, &layer)?;
        self.check_products(&layer)?;
        self.must_be("out_h", "the computed output height", layer.out_height as u64)?;
        self.must_be("out_w", "the computed output width", layer.out_width as u64)?;
        self.must_be("weights", "the computed number of weights", layer.weights())?;
        Ok(layer)
    }

    fn size(&self, column: &str, least: u64) -> Result<usize, TextError> {
        let size = self.0.whole(column)?;
        usize::try_from(size).ok().filter(|_| (least..=MAX_SIZE).contains(&size)).ok_or_else(|| {
            self.0.error(column, format!("expected {least} to {MAX_SIZE}, got {size}"))
        })
    }

    /// If the column has a value, it must be `expected`, which is computed from the other columns.
    fn must_be(&self, column: &str, what: &str, expected: u64) -> Result<(), TextError> {
        if self.0.find(column).is_none() {
            return Ok(());
        }
        let got = self.0.whole(column)?;
        if got == expected {
            return Ok(());
        }
        Err(self.0.error(column, format!("{got}, but {what} is {expected}")))
    }

    fn out_side(
        &self,
        [kernel, stride, padding]: [usize; 3],
        column: &str,
        side: usize,
    ) -> Result<usize, TextError> {
        let padded = side + 2 * padding;
        match padded.checked_sub(kernel) {
            Some(rest) => Ok(rest / stride + 1),
            None => {
                let reason =
                    format!("a kernel of {kernel} does not fit into {padded} padded pixels");
                Err(self.0.error(column, reason))
            }
        }
    }

    /// The kind that the layer has, if the row is one of the kind that it names.
    fn checked_kind(&self, kind: LayerKind, layer: &LayerProfile) -> Result<LayerKind, TextError> {
        let LayerProfile { groups, in_channels, out_channels, .. } = *layer;
        let areas = [layer.kernel.area(), layer.stride.area()];
        let one = [areas[0], areas[1], layer.in_height, layer.in_width, groups] == [1; 5];
        if kind == LayerKind::Linear {
            if !one || !layer.padding.is_zero() {
                let reason = "a fully connected layer has in_h, in_w, kernel, stride and groups of 1 \
                              and pad of 0";
                return Err(self.0.row_error(reason));
            }
            return Ok(kind);
        }
        if in_channels % groups != 0 || out_channels % groups != 0 {
            let reason =
                format!("{groups} groups do not divide {in_channels} and {out_channels} channels");
            return Err(self.0.error("groups", reason));
        }
        match kind {
            LayerKind::DepthwiseConv2d if groups != in_channels => {
                let reason =
                    format!("a depthwise layer of {in_channels} channels has {groups} groups");
                Err(self.0.error("groups", reason))
            }
            LayerKind::Conv2d if groups > 1 && groups == in_channels => {
                Ok(LayerKind::DepthwiseConv2d)
            }
            kind => Ok(kind),
        }
    }

    /// Rejects layers whose counts would not be exact.
    fn check_products(&self, layer: &LayerProfile) -> Result<(), TextError> {
        let product =
            |sizes: &[usize]| sizes.iter().try_fold(1_u64, |p, &s| p.checked_mul(s as u64));
        let LayerProfile { in_channels, out_channels, kernel, .. } = *layer;
        let (out_height, out_width) = (layer.out_height, layer.out_width);
        let macs = product(&[
            in_channels,
            out_channels,
            kernel.height,
            kernel.width,
            out_height,
            out_width,
        ]);
        let inputs = product(&[in_channels, layer.in_height, layer.in_width]);
        if macs.zip(inputs).is_some_and(|(macs, inputs)| macs.max(inputs) < 1 << 43) {
            return Ok(());
        }
        Err(self.0.row_error("the layer is too large to be counted exactly"))
    }
}

#[cfg(test)]
mod tests {
    use releq_core::CostModel;

    use super::*;
    use crate::{Stripes, uniform};

    const HEADER: &str = "network,layer,type,in_ch,in_h,in_w,out_ch,kernel,stride,pad,groups";

    fn read(text: &str, network: Option<&str>) -> Result<Vec<LayerProfile>, TextError> {
        layers(&TextTable::parse(text, "layers.csv", &COLUMNS)?, network)
    }

    #[test]
    fn a_convolution_with_a_group_for_every_channel_costs_what_the_depthwise_one_does() {
        let layer = |kind: &str| {
            let layers = read(&format!("{HEADER}\nn,c,{kind},32,14,14,32,3,1,1,32\n"), None);
            layers.unwrap()
        };
        let bits = uniform(4, 1).unwrap();
        for kind in ["conv", "dw", "Conv2d"] {
            let layers = layer(kind);
            assert_eq!(layers[0].kind, LayerKind::DepthwiseConv2d);
            assert_eq!(Stripes::default().network_cost(&layers, &bits).unwrap().0, 936.0);
        }
    }

    #[test]
    fn tables_of_spreadsheets_and_programs_are_read() {
        let plain =
            format!("{HEADER}\nn,conv1,conv,3,32,32,16,3,1,1,1\nn,fc,fc,16,1,1,10,1,1,0,1\n");
        let expected = read(&plain, None).unwrap();
        assert_eq!((expected[0].out_height, expected[1].kind), (32, LayerKind::Linear));
        let floats = format!(
            "{HEADER}\nn,conv1,conv,3.0,32.0,32.0,16.0,3.0,1.0,1.0,1.0\nn,fc,FC,16,1,1,10,1,1,0,1\n"
        );
        for text in [floats, plain.replace(',', ";"), plain.replace(',', "\t").to_uppercase()] {
            let mut layers = read(&text, None).unwrap();
            layers.iter_mut().for_each(|layer| layer.name = layer.name.to_lowercase());
            assert_eq!(layers, expected, "{text}");
        }
        let two = format!("{plain}m,c,conv,1,2,2,1,1,1,0,1\n");
        assert_eq!(read(&two, Some("n")).unwrap(), expected);
        assert_eq!(read(&two, Some("m")).unwrap().len(), 1);
    }

    #[test]
    fn a_layer_that_is_there_twice_is_refused() {
        let row = "n,c,conv,3,8,8,4,3,1,1,1\n";
        let message = read(&format!("{HEADER}\n{row}{row}"), None).unwrap_err().to_string();
        assert!(message.starts_with("layers.csv, line 3: column `layer`"), "{message}");
        let two = format!("{HEADER}\n{row}{}", row.replace("n,", "m,"));
        assert_eq!(read(&two, Some("m")).unwrap().len(), 1);
    }

    #[test]
    fn errors_name_line_and_column() {
        let check = |row: &str, expected: &str| {
            let message =
                read(&format!("{HEADER},weights\n{row}\n"), None).unwrap_err().to_string();
            assert!(message.starts_with("layers.csv, line 2"), "{message}");
            assert!(message.contains(expected), "`{message}` lacks `{expected}`");
        };
        check("n,c,pool,3,8,8,4,3,1,1,1,", "`type`: expected conv, dw or fc, got `pool`");
        check("n,total,conv,3,8,8,4,3,1,1,1,", "`layer`: `total` is not a valid");
        check("n,c,conv,3.5,8,8,4,3,1,1,1,", "`in_ch`: expected a whole number");
        check("n,c,conv,0,8,8,4,3,1,1,1,", "`in_ch`: expected 1 to 1048576, got 0");
        check("n,c,conv,3,2,8,4,3,1,0,1,", "`in_h`: a kernel of 3 does not fit into 2 padded");
        check("n,c,conv,3,8,8,4,3,1,1,2,", "`groups`: 2 groups do not divide 3 and 4");
        check("n,c,dw,4,8,8,4,3,1,1,2,", "`groups`: a depthwise layer of 4 channels has 2");
        check("n,c,fc,4,2,1,4,1,1,0,1,", "a fully connected layer has");
        check(
            "n,c,conv,3,8,8,4,3,1,1,1,7",
            "`weights`: 7, but the computed number of weights is 108",
        );
        check("n,c,conv,1048576,99999,99999,4,1,1,0,1,", "too large to be counted exactly");

        let table = |network| {
            let text = format!("{HEADER}\na,c,fc,1,1,1,1,1,1,0,1\nb,c,fc,1,1,1,1,1,1,0,1\n");
            read(&text, network).unwrap_err().to_string()
        };
        assert!(table(None).contains("choose one of a, b"));
        assert!(table(Some("c")).contains("no network `c`; the table contains a, b"));
        assert!(read(HEADER, None).unwrap_err().to_string().contains("no layers below"));
    }
}
