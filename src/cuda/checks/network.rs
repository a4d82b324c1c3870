//! Whole backbones against PyTorch and the CPU.

use std::sync::Arc;

use super::{Open, random};
use crate::{
    cuda::{
        backbone::DeviceBackbone,
        device::{Device, Memory},
        frozen::CudaBackbone,
        launch::Kernels,
        parameters::{Layout, Parameters},
        precision::Precision,
    },
    model::backbone::{
        Backbone, BackboneConfig, StateEntry,
        backbone_config::DarknetTinyConfig,
        golden_tests::{CIFAR, IMAGENET, Passes, check_passes, deviation},
    },
};

/// A backbone's passes on a device, behind the trait that the goldens are held against.
struct DevicePasses {
    host: Backbone,
    kernels: Kernels,
    parameters: Parameters,
    backbone: DeviceBackbone,
}

impl DevicePasses {
    fn new(device: &Arc<dyn Device>, host: Backbone) -> Self {
        let (kernels, mut layout) = (Kernels::new(device), Layout::default());
        let mut backbone = DeviceBackbone::new(&kernels, &host, &mut layout).unwrap();
        let parameters = Parameters::new(&kernels, layout, true).unwrap();
        backbone.load(&parameters, &host).unwrap();
        parameters.refresh_weights().unwrap();
        Self { host, kernels, parameters, backbone }
    }
}

impl Passes for DevicePasses {
    fn eval(&mut self, images: &[f32], n: usize, size: usize) -> Vec<f32> {
        let dims = self.host.check_batch(images, n, size).unwrap();
        self.backbone.forward_eval(&self.parameters, &dims, images, n, size).unwrap()
    }

    fn train(&mut self, views: &[&[f32]], n: usize, size: usize, grad_features: &[f32]) -> Vec<f32> {
        let dims = self.host.check_views(views, n, size).unwrap();
        let output = self.backbone.forward_train(&self.parameters, &dims, views, n, size).unwrap();
        let mut features = vec![0.0; grad_features.len()];
        self.kernels.device().download(output, bytemuck::cast_slice_mut(&mut features)).unwrap();
        let gradient = Memory::of(self.kernels.device(), grad_features).unwrap();
        self.backbone.backward(&self.parameters, gradient.all(), false).unwrap();
        features
    }

    fn all_gradients(&mut self) -> Vec<f32> {
        let mut gradients = vec![0.0; self.host.num_parameters()];
        for (offset, place) in self.backbone.pairs() {
            self.parameters.read_gradient(place, &mut gradients[offset..][..place.len]).unwrap();
        }
        gradients
    }

    fn state(&mut self) -> Vec<StateEntry> {
        self.backbone.store(&self.parameters, &mut self.host).unwrap();
        self.host.state_dict()
    }
}

/// Features, gradients and statistics of a backbone in f32 against PyTorch in float64. `file` is one of
/// `tests/golden/backbone` without its ending.
pub fn backbone_is_pytorchs(open: Open<'_>, file: &str) {
    let mut parts = file.rsplitn(3, '_');
    let (numbers, stem, name) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let (n, size) = numbers.split_once('x').unwrap();
    let resnet = if stem == "cifar" { CIFAR } else { IMAGENET };
    let config = match name {
        "resnet18" => BackboneConfig::Resnet18(resnet),
        "resnet34" => BackboneConfig::Resnet34(resnet),
        "resnet50" => BackboneConfig::Resnet50(resnet),
        _ => BackboneConfig::DarknetTiny(DarknetTinyConfig {}),
    };
    let device = open(Precision::F32);
    let engine = |host| DevicePasses::new(&device, host);
    check_passes(config, &format!("{file}.safetensors"), n.parse().unwrap(), size.parse().unwrap(), engine);
}

/// Features at inference in every precision against the CPU's; twice, and for another batch in between.
pub fn inference_is_the_cpus(open: Open<'_>) {
    let (n, size) = (3, 16);
    let mut host = Backbone::build(&BackboneConfig::DarknetTiny(DarknetTinyConfig {}), 5).unwrap();
    let images = random("images", n * size * size * 3);
    // Running statistics that are not 0 and 1.
    host.forward_train(&[&images], n, size).unwrap();
    let expected = host.forward_eval(&images, n, size).unwrap();
    for precision in Precision::ALL {
        let engine = CudaBackbone::new(&open(precision), &host).unwrap();
        let found = engine.forward_eval(&host, &images, n, size).unwrap();
        let tolerance = match precision {
            Precision::F32 => 1e-5,
            Precision::Bf16 => 4e-2,
            Precision::Tf32 | Precision::F16 => 5e-3,
        };
        let off = deviation(&found, &expected);
        assert!(off < tolerance, "{}: off by {off}", precision.name());
        // An image has the same features whatever it is batched with.
        let one = engine.forward_eval(&host, &images[..size * size * 3], 1, size).unwrap();
        assert_eq!(one, found[..host.feature_dim()]);
        assert_eq!(engine.forward_eval(&host, &images, n, size).unwrap(), found);
    }
}
