//! A GPU through NVIDIA's driver, and NVRTC, the compiler that makes the kernels for it.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream, DevicePtr, result, sys};
use cudarc::nvrtc::{self, CompileError, CompileOptions};
use graft_shared::error::{Context, Error, Result};

use super::machine::{Argument, Machine, Memory, THREADS, pointers};
use super::{SOURCE, kernels};

/// One GPU with the kernels on it.
struct Gpu {
    name: String,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    module: sys::CUmodule,
    functions: HashMap<&'static str, sys::CUfunction>,
}

// SAFETY: the driver's handles may be used from every thread whose current context is theirs; each call binds it.
unsafe impl Send for Gpu {}
// SAFETY: as above; the driver locks what its calls share.
unsafe impl Sync for Gpu {}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// Tries whether [`open`] could work: driver, GPU and compiler are there.
///
/// # Errors
/// The one that is not.
pub(crate) fn probe(index: usize) -> Result<()> {
    context(index)?;
    compiler()
}

/// The GPU of that index, its kernels compiled.
///
/// # Errors
/// No driver, no compiler, no such GPU, and a driver that is too old for the compiler.
pub(crate) fn open(index: usize) -> Result<Arc<dyn Machine>> {
    let context = context(index)?;
    let (major, minor) = context
        .compute_capability()
        .map_err(|error| said("its compute capability", error))?;
    let name = context.name().map_err(|error| said("its name", error))?;
    let program = compile(&format!("compute_{major}{minor}"))?;
    // SAFETY: all work goes through one stream, so that nothing has to wait for what happens in another.
    unsafe { context.disable_event_tracking() };
    let stream = context.default_stream();
    let image = CString::new(program).context("the compiled kernels hold a zero")?;
    // SAFETY: the image is a string of PTX that ends with a zero.
    let module = unsafe { result::module::load_data(image.as_ptr().cast()) }.map_err(|error| {
        said("loading the kernels", error)
            .hint("the driver has to be as new as the compiler: NVRTC 13 needs driver 580 or newer")
    })?;
    let mut gpu = Gpu {
        name,
        context,
        stream,
        module,
        functions: HashMap::new(),
    };
    for kernel in kernels::NAMES {
        let name = CString::new(kernel).context("a kernel's name holds a zero")?;
        // SAFETY: the module was loaded just now.
        let function = unsafe { result::module::get_function(module, name) }
            .map_err(|error| said(&format!("the kernel `{kernel}`"), error))?;
        gpu.functions.insert(kernel, function);
    }
    Ok(Arc::new(gpu))
}

/// The kernels as PTX for an architecture such as `compute_90`.
///
/// # Errors
/// No NVRTC, or one that does not know the architecture.
pub(super) fn compile(architecture: &str) -> Result<String> {
    compiler()?;
    let options = CompileOptions {
        options: vec![format!("--gpu-architecture={architecture}")],
        name: Some("kernels.cu".to_owned()),
        ..CompileOptions::default()
    };
    match nvrtc::compile_ptx_with_opts(SOURCE, options) {
        Ok(program) => Ok(program.to_src()),
        Err(CompileError::CompileError { log, .. }) => Err(Error::new(format!(
            "NVRTC does not compile the kernels for {architecture}: {}",
            log.to_string_lossy().trim()
        ))),
        Err(error) => Err(Error::new(format!("NVRTC fails: {error:?}"))),
    }
}

/// The driver, and the GPU of that index.
fn context(index: usize) -> Result<Arc<CudaContext>> {
    // SAFETY: loading a library runs its initialisers; the driver's are meant to be run.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::new("NVIDIA's driver (libcuda.so.1) can't be loaded")
            .hint("`graft devices` says what is missing; `--device cpu` needs nothing"));
    }
    CudaContext::new(index).map_err(|error| said("opening the GPU", error))
}

/// Whether NVRTC is there.
fn compiler() -> Result<()> {
    // SAFETY: loading a library runs its initialisers; NVRTC's are meant to be run.
    if unsafe { nvrtc::sys::is_culib_present() } {
        return Ok(());
    }
    Err(Error::new("CUDA's compiler NVRTC (libnvrtc.so) can't be loaded").hint(
        "`pip install nvidia-cuda-nvrtc`, and name the folder of its library in LD_LIBRARY_PATH",
    ))
}

fn said(what: &str, error: result::DriverError) -> Error {
    Error::new(format!("{what}: {error}"))
}

impl Machine for Gpu {
    fn allocate(&self, len: usize) -> Result<Memory> {
        let slice =
            self.stream
                .alloc_zeros::<f32>(len.max(1))
                .map_err(|error| {
                    said(&format!("{} MB of the GPU's memory", len / 250_000), error)
                .hint("`--set train_batch_size=16` needs less; `nvidia-smi` shows who else uses it")
                })?;
        let address = slice.device_ptr(&self.stream).0;
        Ok(Memory::new(address, len, Box::new(slice)))
    }

    fn write(&self, memory: &Memory, values: &[f32]) -> Result<()> {
        fits(memory, values.len())?;
        let bound = self.context.bind_to_thread();
        // SAFETY: as many values lie in the memory. From memory that is not page-locked the driver has copied when it
        // comes back.
        bound
            .and_then(|()| unsafe {
                result::memcpy_htod_async(memory.start().0, values, self.stream.cu_stream())
            })
            .map_err(|error| said("copying to the GPU", error))
    }

    fn read(&self, memory: &Memory, values: &mut [f32]) -> Result<()> {
        fits(memory, values.len())?;
        let bound = self.context.bind_to_thread();
        // SAFETY: as many values lie in the memory, and `values` lives until the stream is through.
        bound
            .and_then(|()| unsafe {
                result::memcpy_dtoh_async(values, memory.start().0, self.stream.cu_stream())
            })
            .and(self.stream.synchronize())
            .map_err(|error| said("copying from the GPU", error))
    }

    unsafe fn launch(
        &self,
        kernel: &str,
        blocks: [usize; 3],
        arguments: &[&dyn Argument],
    ) -> Result<()> {
        let function = *self
            .functions
            .get(kernel)
            .with_context(|| format!("there is no kernel `{kernel}`"))?;
        let [x, y, z] = blocks.map(|blocks| blocks as u32);
        let bound = self.context.bind_to_thread();
        // SAFETY: the caller answers for the arguments; the driver copies them before it comes back.
        bound
            .and_then(|()| unsafe {
                result::launch_kernel(
                    function,
                    (x, y, z),
                    (THREADS as u32, 1, 1),
                    0,
                    self.stream.cu_stream(),
                    &mut pointers(arguments),
                )
            })
            .map_err(|error| said(&format!("starting the kernel `{kernel}`"), error))
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: nobody else has the module. A GPU that fails now has said so before.
            let _ = unsafe { result::module::unload(self.module) };
        }
    }
}

fn fits(memory: &Memory, len: usize) -> Result<()> {
    if len > memory.len() {
        return Err(Error::new(format!(
            "{len} values for memory of {}",
            memory.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stderr)]

    use super::*;

    /// Needs the compiler, but no GPU.
    #[test]
    fn nvrtc_compiles_the_kernels() {
        if let Err(error) = compiler() {
            eprintln!("skipped: {}", error.report());
            return;
        }
        for architecture in ["compute_80", "compute_90"] {
            let program = compile(architecture).unwrap();
            for kernel in kernels::NAMES {
                assert!(program.contains(&format!(".entry {kernel}(")), "{kernel}");
            }
        }
    }
}
