//! A policy: operations that turn one image into one view.

use super::{
    AugmentConfig, AugmentError, EvaluationView, ImageRef, ViewKey,
    augment_config::{ColorJitterConfig, IMAGE_SIZES, Interpolation, OpConfig},
    normalize_pixels::PixelNormalizer,
    planes::Planes,
    view_op::{Canvas, FinishedView, PinnedOp, ViewInProgress, ViewOp},
    view_size::{WRONG_SIZE_HELP, check_view_size},
};

/// Buffers that one thread uses again for every view.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    pub(super) canvas: Canvas,
    rounded: Planes<u8>,
}

/// Operations, ready to run.
#[derive(Clone, Debug)]
pub struct Policy {
    config: AugmentConfig,
    /// One list for all views, or one for each.
    lists: Vec<OpList>,
    normalizer: PixelNormalizer,
}

/// The operations of a view.
#[derive(Clone, Debug)]
struct OpList {
    ops: Vec<ViewOp>,
    resize_first: bool,
}

impl Policy {
    /// Checks the parameters and prepares the operations.
    ///
    /// # Errors
    /// [`AugmentError::Config`] for the first parameter out of range.
    pub fn build(config: &AugmentConfig) -> Result<Self, AugmentError> {
        check_config(config)?;
        let stats = config.normalize.channel_stats();
        let prepare = |(_, ops): (String, &[OpConfig])| {
            let ops: Vec<ViewOp> = ops.iter().map(|op| ViewOp::new(op, &stats)).collect();
            OpList { resize_first: !ops.iter().any(ViewOp::sets_size), ops }
        };
        Ok(Self {
            lists: config.op_lists().into_iter().map(prepare).collect(),
            normalizer: PixelNormalizer::new(&stats),
            config: config.clone(),
        })
    }

    /// Width and height of a view.
    pub fn image_size(&self) -> usize {
        self.config.image_size as usize
    }

    /// Number of views of each image that pretraining compares.
    pub fn num_views(&self) -> usize {
        self.config.views as usize
    }

    /// The parameters that this policy was built from.
    pub fn config(&self) -> &AugmentConfig {
        &self.config
    }

    /// The view used where nothing is random, with this policy's size and normalisation.
    pub fn evaluation_view(&self) -> EvaluationView {
        EvaluationView::prepare(self.config.image_size, self.config.evaluation, self.normalizer.clone())
    }

    /// One view, normalised: writes `[size, size, 3]` to `out`.
    ///
    /// The result is a function of the image and the key alone. `out` must hold `size · size · 3` values.
    pub fn view(&self, image: ImageRef<'_>, key: ViewKey, scratch: &mut Scratch, out: &mut [f32]) {
        match self.make_view(image, key, &mut scratch.canvas) {
            FinishedView::Bytes(planes) => self.normalizer.normalize_bytes(planes, out),
            FinishedView::Floats(planes) => self.normalizer.normalize_floats(planes, out),
        }
    }

    /// One view as pixels for people: writes `[size, size, 3]` bytes to `out`.
    pub fn view_pixels(&self, image: ImageRef<'_>, key: ViewKey, scratch: &mut Scratch, out: &mut [u8]) {
        let Scratch { canvas, rounded } = scratch;
        match self.make_view(image, key, canvas) {
            FinishedView::Bytes(planes) => planes.store(out),
            FinishedView::Floats(planes) => {
                planes.to_bytes(rounded);
                rounded.store(out);
            }
        }
    }

    fn make_view<'c>(&self, image: ImageRef<'_>, key: ViewKey, canvas: &'c mut Canvas) -> FinishedView<'c> {
        let mut rng = key.rng();
        let size = self.image_size();
        let mut view = ViewInProgress::new(image, size, canvas);
        let list = &self.lists[key.view as usize % self.lists.len()];
        if list.resize_first {
            view.apply(&PinnedOp::Resize([size as u32; 2], Interpolation::Bilinear));
        }
        for op in &list.ops {
            let pinned = op.sample(view.dimensions(), size, &mut rng);
            view.apply(&pinned);
        }
        view.finish()
    }
}

fn check_config(config: &AugmentConfig) -> Result<(), AugmentError> {
    let (smallest, largest) = (f64::from(*IMAGE_SIZES.start()), f64::from(*IMAGE_SIZES.end()));
    check_range("image_size", f64::from(config.image_size), smallest, largest)?;
    if let Some(problem) = config.normalize.channel_stats().problem() {
        let help = "means must be finite and deviations above 0, both on the 0…1 scale";
        return Err(AugmentError::config("normalize.custom", problem, help));
    }
    check_range("views", f64::from(config.views), 2.0, 8.0)?;
    let lists = config.view_ops.len();
    if lists > 0 && (lists != config.views as usize || !config.ops.is_empty()) {
        return Err(AugmentError::config("view_ops", view_ops_problem(config), VIEW_OPS_HELP));
    }
    for (key, ops) in config.op_lists() {
        ops.iter().enumerate().try_for_each(|(idx, op)| check_op(&format!("{key}[{idx}]"), op))?;
        check_view_size(ops, config.image_size).map_err(|wrong| {
            let message = format!("it leaves {}", wrong.leaves);
            AugmentError::config(format!("{key}[{}]", wrong.op), message, WRONG_SIZE_HELP)
        })?;
    }
    Ok(())
}

/// How `view_ops` must be written.
pub const VIEW_OPS_HELP: &str = "write one list of operations for each of `views`, and no `ops` beside them";

/// Says why `view_ops` do not fit `views` and `ops`.
pub fn view_ops_problem(config: &AugmentConfig) -> String {
    if config.ops.is_empty() {
        format!("`view_ops` has {} lists, but there are {} views", config.view_ops.len(), config.views)
    } else {
        "`view_ops` and `ops` are both there".into()
    }
}

fn check_op(key: &str, op: &OpConfig) -> Result<(), AugmentError> {
    let at = |rest: &str| format!("{key}.{rest}");
    match op {
        OpConfig::RandomResizedCrop(crop) => {
            let scale = at("random_resized_crop.scale");
            check_ordered(&scale, crop.scale)?;
            check_range(&scale, crop.scale[1], f64::MIN_POSITIVE, 1.0)?;
            let ratio = at("random_resized_crop.ratio");
            check_ordered(&ratio, crop.ratio)?;
            check_range(&ratio, crop.ratio[0], 1e-3, 1e3)?;
            check_range(&ratio, crop.ratio[1], 1e-3, 1e3)
        }
        OpConfig::Resize(resize) => {
            let side = resize.shorter_side.unwrap_or(1);
            check_range(&at("resize.shorter_side"), f64::from(side), 1.0, 4096.0)
        }
        OpConfig::CenterCrop(crop) => {
            check_range(&at("center_crop.size"), f64::from(crop.size.unwrap_or(1)), 1.0, 4096.0)
        }
        OpConfig::PadCrop(pad) => check_range(&at("pad_crop.padding"), f64::from(pad.padding), 0.0, 512.0),
        OpConfig::HorizontalFlip(flip) => check_range(&at("horizontal_flip.p"), flip.p, 0.0, 1.0),
        OpConfig::VerticalFlip(flip) => check_range(&at("vertical_flip.p"), flip.p, 0.0, 1.0),
        OpConfig::Grayscale(grayscale) => check_range(&at("grayscale.p"), grayscale.p, 0.0, 1.0),
        OpConfig::Rotate90(rotate) => {
            check_range(&at("rotate90.p"), rotate.p, 0.0, 1.0)?;
            if rotate.turns.is_empty() || rotate.turns.iter().any(|&turns| turns > 3) {
                return Err(AugmentError::config(
                    at("rotate90.turns"),
                    format!("{:?} are not numbers of quarter turns", rotate.turns),
                    "give at least one of 0, 1, 2, 3",
                ));
            }
            Ok(())
        }
        OpConfig::ColorJitter(jitter) => check_jitter(&at("color_jitter"), jitter),
        OpConfig::GaussianBlur(blur) => {
            check_range(&at("gaussian_blur.p"), blur.p, 0.0, 1.0)?;
            let sigma = at("gaussian_blur.sigma");
            check_ordered(&sigma, blur.sigma)?;
            check_range(&sigma, blur.sigma[1], 0.0, 100.0)?;
            match blur.kernel_size {
                Some(size) if size % 2 == 0 || size > 255 => Err(AugmentError::config(
                    at("gaussian_blur.kernel_size"),
                    format!("{size} is not the width of a kernel"),
                    KERNEL_SIZE_HELP,
                )),
                _ => Ok(()),
            }
        }
        OpConfig::Solarize(solarize) => {
            check_range(&at("solarize.p"), solarize.p, 0.0, 1.0)?;
            check_range(&at("solarize.threshold"), f64::from(solarize.threshold), 0.0, 256.0)
        }
        OpConfig::RandomErasing(erasing) => {
            check_range(&at("random_erasing.p"), erasing.p, 0.0, 1.0)?;
            let scale = at("random_erasing.scale");
            check_ordered(&scale, erasing.scale)?;
            check_range(&scale, erasing.scale[1], 0.0, 1.0)?;
            let ratio = at("random_erasing.ratio");
            check_ordered(&ratio, erasing.ratio)?;
            check_range(&ratio, erasing.ratio[0], 1e-3, 1e3)?;
            check_range(&ratio, erasing.ratio[1], 1e-3, 1e3)
        }
        OpConfig::TfBrightness(delta) => {
            check_range(&at("tf_brightness.p"), delta.p, 0.0, 1.0)?;
            check_range(&at("tf_brightness.max_delta"), delta.max_delta, 0.0, 1e6)
        }
        OpConfig::TfHue(delta) => {
            check_range(&at("tf_hue.p"), delta.p, 0.0, 1.0)?;
            check_range(&at("tf_hue.max_delta"), delta.max_delta, 0.0, 0.5)
        }
        OpConfig::TfContrast(range) => {
            check_range(&at("tf_contrast.p"), range.p, 0.0, 1.0)?;
            check_ordered(&at("tf_contrast"), [range.lower, range.upper])?;
            check_range(&at("tf_contrast.upper"), range.upper, 0.0, 1e6)
        }
        OpConfig::TfSaturation(range) => {
            check_range(&at("tf_saturation.p"), range.p, 0.0, 1.0)?;
            check_ordered(&at("tf_saturation"), [range.lower, range.upper])?;
            check_range(&at("tf_saturation.upper"), range.upper, 0.0, 1e6)
        }
    }
}

/// What a kernel's width must be.
pub const KERNEL_SIZE_HELP: &str = "give an odd number up to 255, such as 23 for views of 224 pixels";

fn check_jitter(key: &str, jitter: &ColorJitterConfig) -> Result<(), AugmentError> {
    check_range(&format!("{key}.p"), jitter.p, 0.0, 1.0)?;
    check_range(&format!("{key}.brightness"), jitter.brightness, 0.0, 1e6)?;
    check_range(&format!("{key}.contrast"), jitter.contrast, 0.0, 1e6)?;
    check_range(&format!("{key}.saturation"), jitter.saturation, 0.0, 1e6)?;
    check_range(&format!("{key}.hue"), jitter.hue, 0.0, 0.5)
}

fn check_range(key: &str, value: f64, low: f64, high: f64) -> Result<(), AugmentError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    let help = if low == f64::MIN_POSITIVE {
        format!("give a number above 0 and at most {high}")
    } else {
        format!("give a number from {low} to {high}")
    };
    Err(AugmentError::config(key, format!("{value} is out of range"), help))
}

/// The lower end first, neither negative.
fn check_ordered(key: &str, [low, high]: [f64; 2]) -> Result<(), AugmentError> {
    if low >= 0.0 && low <= high {
        return Ok(());
    }
    Err(AugmentError::config(
        key,
        format!("{low} to {high} is not a range"),
        "give the smaller number first, neither below 0",
    ))
}
