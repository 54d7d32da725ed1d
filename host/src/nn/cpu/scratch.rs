//! Buffers that a thread keeps from call to call: fresh memory costs a page fault for every 4 KiB.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Where a buffer begins: on a cache line, so that no vector lies across two.
const ALIGNMENT: usize = 64;

thread_local! {
    static IDLE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Values of any content, given back to the thread when dropped.
pub(super) struct Scratch {
    buffer: Vec<f32>,
    first: usize,
    len: usize,
}

impl Scratch {
    pub(super) fn new(len: usize) -> Scratch {
        const SLACK: usize = ALIGNMENT / size_of::<f32>();
        let mut buffer = IDLE
            .with(|idle| idle.borrow_mut().pop())
            .unwrap_or_default();
        if buffer.len() < len + SLACK {
            drop(buffer);
            buffer = vec![0.0; len + SLACK];
        }
        Scratch {
            first: buffer.as_ptr().align_offset(ALIGNMENT).min(SLACK),
            buffer,
            len,
        }
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.buffer[self.first..][..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[self.first..][..self.len]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        // At a thread's end there is no one to keep it.
        let _ = IDLE.try_with(|idle| idle.borrow_mut().push(buffer));
    }
}
