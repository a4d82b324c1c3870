//! The view used where nothing is random: extraction, kNN monitor, prediction.

use super::{
    ImageRef,
    augment_config::{ChannelStats, EvaluationViewConfig, Interpolation},
    crop::evaluation_window,
    normalize_pixels::PixelNormalizer,
    policy::Scratch,
    resample::Rect,
    view_op::{FinishedView, ViewInProgress},
};

/// How an image becomes network input, without randomness.
#[derive(Clone, Debug)]
pub struct EvaluationView {
    image_size: u32,
    kind: EvaluationViewConfig,
    normalizer: PixelNormalizer,
}

impl EvaluationView {
    /// From the three facts that an artifact's card records.
    pub fn new(image_size: u32, kind: EvaluationViewConfig, stats: &ChannelStats) -> Self {
        Self::prepare(image_size, kind, PixelNormalizer::new(stats))
    }

    pub(super) fn prepare(image_size: u32, kind: EvaluationViewConfig, normalizer: PixelNormalizer) -> Self {
        Self { image_size: image_size.max(1), kind, normalizer }
    }

    /// Width and height of the view.
    pub fn image_size(&self) -> usize {
        self.image_size as usize
    }

    /// Writes `[size, size, 3]`, normalised, to `out`.
    pub fn view(&self, image: ImageRef<'_>, scratch: &mut Scratch, out: &mut [f32]) {
        if let FinishedView::Bytes(planes) = self.make_view(image, scratch) {
            self.normalizer.normalize_bytes(planes, out);
        }
    }

    /// Writes `[size, size, 3]` bytes to `out`.
    pub fn view_pixels(&self, image: ImageRef<'_>, scratch: &mut Scratch, out: &mut [u8]) {
        if let FinishedView::Bytes(planes) = self.make_view(image, scratch) {
            planes.store(out);
        }
    }

    fn make_view<'c>(&self, image: ImageRef<'_>, scratch: &'c mut Scratch) -> FinishedView<'c> {
        let (full, wanted) = evaluation_window(image.width, image.height, self.image_size, self.kind);
        let mut view = ViewInProgress::new(image, self.image_size(), &mut scratch.canvas);
        view.resize_window(Rect::whole(image.width, image.height), full, wanted, Interpolation::Bilinear);
        view.finish()
    }
}
