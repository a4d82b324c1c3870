//! The graph as text that other tools draw: DOT and mermaid.
//!
//! `status` holds a word for some of the stages (`hit`, `miss`, `ran`, `failed` …); see [`super::svg()`] for the
//! words that have a colour.

use std::{collections::BTreeMap, fmt::Write as _};

use super::stage_graph::StageGraph;

/// What a status means, which decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing to do or done.
    Good,
    /// Runs or will run.
    Busy,
    /// Failed.
    Bad,
    /// Anything else.
    Plain,
}

/// The tone of a status word.
pub(crate) fn tone(status: Option<&str>) -> Tone {
    let word = status.and_then(|status| status.split([' ', ':', ',']).next()).unwrap_or_default();
    match word.to_ascii_lowercase().as_str() {
        "hit" | "cached" | "restored" | "fresh" | "done" | "ok" | "unchanged" => Tone::Good,
        "miss" | "run" | "ran" | "running" | "execute" | "executed" | "stale" | "changed" | "new" => Tone::Busy,
        "failed" | "error" | "cancelled" | "damaged" | "blocked" => Tone::Bad,
        _ => Tone::Plain,
    }
}

/// The graph in the DOT language of Graphviz.
pub fn dot(graph: &StageGraph, status: &BTreeMap<String, String>) -> String {
    let mut out = String::from(
        "digraph pipeline {\n  rankdir=TB;\n  node [shape=box, style=\"rounded,filled\", fontname=\"sans-serif\", fillcolor=\"white\"];\n  edge [fontname=\"sans-serif\", fontsize=10];\n",
    );
    for (_, node) in graph.nodes() {
        let status = status.get(&node.name);
        let fill = match tone(status.map(String::as_str)) {
            Tone::Good => "#d8f0de",
            Tone::Busy => "#fdeecb",
            Tone::Bad => "#f8d7d4",
            Tone::Plain => "white",
        };
        let status = status.map_or_else(String::new, |status| format!("\\n{}", escape_dot(status)));
        let _ = writeln!(
            out,
            "  \"{name}\" [label=\"{name}\\n{kind}{status}\", fillcolor=\"{fill}\"];",
            name = escape_dot(&node.name),
            kind = node.kind.name()
        );
    }
    for (from, to, inputs) in graph.edges() {
        let _ = writeln!(
            out,
            "  \"{}\" -> \"{}\" [label=\"{}\"];",
            escape_dot(from),
            escape_dot(to),
            escape_dot(&inputs.join(", "))
        );
    }
    out.push_str("}\n");
    out
}

fn escape_dot(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ")
}

/// The graph as a mermaid flowchart, which code forges draw in Markdown.
pub fn mermaid(graph: &StageGraph, status: &BTreeMap<String, String>) -> String {
    let mut out = String::from("flowchart TB\n");
    let ids: BTreeMap<&str, usize> =
        graph.nodes().enumerate().map(|(idx, (_, node))| (node.name.as_str(), idx)).collect();
    let mut classes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (idx, (_, node)) in graph.nodes().enumerate() {
        let word = status.get(&node.name);
        match tone(word.map(String::as_str)) {
            Tone::Good => classes.entry("good").or_default().push(format!("s{idx}")),
            Tone::Busy => classes.entry("busy").or_default().push(format!("s{idx}")),
            Tone::Bad => classes.entry("bad").or_default().push(format!("s{idx}")),
            Tone::Plain => {}
        }
        let word = word.map_or_else(String::new, |word| format!("<br/>{}", escape_mermaid(word)));
        let _ =
            writeln!(out, "  s{idx}(\"{}<br/><small>{}</small>{word}\")", escape_mermaid(&node.name), node.kind.name());
    }
    for (from, to, inputs) in graph.edges() {
        if let (Some(from), Some(to)) = (ids.get(from), ids.get(to)) {
            let _ = writeln!(out, "  s{from} -->|\"{}\"| s{to}", escape_mermaid(&inputs.join(", ")));
        }
    }
    for (class, style) in [
        ("good", "fill:#d8f0de,stroke:#3f8f58,color:#123"),
        ("busy", "fill:#fdeecb,stroke:#b07d12,color:#321"),
        ("bad", "fill:#f8d7d4,stroke:#b4443a,color:#311"),
    ] {
        if let Some(members) = classes.get(class) {
            let _ = writeln!(out, "  classDef {class} {style}\n  class {} {class}", members.join(","));
        }
    }
    out
}

/// Mermaid takes `#name;` entities within quotes.
fn escape_mermaid(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '"' => out.push_str("#quot;"),
            '<' => out.push_str("#lt;"),
            '>' => out.push_str("#gt;"),
            '&' => out.push_str("#amp;"),
            '#' => out.push_str("#35;"),
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::stage_graph::tests::pipeline;

    fn example() -> (StageGraph, BTreeMap<String, String>) {
        let pipeline = pipeline(&[("train", &[]), ("views", &["train"]), ("pretrain", &["train", "views"])]);
        let status =
            BTreeMap::from([("train".into(), "hit".into()), ("pretrain".into(), "miss: \"epochs\" <b>".into())]);
        (StageGraph::build(&pipeline).unwrap(), status)
    }

    #[test]
    fn dot_names_stages_inputs_and_status() {
        let (graph, status) = example();
        insta::assert_snapshot!(dot(&graph, &status));
    }

    #[test]
    fn mermaid_escapes_what_it_would_read_as_markup() {
        let (graph, status) = example();
        insta::assert_snapshot!(mermaid(&graph, &status));
    }
}
