//! Whatever the bytes are: an answer, soon, and never a panic.

use std::{fmt::Write as _, path::Path, time::Instant};

use proptest::prelude::*;

use super::{INTEL, SMALL, codes, load_pipeline, no_env, with};

#[test]
fn an_alias_bomb_is_refused_at_once() {
    let mut text = String::from("version: 1\nvars:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        let _ = writeln!(text, "  a{level}: &a{level} [{aliases}]");
    }
    let start = Instant::now();
    assert_eq!(codes(&text), ["config::too_large"]);
    assert!(start.elapsed().as_secs() < 5);
}

#[test]
fn a_reference_bomb_is_refused_at_once() {
    for (seed, joined) in [("[x, x, x, x]", ", "), ("xxxxxxxxxxxxxxxxxxxxxxxx", "")] {
        let is_list = !joined.is_empty();
        let mut text = format!("version: 1\nvars:\n  a0: {seed}\n");
        for level in 1..40 {
            let references = vec![format!("${{vars.a{}}}", level - 1); 10];
            let value = if is_list {
                format!("[{}]", references.iter().map(|r| format!("\"{r}\"")).collect::<Vec<_>>().join(joined))
            } else {
                format!("\"{}\"", references.concat())
            };
            let _ = writeln!(text, "  a{level}: {value}");
        }
        text.push_str(SMALL.trim_start_matches("version: 1\n"));
        let start = Instant::now();
        assert!(codes(&text).contains(&String::from("config::too_large")));
        assert!(start.elapsed().as_secs() < 5);
    }
}

#[test]
fn references_in_a_circle_are_named() {
    let text = with(SMALL, "stages:", "vars: { a: \"${vars.b}\", b: \"x${vars.c}\", c: \"${vars.a}\" }\nstages:");
    let errors = super::load(&text).unwrap_err();
    assert_eq!(errors.errors().len(), 1);
    assert_eq!(errors.records()[0].message, "`vars.a` refers to itself: vars.a -> vars.b -> vars.c -> vars.a");
}

#[test]
fn a_long_chain_of_references_is_refused() {
    let mut text = String::from("version: 1\nvars:\n  a0: 1\n");
    for level in 1..5000 {
        let _ = writeln!(text, "  a{level}: ${{vars.a{}}}", level - 1);
    }
    text.push_str(SMALL.trim_start_matches("version: 1\n"));
    // In the order of the file each finds the one before it resolved; from the end it does not.
    let reversed: String = {
        let mut lines: Vec<&str> = text.lines().skip(2).take(5000).collect();
        lines.reverse();
        format!("version: 1\nvars:\n{}\n{}", lines.join("\n"), SMALL.trim_start_matches("version: 1\n"))
    };
    assert!(codes(&reversed).iter().all(|code| code == "config::vars_chain"));
    assert!(codes(&text).is_empty());
}

#[test]
fn deep_nesting_is_refused() {
    assert_eq!(codes(&format!("version: {}{}", "[".repeat(150), "]".repeat(150))), ["config::too_deep"]);
    assert_eq!(codes(&format!("version: {}", "[".repeat(100_000))), ["config::too_deep"]);
    let block = (0..200).map(|level| format!("{}a:\n", " ".repeat(level))).collect::<Vec<_>>().concat();
    assert_eq!(codes(&block), ["config::too_deep"]);
    assert_eq!(codes(&"- ".repeat(100_000)), ["config::too_deep"]);
}

#[test]
fn an_alias_within_its_own_anchor_is_refused() {
    assert_eq!(codes("version: &a [*a]\n"), ["config::alias"]);
}

#[test]
fn a_huge_file_is_refused_unread() {
    assert_eq!(codes(&"#".repeat((1 << 20) + 1)), ["config::too_large"]);
}

#[test]
fn a_line_of_a_megabyte_is_not_shown() {
    let text = format!("version: {}", "x".repeat(1_000_000));
    let rendered = super::complaints(&text);
    assert!(rendered.len() < 5_000, "{}", rendered.len());
    assert!(rendered.contains("small.yaml:1:10"));
}

#[test]
fn a_thousand_mistakes_are_cut_to_a_hundred() {
    let keys = (0..1000).map(|key| format!("key{key}: 1\n")).collect::<Vec<_>>().concat();
    assert_eq!(codes(&format!("{keys}{SMALL}")).len(), 100);
}

#[test]
fn many_stages_load_fast() {
    let mut text = String::from("version: 1\nstages:\n");
    for idx in 0..5000 {
        let inputs = if idx > 0 { format!("inputs: {{ a: s{} }}, ", idx - 1) } else { String::new() };
        let _ = writeln!(text, "  s{idx}: {{ uses: command, {inputs}with: {{ run: [make], outputs: [a] }} }}");
    }
    let start = Instant::now();
    let pipeline = super::pipeline(&text);
    assert_eq!(crate::graph::StageGraph::build(&pipeline).unwrap().order().len(), 5000);
    assert!(start.elapsed().as_secs() < 10);
}

fn never_panics(bytes: &[u8], overrides: &[String]) {
    if let Err(errors) = load_pipeline(Path::new("x.yaml"), bytes, overrides, &no_env) {
        assert!(!errors.errors().is_empty());
        assert!(!errors.render(false, 80).is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        never_panics(&bytes, &[]);
    }

    #[test]
    fn random_yaml_never_panics(text in "[-a-c0-9 :{}\\[\\],\n\t\"'&*!|>%@#?$.~ü<]{0,80}") {
        never_panics(text.as_bytes(), &[]);
    }

    #[test]
    fn random_changes_of_a_right_file_never_panic(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), "[-a-z0-9 :{}\\[\\],\n\t\"'&*!|>#$.ü]{0,4}", 0usize..6), 1..6),
    ) {
        let base = if edits.len() % 2 == 0 { INTEL } else { super::matrix::SWEEP };
        let mut text: Vec<char> = base.chars().collect();
        for (at, insert, delete) in edits {
            let at = at.index(text.len().max(1)).min(text.len());
            let end = (at + delete).min(text.len());
            text.splice(at..end, insert.chars());
        }
        let text: String = text.into_iter().collect();
        never_panics(text.as_bytes(), &[]);
    }

    #[test]
    fn random_arguments_never_panic(key in "(stages|vars|name)?[-a-z.\\[\\]0-9=ü]{0,20}", value in "[-a-z0-9 :{}\\[\\],\n\"'&*$.]{0,12}") {
        never_panics(INTEL.as_bytes(), &[format!("{key}={value}"), key]);
    }
}
