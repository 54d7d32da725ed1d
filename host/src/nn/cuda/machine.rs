//! What kernels run on: memory, copies and launches, one after the other in the order in which they were asked for.
#![allow(unsafe_code)]

use std::any::Any;
use std::ffi::c_void;
use std::fmt::Debug;

use graft_shared::error::Result;

/// Threads of a block, in every kernel.
pub(super) const THREADS: usize = 256;

/// A GPU, or in tests what stands for one.
pub(crate) trait Machine: Debug + Send + Sync {
    /// Memory for `len` values, all 0.
    ///
    /// # Errors
    /// When there is not so much.
    fn allocate(&self, len: usize) -> Result<Memory>;

    /// Copies `values` to the beginning of `memory`.
    ///
    /// # Errors
    /// More values than `memory` holds, and what the GPU says.
    fn write(&self, memory: &Memory, values: &[f32]) -> Result<()>;

    /// Waits for all that was asked for, and copies the beginning of `memory` to `values`.
    ///
    /// # Errors
    /// As [`Machine::write`], and whatever went wrong in a kernel.
    fn read(&self, memory: &Memory, values: &mut [f32]) -> Result<()>;

    /// Runs `blocks` of [`THREADS`] threads each; does not wait for them.
    ///
    /// # Errors
    /// A kernel that there is not, and what the GPU says.
    ///
    /// # Safety
    /// The arguments are those of the kernel, in number, order and type, and what it reaches through them lies in live
    /// [`Memory`] of this machine.
    unsafe fn launch(
        &self,
        kernel: &str,
        blocks: [usize; 3],
        arguments: &[&dyn Argument],
    ) -> Result<()>;
}

/// Some values on a machine; freed when dropped.
#[derive(Debug)]
pub(crate) struct Memory {
    address: Address,
    len: usize,
    _owner: Box<dyn Any>,
}

impl Memory {
    /// `owner` keeps `len` values alive that begin at `address`.
    pub(super) fn new(address: u64, len: usize, owner: Box<dyn Any>) -> Memory {
        Memory {
            address: Address(address),
            len,
            _owner: owner,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Where its values begin, as the machine counts.
    pub(super) fn start(&self) -> Address {
        self.address
    }

    /// Where the value `index` lies; the end of the values is the last that can be had.
    pub(super) fn at(&self, index: usize) -> Address {
        Address(self.address.0 + 4 * index.min(self.len) as u64)
    }
}

/// A place in a machine's memory, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Address(pub(super) u64);

impl Address {
    /// No place: C's null.
    pub(super) const NONE: Address = Address(0);
}

/// What can be handed to a kernel.
///
/// # Safety
/// Its layout is that of the kernel's parameter: a number, or a `repr(C)` structure of numbers and addresses.
pub(crate) unsafe trait Argument {}

// SAFETY: an address is 64 bits wide on every GPU, the others are C's `int`, `float` and `double`.
unsafe impl Argument for Address {}
// SAFETY: as above.
unsafe impl Argument for i32 {}
// SAFETY: as above.
unsafe impl Argument for f32 {}
// SAFETY: as above.
unsafe impl Argument for f64 {}

/// The arguments as `cuLaunchKernel` takes them: where each of them lies.
pub(super) fn pointers(arguments: &[&dyn Argument]) -> Vec<*mut c_void> {
    arguments
        .iter()
        .map(|&argument| std::ptr::from_ref(argument).cast::<c_void>().cast_mut())
        .collect()
}
