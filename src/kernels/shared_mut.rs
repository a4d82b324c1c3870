//! Writing from several tasks into one slice where the parts of a task are not contiguous.

use std::marker::PhantomData;
use std::ops::Range;

/// A slice that tasks write to. Who writes through a pointer vouches that no other task uses the same values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedMut<'a> {
    data: *mut f32,
    len: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: it stands for a `&mut [f32]`; that tasks do not overlap is the duty of who writes through a pointer.
unsafe impl Send for SharedMut<'_> {}
// SAFETY: as above.
unsafe impl Sync for SharedMut<'_> {}

impl<'a> SharedMut<'a> {
    /// Shares a slice for as long as it is borrowed.
    pub(crate) fn new(slice: &'a mut [f32]) -> Self {
        Self { data: slice.as_mut_ptr(), len: slice.len(), lifetime: PhantomData }
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The values in `range`.
    ///
    /// # Safety
    ///
    /// No other task may use these values while the part lives.
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &'a mut [f32] {
        assert!(range.start <= range.end && range.end <= self.len, "part of a shared slice is out of bounds");
        // SAFETY: inside the slice by the check above, exclusive by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(range.start), range.len()) }
    }

    /// A pointer to the value at `offset`.
    pub(crate) fn pointer(&self, offset: usize) -> *mut f32 {
        assert!(offset <= self.len, "pointer into a shared slice is out of bounds");
        self.data.wrapping_add(offset)
    }
}
