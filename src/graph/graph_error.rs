//! Why stages do not form a graph that can run.

use crate::config::Place;

/// Why stages do not form a graph that can run. A pipeline that was loaded from a file has passed these
/// checks, with better messages; they guard pipelines that were put together in code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Stages wait for each other.
    #[error("stages wait for each other: {}{}", path.join(" -> "), at(*place))]
    Cycle {
        /// Names in the direction in which results go; the first is also the last.
        path: Vec<String>,
        /// Where one of the inputs stands in the file, if it is known.
        place: Option<Place>,
    },
    /// An input names a stage that does not exist.
    #[error("stage `{stage}` takes `{input}` from `{reference}`, which does not exist{}", at(*place))]
    UnknownStage {
        /// The stage that has the input.
        stage: String,
        /// The input.
        input: String,
        /// The name that does not exist.
        reference: String,
        /// Where it stands in the file, if it is known.
        place: Option<Place>,
    },
    /// Two stages share a name.
    #[error("two stages are called `{0}`")]
    DuplicateName(String),
}

fn at(place: Option<Place>) -> String {
    place.map_or_else(String::new, |place| format!(" (line {}, column {})", place.line, place.column))
}
