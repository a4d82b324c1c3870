//! Cycles in a directed graph of numbered nodes.

use std::collections::VecDeque;

use petgraph::{algo::kosaraju_scc, graph::DiGraph};

/// One shortest cycle of each part of the graph in which every node leads to every other, as node numbers
/// in the direction of the edges, beginning with the smallest. An edge from a node to itself is a cycle.
pub fn find_cycles(num_nodes: usize, edges: &[(usize, usize)]) -> Vec<Vec<usize>> {
    let mut graph = DiGraph::<(), (), usize>::default();
    let nodes: Vec<_> = (0..num_nodes).map(|_| graph.add_node(())).collect();
    let mut successors = vec![vec![]; num_nodes];
    for &(from, to) in edges {
        if let (Some(from_node), Some(to_node)) = (nodes.get(from), nodes.get(to)) {
            graph.add_edge(*from_node, *to_node, ());
            successors[from].push(to);
        }
    }
    let mut cycles: Vec<Vec<usize>> = kosaraju_scc(&graph)
        .into_iter()
        .filter_map(|component| {
            let start = component.iter().map(|node| node.index()).min()?;
            shortest_cycle(start, &successors)
        })
        .collect();
    cycles.sort();
    cycles
}

/// Breadth first from a node until it is met again.
fn shortest_cycle(start: usize, successors: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut previous = vec![None; successors.len()];
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for &next in &successors[node] {
            if next == start {
                let mut cycle = vec![node];
                let mut at = node;
                while at != start {
                    at = previous[at]?;
                    cycle.push(at);
                }
                cycle.reverse();
                return Some(cycle);
            }
            if previous[next].is_none() {
                previous[next] = Some(node);
                queue.push_back(next);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_component_gives_its_shortest_cycle() {
        let edges = [(0, 1), (1, 2), (2, 0), (2, 1), (3, 4), (4, 3), (5, 5), (2, 6)];
        assert_eq!(find_cycles(7, &edges), [vec![0, 1, 2], vec![3, 4], vec![5]]);
    }

    #[test]
    fn a_graph_without_cycles_has_none() {
        assert!(find_cycles(4, &[(0, 1), (0, 2), (1, 3), (2, 3)]).is_empty());
    }
}
