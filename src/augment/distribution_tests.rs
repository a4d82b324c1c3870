//! Random parameters against torchvision's: the largest distance between the distribution functions of 20,000 draws
//! and of torchvision's own (Kolmogorov–Smirnov); `scripts/goldens/augment.py` made the references.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;
use serde_json::json;

use super::{
    ViewKey,
    augment_config::{NormalizeConfig, OpConfig},
    color_jitter::ColorChange,
    view_op::{PinnedOp, ViewOp},
};

const DRAWS: usize = 20_000;

#[derive(Deserialize)]
struct Reference {
    draws: f64,
    tables: BTreeMap<String, Table>,
}

/// A distribution function: which share of the draws is at most `at`.
#[derive(Deserialize)]
struct Table {
    at: Vec<f64>,
    share: Vec<f64>,
}

/// Draws by the name of the table; those of another name are independent.
#[derive(Default)]
struct Draws(BTreeMap<String, Vec<f64>>);

impl Draws {
    fn add(&mut self, name: &str, key: &str, value: f64) {
        self.0.entry(format!("{name}.{key}")).or_default().push(value);
    }

    /// Draws an operation for an image of this size.
    fn draw(
        &mut self,
        name: &str,
        op: serde_json::Value,
        dimensions: (usize, usize),
        record: impl Fn(&mut Self, &str, PinnedOp),
    ) {
        let config: OpConfig = serde_json::from_value(op).unwrap();
        let op = ViewOp::new(&config, &NormalizeConfig::Unit.channel_stats());
        let seed = name.bytes().fold(7_u64, |seed, byte| seed.wrapping_mul(31) + u64::from(byte));
        for image_idx in 0..DRAWS as u64 {
            let mut rng = ViewKey { seed, epoch: 3, image_idx, view: 1 }.rng();
            record(self, name, op.sample(dimensions, 32, &mut rng));
        }
    }
}

fn boxes(draws: &mut Draws, name: &str, op: PinnedOp) {
    let (PinnedOp::ResizedCrop(rect, _) | PinnedOp::Erase(rect, _)) = op else { return };
    for (key, value) in [("top", rect.top), ("left", rect.left), ("height", rect.height), ("width", rect.width)] {
        draws.add(name, key, f64::from(value));
    }
    draws.add(name, "area", f64::from(rect.width) * f64::from(rect.height));
}

fn applied(draws: &mut Draws, name: &str, op: PinnedOp) {
    draws.add(name, "applied", f64::from(u8::from(op != PinnedOp::Keep)));
}

fn jitter(draws: &mut Draws, name: &str, op: PinnedOp) {
    let PinnedOp::ColorJitter(changes) = op else { panic!("{op:?}") };
    let mut order = 0;
    for (place, change) in changes.into_iter().flatten().enumerate() {
        let (number, key, value) = match change {
            ColorChange::Brightness(value) => (0, "brightness", value),
            ColorChange::Contrast(value) => (1, "contrast", value),
            ColorChange::Saturation(value) => (2, "saturation", value),
            ColorChange::Hue(value) => (3, "hue", value),
        };
        order += number * 4_u32.pow(place as u32);
        draws.add(name, key, value);
    }
    draws.add(name, "order", f64::from(order));
}

#[test]
fn random_parameters_are_distributed_as_torchvisions() {
    let mut draws = Draws::default();
    let crop = json!({ "random_resized_crop": { "scale": [0.08, 1.0] } });
    draws.draw("crop", crop.clone(), (400, 300), boxes);
    draws.draw("narrow_crop", crop, (40, 300), boxes);
    // torchvision's rectangle that is none is the whole image, which is kept.
    draws.draw("erasing", json!({ "random_erasing": { "p": 1.0 } }), (80, 60), boxes);
    draws.draw("shift", json!({ "pad_crop": { "padding": 0 } }), (48, 40), |draws, name, op| {
        let PinnedOp::Window { left, top, .. } = op else { panic!("{op:?}") };
        draws.add(name, "top", top as f64);
        draws.add(name, "left", left as f64);
    });
    let strengths = json!({ "brightness": 0.4, "contrast": 0.4, "saturation": 0.8, "hue": 0.1 });
    draws.draw("jitter", json!({ "color_jitter": strengths }), (8, 8), jitter);
    draws.draw("blur", json!({ "gaussian_blur": { "p": 1.0, "kernel_size": 3 } }), (8, 8), |draws, name, op| {
        let PinnedOp::KernelBlur(3, sigma) = op else { panic!("{op:?}") };
        draws.add(name, "sigma", sigma);
    });
    for (name, p) in [
        ("horizontal_flip", 0.3),
        ("vertical_flip", 0.5),
        ("grayscale", 0.2),
        ("solarize", 0.7),
        ("gaussian_blur", 0.1),
    ] {
        draws.draw(name, json!({ name: { "p": p } }), (8, 8), applied);
    }

    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/augment/distributions.json");
    let reference: Reference = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(draws.0.keys().collect::<Vec<_>>(), reference.tables.keys().collect::<Vec<_>>());
    let mut far = vec![];
    for (name, mut values) in draws.0 {
        let table = &reference.tables[&name];
        values.sort_by(f64::total_cmp);
        let count = values.len() as f64;
        assert!(count >= 0.99 * DRAWS as f64, "{name}: {count}");
        let distance = table
            .at
            .iter()
            .zip(&table.share)
            // References are written with nine digits.
            .map(|(at, share)| values.partition_point(|value| *value <= at + 1e-8 * at.abs()) as f64 / count - share)
            .fold(0.0, |far: f64, distance| far.max(distance.abs()));
        // Exceeded by chance once in 10,000 times.
        let limit = 2.225 * (1.0 / count + 4.0 / reference.draws).sqrt();
        if distance > limit {
            far.push(format!("{name}: {distance:.4} above {limit:.4}"));
        }
    }
    assert!(far.is_empty(), "{far:?}");
}
