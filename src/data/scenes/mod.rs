//! Procedural landscapes with labelled classes: a dataset that needs no download.
//!
//! A class is an arrangement of shapes: jagged or smooth ridges, rectangles with windows, trees, waves, puffs,
//! furrows. Palette, light, position, tilt, zoom, contrast, a grating over everything and noise are drawn alike for
//! all classes, so that colour and mean brightness at a place say nothing: a linear model on pixels stays near
//! chance, and what tells classes apart survives crops, flips and changes of colour.
//!
//! Every number comes from additions, multiplications and square roots, which give the same bits on every machine.

mod layer;
mod palette;
mod scene;
mod shape;
mod source;

pub use source::SyntheticScenes;
