//! One operation: drawing its parameters, and applying drawn parameters to pixels.

use rand::Rng;

use super::{
    ImageRef,
    augment_config::{ChannelStats, Interpolation, OpConfig, PadCropConfig, PaddingMode},
    color_jitter::{ColorChange, apply_color_change, sample_color_jitter, to_grayscale},
    crop::{CropRanges, center_offset, sample_pad_crop, scale_shorter_side},
    erase::{Erasing, Fill, fill_noise, fill_rect},
    flip::{Beyond, flip_horizontal, flip_vertical, rotate90, window},
    gaussian_blur::{BlurScratch, gaussian_blur},
    gaussian_kernel::{KernelScratch, blur_with_kernel},
    planes::Planes,
    resample::{Rect, ResampleScratch, resample},
    solarize::solarize,
    tf_color,
};
use crate::seed::{below, chance, uniform};

/// An operation, ready to draw from.
#[derive(Clone, Debug, PartialEq)]
pub enum ViewOp {
    /// `random_resized_crop`, its ranges prepared.
    RandomResizedCrop(CropRanges, Interpolation),
    /// `random_erasing`, its ranges prepared.
    RandomErasing(Erasing),
    /// Any other operation.
    Other(OpConfig),
}

/// An operation with every parameter drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PinnedOp {
    /// Nothing happens.
    Keep,
    /// This part of the image, resized to the view's size.
    ResizedCrop(Rect, Interpolation),
    /// The whole image, squashed to this width and height.
    Resize([u32; 2], Interpolation),
    /// A square with this corner.
    Window {
        /// Left edge, may be negative.
        left: i64,
        /// Upper edge, may be negative.
        top: i64,
        /// Width and height.
        size: usize,
        /// What lies outside the image.
        beyond: Beyond<u8>,
    },
    /// Mirror left and right.
    HorizontalFlip,
    /// Mirror up and down.
    VerticalFlip,
    /// Counter-clockwise quarter turns.
    Rotate90(u8),
    /// Changes of colour in this order.
    ColorJitter([Option<ColorChange>; 4]),
    /// To grey.
    Grayscale,
    /// Blur with this deviation in pixels, as Pillow does.
    GaussianBlur(f64),
    /// Blur with a kernel of this width in pixels and this deviation.
    KernelBlur(u32, f64),
    /// Invert values from here on.
    Solarize(u32),
    /// Paint over a rectangle.
    Erase(Rect, Fill),
    /// Add grey levels.
    TfBrightness(f64),
    /// Scale the distance to each channel's mean.
    TfContrast(f64),
    /// Scale the saturation.
    TfSaturation(f64),
    /// Turn the hue.
    TfHue(f64),
}

impl ViewOp {
    /// Prepares an operation whose parameters have been checked; `stats` are those of the network's input.
    pub fn new(config: &OpConfig, stats: &ChannelStats) -> Self {
        match config {
            OpConfig::RandomErasing(erasing) => Self::RandomErasing(Erasing::new(erasing, *stats)),
            OpConfig::RandomResizedCrop(crop) => {
                Self::RandomResizedCrop(CropRanges::new(crop.scale, crop.ratio), crop.interpolation)
            }
            other => Self::Other(other.clone()),
        }
    }

    /// Whether the size of the result is another than the input's.
    pub fn sets_size(&self) -> bool {
        matches!(
            self,
            Self::RandomResizedCrop(..)
                | Self::Other(OpConfig::Resize(_) | OpConfig::PadCrop(_) | OpConfig::CenterCrop(_))
        )
    }

    /// Draws the parameters for an image of `width` × `height`.
    pub fn sample<R: Rng>(&self, (width, height): (usize, usize), size: usize, rng: &mut R) -> PinnedOp {
        let config = match self {
            Self::RandomResizedCrop(ranges, interpolation) => {
                return PinnedOp::ResizedCrop(ranges.sample(width as u32, height as u32, rng), *interpolation);
            }
            Self::RandomErasing(erasing) => {
                let drawn = if chance(rng, erasing.p) { erasing.sample(width, height, rng) } else { None };
                return drawn.map_or(PinnedOp::Keep, |(rect, fill)| PinnedOp::Erase(rect, fill));
            }
            Self::Other(config) => config,
        };
        // Every operation with a probability draws it, so that one operation's luck does not depend on how
        // another's parameters are written.
        let mut applies = |p: f64| chance(rng, p);
        match config {
            OpConfig::Resize(resize) => {
                let (to_width, to_height) = match resize.shorter_side {
                    Some(shorter) => scale_shorter_side(width as u32, height as u32, shorter),
                    None => (size as u32, size as u32),
                };
                PinnedOp::Resize([to_width, to_height], resize.interpolation)
            }
            OpConfig::CenterCrop(crop) => {
                let size = crop.size.map_or(size, |size| size as usize);
                let (left, top) = (center_offset(width, size), center_offset(height, size));
                PinnedOp::Window { left, top, size, beyond: Beyond::Color([0; 3]) }
            }
            OpConfig::PadCrop(pad) => {
                let (left, top) = sample_pad_crop(width, height, size, pad.padding as usize, rng);
                PinnedOp::Window { left, top, size, beyond: beyond(*pad) }
            }
            OpConfig::HorizontalFlip(flip) if applies(flip.p) => PinnedOp::HorizontalFlip,
            OpConfig::VerticalFlip(flip) if applies(flip.p) => PinnedOp::VerticalFlip,
            OpConfig::Rotate90(rotate) if applies(rotate.p) => {
                let choice = below(rng, rotate.turns.len() as u64) as usize;
                PinnedOp::Rotate90(rotate.turns.get(choice).copied().unwrap_or(0))
            }
            OpConfig::ColorJitter(jitter) if applies(jitter.p) => {
                PinnedOp::ColorJitter(sample_color_jitter(jitter, rng))
            }
            OpConfig::Grayscale(grayscale) if applies(grayscale.p) => PinnedOp::Grayscale,
            OpConfig::GaussianBlur(blur) if applies(blur.p) => {
                let sigma = uniform(rng, blur.sigma[0], blur.sigma[1]);
                match blur.kernel_size {
                    None => PinnedOp::GaussianBlur(sigma),
                    Some(kernel_size) => PinnedOp::KernelBlur(kernel_size, sigma),
                }
            }
            OpConfig::Solarize(solarize) if applies(solarize.p) => PinnedOp::Solarize(solarize.threshold),
            OpConfig::HorizontalFlip(_)
            | OpConfig::VerticalFlip(_)
            | OpConfig::Rotate90(_)
            | OpConfig::ColorJitter(_)
            | OpConfig::Grayscale(_)
            | OpConfig::GaussianBlur(_)
            | OpConfig::Solarize(_)
            // Drawn above.
            | OpConfig::RandomResizedCrop(_)
            | OpConfig::RandomErasing(_) => PinnedOp::Keep,
            OpConfig::TfBrightness(delta) => {
                let value = uniform(rng, -delta.max_delta, delta.max_delta);
                keep_unless(delta.p, rng, PinnedOp::TfBrightness(value))
            }
            OpConfig::TfHue(delta) => {
                let value = uniform(rng, -delta.max_delta, delta.max_delta);
                keep_unless(delta.p, rng, PinnedOp::TfHue(value))
            }
            OpConfig::TfContrast(range) => {
                let value = uniform(rng, range.lower, range.upper);
                keep_unless(range.p, rng, PinnedOp::TfContrast(value))
            }
            OpConfig::TfSaturation(range) => {
                let value = uniform(rng, range.lower, range.upper);
                keep_unless(range.p, rng, PinnedOp::TfSaturation(value))
            }
        }
    }
}

/// For operations that had no probability once: a probability of 1 draws nothing, so that views stay as they were.
fn keep_unless<R: Rng>(p: f64, rng: &mut R, op: PinnedOp) -> PinnedOp {
    if p >= 1.0 || chance(rng, p) { op } else { PinnedOp::Keep }
}

fn beyond(pad: PadCropConfig) -> Beyond<u8> {
    match pad.padding_mode {
        PaddingMode::Constant => Beyond::Color(pad.fill),
        PaddingMode::Edge => Beyond::Edge,
        PaddingMode::Reflect => Beyond::Mirror(false),
        PaddingMode::Symmetric => Beyond::Mirror(true),
    }
}

/// Where the pixels of a view are between two operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Still in the image.
    Image,
    /// In `bytes`.
    Bytes,
    /// In `floats`.
    Floats,
}

/// The pixels of a view on their way through the operations, and every buffer that the way needs.
#[derive(Clone, Debug, Default)]
pub struct Canvas {
    bytes: Planes<u8>,
    spare_bytes: Planes<u8>,
    floats: Planes<f32>,
    spare_floats: Planes<f32>,
    grey: Vec<u8>,
    blur: BlurScratch,
    kernel: KernelScratch,
    pub(super) resample: ResampleScratch,
}

/// One view in the making.
pub struct ViewInProgress<'a, 'c> {
    image: ImageRef<'a>,
    size: usize,
    canvas: &'c mut Canvas,
    stage: Stage,
}

/// A finished view.
pub enum FinishedView<'c> {
    /// No TensorFlow operation was last.
    Bytes(&'c Planes<u8>),
    /// Unbounded floats of the 0…255 scale.
    Floats(&'c Planes<f32>),
}

impl<'a, 'c> ViewInProgress<'a, 'c> {
    /// Starts from an image; nothing is copied until an operation needs it.
    pub fn new(image: ImageRef<'a>, size: usize, canvas: &'c mut Canvas) -> Self {
        Self { image, size, canvas, stage: Stage::Image }
    }

    /// Width and height so far.
    pub fn dimensions(&self) -> (usize, usize) {
        match self.stage {
            Stage::Image => (self.image.width as usize, self.image.height as usize),
            Stage::Bytes => (self.canvas.bytes.width, self.canvas.bytes.height),
            Stage::Floats => (self.canvas.floats.width, self.canvas.floats.height),
        }
    }

    /// Resizes a part to the view's size.
    fn resized_crop(&mut self, crop: Rect, filter: Interpolation) {
        let size = self.size as u32;
        self.resize_window(crop, (size, size), Rect::whole(size, size), filter);
    }

    /// Resizes `crop` to `full` and keeps the part `wanted` of it.
    pub fn resize_window(&mut self, crop: Rect, full: (u32, u32), wanted: Rect, filter: Interpolation) {
        if self.stage == Stage::Image {
            resample(self.image, crop, full, wanted, filter, &mut self.canvas.resample, &mut self.canvas.bytes);
        } else {
            self.switch_to_bytes();
            let Canvas { bytes, spare_bytes, resample: scratch, .. } = &mut *self.canvas;
            let mut rgb = std::mem::take(&mut scratch.interleaved);
            rgb.resize(bytes.data.len(), 0);
            bytes.store(&mut rgb);
            let image = ImageRef { width: bytes.width as u32, height: bytes.height as u32, rgb: &rgb };
            resample(image, crop, full, wanted, filter, scratch, spare_bytes);
            scratch.interleaved = rgb;
            std::mem::swap(bytes, spare_bytes);
        }
        self.stage = Stage::Bytes;
    }

    fn switch_to_bytes(&mut self) {
        match self.stage {
            Stage::Image => self.canvas.bytes.load(self.image),
            Stage::Bytes => {}
            Stage::Floats => self.canvas.floats.to_bytes(&mut self.canvas.bytes),
        }
        self.stage = Stage::Bytes;
    }

    fn switch_to_floats(&mut self) -> &mut Planes<f32> {
        if self.stage != Stage::Floats {
            self.switch_to_bytes();
            self.canvas.bytes.to_float(&mut self.canvas.floats);
        }
        self.stage = Stage::Floats;
        &mut self.canvas.floats
    }

    /// Applies one operation.
    pub fn apply(&mut self, op: &PinnedOp) {
        match *op {
            PinnedOp::Keep => {}
            PinnedOp::ResizedCrop(crop, filter) => self.resized_crop(crop, filter),
            PinnedOp::Resize([to_width, to_height], filter) => {
                let (width, height) = self.dimensions();
                let whole = Rect::whole(width as u32, height as u32);
                self.resize_window(whole, (to_width, to_height), Rect::whole(to_width, to_height), filter);
            }
            PinnedOp::TfBrightness(delta) => tf_color::adjust_brightness(self.switch_to_floats(), delta),
            PinnedOp::TfContrast(factor) => tf_color::adjust_contrast(self.switch_to_floats(), factor),
            PinnedOp::TfSaturation(factor) => tf_color::adjust_saturation(self.switch_to_floats(), factor),
            PinnedOp::TfHue(turn) => tf_color::adjust_hue(self.switch_to_floats(), turn),
            PinnedOp::Window { left, top, size, beyond } => {
                self.switch_to_bytes();
                window(&self.canvas.bytes, (left, top), size, beyond, &mut self.canvas.spare_bytes);
                std::mem::swap(&mut self.canvas.bytes, &mut self.canvas.spare_bytes);
            }
            PinnedOp::HorizontalFlip => {
                self.move_pixels(|image, _| flip_horizontal(image), |image, _| flip_horizontal(image));
            }
            PinnedOp::VerticalFlip => {
                self.move_pixels(|image, _| flip_vertical(image), |image, _| flip_vertical(image));
            }
            PinnedOp::Rotate90(turns) => {
                self.move_pixels(
                    |image, spare| rotate90(image, turns, spare),
                    |image, spare| rotate90(image, turns, spare),
                );
            }
            PinnedOp::ColorJitter(changes) => {
                self.switch_to_bytes();
                for change in changes.into_iter().flatten() {
                    apply_color_change(&mut self.canvas.bytes, change, &mut self.canvas.grey);
                }
            }
            PinnedOp::Grayscale => {
                self.switch_to_bytes();
                to_grayscale(&mut self.canvas.bytes, &mut self.canvas.grey);
            }
            PinnedOp::GaussianBlur(sigma) => {
                self.switch_to_bytes();
                gaussian_blur(&mut self.canvas.bytes, sigma, &mut self.canvas.blur);
            }
            PinnedOp::KernelBlur(kernel_size, sigma) => {
                self.switch_to_bytes();
                blur_with_kernel(&mut self.canvas.bytes, kernel_size, sigma, &mut self.canvas.kernel);
            }
            PinnedOp::Solarize(threshold) => {
                self.switch_to_bytes();
                solarize(&mut self.canvas.bytes, threshold);
            }
            PinnedOp::Erase(rect, fill) => self.erase(rect, fill),
        }
    }

    /// What is no whole grey level needs floats.
    fn erase(&mut self, rect: Rect, fill: Fill) {
        match fill {
            Fill::Bytes(color) if self.stage == Stage::Floats => {
                fill_rect(&mut self.canvas.floats, rect, color.map(f32::from));
            }
            Fill::Bytes(color) => {
                self.switch_to_bytes();
                fill_rect(&mut self.canvas.bytes, rect, color);
            }
            Fill::Levels(color) => fill_rect(self.switch_to_floats(), rect, color),
            Fill::Noise { mean, std, seed } => fill_noise(self.switch_to_floats(), rect, mean, std, seed),
        }
    }

    fn move_pixels(
        &mut self,
        on_bytes: impl Fn(&mut Planes<u8>, &mut Planes<u8>),
        on_floats: impl Fn(&mut Planes<f32>, &mut Planes<f32>),
    ) {
        if self.stage == Stage::Floats {
            on_floats(&mut self.canvas.floats, &mut self.canvas.spare_floats);
        } else {
            self.switch_to_bytes();
            on_bytes(&mut self.canvas.bytes, &mut self.canvas.spare_bytes);
        }
    }

    /// The pixels.
    pub fn finish(mut self) -> FinishedView<'c> {
        if self.stage == Stage::Floats {
            FinishedView::Floats(&self.canvas.floats)
        } else {
            self.switch_to_bytes();
            FinishedView::Bytes(&self.canvas.bytes)
        }
    }
}
