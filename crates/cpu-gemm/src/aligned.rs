//! Buffers aligned to cache lines.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Bytes of a cache line, of an AVX-512 register and of a row of an AMX tile.
const ALIGNMENT: usize = 64;

/// A slice of zeros on the heap whose first element is aligned to 64 bytes. Its length is fixed.
pub struct Aligned<T: Zero> {
    start: NonNull<T>,
    len: usize,
    owns: PhantomData<T>,
}

/// Types without invariants and without drop code, for which zero bytes are a value.
///
/// # Safety
/// Implement for such types only.
pub unsafe trait Zero: Copy {}

// SAFETY: numbers; zero bytes are the number 0.
unsafe impl Zero for f32 {}
// SAFETY: as above.
unsafe impl Zero for half::bf16 {}
// SAFETY: as above.
unsafe impl Zero for i8 {}
// SAFETY: as above.
unsafe impl Zero for i32 {}

impl<T: Zero> Aligned<T> {
    /// A buffer of `len` zeros.
    ///
    /// # Panics
    /// If the size in bytes exceeds `isize::MAX`. Aborts if there is not enough memory, as `Vec` does.
    pub fn zeros(len: usize) -> Self {
        let layout = Self::layout(len);
        let start = if layout.size() == 0 {
            NonNull::dangling()
        } else {
            // SAFETY: the size is not zero.
            let start = unsafe { alloc_zeroed(layout) };
            NonNull::new(start.cast()).unwrap_or_else(|| handle_alloc_error(layout))
        };
        Self {
            start,
            len,
            owns: PhantomData,
        }
    }

    fn layout(len: usize) -> Layout {
        let layout = Layout::array::<T>(len).and_then(|layout| layout.align_to(ALIGNMENT));
        layout.expect("a buffer of at most isize::MAX bytes")
    }
}

impl<T: Zero> Drop for Aligned<T> {
    fn drop(&mut self) {
        let layout = Self::layout(self.len);
        if layout.size() > 0 {
            // SAFETY: allocated by `zeros` with this layout.
            unsafe { dealloc(self.start.as_ptr().cast(), layout) }
        }
    }
}

impl<T: Zero> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` elements were allocated and are initialized (zero bytes are a value).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Zero> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and the buffer is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: Zero> std::fmt::Debug for Aligned<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Aligned({} elements)", self.len)
    }
}

// SAFETY: an owned slice of plain values.
unsafe impl<T: Zero + Send> Send for Aligned<T> {}
// SAFETY: as above; shared references give shared slices.
unsafe impl<T: Zero + Sync> Sync for Aligned<T> {}

/// Returns freed memory to the operating system where the allocator keeps it (glibc): after the f32 weights of a model were packed, hundreds of megabytes.
pub fn return_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the call changes no memory in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_zero() {
        for len in [0, 1, 7, 64, 1000] {
            let mut buffer = Aligned::<f32>::zeros(len);
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_ptr() as usize % if len == 0 { 4 } else { 64 }, 0);
            assert!(buffer.iter().all(|x| *x == 0.0));
            buffer.fill(1.0);
            assert_eq!(buffer.iter().sum::<f32>(), len as f32);
        }
    }
}
