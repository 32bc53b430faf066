//! Memory that runs of packed networks take: counted for all threads, so there is one test here.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]
#![allow(unreachable_pub, reason = "a module is that of another crate as well")]

#[path = "support/counting.rs"]
mod counting;

use releq::{
    data::{Dataset, ImageSet, Normalization},
    train::initial_weights,
    zoo,
};
use releq_kernels::Isa;
use releq_runtime::{Mode, Model, Options};
use releq_test_support::deployed::packed;

/// After the first run, one on one thread takes no memory.
#[test]
fn runs_after_the_first_allocate_nothing() {
    for name in ["lenet", "resnet20", "mobilenet_v1"] {
        let network = zoo::by_name(name).unwrap();
        let [channels, height, width] = network.input();
        let pixels = (0..channels * height * width).map(|at| (at % 251) as u8).collect();
        let images =
            ImageSet::new("one", network.input(), network.outputs(), pixels, vec![0]).unwrap();
        let normalization = Normalization::new(vec![0.5; channels], vec![0.25; channels]).unwrap();
        let bits = vec!["4"; network.quantizable_layers()].join("-");
        let packed = packed(&network, initial_weights(&network, 1), &bits, &images, &normalization);
        let (mut x, mut labels) = (Vec::new(), Vec::new());
        images.gather(&[0], &normalization, &mut x, &mut labels).unwrap();
        for (isa, mode) in Isa::available().flat_map(|isa| [(isa, Mode::Best), (isa, Mode::Int8)]) {
            let options = Options { isa, mode, ..Options::default() };
            let mut model = Model::compile(&packed, &options).unwrap();
            let mut logits = vec![0.0; model.outputs()];
            model.run(&x, &mut logits).unwrap();
            let (result, bytes) = counting::peak(|| model.run(&x, &mut logits));
            result.unwrap();
            assert_eq!(bytes, 0, "{name} {isa} {mode:?}");
        }
    }
}
