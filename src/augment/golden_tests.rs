//! Operations against torchvision (on PIL images) and TensorFlow; `scripts/goldens/augment.py` made the references.

use std::path::PathBuf;

use safetensors::SafeTensors;
use serde_json::Value;

use super::{
    ImageRef,
    augment_config::{EvaluationViewConfig, Interpolation},
    color_jitter::ColorChange,
    crop::center_offset,
    erase::Fill,
    evaluation_view::EvaluationView,
    flip::Beyond,
    planes::Planes,
    policy::Scratch,
    resample::Rect,
    tf_color,
    view_op::{Canvas, FinishedView, PinnedOp, ViewInProgress},
};

fn golden(name: &str) -> (Vec<u8>, Value) {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/augment");
    let tensors = std::fs::read(dir.join(format!("{name}.safetensors"))).unwrap();
    let cases = serde_json::from_slice(&std::fs::read(dir.join(format!("{name}.json"))).unwrap()).unwrap();
    (tensors, cases)
}

fn number(case: &Value, key: &str) -> f64 {
    case[key].as_f64().unwrap_or_else(|| panic!("{key} of {case}"))
}

fn change(change: ColorChange) -> PinnedOp {
    PinnedOp::ColorJitter([Some(change), None, None, None])
}

fn filter(case: &Value) -> Interpolation {
    match case["interpolation"].as_str() {
        Some("bicubic") => Interpolation::Bicubic,
        _ => Interpolation::Bilinear,
    }
}

fn pinned(case: &Value, shape: &[usize]) -> Option<PinnedOp> {
    Some(match case["op"].as_str().unwrap() {
        "resized_crop" => {
            let [left, top, width, height] =
                std::array::from_fn(|idx| u32::try_from(case["box"][idx].as_u64().unwrap()).unwrap());
            PinnedOp::ResizedCrop(Rect { left, top, width, height }, filter(case))
        }
        "horizontal_flip" => PinnedOp::HorizontalFlip,
        "vertical_flip" => PinnedOp::VerticalFlip,
        "rotate90" => PinnedOp::Rotate90(number(case, "turns") as u8),
        "window" => {
            let beyond = match case["padding_mode"].as_str() {
                Some("edge") => Beyond::Edge,
                Some("reflect") => Beyond::Mirror(false),
                Some("symmetric") => Beyond::Mirror(true),
                _ => Beyond::Color(std::array::from_fn(|idx| case["fill"][idx].as_u64().unwrap_or(0) as u8)),
            };
            let size = number(case, "size") as usize;
            PinnedOp::Window { left: number(case, "left") as i64, top: number(case, "top") as i64, size, beyond }
        }
        "central" => {
            let size = number(case, "size") as usize;
            let offset = |axis: usize| center_offset(shape[axis], size);
            PinnedOp::Window { left: offset(1), top: offset(0), size, beyond: Beyond::Color([0; 3]) }
        }
        "resize" => PinnedOp::Resize([number(case, "width") as u32, number(case, "height") as u32], filter(case)),
        "solarize" => PinnedOp::Solarize(number(case, "threshold") as u32),
        "kernel_blur" => PinnedOp::KernelBlur(number(case, "kernel_size") as u32, number(case, "sigma")),
        "erase" => {
            let [left, top, width, height] =
                std::array::from_fn(|idx| u32::try_from(case["box"][idx].as_u64().unwrap()).unwrap());
            let color = std::array::from_fn(|idx| case["fill"][idx].as_u64().unwrap() as u8);
            PinnedOp::Erase(Rect { left, top, width, height }, Fill::Bytes(color))
        }
        "brightness" => change(ColorChange::Brightness(number(case, "factor"))),
        "contrast" => change(ColorChange::Contrast(number(case, "factor"))),
        "saturation" => change(ColorChange::Saturation(number(case, "factor"))),
        "hue" => change(ColorChange::Hue(number(case, "factor"))),
        "grayscale" => PinnedOp::Grayscale,
        "gaussian_blur" => PinnedOp::GaussianBlur(number(case, "sigma")),
        _ => return None,
    })
}

#[test]
fn pinned_operations_equal_torchvision() {
    let (bytes, cases) = golden("torchvision");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (mut canvas, mut scratch) = (Canvas::default(), Scratch::default());
    let cases = cases["cases"].as_array().unwrap();
    assert!(cases.len() > 100);
    let mut failures = vec![];
    for case in cases {
        let input = tensors.tensor(case["input"].as_str().unwrap()).unwrap();
        let (height, width) = (input.shape()[0], input.shape()[1]);
        let image = ImageRef::new(width as u32, height as u32, input.data()).unwrap();
        let size = case["size"].as_u64().unwrap_or(0) as usize;
        let expected = tensors.tensor(case["output"].as_str().unwrap()).unwrap();
        let mut ours = vec![0; expected.data().len()];
        if let Some(op) = pinned(case, input.shape()) {
            let mut view = ViewInProgress::new(image, size, &mut canvas);
            view.apply(&op);
            let FinishedView::Bytes(planes) = view.finish() else { panic!("{case}") };
            assert_eq!([planes.height, planes.width], expected.shape()[..2], "{case}");
            planes.store(&mut ours);
        } else {
            let kind = serde_json::from_value::<EvaluationViewConfig>(case["op"].clone()).unwrap();
            let stats = super::augment_config::NormalizeConfig::Unit.channel_stats();
            EvaluationView::new(size as u32, kind, &stats).view_pixels(image, &mut scratch, &mut ours);
        }
        let worst = ours.iter().zip(expected.data()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        // torchvision's own blur is a convolution in single precision, in an order of its own.
        let allowed = u8::from(case["op"] == "kernel_blur");
        if worst > allowed {
            let wrong = ours.iter().zip(expected.data()).filter(|(a, b)| a != b).count();
            failures.push(format!("{case}: {wrong} of {} values differ, by up to {worst}", ours.len()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn tf_operations_equal_tensorflow_on_floats() {
    let (bytes, cases) = golden("tf");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let planar = |name: &Value| {
        let tensor = tensors.tensor(name.as_str().unwrap()).unwrap();
        let values: Vec<f32> = tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let (height, width) = (tensor.shape()[0], tensor.shape()[1]);
        let data = (0..3).flat_map(|channel| values.iter().skip(channel).step_by(3).copied()).collect();
        Planes { width, height, data }
    };
    for case in cases["cases"].as_array().unwrap() {
        let mut image = planar(&case["input"]);
        let factor = number(case, "factor");
        match case["op"].as_str().unwrap() {
            "tf_brightness" => tf_color::adjust_brightness(&mut image, factor),
            "tf_contrast" => tf_color::adjust_contrast(&mut image, factor),
            "tf_saturation" => tf_color::adjust_saturation(&mut image, factor),
            _ => tf_color::adjust_hue(&mut image, factor),
        }
        let worst = image
            .data
            .iter()
            .zip(&planar(&case["output"]).data)
            .map(|(ours, theirs)| (ours - theirs).abs())
            .fold(0.0, f32::max);
        assert!(worst < 2e-3, "{case}: {worst}");
    }
}
