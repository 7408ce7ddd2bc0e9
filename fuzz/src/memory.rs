//! Limits the allocations of readers by the size of their input: a huge count in a file must not cause a huge allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static LARGEST: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, which records the largest request.
struct Watching;

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Relaxed);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// Runs `read` on an input of `bytes` bytes and panics if an allocation was much larger.
///
/// Tables built from an input are a small multiple of its size; `fixed` bytes are allowed for every input.
pub fn bounded<T>(bytes: usize, fixed: usize, read: impl FnOnce() -> T) -> T {
    LARGEST.store(0, Relaxed);
    let result = read();
    let (largest, limit) = (LARGEST.load(Relaxed), fixed + 64 * bytes);
    assert!(largest <= limit, "an input of {bytes} bytes made a reader ask for {largest} bytes at once");
    result
}
