//! The frozen graph of stages. Edges lead from a stage to those that read its artifact.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use petgraph::{
    Direction,
    graph::{DiGraph, NodeIndex},
};

use super::graph_error::GraphError;
use crate::{
    config::{Pipeline, Stage, cycles::find_cycles},
    stage::StageKind,
};

/// A node of the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StageNode {
    /// Name of the stage.
    pub name: String,
    /// Its kind.
    pub kind: StageKind,
}

/// The frozen graph of a pipeline's stages.
///
/// Nodes are numbered in the order of the file; every list of stages that it returns has a fixed order, so
/// that plans, lockfiles and pictures do not change from run to run.
#[derive(Clone, Debug)]
pub struct StageGraph {
    /// An edge carries the name of the input.
    graph: DiGraph<StageNode, String>,
    by_name: BTreeMap<String, NodeIndex>,
    /// Topological, ties in the order of the file.
    order: Vec<NodeIndex>,
}

impl StageGraph {
    /// The graph of a pipeline.
    ///
    /// # Errors
    /// See [`GraphError`]; a pipeline that was loaded from a file has none of these.
    pub fn build(pipeline: &Pipeline) -> Result<Self, GraphError> {
        let mut graph = DiGraph::new();
        let mut by_name = BTreeMap::new();
        for stage in &pipeline.stages {
            let node = graph.add_node(StageNode { name: stage.name.clone(), kind: stage.kind() });
            if by_name.insert(stage.name.clone(), node).is_some() {
                return Err(GraphError::DuplicateName(stage.name.clone()));
            }
        }
        for stage in &pipeline.stages {
            let to = by_name[&stage.name];
            for (input, references) in &stage.inputs {
                for reference in references {
                    let from = by_name.get(reference).ok_or_else(|| GraphError::UnknownStage {
                        stage: stage.name.clone(),
                        input: input.clone(),
                        reference: reference.clone(),
                        place: stage.places.get(&format!("inputs.{input}")).copied(),
                    })?;
                    graph.add_edge(*from, to, input.clone());
                }
            }
        }
        if let Some(cycle) = cycle_of(&graph, &pipeline.stages) {
            return Err(cycle);
        }
        let order = topological_order(&graph);
        Ok(Self { graph, by_name, order })
    }

    /// All stages, each after those whose artifacts it reads; ties in the order of the file.
    pub fn order(&self) -> Vec<&str> {
        self.order.iter().map(|node| self.name(*node)).collect()
    }

    /// Number of stages.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is no stage.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether there is a stage of this name.
    pub fn contains(&self, stage: &str) -> bool {
        self.by_name.contains_key(stage)
    }

    /// The kind of a stage.
    pub fn kind(&self, stage: &str) -> Option<StageKind> {
        self.by_name.get(stage).map(|node| self.graph[*node].kind)
    }

    /// The stages whose artifacts a stage reads, in the order of the file.
    pub fn parents(&self, stage: &str) -> Vec<&str> {
        self.neighbors(stage, Direction::Incoming)
    }

    /// The stages that read a stage's artifact, in the order of the file.
    pub fn children(&self, stage: &str) -> Vec<&str> {
        self.neighbors(stage, Direction::Outgoing)
    }

    /// Everything that a stage depends on, in topological order, without the stage itself.
    pub fn ancestors(&self, stage: &str) -> Vec<&str> {
        self.reachable(stage, Direction::Incoming)
    }

    /// Everything that depends on a stage, in topological order, without the stage itself.
    pub fn descendants(&self, stage: &str) -> Vec<&str> {
        self.reachable(stage, Direction::Outgoing)
    }

    /// Every edge as (from, to, names of the inputs), each pair of stages once, in the order of the file.
    pub fn edges(&self) -> Vec<(&str, &str, Vec<&str>)> {
        self.edge_indices().into_iter().map(|(from, to, inputs)| (self.name(from), self.name(to), inputs)).collect()
    }

    pub(crate) fn edge_indices(&self) -> Vec<(NodeIndex, NodeIndex, Vec<&str>)> {
        let mut edges: BTreeMap<(NodeIndex, NodeIndex), Vec<&str>> = BTreeMap::new();
        for edge in self.graph.edge_indices() {
            if let Some(ends) = self.graph.edge_endpoints(edge) {
                edges.entry(ends).or_default().push(&self.graph[edge]);
            }
        }
        edges.into_iter().map(|((from, to), inputs)| (from, to, inputs)).collect()
    }

    /// The nodes in the order of the file.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (NodeIndex, &StageNode)> {
        self.graph.node_indices().zip(self.graph.node_weights())
    }

    pub(crate) fn topological(&self) -> &[NodeIndex] {
        &self.order
    }

    fn name(&self, node: NodeIndex) -> &str {
        &self.graph[node].name
    }

    fn neighbors(&self, stage: &str, direction: Direction) -> Vec<&str> {
        let Some(node) = self.by_name.get(stage) else { return vec![] };
        let nodes: BTreeSet<NodeIndex> = self.graph.neighbors_directed(*node, direction).collect();
        nodes.into_iter().map(|node| self.name(node)).collect()
    }

    fn reachable(&self, stage: &str, direction: Direction) -> Vec<&str> {
        let Some(start) = self.by_name.get(stage) else { return vec![] };
        let mut seen = BTreeSet::new();
        let mut stack = vec![*start];
        while let Some(node) = stack.pop() {
            for next in self.graph.neighbors_directed(node, direction) {
                if seen.insert(next) {
                    stack.push(next);
                }
            }
        }
        self.order.iter().filter(|node| seen.contains(node)).map(|node| self.name(*node)).collect()
    }
}

/// Kahn's algorithm; of the stages that could come next the first of the file does.
fn topological_order(graph: &DiGraph<StageNode, String>) -> Vec<NodeIndex> {
    let mut num_waiting: Vec<usize> =
        graph.node_indices().map(|node| graph.neighbors_directed(node, Direction::Incoming).count()).collect();
    let mut ready: BinaryHeap<Reverse<NodeIndex>> =
        graph.node_indices().filter(|node| num_waiting[node.index()] == 0).map(Reverse).collect();
    let mut order = vec![];
    while let Some(Reverse(node)) = ready.pop() {
        order.push(node);
        for next in graph.neighbors_directed(node, Direction::Outgoing) {
            num_waiting[next.index()] -= 1;
            if num_waiting[next.index()] == 0 {
                ready.push(Reverse(next));
            }
        }
    }
    order
}

fn cycle_of(graph: &DiGraph<StageNode, String>, stages: &[Stage]) -> Option<GraphError> {
    let edges: Vec<(usize, usize)> = graph
        .edge_indices()
        .filter_map(|edge| graph.edge_endpoints(edge))
        .map(|(from, to)| (from.index(), to.index()))
        .collect();
    let cycle = find_cycles(stages.len(), &edges).into_iter().next()?;
    let (first, second) = (*cycle.first()?, *cycle.get(1).or(cycle.first())?);
    let name = |idx: usize| stages[idx].name.clone();
    let input = stages[second].inputs.iter().find(|(_, references)| references.contains(&stages[first].name));
    let place = input.and_then(|(input, _)| stages[second].places.get(&format!("inputs.{input}")).copied());
    Some(GraphError::Cycle { path: cycle.iter().copied().chain([first]).map(name).collect(), place })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::compute::{DeviceChoice, Precision};
    use crate::stage::{ReportConfig, StageConfig};

    /// A pipeline of stages and, for each, those it takes.
    pub(crate) fn pipeline(stages: &[(&str, &[&str])]) -> Pipeline {
        let stages = stages.iter().map(|(name, parents)| Stage {
            name: (*name).to_owned(),
            config: StageConfig::Report(ReportConfig::default()),
            inputs: parents.iter().map(|parent| (format!("from_{parent}"), vec![(*parent).to_owned()])).collect(),
            seed: 0,
            places: BTreeMap::from([(String::from("inputs.from_c"), Place { line: 7, column: 3 })]),
        });
        Pipeline {
            name: "test".into(),
            seed: 0,
            device: DeviceChoice::Cpu,
            precision: Precision::F32,
            path: "test.yaml".into(),
            stages: stages.collect(),
        }
    }

    use crate::config::Place;

    #[test]
    fn order_respects_inputs_and_else_the_file() {
        let pipeline =
            pipeline(&[("report", &["probe", "knn"]), ("knn", &["e"]), ("probe", &["e"]), ("e", &[]), ("x", &[])]);
        let graph = StageGraph::build(&pipeline).unwrap();
        assert_eq!(graph.order(), ["e", "knn", "probe", "report", "x"]);
    }

    #[test]
    fn relatives_come_in_a_fixed_order() {
        let pipeline = pipeline(&[("d", &["b", "c"]), ("c", &["a"]), ("b", &["a"]), ("a", &[])]);
        let graph = StageGraph::build(&pipeline).unwrap();
        assert_eq!(graph.parents("d"), ["c", "b"]);
        assert_eq!(graph.children("a"), ["c", "b"]);
        assert_eq!(graph.ancestors("d"), ["a", "c", "b"]);
        assert_eq!(graph.descendants("a"), ["c", "b", "d"]);
        assert_eq!(graph.ancestors("nobody"), [""; 0]);
        assert_eq!(graph.kind("a"), Some(StageKind::Report));
    }

    #[test]
    fn a_cycle_is_named_from_end_to_end_with_its_place() {
        let pipeline = pipeline(&[("a", &["c"]), ("b", &["a"]), ("c", &["b"]), ("free", &[])]);
        let error = StageGraph::build(&pipeline).unwrap_err();
        assert_eq!(error.to_string(), "stages wait for each other: a -> b -> c -> a");
        let pipeline = self::pipeline(&[("c", &["b"]), ("b", &["c"])]);
        let error = StageGraph::build(&pipeline).unwrap_err();
        assert_eq!(error.to_string(), "stages wait for each other: c -> b -> c (line 7, column 3)");
    }

    #[test]
    fn a_stage_that_does_not_exist_is_named() {
        let error = StageGraph::build(&pipeline(&[("a", &["b"])])).unwrap_err();
        assert_eq!(error.to_string(), "stage `a` takes `from_b` from `b`, which does not exist");
    }
}
