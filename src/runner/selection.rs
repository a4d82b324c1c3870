//! Which stages a run is about.

use std::collections::BTreeSet;

use super::RunnerError;
use crate::{
    config::{Pipeline, Stage, cell::selects},
    graph::StageGraph,
};

/// Which stages a run is about, by name or pattern: see [`selects`].
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
    /// When a pattern matches no stage, or one to be forced is not selected.
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
        let is_selected = |name: &str| everything || wanted.contains(name) || needed.contains(name);
        for pattern in &self.force {
            // Some of them may lie outside, as with `*`; if all do, the user expects what will not happen.
            if !forced.iter().any(|name| selects(pattern, name) && is_selected(name)) {
                return Err(RunnerError::ForcedOutside { pattern: pattern.clone() });
            }
        }
        let stages = graph
            .order()
            .into_iter()
            .filter(|name| is_selected(name))
            .filter_map(|name| pipeline.stage(name))
            .collect();
        Ok(Selected { stages, forced })
    }
}

fn matching<'a>(pipeline: &'a Pipeline, patterns: &[String]) -> Result<BTreeSet<&'a str>, RunnerError> {
    let mut names = BTreeSet::new();
    for pattern in patterns {
        let found = pipeline.stages.iter().map(|stage| stage.name.as_str()).filter(|name| selects(pattern, name));
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
        let selection = Selection { from: vec!["fit_*".into()], ..Selection::default() };
        let error = selection.apply(&pipeline).unwrap_err();
        assert_eq!(error.help().as_deref(), Some("the stages are `pretrain`, `probe`"));
    }

    #[test]
    fn a_stage_stands_for_its_cells_and_a_value_for_those_that_have_it() {
        let pipeline = pipeline(&[
            ("a", &[]),
            ("b@x=1,s=0", &["a"]),
            ("b@x=1,s=1", &["a"]),
            ("b@x=2,s=0", &["a"]),
            ("c@x=1,s=0", &["b@x=1,s=0"]),
            ("all", &["b@x=1,s=0", "b@x=1,s=1", "b@x=2,s=0"]),
        ]);
        let names = |stages: &[&str], from: &[&str], force: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            let selection = Selection { stages: owned(stages), from: owned(from), force: owned(force) };
            let selected = selection.apply(&pipeline).map_err(|error| error.to_string())?;
            let names = selected.stages.iter().map(|stage| stage.name.clone()).collect::<Vec<_>>();
            Ok::<_, String>((names, selected.forced.len()))
        };
        let count = |stages: &[&str]| names(stages, &[], &[]).map(|(names, _)| names.len());
        assert_eq!(count(&["b"]), Ok(4));
        assert_eq!(count(&["b@*"]), Ok(4));
        assert_eq!(count(&["b@x=1*"]), Ok(3));
        assert_eq!(count(&["b@s=0"]), Ok(3));
        assert_eq!(names(&["*@s=1"], &[], &[]), Ok((vec!["a".into(), "b@x=1,s=1".into()], 0)));
        assert_eq!(names(&[], &["b@x=2"], &[]).unwrap().0.len(), 5);
        assert_eq!(names(&[], &[], &["b"]).unwrap().1, 3);
        assert_eq!(names(&["c"], &[], &["b"]).unwrap().0, ["a", "b@x=1,s=0", "c@x=1,s=0"]);
        assert_eq!(
            names(&["c"], &[], &["all"]),
            Err("`all` is to be forced, but is not among the selected stages".into())
        );
        assert_eq!(count(&["b@x=3"]), Err("no stage matches `b@x=3`".into()));
        let selection = Selection { stages: vec!["b@x=3".into()], ..Selection::default() };
        let help = selection.apply(&pipeline).unwrap_err().help().unwrap();
        assert_eq!(help, "the cells of `b` are `b@x=1,s=0`, `b@x=1,s=1`, `b@x=2,s=0`");
    }
}
