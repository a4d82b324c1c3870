//! A layered layout: every stage stands below those it reads from, with few crossings.
//!
//! Layers by longest path, invisible points where an edge passes a layer, barycentre sweeps for the order
//! within layers (Sugiyama's method), then positions by the mean of the neighbours.

use std::collections::BTreeMap;

use super::stage_graph::StageGraph;

/// Gap between boxes of one layer.
const GAP_X: f64 = 28.0;
/// Gap between layers.
const GAP_Y: f64 = 46.0;
/// Width of the lane of an edge that passes a layer.
const LANE: f64 = 14.0;

/// A box; `x` and `y` are its centre.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BoxPlace {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

/// An edge between two boxes, and the points on its way.
pub(crate) type EdgePath = (usize, usize, Vec<(f64, f64)>);

/// Where everything goes.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Boxes in the order of the file.
    pub boxes: Vec<BoxPlace>,
    /// The edges of the graph.
    pub edges: Vec<EdgePath>,
    pub width: f64,
    pub height: f64,
}

/// A stage or the point where an edge passes a layer.
struct Vertex {
    layer: usize,
    width: f64,
    above: Vec<usize>,
    below: Vec<usize>,
    x: f64,
}

/// Places boxes of the given widths, in the order of the file, and a common height.
pub(crate) fn layout(graph: &StageGraph, widths: &[f64], box_height: f64) -> Layout {
    let edges: Vec<(usize, usize)> =
        graph.edge_indices().iter().map(|(from, to, _)| (from.index(), to.index())).collect();
    let layers_of = longest_path(graph, &edges);
    let mut vertices: Vec<Vertex> = widths
        .iter()
        .zip(&layers_of)
        .map(|(width, layer)| Vertex { layer: *layer, width: *width, above: vec![], below: vec![], x: 0.0 })
        .collect();
    let mut chains = vec![];
    for &(from, to) in &edges {
        let mut chain = vec![from];
        for layer in layers_of[from] + 1..layers_of[to] {
            vertices.push(Vertex { layer, width: LANE, above: vec![], below: vec![], x: 0.0 });
            chain.push(vertices.len() - 1);
        }
        chain.push(to);
        for pair in chain.windows(2) {
            vertices[pair[0]].below.push(pair[1]);
            vertices[pair[1]].above.push(pair[0]);
        }
        chains.push((from, to, chain));
    }
    let num_layers = layers_of.iter().max().map_or(0, |layer| layer + 1);
    let mut layers: Vec<Vec<usize>> = vec![vec![]; num_layers];
    for (idx, vertex) in vertices.iter().enumerate() {
        layers[vertex.layer].push(idx);
    }
    order_layers(&mut layers, &vertices);
    place(&layers, &mut vertices);
    let left = vertices.iter().map(|v| v.x - v.width / 2.0).fold(f64::INFINITY, f64::min);
    let right = vertices.iter().map(|v| v.x + v.width / 2.0).fold(f64::NEG_INFINITY, f64::max);
    let left = if left.is_finite() { left } else { 0.0 };
    let y_of = |layer: usize| box_height / 2.0 + layer as f64 * (box_height + GAP_Y);
    let boxes = (0..widths.len())
        .map(|idx| BoxPlace {
            x: vertices[idx].x - left,
            y: y_of(vertices[idx].layer),
            width: widths[idx],
            height: box_height,
        })
        .collect();
    let edges = chains
        .into_iter()
        .map(|(from, to, chain)| {
            let last = chain.len() - 1;
            let points = chain[1..last].iter().map(|idx| (vertices[*idx].x - left, y_of(vertices[*idx].layer)));
            (from, to, points.collect())
        })
        .collect();
    let height = num_layers as f64 * (box_height + GAP_Y) - if num_layers > 0 { GAP_Y } else { 0.0 };
    Layout { boxes, edges, width: (right - left).max(0.0), height }
}

/// Layer 0 for stages that read nothing, else one below the lowest that is read. A stage that reads nothing
/// moves down to just above what reads it first, which shortens its edges.
fn longest_path(graph: &StageGraph, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut layers = vec![0_usize; graph.len()];
    for node in graph.topological() {
        let layer = layers[node.index()];
        for (_, to) in edges.iter().filter(|(from, _)| *from == node.index()) {
            layers[*to] = layers[*to].max(layer + 1);
        }
    }
    for idx in 0..layers.len() {
        let is_source = !edges.iter().any(|(_, to)| *to == idx);
        let below = edges.iter().filter(|(from, _)| *from == idx).map(|(_, to)| layers[*to]).min();
        if let (true, Some(below)) = (is_source, below) {
            layers[idx] = below.saturating_sub(1);
        }
    }
    layers
}

/// Sweeps down and up, ordering each layer by the mean position of its neighbours, and keeps the order with
/// the fewest crossings.
fn order_layers(layers: &mut Vec<Vec<usize>>, vertices: &[Vertex]) {
    let mut best = (count_crossings(layers, vertices), layers.clone());
    for sweep in 0..12 {
        let down = sweep % 2 == 0;
        let order: Vec<usize> =
            if down { (1..layers.len()).collect() } else { (0..layers.len().saturating_sub(1)).rev().collect() };
        for layer in order {
            let other = &layers[if down { layer - 1 } else { layer + 1 }];
            let position: BTreeMap<usize, usize> = other.iter().enumerate().map(|(at, idx)| (*idx, at)).collect();
            let mut keyed: Vec<(f64, usize)> = layers[layer]
                .iter()
                .enumerate()
                .map(|(at, idx)| {
                    let near = if down { &vertices[*idx].above } else { &vertices[*idx].below };
                    let sum: usize = near.iter().filter_map(|idx| position.get(idx)).sum();
                    (if near.is_empty() { at as f64 } else { sum as f64 / near.len() as f64 }, *idx)
                })
                .collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
            layers[layer] = keyed.into_iter().map(|(_, idx)| idx).collect();
        }
        let crossings = count_crossings(layers, vertices);
        if crossings < best.0 {
            best = (crossings, layers.clone());
        }
    }
    *layers = best.1;
}

fn count_crossings(layers: &[Vec<usize>], vertices: &[Vertex]) -> usize {
    let crossings = |upper: &[usize], lower: &[usize]| {
        let position: BTreeMap<usize, usize> = lower.iter().enumerate().map(|(at, idx)| (*idx, at)).collect();
        let ends: Vec<usize> = upper
            .iter()
            .flat_map(|idx| {
                let mut ends: Vec<usize> =
                    vertices[*idx].below.iter().filter_map(|idx| position.get(idx).copied()).collect();
                ends.sort_unstable();
                ends
            })
            .collect();
        // Large graphs are drawn as they come: counting is quadratic.
        if ends.len() > 2_000 {
            return 0;
        }
        ends.iter().enumerate().map(|(at, end)| ends[at + 1..].iter().filter(|other| *other < end).count()).sum()
    };
    layers.windows(2).map(|pair| crossings(&pair[0], &pair[1])).sum()
}

/// Puts each vertex near the mean of its neighbours, as far as the order and the gaps of its layer allow.
fn place(layers: &[Vec<usize>], vertices: &mut [Vertex]) {
    for layer in layers {
        let mut x = 0.0;
        for idx in layer {
            vertices[*idx].x = x + vertices[*idx].width / 2.0;
            x += vertices[*idx].width + GAP_X;
        }
        let half = (x - GAP_X) / 2.0;
        for idx in layer {
            vertices[*idx].x -= half;
        }
    }
    for sweep in 0..24 {
        let order: Vec<usize> =
            if sweep % 2 == 0 { (0..layers.len()).collect() } else { (0..layers.len()).rev().collect() };
        for layer in order {
            let wanted: Vec<f64> = layers[layer]
                .iter()
                .map(|idx| {
                    let vertex = &vertices[*idx];
                    let near = || vertex.above.iter().chain(&vertex.below).map(|idx| &vertices[*idx]);
                    let total: f64 = near().map(|other| straightness(vertex, other)).sum();
                    let sum: f64 = near().map(|other| other.x * straightness(vertex, other)).sum();
                    if total > 0.0 { sum / total } else { vertex.x }
                })
                .collect();
            let widths: Vec<f64> = layers[layer].iter().map(|idx| vertices[*idx].width).collect();
            for (idx, x) in layers[layer].iter().zip(separate(&wanted, &widths)) {
                vertices[*idx].x = x;
            }
        }
    }
}

/// How much an edge wants to be upright: long edges most, since a bend in the middle of one means nothing.
fn straightness(one: &Vertex, other: &Vertex) -> f64 {
    match (one.width == LANE, other.width == LANE) {
        (true, true) => 8.0,
        (false, false) => 1.0,
        _ => 2.0,
    }
}

/// Positions in the same order, no two closer than the gap: the mean of packing from the left and from the
/// right, both of which keep the distance.
fn separate(wanted: &[f64], widths: &[f64]) -> Vec<f64> {
    let apart = |at: usize| f64::midpoint(widths[at], widths[at + 1]) + GAP_X;
    let mut from_left = wanted.to_vec();
    for at in 1..from_left.len() {
        from_left[at] = from_left[at].max(from_left[at - 1] + apart(at - 1));
    }
    let mut from_right = wanted.to_vec();
    for at in (1..from_right.len()).rev() {
        from_right[at - 1] = from_right[at - 1].min(from_right[at] - apart(at - 1));
    }
    from_left.iter().zip(&from_right).map(|(left, right)| f64::midpoint(*left, *right)).collect()
}
