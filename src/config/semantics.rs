//! What a schema cannot say: how the parameters of a stage fit each other.

use std::collections::BTreeMap;

use super::{
    findings::{Finding, Findings},
    stage_check::StageDraft,
};
use crate::{
    augment::{
        AugmentConfig,
        augment_config::{NormalizeConfig, OpConfig},
        policy::{KERNEL_SIZE_HELP, VIEW_OPS_HELP, view_ops_problem},
        view_size::{WRONG_SIZE_HELP, check_view_size},
    },
    data::{
        IngestConfig,
        source_config::PathKind,
        subset::{FractionConfig, SubsetConfig},
    },
    eval::{ExtractConfig, FitConfig},
    stage::{CommandConfig, StageConfig},
    train::{
        PretrainConfig,
        train_config::{
            ClassifierOptimizerConfig, ClassifierTrainConfig, PretrainOptimizerConfig, ScheduleConfig, SgdConfig,
            SgdProbeConfig,
        },
    },
};

/// Checks the parameters of one stage.
pub(crate) fn check(draft: &StageDraft<'_>, findings: &mut Findings) {
    let mut check = Check { draft, findings };
    for (path, op) in &draft.ops {
        check.op(path, op);
    }
    match &draft.config {
        Some(StageConfig::Ingest(config)) => check.ingest(config),
        Some(StageConfig::Augment(config)) => check.augment(config),
        Some(StageConfig::Pretrain(config)) => check.pretrain(config),
        Some(StageConfig::Extract(config)) => check.extract(config),
        Some(StageConfig::Fit(config)) => check.fit(config),
        Some(StageConfig::Command(config)) => check.command(config),
        Some(StageConfig::Report(_)) | None => {}
    }
}

/// Checks what only the stage at the other end of an edge knows.
pub(crate) fn check_edges(drafts: &[StageDraft<'_>], findings: &mut Findings) {
    for draft in drafts.iter().filter(|draft| matches!(draft.config, Some(StageConfig::Pretrain(_)))) {
        let Some(reference) = draft.inputs.get("augmentation").and_then(|refs| refs.first()) else { continue };
        let policy = &drafts[reference.stage];
        let Some(StageConfig::Augment(config)) = &policy.config else { continue };
        if !config.op_lists().iter().any(|(_, ops)| ops.iter().any(is_random)) {
            let message = format!(
                "`{}` changes nothing at random, but `{}` learns from two views of an image",
                policy.name, draft.name
            );
            findings.error(
                Finding::new("config::no_randomness", policy.span("with.ops"), message)
                    .label("both views would be the same")
                    .help("add operations such as `random_resized_crop` and `horizontal_flip`, with a `p` above 0"),
            );
        }
    }
}

fn is_random(op: &OpConfig) -> bool {
    match op {
        OpConfig::RandomResizedCrop(_) => true,
        OpConfig::PadCrop(crop) => crop.padding > 0,
        OpConfig::Resize(_) | OpConfig::CenterCrop(_) => false,
        OpConfig::HorizontalFlip(op) | OpConfig::VerticalFlip(op) | OpConfig::Grayscale(op) => op.p > 0.0,
        OpConfig::Rotate90(op) => op.p > 0.0 && (op.p < 1.0 || op.turns.len() > 1),
        OpConfig::ColorJitter(op) => {
            op.p > 0.0 && [op.brightness, op.contrast, op.saturation, op.hue].iter().any(|strength| *strength > 0.0)
        }
        OpConfig::GaussianBlur(op) => op.p > 0.0,
        OpConfig::Solarize(op) => op.p > 0.0 && op.p < 1.0,
        OpConfig::RandomErasing(op) => op.p > 0.0,
        OpConfig::TfBrightness(op) | OpConfig::TfHue(op) => op.p > 0.0 && op.max_delta > 0.0,
        OpConfig::TfContrast(op) | OpConfig::TfSaturation(op) => op.p > 0.0 && op.lower < op.upper,
    }
}

struct Check<'a, 'n> {
    draft: &'a StageDraft<'n>,
    findings: &'a mut Findings,
}

impl Check<'_, '_> {
    /// A mistake at a key path below `with`.
    fn error(&mut self, path: &str, message: String, label: &str, help: &str) {
        let span = self.draft.span(&format!("with.{path}"));
        self.findings.error(Finding::new("config::value", span, message).label(label).help(help));
    }

    /// A range is written smallest first.
    fn range(&mut self, path: &str, [lower, upper]: [f64; 2], above_zero: bool) {
        if lower > upper {
            let help = format!("write [{upper}, {lower}]");
            self.error(path, format!("`{path}` goes from {lower} down to {upper}"), "largest first", &help);
        } else if above_zero && lower <= 0.0 {
            self.error(
                path,
                format!("`{path}` must begin above 0, but begins at {lower}"),
                "not above 0",
                "raise its first number",
            );
        }
    }

    fn duplicates(&mut self, path: &str, values: &[String]) {
        let mut first = BTreeMap::new();
        for (idx, value) in values.iter().enumerate() {
            if first.insert(value.as_str(), idx).is_some() {
                let message = format!("`{path}` holds `{value}` twice");
                self.error(&format!("{path}[{idx}]"), message, "again here", "keep one of the two");
            }
        }
    }

    fn ingest(&mut self, config: &IngestConfig) {
        for place in config.paths().into_iter().filter(|place| place.path.trim().is_empty()) {
            let what = if place.kind == PathKind::Folder { "a folder" } else { "a file" };
            let help = format!("name {what}, relative to the project root");
            self.error(place.key, format!("`{}` is empty", place.key), "no path", &help);
        }
        if let SubsetConfig::Fraction(FractionConfig { test_fraction, .. }) = config.subset
            && (test_fraction <= 0.0 || test_fraction >= 1.0)
        {
            let path = "subset.fraction.test_fraction";
            let message = format!("`{path}` must lie between 0 and 1, but is {test_fraction}");
            self.error(path, message, "leaves one part empty", "0.2 is usual");
        }
        self.duplicates("classes", &config.classes);
    }

    fn augment(&mut self, config: &AugmentConfig) {
        if let NormalizeConfig::Custom(stats) = &config.normalize {
            for (idx, std) in stats.std.iter().enumerate().filter(|(_, std)| **std <= 0.0) {
                let path = format!("normalize.custom.std[{idx}]");
                let message = format!("`{path}` must be above 0, but is {std}");
                self.error(&path, message, "not above 0", "pixels are divided by it; 1 leaves them as they are");
            }
        }
        let lists = config.view_ops.len();
        if lists > 0 && (lists != config.views as usize || !config.ops.is_empty()) {
            self.error("view_ops", view_ops_problem(config), "does not fit", VIEW_OPS_HELP);
            return;
        }
        for (key, ops) in config.op_lists() {
            if let Err(wrong) = check_view_size(ops, config.image_size) {
                let path = format!("{key}[{}]", wrong.op);
                let message = format!("`{path}` leaves {}, not views of `image_size`", wrong.leaves);
                self.error(&path, message, "the last operation that sets the size", WRONG_SIZE_HELP);
            }
        }
    }

    fn op(&mut self, path: &str, op: &OpConfig) {
        match op {
            OpConfig::RandomResizedCrop(crop) => {
                self.range(&format!("{path}.random_resized_crop.scale"), crop.scale, true);
                self.range(&format!("{path}.random_resized_crop.ratio"), crop.ratio, true);
            }
            OpConfig::GaussianBlur(blur) => {
                self.range(&format!("{path}.gaussian_blur.sigma"), blur.sigma, true);
                if let Some(size) = blur.kernel_size.filter(|size| size % 2 == 0) {
                    let path = format!("{path}.gaussian_blur.kernel_size");
                    let message = format!("`{path}` must be odd, but is {size}");
                    self.error(&path, message, "has no middle", KERNEL_SIZE_HELP);
                }
            }
            OpConfig::RandomErasing(erasing) => {
                self.range(&format!("{path}.random_erasing.scale"), erasing.scale, false);
                self.range(&format!("{path}.random_erasing.ratio"), erasing.ratio, true);
            }
            OpConfig::Rotate90(rotate) if rotate.turns.is_empty() => {
                let path = format!("{path}.rotate90.turns");
                self.error(
                    &path,
                    format!("`{path}` is empty"),
                    "nothing to choose from",
                    "write `[0, 1, 2, 3]` for any turn",
                );
            }
            OpConfig::TfHue(hue) if hue.max_delta > 0.5 => {
                let path = format!("{path}.tf_hue.max_delta");
                let message = format!("`{path}` must be at most 0.5, but is {}", hue.max_delta);
                self.error(&path, message, "beyond half the colour circle", "0.5 reaches every hue");
            }
            OpConfig::TfBrightness(brightness) if brightness.max_delta > 255.0 => {
                let path = format!("{path}.tf_brightness.max_delta");
                let message = format!("`{path}` must be at most 255, but is {}", brightness.max_delta);
                self.error(&path, message, "beyond the scale of 0 to 255", "255 reaches black and white");
            }
            OpConfig::TfContrast(factor) => self.factor(&format!("{path}.tf_contrast"), factor.lower, factor.upper),
            OpConfig::TfSaturation(factor) => self.factor(&format!("{path}.tf_saturation"), factor.lower, factor.upper),
            _ => {}
        }
    }

    fn factor(&mut self, path: &str, lower: f64, upper: f64) {
        if lower > upper {
            let message = format!("`{path}.lower` is {lower}, above `upper`, which is {upper}");
            self.error(&format!("{path}.lower"), message, "above `upper`", "exchange the two");
        }
    }

    fn pretrain(&mut self, config: &PretrainConfig) {
        let PretrainOptimizerConfig::Sgd(sgd) = &config.optimizer;
        self.sgd("optimizer.sgd", sgd);
        self.schedule("schedule", &config.schedule, config.epochs);
        self.accumulate(config);
        if config.init.as_ref().is_some_and(|path| path.trim().is_empty()) {
            let help = "name a safetensors file, relative to the project root, or leave `init` out";
            self.error("init", "`init` is empty".into(), "no path", help);
        }
    }

    /// Batch norm needs two images in each part.
    fn accumulate(&mut self, config: &PretrainConfig) {
        let PretrainConfig { accumulate, batch_size, .. } = *config;
        if accumulate <= 1 {
            return;
        }
        let message = format!("`accumulate` cuts a batch of {batch_size} images into {accumulate} parts");
        if !batch_size.is_multiple_of(accumulate) {
            let help = "choose a divisor of `batch_size`, or another `batch_size`";
            self.error("accumulate", message, "the parts would not be equal", help);
        } else if batch_size / accumulate < 2 {
            let help = "batch norm needs at least 2 images in a part";
            self.error("accumulate", message, "a part would hold a single image", help);
        }
    }

    /// A momentum of 1 never forgets a gradient.
    fn sgd(&mut self, path: &str, sgd: &SgdConfig) {
        if sgd.momentum >= 1.0 {
            let path = format!("{path}.momentum");
            let message = format!("`{path}` must be below 1, but is {}", sgd.momentum);
            self.error(&path, message, "not below 1", "0.9 is usual; from 1 on the update grows without end");
        }
    }

    fn schedule(&mut self, path: &str, schedule: &ScheduleConfig, epochs: u32) {
        let (name, warmup_epochs) = match schedule {
            ScheduleConfig::Cosine(cosine) => ("cosine", cosine.warmup_epochs),
            ScheduleConfig::Constant(constant) => ("constant", constant.warmup_epochs),
        };
        if warmup_epochs >= epochs {
            let path = format!("{path}.{name}.warmup_epochs");
            let message = format!("`{path}` is {warmup_epochs}, but there are only {epochs} epochs");
            self.error(&path, message, "no epoch is left after the rise", "lower it or raise `epochs`");
        }
    }

    fn extract(&mut self, config: &ExtractConfig) {
        let names: Vec<String> = config.baselines.iter().map(|baseline| baseline.name().to_owned()).collect();
        self.duplicates("baselines", &names);
    }

    fn fit(&mut self, config: &FitConfig) {
        match config {
            FitConfig::FineTune(config) => self.classifier_train("fine_tune.train", &config.train),
            FitConfig::Supervised(config) => self.classifier_train("supervised.train", &config.train),
            FitConfig::LinearProbe(config) => {
                if let Some(sgd) = &config.sgd {
                    self.sgd_probe("linear_probe.sgd", sgd);
                    if config.cross_validation.is_some() {
                        let message = "`linear_probe` has both `sgd` and `cross_validation`".into();
                        let help = "keep one of the two: there is no penalty to choose in gradient descent";
                        self.error("linear_probe.cross_validation", message, "not with `sgd`", help);
                    }
                }
            }
            FitConfig::Knn(_) => {}
        }
    }

    fn sgd_probe(&mut self, path: &str, probe: &SgdProbeConfig) {
        let train = probe.train(1.0);
        self.schedule(&format!("{path}.schedule"), &train.schedule, train.epochs);
        if let ClassifierOptimizerConfig::Sgd(sgd) = &train.optimizer {
            self.sgd(path, sgd);
        }
        self.early_stopping(path, &train);
    }

    fn betas(&mut self, path: &str, betas: [f64; 2]) {
        for (idx, beta) in betas.iter().enumerate().filter(|(_, beta)| **beta >= 1.0) {
            let path = format!("{path}.betas[{idx}]");
            let message = format!("`{path}` must be below 1, but is {beta}");
            self.error(&path, message, "not below 1", "[0.9, 0.999] is usual");
        }
    }

    fn early_stopping(&mut self, path: &str, train: &ClassifierTrainConfig) {
        if train.early_stopping.is_some() && train.validation_fraction <= 0.0 {
            let message = format!("`{path}.early_stopping` has nothing to watch: `validation_fraction` is 0");
            let help = "raise `validation_fraction` to 0.1, or leave `early_stopping` out";
            self.error(&format!("{path}.early_stopping"), message, "watches the validation loss", help);
        }
    }

    fn classifier_train(&mut self, path: &str, train: &ClassifierTrainConfig) {
        self.schedule(&format!("{path}.schedule"), &train.schedule, train.epochs);
        match &train.optimizer {
            ClassifierOptimizerConfig::Sgd(sgd) => self.sgd(&format!("{path}.optimizer.sgd"), sgd),
            ClassifierOptimizerConfig::Adam(adam) => self.betas(&format!("{path}.optimizer.adam"), adam.betas),
            ClassifierOptimizerConfig::Adamw(adamw) => self.betas(&format!("{path}.optimizer.adamw"), adamw.betas),
        }
        self.early_stopping(path, train);
    }

    fn command(&mut self, config: &CommandConfig) {
        if config.run.first().is_some_and(|program| program.trim().is_empty()) {
            self.error(
                "run[0]",
                "the program's name is empty".into(),
                "no program",
                "write `run: [PROGRAM, ARGUMENT, …]`",
            );
        }
        for (idx, output) in config.outputs.iter().enumerate() {
            if let Some((why, help)) = bad_output(output) {
                self.error(
                    &format!("outputs[{idx}]"),
                    format!("`{output}` cannot be an output: {why}"),
                    "not a plain relative path",
                    help,
                );
            }
        }
        self.duplicates("outputs", &config.outputs);
        for (idx, source) in config.sources.iter().enumerate().filter(|(_, source)| source.trim().is_empty()) {
            self.error(&format!("sources[{idx}]"), format!("`{source}` is no path"), "empty", "name a file or folder");
        }
        for name in config.env.keys() {
            let is_name = !name.is_empty() && !name.contains(['=', '\0']);
            if !is_name || name.starts_with("SIMSIAM_PIPE_") {
                let message = format!("`{name}` cannot be set");
                self.error(
                    &format!("env.{name}"),
                    message,
                    "not free",
                    "names have no `=`; those that begin with `SIMSIAM_PIPE_` are set for you",
                );
            }
        }
    }
}

/// Why a path may not be an output of a command.
fn bad_output(output: &str) -> Option<(&'static str, &'static str)> {
    const INSIDE: &str = "name a file inside the output folder, such as `result.csv` or `tables/result.csv`";
    let mut parts = output.split(['/', '\\']);
    if output.is_empty() {
        return Some(("it is empty", INSIDE));
    }
    if output.starts_with(['/', '\\']) || output.get(1..2) == Some(":") {
        return Some(("it is absolute", INSIDE));
    }
    if parts.clone().any(|part| part == "..") {
        return Some(("it leaves the output folder", INSIDE));
    }
    if parts.clone().any(|part| part.is_empty() || part == ".") || output.contains(['\0', '\n', '\\']) {
        return Some(("it is not written plainly", INSIDE));
    }
    if matches!(output, "manifest.json" | "config.yaml") || parts.next() == Some("logs") {
        return Some(("the name is taken", "`manifest.json`, `config.yaml` and `logs/` are the artifact's own"));
    }
    None
}
