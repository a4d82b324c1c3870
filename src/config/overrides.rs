//! `--set a.b.c=value`: values from the command line in the place of those in the file.

use super::{
    findings::{Finding, Findings},
    load::{self, Budget},
    node::{Entry, Node, NodeValue},
    references,
    scalar::Scalar,
    source::Span,
    suggest::{did_you_mean, list, nearest},
};

/// Keys that a pipeline file may have at its top.
pub(crate) const TOP_KEYS: [&str; 7] = ["version", "name", "seed", "device", "precision", "vars", "stages"];

/// Applies every argument in turn, so that a later one wins.
pub(crate) fn apply(root: &mut Node, arguments: &[String], findings: &mut Findings, budget: &mut Budget) {
    for argument in arguments {
        let key = argument.split('=').next().unwrap_or_default().trim();
        let source = findings.sources.add(format!("--set {key}"), argument.clone());
        if let Err(finding) = apply_one(root, argument, source, findings, budget) {
            findings.error(finding);
        }
    }
}

fn apply_one(
    root: &mut Node,
    argument: &str,
    source: usize,
    findings: &mut Findings,
    budget: &mut Budget,
) -> Result<(), Finding> {
    let whole = Span { source, start: 0, end: argument.len() };
    let Some((path, _)) = argument.split_once('=') else {
        return Err(Finding::new("config::set", whole, "this has no `=`")
            .help("write `--set KEY=VALUE`, for example `--set stages.pretrain.with.epochs=10`"));
    };
    let segments = split_path(path, source)?;
    let Some(value) = parse_value(argument, path.len() + 1, source, findings, budget)? else {
        return Ok(());
    };
    let references = references::referenced_vars(root);
    let (steps, taken) = locate(root, &segments);
    let rest = &segments[taken..];
    let Some(target) = follow(root, &steps) else { return Ok(()) };
    if rest.is_empty() {
        *target = value;
        return Ok(());
    }
    check_creation(target, &segments, rest.len(), &references)?;
    create(target, rest, value)
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq)]
struct Segment {
    text: String,
    span: Span,
}

/// `a.b[0].c` and `a.b.0.c` mean the same.
fn split_path(path: &str, source: usize) -> Result<Vec<Segment>, Finding> {
    let mut segments = vec![];
    let mut start = 0;
    let bytes = path.as_bytes();
    for end in 0..=bytes.len() {
        if end < bytes.len() && !matches!(bytes[end], b'.' | b'[' | b']') {
            continue;
        }
        let text = path[start..end].trim();
        let span = Span { source, start, end };
        // Nothing stands between `]` and what follows it.
        let after_bracket = start > 0 && bytes[start - 1] == b']';
        if !text.is_empty() {
            segments.push(Segment { text: text.to_owned(), span });
        } else if !after_bracket {
            return Err(Finding::new("config::set", Span { end: end.max(start), ..span }, "a key is missing here")
                .help("write `--set KEY=VALUE`, for example `--set stages.pretrain.with.epochs=10`"));
        }
        start = end + 1;
    }
    Ok(segments)
}

/// The value as YAML; without quotes on a command line it takes whichever type is expected. None where the
/// mistake is reported already.
fn parse_value(
    argument: &str,
    start: usize,
    source: usize,
    findings: &mut Findings,
    budget: &mut Budget,
) -> Result<Option<Node>, Finding> {
    let text = &argument[start..];
    let span = Span { source, start, end: argument.len() };
    if text.trim().is_empty() {
        let mut node = Node::scalar(Scalar::plain(String::new()), Span { start: 0, ..span });
        node.loose = true;
        return Ok(Some(node));
    }
    // Blanks in place of the key keep every place of the value right.
    let padded = format!("{}{text}", " ".repeat(start));
    let scratch = findings.sources.add(String::new(), padded);
    let before = findings.num_errors();
    let node = load::parse(scratch, findings, budget);
    findings.move_errors(before, scratch, source);
    let Some(mut node) = node else {
        if findings.num_errors() > before {
            return Ok(None);
        }
        return Err(Finding::new("config::set", span, "there is no value, only a comment")
            .help("quote text that begins with `#`: `--set 'vars.note=\"#1\"'`"));
    };
    rehome(&mut node, source);
    Ok(Some(node))
}

/// Gives every node the source of the argument itself and lets scalars take the type that is expected.
fn rehome(node: &mut Node, source: usize) {
    node.span.source = source;
    match &mut node.value {
        NodeValue::Scalar(_) => node.loose = true,
        NodeValue::Seq(items) => items.iter_mut().for_each(|item| rehome(item, source)),
        NodeValue::Map(entries) => {
            for entry in entries {
                entry.key_span.source = source;
                rehome(&mut entry.value, source);
            }
        }
        NodeValue::Invalid => {}
    }
}

/// Follows a path as far as it exists: the children on the way and how many segments they took. A key may
/// itself hold dots, so the longest that fits wins.
fn locate(node: &Node, segments: &[Segment]) -> (Vec<usize>, usize) {
    let (mut node, mut steps, mut taken) = (node, vec![], 0);
    while taken < segments.len() {
        let rest = &segments[taken..];
        let step = match &node.value {
            NodeValue::Map(entries) => (1..=rest.len()).rev().find_map(|length| {
                let key = join(&rest[..length]);
                let idx = entries.iter().position(|entry| entry.key == key)?;
                Some((idx, length, &entries[idx].value))
            }),
            NodeValue::Seq(items) => {
                let idx = rest[0].text.parse().ok().filter(|idx: &usize| *idx < items.len());
                idx.map(|idx| (idx, 1, &items[idx]))
            }
            NodeValue::Scalar(_) | NodeValue::Invalid => None,
        };
        let Some((idx, length, next)) = step else { break };
        steps.push(idx);
        taken += length;
        node = next;
    }
    (steps, taken)
}

/// The node at the end of the way that [`locate`] found.
fn follow<'n>(node: &'n mut Node, steps: &[usize]) -> Option<&'n mut Node> {
    steps.iter().try_fold(node, |node, idx| match &mut node.value {
        NodeValue::Map(entries) => entries.get_mut(*idx).map(|entry| &mut entry.value),
        NodeValue::Seq(items) => items.get_mut(*idx),
        NodeValue::Scalar(_) | NodeValue::Invalid => None,
    })
}

fn join(segments: &[Segment]) -> String {
    segments.iter().map(|segment| segment.text.as_str()).collect::<Vec<_>>().join(".")
}

/// Whether a key that the file does not have may be added where the path leaves the tree. Stages and
/// variables may not: a mistyped name would otherwise do nothing and say nothing.
fn check_creation(target: &Node, segments: &[Segment], num_left: usize, references: &[String]) -> Result<(), Finding> {
    let num_there = segments.len() - num_left;
    let missing = &segments[num_there];
    let path = join(&segments[..num_there]);
    let names: Vec<&str> = target.entries().iter().map(|entry| entry.key.as_str()).collect();
    let written = join(&segments[..=num_there]);
    let no_such = |help: Option<String>| {
        Err(Finding::new("config::set", missing.span, format!("the file has no `{written}`"))
            .label("not in the file")
            .maybe_help(help))
    };
    if num_there == 0 && !TOP_KEYS.contains(&missing.text.as_str()) {
        let help = nearest(&missing.text, TOP_KEYS).map_or_else(
            || format!("a path begins with one of {}", list(&TOP_KEYS)),
            |name| format!("did you mean `{name}`?"),
        );
        return no_such(Some(help));
    }
    let first = segments[0].text.as_str();
    if first == "stages" && (num_there == 0 || path == "stages") {
        return no_such(did_you_mean(&missing.text, "stages are", names.iter().copied()));
    }
    if first == "vars" {
        let variable = join(&segments[1..]);
        let is_used = references.iter().any(|reference| {
            *reference == variable
                || reference.starts_with(&format!("{variable}."))
                || variable.starts_with(&format!("{reference}."))
        });
        if !is_used {
            return no_such(did_you_mean(&missing.text, "variables are", names.iter().copied()));
        }
    }
    if let NodeValue::Seq(items) = &target.value {
        let message = format!("`{path}` has no element `{}`", missing.text);
        let help = match items.len() {
            0 => format!("`{path}` is empty; give the whole list: `--set '{path}=[…]'`"),
            len => format!("`{path}` has the elements 0 to {}", len - 1),
        };
        return Err(Finding::new("config::set", missing.span, message).label("not in the list").help(help));
    }
    Ok(())
}

fn create(target: &mut Node, rest: &[Segment], value: Node) -> Result<(), Finding> {
    let Some((first, others)) = rest.split_first() else {
        *target = value;
        return Ok(());
    };
    let mut value = value;
    for segment in others.iter().rev() {
        let entry = Entry { key: segment.text.clone(), key_span: segment.span, value };
        value = Node::new(NodeValue::Map(vec![entry]), segment.span);
    }
    let entry = Entry { key: first.text.clone(), key_span: first.span, value };
    let is_null = target.is_null();
    match &mut target.value {
        NodeValue::Map(entries) => entries.push(entry),
        value if is_null => *value = NodeValue::Map(vec![entry]),
        _ => {
            let message = format!("`{}` cannot be set here: the value above it is {}", first.text, target.describe());
            return Err(Finding::new("config::set", first.span, message)
                .label("nothing below this")
                .help("set the value above instead"));
        }
    }
    Ok(())
}
