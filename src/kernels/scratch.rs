//! Memory that kernels need for a moment: never given back, never cleared.

use std::cell::RefCell;

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Lends a task buffers of unspecified content from its thread. Not to be nested: a task asks once for all it needs.
pub(crate) fn with_scratch<const N: usize, R>(lengths: [usize; N], f: impl FnOnce([&mut [f32]; N]) -> R) -> R {
    SCRATCH.with(|cell| {
        // Taken out while in use: were a nested call ever made, it would allocate instead of failing.
        let mut scratch = Scratch(cell.take());
        let result = f(scratch.parts(lengths));
        cell.replace(scratch.0);
        result
    })
}

/// Memory that all tasks of a kernel share, such as packed weights; it belongs to the network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scratch(Vec<f32>);

impl Scratch {
    /// Lends buffers of unspecified content.
    pub(crate) fn parts<const N: usize>(&mut self, lengths: [usize; N]) -> [&mut [f32]; N] {
        /// Buffers begin on a cache line of their own.
        const LINE: usize = 16;
        let len: usize = lengths.iter().map(|len| len.next_multiple_of(LINE)).sum();
        if self.0.len() < len + LINE {
            self.0 = vec![0.0; len + LINE];
        }
        let skip = self.0.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        let mut rest = &mut self.0[skip..];
        lengths.map(|len| {
            let (part, other) = std::mem::take(&mut rest).split_at_mut(len.next_multiple_of(LINE));
            rest = other;
            &mut part[..len]
        })
    }
}
