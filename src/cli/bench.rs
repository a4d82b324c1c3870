//! `bench`: what throughput this machine gives.

use std::{fmt::Write as _, path::PathBuf};

use clap::{Subcommand, ValueEnum};
use serde::Serialize;

use super::{
    Session,
    bench_stage::{self, BenchStageArgs, Forecast},
    table::Table,
};
use crate::{
    bench::{
        Measurement,
        augment::AugmentBench,
        extract::ExtractBench,
        ingest::{IngestBench, folder_config},
        loader::LoaderBench,
        train::TrainBench,
    },
    error::Error,
    model::backbone::{BackboneConfig, ResnetConfig, Stem, backbone_config::DarknetTinyConfig},
    profile::{Entry, Profile},
    runner::{console::Paint, text},
};

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  simsiam-pipe bench train --image-size 64 --batch-size 256\n  \
                        simsiam-pipe bench train --backbone resnet18 --stem cifar --image-size 32 --threads 8\n  \
                        simsiam-pipe bench augment --images data/photos --image-size 128\n  \
                        simsiam-pipe bench loader --dataset runs/photos/train --image-size 128\n  \
                        simsiam-pipe bench stage pretrain\n\n\
                        A figure is that of the fastest step: other programs can only make a step slower. Nothing \
                        is written to the project.")]
pub struct BenchArgs {
    /// What to measure.
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Training steps on random images: forward, backward and update of two views.
    Train(NetworkArgs),
    /// Features of random images.
    Extract(NetworkArgs),
    /// From image files to two views of each, by the paper's policy.
    Augment(AugmentArgs),
    /// From a dataset to batches of views by the paper's policy, as pretraining draws them.
    Loader(LoaderArgs),
    /// From image files to a dataset, as an `ingest` stage makes it.
    Ingest(IngestArgs),
    /// A stage of a pipeline with its own parameters, and how long it will take.
    Stage(BenchStageArgs),
}

/// The network and the size of its work.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct NetworkArgs {
    /// The network whose output is the features; in training with the paper's projector and predictor.
    #[arg(long, value_enum, default_value_t = BackboneName::Resnet18)]
    pub backbone: BackboneName,
    /// How a ResNet begins; `darknet_tiny` has no choice.
    #[arg(long, value_enum, default_value_t = StemName::Imagenet)]
    pub stem: StemName,
    /// Width and height in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=1024))]
    pub image_size: u32,
    /// Images in one step.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=65536))]
    pub batch_size: u32,
    /// Timed steps, after one that is not timed.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: u32,
    /// Say where the time of the fastest step went: by kind of work, and by layer.
    #[arg(long)]
    pub profile: bool,
}

/// Which images, and which views of them.
#[derive(Clone, Debug, clap::Args)]
pub struct AugmentArgs {
    /// A folder of images, with all folders below.
    #[arg(long, value_name = "FOLDER")]
    pub images: PathBuf,
    /// Width and height of a view in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=1024))]
    pub image_size: u32,
    /// Views of each image.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=32))]
    pub views: u32,
    /// Timed passes over the folder.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: u32,
}

/// Which dataset, and which views of its images.
#[derive(Clone, Debug, clap::Args)]
pub struct LoaderArgs {
    /// The folder of an `ingest` stage's artifact, such as `runs/photos/train`.
    #[arg(long, value_name = "FOLDER")]
    pub dataset: PathBuf,
    /// Width and height of a view in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=1024))]
    pub image_size: u32,
    /// Views of each image.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..=32))]
    pub views: u32,
    /// Images in a batch.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch_size: u32,
    /// Timed epochs.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: u32,
}

/// Which images, and how they are stored.
#[derive(Clone, Debug, clap::Args)]
pub struct IngestArgs {
    /// A folder of images, with all folders below.
    #[arg(long, value_name = "FOLDER")]
    pub images: PathBuf,
    /// Shorter side of a stored image in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 72, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub shorter_side: u32,
    /// Timed passes over the folder.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: u32,
}

/// Backbones by the names that pipelines use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum BackboneName {
    /// 18 layers, 512 features.
    Resnet18,
    /// 34 layers, 512 features.
    Resnet34,
    /// 50 layers, 2048 features.
    Resnet50,
    /// Small, with residuals, 128 features.
    DarknetTiny,
}

/// Beginnings of a ResNet by the names that pipelines use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StemName {
    /// 7×7 with stride 2, then max-pool.
    Imagenet,
    /// 3×3 with stride 1, for small images.
    Cifar,
}

impl NetworkArgs {
    fn backbone(&self) -> BackboneConfig {
        let stem = match self.stem {
            StemName::Imagenet => Stem::Imagenet,
            StemName::Cifar => Stem::Cifar,
        };
        let resnet = ResnetConfig { stem, zero_init_residual: false };
        match self.backbone {
            BackboneName::Resnet18 => BackboneConfig::Resnet18(resnet),
            BackboneName::Resnet34 => BackboneConfig::Resnet34(resnet),
            BackboneName::Resnet50 => BackboneConfig::Resnet50(resnet),
            BackboneName::DarknetTiny => BackboneConfig::DarknetTiny(DarknetTinyConfig {}),
        }
    }

    fn describe(&self) -> String {
        let Self { image_size, batch_size, .. } = self;
        let name = |value: Option<clap::builder::PossibleValue>| value.map(|value| value.get_name().to_owned());
        let backbone = name(self.backbone.to_possible_value()).unwrap_or_default();
        let stem = match self.backbone {
            BackboneName::DarknetTiny => String::new(),
            _ => format!(" ({} stem)", name(self.stem.to_possible_value()).unwrap_or_default()),
        };
        format!("{backbone}{stem}, {image_size}×{image_size} pixels, batches of {batch_size}")
    }
}

/// Measures and prints.
///
/// # Errors
/// Where the network cannot take such images, or the files cannot be used.
pub fn run(args: &BenchArgs, session: &Session) -> Result<(), Error> {
    let mut on_step = |step: u32, seconds: f64| session.note(&format!("step {step}: {seconds:.3} s"));
    let mut forecast = None;
    let (mut measurement, work) = match &args.command {
        BenchCommand::Stage(stage) => {
            let measured = bench_stage::measure(stage, session, &mut on_step)?;
            forecast = measured.forecast;
            (measured.measurement, measured.work)
        }
        BenchCommand::Train(network) => {
            let &NetworkArgs { image_size, batch_size, steps, .. } = network;
            let bench = TrainBench::of(network.backbone(), image_size, batch_size, steps);
            (bench.run(&mut on_step)?, format!("training {}", network.describe()))
        }
        BenchCommand::Extract(network) => {
            let &NetworkArgs { image_size, batch_size, steps, .. } = network;
            let bench = ExtractBench { backbone: network.backbone(), image_size, batch_size, steps };
            (bench.run(&mut on_step)?, format!("features of {}", network.describe()))
        }
        BenchCommand::Augment(AugmentArgs { images, image_size, views, steps }) => {
            let bench = AugmentBench { images, image_size: *image_size, views: *views, steps: *steps };
            (bench.run(&mut on_step)?, format!("files to {views} views of {image_size}×{image_size} pixels"))
        }
        BenchCommand::Loader(LoaderArgs { dataset, image_size, views, batch_size, steps }) => {
            let (image_size, views, batch_size, steps) = (*image_size, *views, *batch_size, *steps);
            let measured = LoaderBench { dataset, image_size, views, batch_size, steps }.run(&mut on_step)?;
            session.note(&format!("the dataset was open after {:.2} ms", 1e3 * measured.open_seconds));
            (measured.epochs, format!("a dataset to {views} views of {image_size}×{image_size} pixels"))
        }
        BenchCommand::Ingest(IngestArgs { images, shorter_side, steps }) => {
            let bench = IngestBench { config: &folder_config(*shorter_side), root: images, steps: *steps };
            (bench.run(&mut on_step)?, format!("files to a dataset, shorter side {shorter_side} pixels"))
        }
    };
    let profile = match &args.command {
        BenchCommand::Train(network) | BenchCommand::Extract(network) => network.profile,
        BenchCommand::Stage(stage) => stage.profile,
        BenchCommand::Augment(_) | BenchCommand::Loader(_) | BenchCommand::Ingest(_) => false,
    };
    if !profile {
        measurement.profile = None;
    }
    if session.json() {
        let line = serde_json::to_string(&Output { measurement: &measurement, forecast: forecast.as_ref() })
            .map_err(|source| Error::Render { source })?;
        return session.print(&format!("{line}\n"));
    }
    let rate = measurement.images_per_second;
    let hundred_thousand = text::duration(1e5 / rate);
    let so = match (&forecast, &args.command) {
        (Some(forecast), _) => forecast.to_string(),
        (None, BenchCommand::Train(_)) => {
            format!("100,000 images take {hundred_thousand} an epoch, the loading of images not counted")
        }
        (None, _) => format!("100,000 images take {hundred_thousand}"),
    };
    session.print(&render(&measurement, &work, so, session))
}

/// The line of `--json`.
#[derive(Serialize)]
struct Output<'a> {
    #[serde(flatten)]
    measurement: &'a Measurement,
    #[serde(skip_serializing_if = "Option::is_none")]
    forecast: Option<&'a Forecast>,
}

fn render(measurement: &Measurement, work: &str, so: String, session: &Session) -> String {
    let paint = session.paint();
    let Measurement { images_per_second: rate, peak_rss_mib, threads, step_seconds, images_per_step, .. } = measurement;
    let mut rows = vec![
        ("work", work.to_owned()),
        ("threads", threads.to_string()),
        ("images/s", paint.bold(&format!("{rate:.1}"))),
        ("step", {
            let (images, steps) = (text::count(*images_per_step), step_seconds.len());
            let fastest = measurement.fastest();
            match steps {
                1 => format!("{fastest:.3} s for {images} images"),
                _ => format!(
                    "{fastest:.3} s for {images} images in the fastest of {steps}, {:.3} s in the median",
                    measurement.median()
                ),
            }
        }),
        ("memory", format!("{peak_rss_mib:.0} MiB at the most")),
    ];
    if let Some(arithmetic) = &measurement.arithmetic {
        rows.push((
            "GFLOP/s",
            format!(
                "{:.1}, {:.0} % of the {:.1} of a large matrix product",
                arithmetic.gflops,
                100.0 * arithmetic.share_of_peak,
                arithmetic.gemm_peak_gflops
            ),
        ));
    }
    rows.push(("so", so));
    let mut out = String::new();
    for (name, value) in rows {
        let _ = writeln!(out, "{}  {value}", paint.dim(&format!("{name:<8}")));
    }
    if let Some(profile) = &measurement.profile {
        let _ = write!(out, "\n{}\n{}", by_work(profile, measurement.fastest(), paint), by_layer(profile, paint));
    }
    out
}

/// Kinds of work, the longest first, and what no span saw.
fn by_work(profile: &Profile, step: f64, paint: Paint) -> String {
    let mut table = Table::new(&["work", "ms", "share", "GFLOP/s"]);
    let share = |seconds: f64| format!("{:5.1} %", 100.0 * seconds / step);
    for (work, seconds, flop) in profile.by_work() {
        table.row([work.to_string(), milliseconds(seconds), share(seconds), gflops(flop, seconds)]);
    }
    let rest = (step - profile.seconds()).max(0.0);
    table.row(["anything else".to_owned(), milliseconds(rest), share(rest), String::new()]);
    table.render(paint)
}

fn by_layer(profile: &Profile, paint: Paint) -> String {
    let mut table = Table::new(&["layer", "work", "ms", "GFLOP/s"]);
    for Entry { layer, work, seconds, flop, .. } in &profile.entries {
        table.row([layer.clone(), work.to_string(), milliseconds(*seconds), gflops(*flop, *seconds)]);
    }
    table.render(paint)
}

fn milliseconds(seconds: f64) -> String {
    format!("{:8.2}", 1e3 * seconds)
}

fn gflops(flop: f64, seconds: f64) -> String {
    if flop == 0.0 { String::new() } else { format!("{:7.1}", flop / seconds.max(1e-9) / 1e9) }
}
