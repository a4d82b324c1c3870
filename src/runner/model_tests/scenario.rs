//! What happens to a pipeline: edits, runs, failures, drawn at random.

use proptest::prelude::*;

use super::world::NUM_SOURCES;

/// What somebody does between two runs.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    Salt(usize, u32),
    Noise(usize, u32),
    Seed(usize, u64),
    Rename(usize),
    Connect(usize, usize),
    Source(usize, u32),
    TakeSource(usize, usize),
    /// Comments, order and spelling.
    Style,
    CollectGarbage,
}

/// How a stage ends that does not succeed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ending {
    Error,
    Panic,
    /// The user stops the run while the stage is at work.
    Stop,
}

#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) edits: Vec<Edit>,
    pub(super) jobs: usize,
    pub(super) keep_going: bool,
    pub(super) failure: Option<(usize, Ending)>,
    /// Number of a stage to select, to begin from, to force; each for its own.
    pub(super) stage: Option<usize>,
    pub(super) from: Option<usize>,
    pub(super) force: Option<usize>,
    pub(super) no_cache: bool,
}

pub(super) fn edit() -> impl Strategy<Value = Edit> {
    let stage = 0_usize..50;
    prop_oneof![
        (stage.clone(), 0_u32..4).prop_map(|(stage, salt)| Edit::Salt(stage, salt)),
        (stage.clone(), 0_u32..3).prop_map(|(stage, noise)| Edit::Noise(stage, noise)),
        (stage.clone(), 0_u64..3).prop_map(|(stage, seed)| Edit::Seed(stage, seed)),
        stage.clone().prop_map(Edit::Rename),
        (stage.clone(), stage.clone()).prop_map(|(from, to)| Edit::Connect(from, to)),
        (0..NUM_SOURCES, 0_u32..3).prop_map(|(source, text)| Edit::Source(source, text)),
        (stage, 0..NUM_SOURCES).prop_map(|(stage, source)| Edit::TakeSource(stage, source)),
        Just(Edit::Style),
        Just(Edit::CollectGarbage),
    ]
}

pub(super) fn round() -> impl Strategy<Value = Round> {
    let failure = prop_oneof![
        3 => Just(None),
        1 => (0_usize..50, prop_oneof![Just(Ending::Error), Just(Ending::Panic), Just(Ending::Stop)]).prop_map(Some),
    ];
    let sometimes = || prop_oneof![4 => Just(None), 1 => (0_usize..50).prop_map(Some)];
    (
        prop::collection::vec(edit(), 0..6),
        1_usize..4,
        any::<bool>(),
        failure,
        (sometimes(), sometimes(), sometimes()),
        prop_oneof![9 => Just(false), 1 => Just(true)],
    )
        .prop_map(|(edits, jobs, keep_going, failure, (stage, from, force), no_cache)| Round {
            edits,
            jobs,
            keep_going,
            failure,
            stage,
            from,
            force,
            no_cache,
        })
}

/// Some edges between up to 50 stages, most graphs small.
pub(super) fn stages() -> impl Strategy<Value = (usize, Vec<(usize, usize)>)> {
    (prop_oneof![3 => 1_usize..12, 1 => 12_usize..=50], prop::collection::vec((0_usize..50, 0_usize..50), 0..60))
}
