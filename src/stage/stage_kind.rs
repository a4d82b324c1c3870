//! What kinds of stage there are, what each takes and what each leaves: declarations only.

use serde::{Deserialize, Serialize};

/// The kind of a stage, as written after `uses`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    /// Images from outside become a dataset.
    Ingest,
    /// A policy for views, with a contact sheet.
    Augment,
    /// SimSiam pretraining.
    Pretrain,
    /// Features of every image from a frozen backbone.
    Extract,
    /// A classifier.
    Fit,
    /// One page about the run.
    Report,
    /// Any program.
    Command,
}

/// What an artifact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactKind {
    /// Decoded images and labels.
    Dataset,
    /// A policy for views.
    Augmentation,
    /// A pretrained backbone with its heads and history.
    Encoder,
    /// Features of every image.
    Embeddings,
    /// A classifier with its metrics and predictions.
    Classifier,
    /// A page about the run.
    Report,
    /// Files made by a program of the user's.
    Files,
}

/// One named input of a stage kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputDecl {
    /// The key under `inputs`.
    pub name: &'static str,
    /// The artifact kinds that it accepts.
    pub accepts: &'static [ArtifactKind],
    /// Whether it must be given.
    pub required: bool,
    /// Whether it takes a list of stages.
    pub many: bool,
    /// The files of the artifact that the stage reads; only their content decides whether it runs again.
    /// Empty means all.
    pub files: &'static [&'static str],
    /// One sentence for the schema and for errors.
    pub doc: &'static str,
}

const fn one(name: &'static str, accepts: &'static [ArtifactKind], required: bool, doc: &'static str) -> InputDecl {
    InputDecl { name, accepts, required, many: false, files: &[], doc }
}

/// Only the policy decides what views look like; the contact sheet does not.
const fn policy(required: bool) -> InputDecl {
    InputDecl {
        name: "augmentation",
        accepts: &[ArtifactKind::Augmentation],
        required,
        many: false,
        files: &["policy.json"],
        doc: "The augmentation policy.",
    }
}

const INGEST_INPUTS: &[InputDecl] = &[InputDecl {
    name: "exclude",
    accepts: &[ArtifactKind::Dataset],
    required: false,
    many: true,
    files: &[],
    doc: "Datasets whose images are left out, compared as they are stored.",
}];
const AUGMENT_INPUTS: &[InputDecl] =
    &[one("dataset", &[ArtifactKind::Dataset], false, "Images for the contact sheet; without it there is none.")];
const PRETRAIN_INPUTS: &[InputDecl] = &[
    one("dataset", &[ArtifactKind::Dataset], true, "Images to learn from; labels are not used."),
    policy(true),
    one("monitor", &[ArtifactKind::Dataset], false, "Labelled images whose kNN accuracy is followed while training."),
];
const EXTRACT_INPUTS: &[InputDecl] = &[
    one("encoder", &[ArtifactKind::Encoder], true, "The pretrained backbone."),
    one("train", &[ArtifactKind::Dataset], true, "Images that classifiers learn from."),
    one("test", &[ArtifactKind::Dataset], false, "Images that classifiers are judged by."),
    policy(false),
];
const FIT_EMBEDDINGS_INPUTS: &[InputDecl] =
    &[one("embeddings", &[ArtifactKind::Embeddings], true, "Frozen features to fit on.")];
const FIT_FINE_TUNE_INPUTS: &[InputDecl] = &[
    one("encoder", &[ArtifactKind::Encoder], true, "The pretrained backbone to start from."),
    one("train", &[ArtifactKind::Dataset], true, "Labelled images to learn from."),
    one("test", &[ArtifactKind::Dataset], true, "Labelled images to be judged by."),
    policy(false),
];
const FIT_SUPERVISED_INPUTS: &[InputDecl] = &[
    one("train", &[ArtifactKind::Dataset], true, "Labelled images to learn from."),
    one("test", &[ArtifactKind::Dataset], true, "Labelled images to be judged by."),
    policy(true),
];
const REPORT_INPUTS: &[InputDecl] = &[
    InputDecl {
        name: "pretraining",
        accepts: &[ArtifactKind::Encoder],
        required: false,
        many: true,
        files: &[],
        doc: "The pretraining to report on; of several, such as the cells of a matrix, the first in detail and all side \
              by side.",
    },
    one("augmentation", &[ArtifactKind::Augmentation], false, "The policy whose contact sheet is shown."),
    one("embeddings", &[ArtifactKind::Embeddings], false, "The embeddings to map."),
    InputDecl {
        name: "classifiers",
        accepts: &[ArtifactKind::Classifier],
        required: false,
        many: true,
        files: &[],
        doc: "The classifiers to compare.",
    },
    InputDecl {
        name: "datasets",
        accepts: &[ArtifactKind::Dataset],
        required: false,
        many: true,
        files: &[],
        doc: "The datasets to describe.",
    },
];

impl StageKind {
    /// All kinds, in the order of a pipeline.
    pub const ALL: [Self; 7] =
        [Self::Ingest, Self::Augment, Self::Pretrain, Self::Extract, Self::Fit, Self::Report, Self::Command];

    /// The word after `uses`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Augment => "augment",
            Self::Pretrain => "pretrain",
            Self::Extract => "extract",
            Self::Fit => "fit",
            Self::Report => "report",
            Self::Command => "command",
        }
    }

    /// What a stage of this kind leaves.
    pub fn output(self) -> ArtifactKind {
        match self {
            Self::Ingest => ArtifactKind::Dataset,
            Self::Augment => ArtifactKind::Augmentation,
            Self::Pretrain => ArtifactKind::Encoder,
            Self::Extract => ArtifactKind::Embeddings,
            Self::Fit => ArtifactKind::Classifier,
            Self::Report => ArtifactKind::Report,
            Self::Command => ArtifactKind::Files,
        }
    }

    /// Bumped when the same parameters and inputs give other bytes than before: an old cache entry of this
    /// kind then no longer counts.
    pub fn implementation_revision(self) -> u32 {
        match self {
            // pretrain and fit, 3: minimal filtering with stride 2; how images were resized is recorded. 2: both views in
            // one pass, other kernels; the probe records its penalty.
            // ingest, 4: names lie in the table. 3: pixels lie in more and smaller files; the background of transparency
            // is recorded.
            // report, 4: marks for the run, print, the summary in Markdown. 3: t-SNE, thumbnails, neighbours,
            // duplicates. 2: several pretrainings and label efficiency.
            Self::Ingest | Self::Report => 4,
            Self::Pretrain | Self::Fit => 3,
            // 2: how images were resized is recorded; embeddings come with thumbnails and their spread is summed in
            // another order.
            Self::Extract => 2,
            Self::Augment | Self::Command => 1,
        }
    }

    /// The protocols of this kind, each with its own inputs: for `fit` the word under `with` decides (after a dot, whether
    /// that word has this key), the other kinds have one protocol without a name. `command` takes any input: see [`Self::takes_any_input`].
    pub fn protocols(self) -> &'static [(&'static str, &'static [InputDecl])] {
        match self {
            Self::Ingest => &[("", INGEST_INPUTS)],
            Self::Command => &[("", &[])],
            Self::Augment => &[("", AUGMENT_INPUTS)],
            Self::Pretrain => &[("", PRETRAIN_INPUTS)],
            Self::Extract => &[("", EXTRACT_INPUTS)],
            Self::Fit => &[
                ("linear_probe", FIT_EMBEDDINGS_INPUTS),
                ("linear_probe.sgd", FIT_FINE_TUNE_INPUTS),
                ("knn", FIT_EMBEDDINGS_INPUTS),
                ("fine_tune", FIT_FINE_TUNE_INPUTS),
                ("supervised", FIT_SUPERVISED_INPUTS),
            ],
            Self::Report => &[("", REPORT_INPUTS)],
        }
    }

    /// Whether inputs have names of the user's choice and accept every artifact kind.
    pub fn takes_any_input(self) -> bool {
        self == Self::Command
    }
}

impl ArtifactKind {
    /// The name in messages, manifests and graphs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dataset => "dataset",
            Self::Augmentation => "augmentation",
            Self::Encoder => "encoder",
            Self::Embeddings => "embeddings",
            Self::Classifier => "classifier",
            Self::Report => "report",
            Self::Files => "files",
        }
    }
}
