//! From stages with a `matrix` to cells: one stage for each combination of values, and for each stage that
//! follows from it.
//!
//! A stage has its own axes and those of the stages that its inputs name. An axis that reaches it on two ways is
//! one axis: its cells take from both ways what has the same value. An input with `@` (`probe@*`, `probe@seed=1`)
//! names cells and brings no axes: that is how a stage collects.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    axes::{Axis, MAX_CELLS},
    cell::cell_name,
    findings::Finding,
    node::{Entry, NodeValue},
    parents::{Parent, own_axes, parents, text_of},
    source::Span,
    substitute::{Resolver, Scope},
};

/// The most cells of all stages of a pipeline together.
const MAX_ALL_CELLS: usize = 10_000;
/// The longest name of a cell: it becomes a folder, beside which others with longer names may stand.
const MAX_NAME: usize = 200;

/// A stage, or one of those that its axes make of it.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    /// The stage under its own name, references resolved and `matrix` taken away.
    pub entry: Entry,
    /// Axes with their values as names spell them.
    pub axes: Choices,
    /// Where the stage's own axis `seed` stands, if nothing but the seed itself makes use of it.
    pub seed_axis: Option<Span>,
}

/// Values of axes, in the order in which names list them.
pub(crate) type Choices = Vec<(String, String)>;

/// Multiplies the stages of a pipeline and resolves all references in them.
pub(crate) fn expand(stages: &mut [Entry], resolver: &mut Resolver<'_>) -> Vec<Cell> {
    for stage in stages.iter_mut() {
        // A stage or its inputs may stand elsewhere as a whole.
        resolver.scalar_in_place(&mut stage.value);
        if let NodeValue::Map(entries) = &mut stage.value.value {
            let inputs = entries.iter_mut().filter(|entry| entry.key == "inputs");
            inputs.for_each(|inputs| resolver.scalar_in_place(&mut inputs.value));
        }
    }
    let mut expansion = Expansion::new(stages, resolver);
    for idx in 0..stages.len() {
        expansion.assign(idx, resolver);
    }
    let mut cells = vec![];
    for idx in 0..stages.len() {
        if !expansion.build(idx, resolver, &mut cells) {
            break;
        }
    }
    cells
}

/// What is known about the cells of a stage.
#[derive(Clone, Debug)]
enum Assignment {
    Open,
    /// Waits for another: two stages that wait for each other are reported elsewhere.
    Busy,
    Done(Vec<Choices>),
}

/// The stage that declares an axis and the number of the axis there.
type Origin = (usize, usize);

struct Expansion<'n> {
    stages: &'n [Entry],
    by_name: BTreeMap<&'n str, usize>,
    own: Vec<Vec<Axis>>,
    parents: Vec<Vec<Parent>>,
    /// For each stage its axes by name.
    origins: Vec<BTreeMap<String, Origin>>,
    /// For each stage the names of its axes in order.
    orders: Vec<Vec<String>>,
    /// Cells of stages with axes so far.
    num_cells: usize,
    assignments: Vec<Assignment>,
}

impl<'n> Expansion<'n> {
    fn new(stages: &'n [Entry], resolver: &mut Resolver<'_>) -> Self {
        let own = stages.iter().map(|stage| own_axes(stage, resolver)).collect();
        Self {
            stages,
            by_name: stages.iter().enumerate().map(|(idx, stage)| (stage.key.as_str(), idx)).collect(),
            own,
            parents: stages.iter().map(|stage| parents(stage, resolver)).collect(),
            origins: vec![BTreeMap::new(); stages.len()],
            orders: vec![vec![]; stages.len()],
            num_cells: 0,
            assignments: vec![Assignment::Open; stages.len()],
        }
    }

    fn axis(&self, (stage, axis): Origin) -> &Axis {
        &self.own[stage][axis]
    }

    /// Finds the cells of a stage, those of the stages that it needs first. A stack of its own, since a file may
    /// hold a chain of thousands.
    fn assign(&mut self, idx: usize, resolver: &mut Resolver<'_>) {
        let mut stack = vec![idx];
        while let Some(&stage) = stack.last() {
            if matches!(self.assignments[stage], Assignment::Done(_)) {
                stack.pop();
                continue;
            }
            self.assignments[stage] = Assignment::Busy;
            match self.cells_of(stage, resolver) {
                Ok(cells) => {
                    self.assignments[stage] = Assignment::Done(cells);
                    stack.pop();
                }
                Err(first) => stack.push(first),
            }
        }
    }

    /// The cells of a stage, or a stage whose cells must be known first.
    fn cells_of(&mut self, stage: usize, resolver: &mut Resolver<'_>) -> Result<Vec<Choices>, usize> {
        // Names without references are known at once, so nothing is resolved in vain.
        for parent in &self.parents[stage] {
            let known = text_of(&parent.node).and_then(|name| self.by_name.get(name)).copied();
            if let Some(first) = known.filter(|first| matches!(self.assignments[*first], Assignment::Open)) {
                return Err(first);
            }
        }
        let mut origins = BTreeMap::new();
        let mut order: Vec<String> = vec![];
        for (idx, axis) in self.own[stage].iter().enumerate() {
            origins.insert(axis.name.clone(), (stage, idx));
        }
        let mut partials: Vec<(Choices, BTreeSet<usize>)> =
            product(&self.own[stage]).into_iter().map(|choices| (choices, BTreeSet::new())).collect();
        loop {
            let mut next = vec![];
            let mut has_joined = false;
            for (choices, joined) in partials {
                let ready = (0..self.parents[stage].len()).find(|idx| {
                    let axes = &self.parents[stage][*idx].axes;
                    !joined.contains(idx) && axes.iter().all(|axis| choices.iter().any(|(name, _)| name == axis))
                });
                let Some(parent) = ready else {
                    next.push((choices, joined));
                    continue;
                };
                has_joined = true;
                let joined: BTreeSet<usize> = joined.into_iter().chain([parent]).collect();
                let mut fits = vec![choices];
                for (target, span) in self.targets(stage, parent, &fits[0], &origins, resolver) {
                    let cells = match &self.assignments[target] {
                        Assignment::Open => return Err(target),
                        Assignment::Busy => continue,
                        Assignment::Done(cells) => cells,
                    };
                    self.inherit(stage, target, span, (&mut origins, &mut order), resolver);
                    fits = fits
                        .iter()
                        .flat_map(|choices| cells.iter().filter_map(|cell| join(choices, cell)))
                        .take(MAX_CELLS + 1)
                        .collect();
                }
                next.extend(fits.into_iter().map(|choices| (choices, joined.clone())));
                if next.len() > MAX_CELLS {
                    break;
                }
            }
            partials = next;
            if !has_joined || partials.len() > MAX_CELLS {
                break;
            }
        }
        if partials.len() > MAX_CELLS {
            let entry = &self.stages[stage];
            let message =
                format!("stage `{}` would have more than {MAX_CELLS} cells by the axes of its inputs", entry.key);
            resolver.findings.error(
                Finding::new("config::matrix_size", entry.key_span, message)
                    .label("too many")
                    .help("take values away, or collect cells instead: `INPUT: STAGE@*` brings no axes"),
            );
            partials.truncate(1);
        }
        if partials.is_empty() {
            // The ways on which an axis reaches the stage have no value of it in common.
            if resolver.findings.num_errors() == 0 {
                let entry = &self.stages[stage];
                let message = format!("no cells of the inputs of stage `{}` fit together", entry.key);
                resolver.findings.error(
                    Finding::new("config::axis_clash", entry.key_span, message)
                        .label("would have no cell")
                        .help("axes of one name are one axis: give them values in common, or rename one of them"),
                );
            }
            partials.extend(product(&self.own[stage]).into_iter().take(1).map(|choices| (choices, BTreeSet::new())));
        }
        order.extend(self.own[stage].iter().map(|axis| axis.name.clone()));
        let mut cells: Vec<Choices> = partials.into_iter().map(|(choices, _)| choices).collect();
        self.sort(&mut cells, &order, &origins);
        self.origins[stage] = origins;
        self.orders[stage] = order;
        if cells.len() > 1 {
            self.num_cells += cells.len();
            if self.num_cells > MAX_ALL_CELLS {
                if self.num_cells - cells.len() <= MAX_ALL_CELLS {
                    let message = format!("the pipeline has more than {MAX_ALL_CELLS} cells");
                    resolver.findings.error(
                        Finding::new("config::matrix_size", self.stages[stage].key_span, message)
                            .label("one stage too many")
                            .help("take values away, or split the sweep into several pipelines: they share the cache"),
                    );
                }
                cells.truncate(1);
            }
        }
        Ok(cells)
    }

    /// Brings axes into the order in which they reach the stage, and cells into the order of their values.
    fn sort(&self, cells: &mut Vec<Choices>, order: &[String], origins: &BTreeMap<String, Origin>) {
        let mut keyed: Vec<(Vec<usize>, Choices)> = std::mem::take(cells)
            .into_iter()
            .map(|choices| {
                let sorted: Choices =
                    order.iter().filter_map(|axis| choices.iter().find(|(name, _)| name == axis).cloned()).collect();
                let key = order.iter().map(|axis| {
                    let label = choices.iter().find(|(name, _)| name == axis).map(|(_, label)| label);
                    let values = origins.get(axis).map(|origin| self.axis(*origin).values.as_slice());
                    let at = |label: &String| {
                        values.and_then(|values| values.iter().position(|value| value.label == *label))
                    };
                    label.and_then(at).unwrap_or(usize::MAX)
                });
                (key.collect(), sorted)
            })
            .collect();
        keyed.sort();
        keyed.dedup();
        *cells = keyed.into_iter().map(|(_, choices)| choices).collect();
    }

    /// The stages that an input names, for some values of the axes. What is no stage is reported elsewhere.
    fn targets(
        &self,
        stage: usize,
        parent: usize,
        choices: &Choices,
        origins: &BTreeMap<String, Origin>,
        resolver: &mut Resolver<'_>,
    ) -> Vec<(usize, Span)> {
        let Parent { node, axes } = &self.parents[stage][parent];
        let span = node.span;
        let mut node = node.clone();
        if !axes.is_empty() {
            resolver.scope = Some(self.scope(stage, choices, origins));
            resolver.node(&mut node);
            resolver.scope = None;
        }
        let names = match &node.value {
            NodeValue::Seq(items) => items.as_slice(),
            _ => std::slice::from_ref(&node),
        };
        let targets = names.iter().filter_map(|node| self.by_name.get(text_of(node)?).copied());
        targets.filter(|target| *target != stage).map(|target| (target, span)).collect()
    }

    /// Notes the axes that an input brings. One name for two axes would make cells that cannot be told apart.
    fn inherit(
        &self,
        stage: usize,
        target: usize,
        span: Span,
        (origins, order): (&mut BTreeMap<String, Origin>, &mut Vec<String>),
        resolver: &mut Resolver<'_>,
    ) {
        for name in &self.orders[target] {
            let Some(origin) = self.origins[target].get(name) else { continue };
            let Some(known) = origins.get(name).copied() else {
                origins.insert(name.clone(), *origin);
                order.push(name.clone());
                continue;
            };
            if known == *origin {
                continue;
            }
            let (here, there) = (self.axis(known), self.axis(*origin));
            let other = &self.stages[origin.0].key;
            if known.0 == stage {
                let message =
                    format!("stage `{}` has an axis `{name}` already, from `{other}`", self.stages[stage].key);
                resolver.findings.error(
                    Finding::new("config::axis_clash", here.name_span, message)
                        .label("a second axis of this name")
                        .also(there.name_span, "the first")
                        .help("rename one of the two, or take this one away: its values can be used here as they are"),
                );
            } else if labels(here) != labels(there) {
                let one = &self.stages[known.0].key;
                let message = format!("axis `{name}` of `{one}` and of `{other}` have different values");
                resolver.findings.error(
                    Finding::new("config::axis_clash", span, message)
                        .label("both meet here")
                        .also(there.name_span, "one of them")
                        .help("an axis that comes from two stages is one axis: give both the same values, or rename one of them"),
                );
            }
        }
    }

    fn scope(&self, stage: usize, choices: &Choices, origins: &BTreeMap<String, Origin>) -> Scope {
        let values = choices.iter().filter_map(|(name, label)| {
            let axis = self.axis(*origins.get(name)?);
            let value = axis.values.iter().find(|value| value.label == *label)?;
            Some((name.clone(), value.node.clone()))
        });
        Scope { stage: self.stages[stage].key.clone(), values: values.collect() }
    }

    /// The cells of a stage with all references resolved. False where no more can be built.
    fn build(&self, stage: usize, resolver: &mut Resolver<'_>, cells: &mut Vec<Cell>) -> bool {
        let Assignment::Done(assignments) = &self.assignments[stage] else { return true };
        let entry = &self.stages[stage];
        resolver.used_axes.clear();
        let first = cells.len();
        for choices in assignments {
            let scope = self.scope(stage, choices, &self.origins[stage]);
            let seed = scope.values.iter().find(|(name, _)| name == "seed").map(|(_, node)| node.clone());
            let mut value = entry.value.clone();
            if let NodeValue::Map(entries) = &mut value.value {
                entries.retain(|entry| entry.key != "matrix");
                let key_span = self.origins[stage].get("seed").map(|origin| self.axis(*origin).name_span);
                if let (Some(seed), Some(key_span)) = (seed, key_span)
                    && !entries.iter().any(|entry| entry.key == "seed")
                {
                    entries.push(Entry { key: "seed".into(), key_span, value: seed });
                }
            }
            if !choices.is_empty() && !resolver.afford(value.size(), entry.key_span) {
                return false;
            }
            let name = cell_name(&entry.key, choices);
            if name.len() > MAX_NAME && !choices.is_empty() {
                let message = format!("the name of cell `{name}` has {} characters", name.len());
                resolver.findings.error(
                    Finding::new("config::name", entry.key_span, message)
                        .label("too long for a folder on some systems")
                        .help(format!("shorten names of axes or values: at most {MAX_NAME} characters together")),
                );
            }
            resolver.scope = Some(scope);
            resolver.node(&mut value);
            resolver.scope = None;
            let entry = Entry { key: entry.key.clone(), key_span: entry.key_span, value };
            cells.push(Cell { entry, axes: choices.clone(), seed_axis: None });
        }
        if resolver.findings.num_errors() > 0 {
            // A mistyped reference leaves an axis unused, too: one thing after the other.
            return true;
        }
        let has_seed = entry.value.get("seed").is_some();
        for axis in &self.own[stage] {
            if resolver.used_axes.contains(&axis.name) {
                continue;
            }
            if axis.name == "seed" && !has_seed {
                cells[first..].iter_mut().for_each(|cell| cell.seed_axis = Some(axis.name_span));
                continue;
            }
            let help = if axis.name == "seed" {
                "the stage's own `seed` wins over the axis: take one of the two away".to_owned()
            } else {
                format!("write `${{matrix.{}}}` where its value belongs, or take it away", axis.name)
            };
            let message = format!("nothing in stage `{}` uses axis `{}`", entry.key, axis.name);
            resolver.findings.error(
                Finding::new("config::unused_axis", axis.name_span, message)
                    .label("all cells would be the same")
                    .help(help),
            );
        }
        true
    }
}

/// Every combination of values, the last axis running fastest.
fn product(axes: &[Axis]) -> Vec<Choices> {
    axes.iter().fold(vec![vec![]], |cells, axis| {
        let extend = |cell: &Choices| {
            let cell = cell.clone();
            axis.values.iter().map(move |value| {
                let mut cell = cell.clone();
                cell.push((axis.name.clone(), value.label.clone()));
                cell
            })
        };
        cells.iter().flat_map(extend).collect()
    })
}

/// Both sets of values together; none where they disagree about an axis.
fn join(a: &Choices, b: &Choices) -> Option<Choices> {
    let mut joined = a.clone();
    for (axis, label) in b {
        match a.iter().find(|(name, _)| name == axis) {
            Some((_, other)) if other != label => return None,
            Some(_) => {}
            None => joined.push((axis.clone(), label.clone())),
        }
    }
    Some(joined)
}

fn labels(axis: &Axis) -> BTreeSet<&str> {
    axis.values.iter().map(|value| value.label.as_str()).collect()
}
