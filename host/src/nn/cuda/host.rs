//! The kernels on the processor, for tests: their source is C++ with `shim.h` before it.
#![allow(unsafe_code, clippy::unwrap_used)]

use std::ffi::c_void;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use graft_shared::error::Result;
use libloading::{Library, Symbol};

use super::machine::{Argument, Machine, Memory, THREADS, pointers};
use super::{SOURCE, kernels};

/// A kernel's entry, see `EXPORT` in `shim.h`.
type Entry = unsafe extern "C" fn(*mut *mut c_void, *const u32, u32);

/// The compiled kernels; their shared memory is there once, so that launches take turns.
struct Host {
    library: Mutex<Library>,
    _folder: tempfile::TempDir,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the processor")
    }
}

/// The processor as a machine.
pub(crate) fn machine() -> Arc<dyn Machine> {
    static MACHINE: OnceLock<Arc<Host>> = OnceLock::new();
    MACHINE.get_or_init(|| Arc::new(compile())).clone()
}

fn compile() -> Host {
    let folder = tempfile::tempdir().unwrap();
    let [source, library] = ["kernels.cpp", "kernels.so"].map(|name| folder.path().join(name));
    let exports: String = kernels::NAMES
        .iter()
        .map(|name| format!("EXPORT({name})\n"))
        .collect();
    let text = format!("{}{SOURCE}{exports}", include_str!("shim.h"));
    std::fs::write(&source, text).unwrap();
    let compiled = Command::new("c++")
        .args([
            "-O1",
            // A jump from fibre to fibre is no overflow of the stack.
            "-U_FORTIFY_SOURCE",
            "-std=c++17",
            "-Wall",
            "-Wno-unknown-pragmas",
            "-Werror",
            "-shared",
            "-fPIC",
            "-o",
        ])
        .args([&library, &source])
        .output()
        .unwrap();
    assert!(
        compiled.status.success(),
        "{}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    // SAFETY: it was compiled just now and has no initialisers but those of C++'s own types.
    let library = unsafe { Library::new(&library) }.unwrap();
    Host {
        library: Mutex::new(library),
        _folder: folder,
    }
}

impl Machine for Host {
    fn allocate(&self, len: usize) -> Result<Memory> {
        // Eight bytes each, for the alignment of sums.
        let mut values = vec![0_u64; len.div_ceil(2)];
        let address = values.as_mut_ptr() as u64;
        Ok(Memory::new(address, len, Box::new(values)))
    }

    fn write(&self, memory: &Memory, values: &[f32]) -> Result<()> {
        assert!(values.len() <= memory.len());
        let to = memory.start().0 as *mut f32;
        // SAFETY: so many values lie there, and nobody else reads or writes them meanwhile.
        unsafe { to.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
        Ok(())
    }

    fn read(&self, memory: &Memory, values: &mut [f32]) -> Result<()> {
        assert!(values.len() <= memory.len());
        let from = memory.start().0 as *const f32;
        // SAFETY: as above.
        unsafe { from.copy_to_nonoverlapping(values.as_mut_ptr(), values.len()) };
        Ok(())
    }

    unsafe fn launch(
        &self,
        kernel: &str,
        blocks: [usize; 3],
        arguments: &[&dyn Argument],
    ) -> Result<()> {
        let library = self.library.lock().unwrap();
        let name = format!("launch_{kernel}");
        let blocks = blocks.map(|blocks| u32::try_from(blocks).unwrap());
        // SAFETY: every entry has this type; the caller answers for the arguments.
        unsafe {
            let entry: Symbol<'_, Entry> = library.get(name.as_bytes()).unwrap();
            entry(
                pointers(arguments).as_mut_ptr(),
                blocks.as_ptr(),
                THREADS as u32,
            );
        }
        Ok(())
    }
}
