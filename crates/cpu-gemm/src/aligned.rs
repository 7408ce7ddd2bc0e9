//! Buffers aligned to cache lines.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use memmap2::MmapMut;

/// Bytes of a cache line, of an AVX-512 register and of a row of an AMX tile.
const ALIGNMENT: usize = 64;

/// Bytes of a huge page on x86-64, and of most on other processors.
const HUGE_PAGE: usize = 2 << 20;

/// A slice whose first element is aligned to 64 bytes. Its length is fixed.
pub struct Aligned<T: Zero> {
    start: NonNull<T>,
    len: usize,
    memory: Allocation,
    owns: PhantomData<T>,
}

/// Owner of the memory.
enum Allocation {
    Heap,
    /// Whole pages of the system's.
    Pages(#[expect(dead_code, reason = "held until the buffer is dropped")] MmapMut),
}

/// Types without invariants and without drop code, for which any bytes are a value.
///
/// # Safety
/// Implement for such types only.
pub unsafe trait Zero: Copy {}

// SAFETY: numbers, of which any bytes are one.
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
            memory: Allocation::Heap,
            owns: PhantomData,
        }
    }

    /// A buffer of `len` unspecified values, for callers that write every element before they read it: zeros would be written in vain.
    ///
    /// # Panics
    /// As [`Self::zeros`].
    pub fn unspecified(len: usize) -> Self {
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        {
            let layout = Self::layout(len);
            if layout.size() > 0 {
                // SAFETY: the size is not zero.
                let start = unsafe { alloc(layout) };
                let start =
                    NonNull::new(start.cast()).unwrap_or_else(|| handle_alloc_error(layout));
                take_for_written(start.as_ptr());
                return Self {
                    start,
                    len,
                    memory: Allocation::Heap,
                    owns: PhantomData,
                };
            }
        }
        Self::zeros(len)
    }

    /// [`Self::zeros`] for buffers that live long and are read as a whole: weights. From 2 MiB on the buffer has pages of its own, and Linux is asked for huge
    /// ones: fewer page faults when it is filled, fewer misses of the address cache (TLB) when it is read.
    ///
    /// # Panics
    /// As [`Self::zeros`].
    pub fn in_huge_pages(len: usize) -> Self {
        let bytes = Self::layout(len).size();
        // Where the system refuses the mapping, the heap remains.
        let pages = (bytes >= HUGE_PAGE).then(|| MmapMut::map_anon(bytes).ok());
        let Some(mut pages) = pages.flatten() else {
            return Self::zeros(len);
        };
        // A request: a system without huge pages keeps ordinary pages.
        #[cfg(target_os = "linux")]
        let _ = pages.advise(memmap2::Advice::HugePage);
        Self {
            // Mappings begin at a page.
            start: NonNull::new(pages.as_mut_ptr().cast()).unwrap_or(NonNull::dangling()),
            len,
            memory: Allocation::Pages(pages),
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
        if matches!(self.memory, Allocation::Heap) && layout.size() > 0 {
            // SAFETY: allocated by `zeros` or `unspecified` with this layout.
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

/// A vector of `len` unspecified values, as [`Aligned::unspecified`].
#[allow(clippy::uninit_vec)] // see the comment on safety
pub fn unspecified<T: Zero + Default>(len: usize) -> Vec<T> {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    {
        let mut values = Vec::<T>::with_capacity(len);
        take_for_written(values.as_mut_ptr());
        // SAFETY: the memory holds `len` elements and counts as written; any bytes are a value of `T`.
        unsafe { values.set_len(len) };
        values
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    vec![T::default(); len]
}

/// Empty assembly that has a pointer to memory and may write it: the compiler must take the memory for written with values it does not know.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn take_for_written<T>(start: *mut T) {
    // SAFETY: there are no instructions.
    unsafe {
        std::arch::asm!("/* {0} */", in(reg) start, options(nostack, preserves_flags));
    }
}

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
        for len in [0, 1, 7, 64, 1000, HUGE_PAGE / 4 - 1, HUGE_PAGE / 4 + 3] {
            for mut buffer in [
                Aligned::<f32>::zeros(len),
                Aligned::<f32>::in_huge_pages(len),
            ] {
                assert_eq!(buffer.len(), len);
                assert_eq!(buffer.as_ptr() as usize % if len == 0 { 4 } else { 64 }, 0);
                assert!(buffer.iter().all(|x| *x == 0.0));
                buffer.fill(1.0);
                assert_eq!(buffer.iter().sum::<f32>(), len as f32);
            }
        }
    }
}
