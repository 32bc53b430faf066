//! MobileNet-V1.

use releq_core::{Activation, Conv2d, Network, NetworkBuilder, NetworkError, Op};

use crate::valid;

/// MobileNet-V1 (Howard et al. 2017, arXiv 1704.04861) with width multiplier 1: 224x224 color images, 1000
/// classes, 28 quantizable layers, 4,231,976 parameters.
///
/// ReLU and symmetric padding, as the ReLeQ authors' PyTorch model has them; see [`mobilenet_v1_tf`].
#[must_use]
pub fn mobilenet_v1() -> Network {
    valid(MobileNetV1::default().builder("mobilenet_v1"))
}

/// As [`mobilenet_v1`], but as its published weights were trained, in TensorFlow: ReLU6, padding on the right and
/// below where the stride is 2, an epsilon of 0.001 in batch norms.
///
/// The parameters have the same names and shapes, so the same files fit both.
#[must_use]
pub fn mobilenet_v1_tf() -> Network {
    let config = MobileNetV1 { tensorflow: true, ..MobileNetV1::default() };
    valid(config.builder("mobilenet_v1_tf"))
}

/// The choices that MobileNet-V1 leaves.
///
/// ```
/// use releq_zoo::MobileNetV1;
///
/// let config = MobileNetV1 { width_multiplier: 0.25, classes: 10, side: 32, tensorflow: true };
/// let network = config.network("mobilenet_v1_025")?;
/// assert_eq!(network.outputs(), 10);
/// assert_eq!(network.profiles()[27].in_channels, 256);
/// # Ok::<(), releq_core::NetworkError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MobileNetV1 {
    /// Factor of the number of channels of every layer; the result is rounded down, and at least 8, as in
    /// TensorFlow's model.
    pub width_multiplier: f64,
    /// Number of outputs.
    pub classes: usize,
    /// Sides of the square images; a multiple of 32 halves without remainder.
    pub side: usize,
    /// Whether it is as in TensorFlow, where the published weights come from: ReLU6, padding as little as `SAME`
    /// does and the smaller half of it first, an epsilon of 0.001 in batch norms.
    pub tensorflow: bool,
}

/// Full width, 1000 classes, images of 224 x 224, ReLU and symmetric padding.
impl Default for MobileNetV1 {
    fn default() -> Self {
        Self { width_multiplier: 1.0, classes: 1000, side: 224, tensorflow: false }
    }
}

impl MobileNetV1 {
    /// The network, under a name of its own.
    ///
    /// # Errors
    /// [`NetworkError`] for sizes of zero, or that are too large to exist.
    pub fn network(self, name: &str) -> Result<Network, NetworkError> {
        self.builder(name).build()
    }

    fn builder(self, name: &str) -> NetworkBuilder {
        let width = |channels: usize| ((channels as f64 * self.width_multiplier) as usize).max(8);
        let norm =
            Op::BatchNorm { epsilon: if self.tensorflow { 1e-3 } else { 1e-5 }, momentum: 0.1 };
        let act = if self.tensorflow { Op::Activation(Activation::RELU6) } else { Op::Relu };
        let mut side = self.side;
        // A convolution of 3x3, and the side of what it gives.
        let mut windows = |channels, stride: usize| {
            let conv = Conv2d::new(channels, 3).stride(stride).without_bias();
            let out = side.div_ceil(stride);
            let needed = (out.saturating_sub(1) * stride + 3).saturating_sub(side);
            side = out;
            let (before, behind) = (needed / 2, needed.div_ceil(2));
            if self.tensorflow {
                conv.padding([before, before, behind, behind])
            } else {
                conv.padding(1)
            }
        };
        let mut channels = width(32);
        let mut builder = Network::builder(name, [3, self.side, self.side])
            .conv("model.0.0", windows(channels, 2))
            .layer("model.0.1", norm, &[])
            .layer("model.0.2", act, &[]);
        let blocks = [
            (64, 1),
            (128, 2),
            (128, 1),
            (256, 2),
            (256, 1),
            (512, 2),
            (512, 1),
            (512, 1),
            (512, 1),
            (512, 1),
            (512, 1),
            (1024, 2),
            (1024, 1),
        ];
        for (index, (out_channels, stride)) in blocks.into_iter().enumerate() {
            let name = |part: usize| format!("model.{}.{part}", index + 1);
            builder = builder
                .conv(name(0), windows(channels, stride).groups(channels))
                .layer(name(1), norm, &[])
                .layer(name(2), act, &[])
                .conv(name(3), Conv2d::new(width(out_channels), 1).without_bias())
                .layer(name(4), norm, &[])
                .layer(name(5), act, &[]);
            channels = width(out_channels);
        }
        builder.global_avg_pool("avgpool").linear("fc", self.classes)
    }
}

#[cfg(test)]
mod tests {
    use releq_core::{LayerProfile, parameter_shapes};

    use super::*;

    #[test]
    fn tensorflow_pads_as_little_as_the_size_needs() {
        let pads = |side: usize| -> Vec<String> {
            let config = MobileNetV1 { side, tensorflow: true, ..MobileNetV1::default() };
            let network = config.network("padding").unwrap();
            let strided = network.profiles().into_iter().filter(|layer| layer.stride == 2.into());
            strided.map(|layer| layer.padding.to_string()).collect()
        };
        assert_eq!(pads(224), vec!["[0, 0, 1, 1]"; 5]);
        // Sides of 75, 38, 19, 10, 5.
        let odd = "1";
        assert_eq!(pads(75), [odd, "[0, 0, 1, 1]", odd, "[0, 0, 1, 1]", odd]);
    }

    #[test]
    fn both_variants_have_the_same_parameters_and_work() {
        let (ours, theirs) = (mobilenet_v1(), mobilenet_v1_tf());
        assert!(parameter_shapes(&ours).eq(parameter_shapes(&theirs)));
        let macs =
            |network: &Network| -> u64 { network.profiles().iter().map(LayerProfile::macs).sum() };
        // Table 6 of the paper: 569 million.
        assert_eq!((macs(&ours), macs(&theirs)), (568_740_352, 568_740_352));
        // Table 6: half the width has 149 million and 1.3 million parameters.
        let half = MobileNetV1 { width_multiplier: 0.5, ..MobileNetV1::default() };
        let half = half.network("half").unwrap();
        assert_eq!(macs(&half), 149_497_088);
        let parameters: usize =
            parameter_shapes(&half).map(|(_, shape)| shape.iter().product::<usize>()).sum();
        assert!((1_300_000..1_400_000).contains(&parameters), "{parameters}");
    }

    #[test]
    fn sizes_of_nothing_are_refused() {
        for config in [
            MobileNetV1 { classes: 0, ..MobileNetV1::default() },
            MobileNetV1 { side: 0, ..MobileNetV1::default() },
            MobileNetV1 { side: 0, tensorflow: true, ..MobileNetV1::default() },
            MobileNetV1 { width_multiplier: 1e18, ..MobileNetV1::default() },
        ] {
            assert!(config.network("nothing").is_err(), "{config:?}");
        }
        let narrow = MobileNetV1 { width_multiplier: f64::NAN, ..MobileNetV1::default() };
        assert_eq!(narrow.network("narrow").unwrap().profiles()[0].out_channels, 8);
    }
}
