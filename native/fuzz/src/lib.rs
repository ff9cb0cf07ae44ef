//! What every target shares: an allocator that turns a memory bomb into a crash.
//!
//! libFuzzer's own limit on single allocations needs a sanitizer runtime; this one does not, and
//! so works on the stable toolchain.

use std::alloc::{GlobalAlloc, Layout, System};

/// No input of the default size (up to 1 MiB) justifies a single allocation above this.
const LARGEST: usize = 64 << 20;

/// The cap on decoded bytes that targets pass to decoders.
pub const LIMIT: u64 = 16 << 20;

struct Capped;

fn check(size: usize) {
    if size > LARGEST {
        eprintln!("allocation of {size} bytes is above the limit of {LARGEST}");
        std::process::abort();
    }
}

// SAFETY: every call goes to the system allocator unchanged, unless the process ends before.
unsafe impl GlobalAlloc for Capped {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check(size);
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Capped = Capped;

/// A number from the first bytes of an input, and the rest.
#[must_use]
pub fn split(data: &[u8]) -> (u64, &[u8]) {
    match data.split_first_chunk::<2>() {
        Some((number, rest)) => (u64::from(u16::from_le_bytes(*number)), rest),
        None => (0, data),
    }
}
