//! Whole policies: every operation on every shape of image, files, refusals.

use serde_json::{Value, json};

use super::{
    AugmentConfig, AugmentError, ImageRef, Policy, Scratch, ViewKey, policy_file::POLICY_FILE,
    preview::render_contact_sheet,
};

const KEY: ViewKey = ViewKey { seed: 3, epoch: 1, image_idx: 8, view: 0 };

fn config(ops: &Value) -> AugmentConfig {
    serde_json::from_value(json!({ "image_size": 16, "normalize": "unit", "ops": ops })).unwrap()
}

fn build(ops: &Value) -> Policy {
    Policy::build(&config(ops)).unwrap()
}

fn every_op() -> Value {
    json!([
        { "vertical_flip": { "p": 1.0 } },
        { "center_crop": { "size": 20 } },
        { "pad_crop": { "padding": 2 } },
        { "random_resized_crop": { "scale": [0.3, 1.0], "interpolation": "bicubic" } },
        { "horizontal_flip": {} },
        { "rotate90": {} },
        { "color_jitter": { "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1 } },
        { "grayscale": { "p": 0.2 } },
        { "gaussian_blur": { "p": 1.0 } },
        { "gaussian_blur": { "p": 1.0, "kernel_size": 5 } },
        { "solarize": { "p": 1.0 } },
        { "random_erasing": { "p": 1.0, "value": { "color": [1, 2, 3] } } },
        { "random_erasing": { "p": 1.0 } },
        { "random_erasing": { "p": 1.0, "value": "random" } },
        { "pad_crop": { "padding": 3, "padding_mode": "reflect" } },
        { "tf_brightness": { "max_delta": 0.8, "p": 0.5 } },
        { "tf_contrast": { "lower": 0.2, "upper": 1.8 } },
        { "tf_saturation": { "lower": 0.2, "upper": 1.8 } },
        { "rotate90": { "turns": [1, 3] } },
        { "tf_hue": { "max_delta": 0.2 } },
        { "resize": {} }
    ])
}

fn pixels(width: u32, height: u32) -> Vec<u8> {
    (0..3 * width * height).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[test]
fn every_operation_takes_every_shape() {
    let mut scratch = Scratch::default();
    let ops = every_op();
    let squash = json!({ "resize": { "interpolation": "bicubic" } });
    let mut policies: Vec<Policy> = ops.as_array().unwrap().iter().map(|op| build(&json!([op, squash]))).collect();
    policies.push(build(&ops));
    policies.push(build(&json!([])));
    for (width, height) in [(1, 1), (1, 300), (300, 1), (16, 16), (37, 23)] {
        let rgb = pixels(width, height);
        let image = ImageRef::new(width, height, &rgb).unwrap();
        for policy in &policies {
            for view in 0..4 {
                let mut out = vec![f32::NAN; 3 * 16 * 16];
                policy.view(image, ViewKey { view, ..KEY }, &mut scratch, &mut out);
                assert!(out.iter().all(|value| value.is_finite()), "{width}×{height} {:?}", policy.config().ops);
            }
        }
    }
}

#[test]
fn a_view_depends_on_its_key_and_not_on_what_came_before() {
    let policy = build(&every_op());
    let rgb = pixels(40, 30);
    let image = ImageRef::new(40, 30, &rgb).unwrap();
    let view = |key, scratch: &mut Scratch| {
        let mut out = vec![0.0; 3 * 16 * 16];
        policy.view(image, key, scratch, &mut out);
        out
    };
    let first = view(KEY, &mut Scratch::default());
    let mut used = Scratch::default();
    for other in [ViewKey { view: 1, ..KEY }, ViewKey { epoch: 2, ..KEY }, ViewKey { seed: 4, ..KEY }] {
        assert_ne!(view(other, &mut used), first);
    }
    assert_eq!(view(KEY, &mut used), first);
}

#[test]
fn pixels_and_input_agree() {
    let policy = build(&json!([{ "random_resized_crop": {} }, { "color_jitter": { "brightness": 0.5 } }]));
    let rgb = pixels(40, 30);
    let image = ImageRef::new(40, 30, &rgb).unwrap();
    let (mut floats, mut bytes) = (vec![0.0; 768], vec![0; 768]);
    policy.view(image, KEY, &mut Scratch::default(), &mut floats);
    policy.view_pixels(image, KEY, &mut Scratch::default(), &mut bytes);
    for (float, byte) in floats.iter().zip(&bytes) {
        assert_eq!((float * 255.0).round() as u8, *byte);
    }
}

#[test]
fn without_a_sizing_operation_the_image_is_squashed_first() {
    let rgb = pixels(40, 30);
    let image = ImageRef::new(40, 30, &rgb).unwrap();
    let view = |ops| {
        let mut out = vec![0; 768];
        build(&ops).view_pixels(image, KEY, &mut Scratch::default(), &mut out);
        out
    };
    assert_eq!(view(json!([])), view(json!([{ "resize": {} }])));
    assert_eq!(
        view(json!([{ "horizontal_flip": { "p": 1.0 } }])),
        view(json!([{ "resize": {} }, { "horizontal_flip": { "p": 1.0 } }]))
    );
}

#[test]
fn probabilities_are_kept() {
    let rgb = [[255_u8, 0, 0], [0, 0, 255]].concat();
    let image = ImageRef::new(2, 1, &rgb).unwrap();
    let policy = build(&json!([{ "horizontal_flip": { "p": 0.3 } }]));
    let flips = (0..2000)
        .filter(|&image_idx| {
            let mut out = vec![0; 768];
            policy.view_pixels(image, ViewKey { image_idx, ..KEY }, &mut Scratch::default(), &mut out);
            out[0] < 128
        })
        .count();
    assert!((530..670).contains(&flips), "{flips}");
}

#[test]
fn a_policy_survives_its_file_without_the_contact_sheet() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&every_op());
    config.preview.images = 9;
    Policy::build(&config).unwrap().save(dir.path()).unwrap();
    let first = std::fs::read(dir.path().join(POLICY_FILE)).unwrap();
    let loaded = Policy::load(dir.path()).unwrap();
    assert_eq!(loaded.config().ops, config.ops);
    assert_eq!((loaded.image_size(), &loaded.config().normalize), (16, &config.normalize));
    config.preview.images = 2;
    Policy::build(&config).unwrap().save(dir.path()).unwrap();
    assert_eq!(first, std::fs::read(dir.path().join(POLICY_FILE)).unwrap());

    for text in ["", "{}", &String::from_utf8(first).unwrap().replace("\"format\": 1", "\"format\": 3")] {
        std::fs::write(dir.path().join(POLICY_FILE), text).unwrap();
        assert!(matches!(Policy::load(dir.path()), Err(AugmentError::Format { .. })), "{text}");
    }
    assert!(matches!(Policy::load(&dir.path().join("none")), Err(AugmentError::Io { .. })));
}

#[test]
fn each_view_may_have_operations_of_its_own() {
    let rgb = pixels(40, 30);
    let image = ImageRef::new(40, 30, &rgb).unwrap();
    let view = |policy: &Policy, view| {
        let mut out = vec![0; 768];
        policy.view_pixels(image, ViewKey { view, ..KEY }, &mut Scratch::default(), &mut out);
        out
    };
    let mut config = config(&json!([]));
    config.views = 3;
    config.view_ops = serde_json::from_value(json!([
        [], [{ "horizontal_flip": { "p": 1.0 } }], [{ "solarize": { "p": 1.0, "threshold": 0 } }]
    ]))
    .unwrap();
    let policy = Policy::build(&config).unwrap();
    assert_eq!(policy.num_views(), 3);
    let (plain, flip, inverted) = (view(&policy, 0), view(&policy, 1), view(&policy, 2));
    assert_eq!(&flip[..3], &plain[45..48]);
    assert!(plain.iter().zip(&inverted).all(|(a, b)| a + b == 255));
    // The contact sheet shows more views than there are.
    assert_eq!(view(&policy, 3), plain);

    let dir = tempfile::tempdir().unwrap();
    policy.save(dir.path()).unwrap();
    let loaded = Policy::load(dir.path()).unwrap();
    assert_eq!((&loaded.config().view_ops, loaded.num_views()), (&config.view_ops, 3));

    config.views = 2;
    assert!(Policy::build(&config).unwrap_err().to_string().contains("3 lists, but there are 2 views"));
    config.views = 3;
    config.ops = serde_json::from_value(json!([{ "horizontal_flip": {} }])).unwrap();
    assert!(Policy::build(&config).unwrap_err().to_string().contains("both there"));
}

#[test]
fn an_erased_rectangle_is_zero_for_the_network() {
    let rgb = pixels(40, 30);
    let image = ImageRef::new(40, 30, &rgb).unwrap();
    let mut config = config(&json!([{ "resize": {} }, { "random_erasing": { "p": 1.0, "scale": [0.3, 0.3] } }]));
    config.normalize = serde_json::from_value(json!("imagenet")).unwrap();
    let mut out = vec![0.0; 768];
    Policy::build(&config).unwrap().view(image, KEY, &mut Scratch::default(), &mut out);
    let erased = out.chunks(3).filter(|pixel| pixel.iter().all(|value| value.abs() < 1e-5)).count();
    assert!((60..95).contains(&erased), "{erased} of 256");
}

#[test]
fn views_of_older_policies_stay_as_they_were() {
    let bytes = |ops: &Value| {
        let dir = tempfile::tempdir().unwrap();
        build(ops).save(dir.path()).unwrap();
        std::fs::read_to_string(dir.path().join(POLICY_FILE)).unwrap()
    };
    let old = bytes(&json!([
        { "resize": {} }, { "pad_crop": { "padding": 2 } }, { "gaussian_blur": {} }, { "tf_hue": { "max_delta": 0.1 } }
    ]));
    for added in ["views", "view_ops", "shorter_side", "interpolation", "fill", "kernel_size", "\"p\": 1.0"] {
        assert!(!old.contains(added), "{added} in {old}");
    }
    assert!(old.contains("\"format\": 1"));
}

#[test]
fn parameters_out_of_range_are_named() {
    for (op, key) in [
        (json!({ "random_resized_crop": { "scale": [0.5, 0.2] } }), "ops[0].random_resized_crop.scale"),
        (json!({ "random_resized_crop": { "scale": [0.0, 0.0] } }), "ops[0].random_resized_crop.scale"),
        (json!({ "random_resized_crop": { "ratio": [0.0, 1.0] } }), "ops[0].random_resized_crop.ratio"),
        (json!({ "horizontal_flip": { "p": 1.5 } }), "ops[0].horizontal_flip.p"),
        (json!({ "rotate90": { "turns": [] } }), "ops[0].rotate90.turns"),
        (json!({ "rotate90": { "turns": [4] } }), "ops[0].rotate90.turns"),
        (json!({ "color_jitter": { "hue": 0.6 } }), "ops[0].color_jitter.hue"),
        (json!({ "color_jitter": { "contrast": -1.0 } }), "ops[0].color_jitter.contrast"),
        (json!({ "gaussian_blur": { "sigma": [2.0, 0.1] } }), "ops[0].gaussian_blur.sigma"),
        (json!({ "tf_hue": { "max_delta": 0.7 } }), "ops[0].tf_hue.max_delta"),
        (json!({ "tf_hue": { "max_delta": 0.1, "p": 2.0 } }), "ops[0].tf_hue.p"),
        (json!({ "gaussian_blur": { "kernel_size": 4 } }), "ops[0].gaussian_blur.kernel_size"),
        (json!({ "solarize": { "threshold": 300 } }), "ops[0].solarize.threshold"),
        (json!({ "random_erasing": { "scale": [0.5, 1.5] } }), "ops[0].random_erasing.scale"),
        (json!({ "random_erasing": { "ratio": [0.0, 1.5] } }), "ops[0].random_erasing.ratio"),
        (json!({ "center_crop": { "size": 0 } }), "ops[0].center_crop.size"),
        (json!({ "center_crop": { "size": 17 } }), "ops[0]"),
        (json!({ "resize": { "shorter_side": 17 } }), "ops[0]"),
        (json!({ "tf_contrast": { "lower": 2.0, "upper": 1.0 } }), "ops[0].tf_contrast"),
    ] {
        let error = Policy::build(&config(&json!([op]))).err().unwrap_or_else(|| panic!("{op} passed"));
        assert!(error.to_string().starts_with(&format!("`{key}`")), "{error}");
        assert!(error.help().is_some());
    }
    let mut bad = config(&json!([]));
    bad.image_size = 0;
    assert!(Policy::build(&bad).is_err());
    bad.image_size = 16;
    bad.normalize = serde_json::from_value(json!({ "custom": { "mean": [0, 0, 0], "std": [1, 0, 1] } })).unwrap();
    assert!(Policy::build(&bad).is_err());
}

#[test]
fn a_contact_sheet_has_a_row_for_each_image() {
    let policy = build(&every_op());
    let (wide, tall) = (pixels(40, 10), pixels(2, 500));
    let images = [(0, ImageRef::new(40, 10, &wide).unwrap()), (7, ImageRef::new(2, 500, &tall).unwrap())];
    let sheet = render_contact_sheet(&policy, &images, 3, 1);
    assert_eq!(sheet.rgb.len(), (3 * sheet.width * sheet.height) as usize);
    assert_eq!(sheet, render_contact_sheet(&policy, &images, 3, 1));
    assert_ne!(sheet, render_contact_sheet(&policy, &images, 3, 2));
    assert_eq!(&sheet.rgb[..3], &[255; 3]);
}
