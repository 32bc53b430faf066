//! Training on images that stay on disk.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::{fs, ops::ControlFlow, sync::Arc};

use image::{Rgb, RgbImage};
use releq_core::{Network, Weights};
use releq_data::{Cache, Dataset, ImageFolder, ImageFolderConfig, Normalization};
use releq_quant::WrpnScaled;
use releq_train::{Length, NativeTrainer, Schedule, Sgd, Trainer, accuracy, train};

#[test]
fn training_reads_a_folder_as_it_reads_images_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    for (class, first) in [("ant", 0), ("bee", 3)] {
        fs::create_dir_all(dir.path().join(class)).unwrap();
        for seed in first..first + 3 {
            let colour = |x: u32, y: u32| [x * 9 + seed * 31, y * 13 + seed, seed * 50];
            let picture = RgbImage::from_fn(8, 6, |x, y| Rgb(colour(x, y).map(|v| v as u8)));
            picture.save(dir.path().join(class).join(format!("{seed}.png"))).unwrap();
        }
    }
    let config = ImageFolderConfig { cache: Cache::Off, ..Default::default() };
    let folder = ImageFolder::open(dir.path(), &config).unwrap();
    let images = folder.load().unwrap().images;
    let network = Network::builder("tiny", [3, 6, 8])
        .conv2d("conv", 4, 3)
        .relu("relu")
        .flatten("flatten")
        .linear("fc", 2)
        .build()
        .unwrap();
    let normalization = Normalization::measured(&images).unwrap();
    let trained = |data: &dyn Dataset| -> (Weights, usize) {
        let mut trainer = NativeTrainer::new(&network, Arc::new(WrpnScaled::default())).unwrap();
        let sgd = Sgd { learning_rate: 0.05, momentum: 0.9, weight_decay: 0.0 };
        let schedule = Schedule::new(Length::Steps(20), 4, sgd);
        let mut go_on = |_| ControlFlow::Continue(());
        train(&mut trainer, data, &normalization, &schedule, 3, &mut go_on).unwrap();
        let report = accuracy(&mut trainer, data, &normalization, 4).unwrap();
        (trainer.weights(), report.correct)
    };
    assert_eq!(trained(&folder), trained(&images));
}
