//! Which stages a run is about.

use std::collections::BTreeSet;

use super::RunnerError;
use crate::{
    config::{Pipeline, Stage},
    graph::StageGraph,
};

/// Which stages a run is about, by name or pattern (`*` and `?`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// These and what they need; empty means all.
    pub stages: Vec<String>,
    /// These, what needs them, and what that needs.
    pub from: Vec<String>,
    /// Execute these even where the cache has their result.
    pub force: Vec<String>,
}

/// A selection applied to a pipeline.
#[derive(Clone, Debug)]
pub struct Selected<'a> {
    /// In execution order.
    pub stages: Vec<&'a Stage>,
    /// Names of those to execute whatever the cache says.
    pub forced: BTreeSet<&'a str>,
}

impl Selection {
    /// Applies the patterns.
    ///
    /// # Errors
    /// When a pattern matches no stage.
    pub fn apply<'a>(&self, pipeline: &'a Pipeline) -> Result<Selected<'a>, RunnerError> {
        let graph = StageGraph::build(pipeline)?;
        let mut wanted: BTreeSet<&str> = matching(pipeline, &self.stages)?;
        for name in matching(pipeline, &self.from)? {
            wanted.insert(name);
            wanted.extend(graph.descendants(name));
        }
        let everything = self.stages.is_empty() && self.from.is_empty();
        let needed: BTreeSet<&str> = wanted.iter().flat_map(|name| graph.ancestors(name)).collect();
        let forced = matching(pipeline, &self.force)?;
        let stages = graph
            .order()
            .into_iter()
            .filter(|name| everything || wanted.contains(name) || needed.contains(name))
            .filter_map(|name| pipeline.stage(name))
            .collect();
        Ok(Selected { stages, forced })
    }
}

fn matching<'a>(pipeline: &'a Pipeline, patterns: &[String]) -> Result<BTreeSet<&'a str>, RunnerError> {
    let mut names = BTreeSet::new();
    for pattern in patterns {
        let found = pipeline.stages.iter().map(|stage| stage.name.as_str()).filter(|name| matches(pattern, name));
        let found: Vec<_> = found.collect();
        names.extend(&found);
        if found.is_empty() {
            return Err(RunnerError::UnknownStage {
                pattern: pattern.clone(),
                known: pipeline.stages.iter().map(|stage| stage.name.clone()).collect(),
            });
        }
    }
    Ok(names)
}

/// Whether a name matches a pattern in which `*` stands for anything and `?` for one character.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // reach[i]: the pattern up to here matches the first i characters.
    let mut reach = vec![false; name.len() + 1];
    reach[0] = true;
    for symbol in pattern {
        let mut next = vec![false; name.len() + 1];
        for idx in 0..=name.len() {
            next[idx] = match symbol {
                '*' => reach[idx] || (idx > 0 && next[idx - 1]),
                '?' => idx > 0 && reach[idx - 1],
                literal => idx > 0 && reach[idx - 1] && name[idx - 1] == literal,
            };
        }
        reach = next;
    }
    reach[name.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::tests::pipeline;

    fn names(selection: &Selection) -> Vec<String> {
        let pipeline = pipeline(&[("a", &[]), ("b", &["a"]), ("c", &["b"]), ("d", &["a"]), ("e", &[])]);
        selection.apply(&pipeline).unwrap().stages.iter().map(|stage| stage.name.clone()).collect()
    }

    #[test]
    fn nothing_said_means_all() {
        assert_eq!(names(&Selection::default()), ["a", "b", "c", "d", "e"]);
    }

    #[test]
    fn a_stage_brings_what_it_needs() {
        assert_eq!(names(&Selection { stages: vec!["b".into()], ..Selection::default() }), ["a", "b"]);
        assert_eq!(names(&Selection { stages: vec!["[de]".replace("[de]", "?")], ..Selection::default() }).len(), 5);
    }

    #[test]
    fn from_a_stage_brings_what_follows_and_what_that_needs() {
        assert_eq!(names(&Selection { from: vec!["b".into()], ..Selection::default() }), ["a", "b", "c"]);
    }

    #[test]
    fn an_unknown_name_is_an_error_with_a_suggestion() {
        let pipeline = pipeline(&[("pretrain", &[]), ("probe", &["pretrain"])]);
        let selection = Selection { stages: vec!["pretain".into()], ..Selection::default() };
        let error = selection.apply(&pipeline).unwrap_err();
        assert_eq!(error.to_string(), "no stage matches `pretain`");
        assert_eq!(error.help().as_deref(), Some("did you mean `pretrain`? the stages are `pretrain`, `probe`"));
    }

    #[test]
    fn stars_and_question_marks_match() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("fit_*", "fit_knn", true),
            ("fit_?nn", "fit_knn", true),
            ("*n*n", "fit_knn", true),
            ("fit", "fit_knn", false),
            ("?", "", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
