//! What can be trained on: the processor, NVIDIA GPUs; and why one can't be.
//!
//! GPUs are found without CUDA: by the driver's library, its folder in `/proc`, and its program `nvidia-smi`. So a
//! program that was built without CUDA can say what building it with CUDA would bring.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use graft_shared::error::{Context, Result};
use serde::Serialize;

/// Whether this version can train on NVIDIA GPUs.
pub(crate) const TRAINS_ON_CUDA: bool = cfg!(feature = "cuda");

/// The driver's library.
const LIBRARY: &str = "libcuda.so.1";

/// Where distributions, containers and Windows' Linux put the driver's library, beside the folders of `LD_LIBRARY_PATH`.
const LIBRARY_FOLDERS: [&str; 8] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/nvidia/lib64",
    "/usr/local/cuda/compat",
    "/run/opengl-driver/lib",
    "/usr/lib/wsl/lib",
];

/// What `nvidia-smi` is asked for.
const QUERY: [&str; 2] = [
    "--query-gpu=index,memory.total,driver_version,name",
    "--format=csv,noheader,nounits",
];

/// The devices of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Devices {
    /// The processor.
    pub cpu: Cpu,
    /// NVIDIA GPUs.
    pub cuda: Cuda,
}

/// The processor; it can always be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// Its name, where the system tells.
    pub name: Option<String>,
    /// How many threads it runs at once for this program.
    pub threads: usize,
    /// The instruction sets it has of those that training knows.
    pub instruction_sets: Vec<&'static str>,
}

/// What there is for CUDA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cuda {
    /// Whether this version can train on CUDA.
    pub built: bool,
    /// The version of the driver, where there is one that tells.
    pub driver: Option<String>,
    /// The driver's library.
    pub library: Option<PathBuf>,
    /// The GPUs that the driver names.
    pub gpus: Vec<Gpu>,
    /// Whether one of them can be trained on.
    pub usable: bool,
    /// Why none of them can be.
    pub reason: Option<String>,
    /// What to do about that.
    pub hint: Option<&'static str>,
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// As in `--device cuda:N`.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Its memory.
    pub memory_bytes: u64,
    /// Why it can't be used, if it can't.
    pub reason: Option<String>,
}

impl Devices {
    /// Looks at the machine that this program runs on.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let listed = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let library = std::env::split_paths(&listed)
            .chain(LIBRARY_FOLDERS.map(PathBuf::from))
            .map(|folder| folder.join(LIBRARY))
            .find(|path| path.is_file());
        let driver = fs::read_to_string("/proc/driver/nvidia/version").ok();
        let found = Found {
            library,
            driver: driver.as_deref().and_then(driver_version),
            listing: nvidia_smi(),
        };
        Self {
            cpu: Cpu::of_this_machine(),
            cuda: Cuda::of(TRAINS_ON_CUDA, found, &open),
        }
    }

    /// The table for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{:8}usable      {}, {}, {}\n",
            "cpu",
            self.cpu.name.as_deref().unwrap_or("processor"),
            counted(self.cpu.threads, "thread"),
            if self.cpu.instruction_sets.is_empty() {
                "no vector instructions that training knows".to_owned()
            } else {
                self.cpu.instruction_sets.join(" ")
            }
        );
        for gpu in &self.cuda.gpus {
            let usable = self.cuda.built && self.cuda.library.is_some() && gpu.reason.is_none();
            text.push_str(&format!(
                "{:8}{:12}{}, {:.1} GiB{}\n",
                format!("cuda:{}", gpu.index),
                if usable { "usable" } else { "not usable" },
                gpu.name,
                gpu.memory_bytes as f64 / f64::from(1 << 30),
                gpu.reason
                    .as_ref()
                    .map_or(String::new(), |reason| format!(": {reason}")),
            ));
        }
        if let Some(reason) = &self.cuda.reason {
            text.push_str(&format!("{:8}{:12}{reason}\n", "cuda", "not usable"));
        }
        if let Some(hint) = &self.cuda.hint {
            text.push_str(&format!("hint: {hint}\n"));
        }
        text
    }

    /// As one JSON object.
    ///
    /// # Errors
    /// None that a list of devices can cause.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).context("can't write the devices as JSON")
    }
}

fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

impl Cpu {
    fn of_this_machine() -> Self {
        let described = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            name: model_name(&described),
            threads: graft_cli::threads(None),
            instruction_sets: instruction_sets(),
        }
    }
}

/// The processor's name in the text of `/proc/cpuinfo`; x86 has one.
fn model_name(described: &str) -> Option<String> {
    let line = described
        .lines()
        .find(|line| line.starts_with("model name"))?;
    let (_, name) = line.split_once(':')?;
    Some(name.trim().to_owned())
}

#[cfg(target_arch = "x86_64")]
fn instruction_sets() -> Vec<&'static str> {
    let found = [
        ("AVX2", std::arch::is_x86_feature_detected!("avx2")),
        ("FMA", std::arch::is_x86_feature_detected!("fma")),
        ("AVX-512", std::arch::is_x86_feature_detected!("avx512f")),
    ];
    let has = found.into_iter().filter(|(_, has)| *has);
    has.map(|(name, _)| name).collect()
}

#[cfg(target_arch = "aarch64")]
fn instruction_sets() -> Vec<&'static str> {
    // Part of the architecture.
    vec!["NEON"]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn instruction_sets() -> Vec<&'static str> {
    vec![]
}

/// What the system shows of NVIDIA's driver.
struct Found {
    library: Option<PathBuf>,
    driver: Option<String>,
    /// What `nvidia-smi` printed, or why it did not; `None` where there is no such program.
    listing: Option<Result<String, String>>,
}

impl Cuda {
    /// What that means for a program that was `built` with CUDA or without; `open` tries a GPU by its index.
    fn of(built: bool, found: Found, open: &dyn Fn(usize) -> Result<(), String>) -> Self {
        let (listed, complaint) = match found.listing {
            Some(Ok(listing)) => (gpus(&listing), None),
            Some(Err(complaint)) => (vec![], Some(complaint)),
            None => (vec![], None),
        };
        let mut driver = found.driver;
        let mut gpus = vec![];
        for (mut gpu, version) in listed {
            // Without the library the first call of CUDA ends the program.
            if built && found.library.is_some() {
                gpu.reason = open(gpu.index).err();
            }
            driver = driver.or(Some(version));
            gpus.push(gpu);
        }
        let mut cuda = Self {
            built,
            driver,
            library: found.library,
            gpus,
            usable: false,
            reason: None,
            hint: None,
        };
        let (reasons, hint) = cuda.obstacles(complaint);
        cuda.usable = reasons.is_empty();
        cuda.reason = (!cuda.usable).then(|| reasons.join("; "));
        cuda.hint = hint;
        cuda
    }

    /// All that stands in the way, and what to do about it first.
    fn obstacles(&self, complaint: Option<String>) -> (Vec<String>, Option<&'static str>) {
        let mut reasons = vec![];
        let mut hints = vec![];
        if self.library.is_none() {
            reasons.push(match &self.driver {
                Some(version) => {
                    format!("the driver {version} is there, its library {LIBRARY} is not")
                }
                None => format!("there is no NVIDIA driver ({LIBRARY} was not found)"),
            });
            hints.push(
                "on a machine with an NVIDIA GPU, install its driver; in a container, pass the GPU on (`--gpus all`)",
            );
        } else if let Some(complaint) = complaint {
            reasons.push(format!("nvidia-smi says: {complaint}"));
            hints.push("restart the machine after the driver was installed or updated");
        } else if self.gpus.is_empty() {
            reasons.push("the driver is there, but it names no GPU".to_owned());
            hints.push(
                "in a container, pass the GPU on (`--gpus all`); `nvidia-smi` has to list it",
            );
        }
        if !self.built {
            reasons.push("this version trains on the CPU only".to_owned());
            hints.push("training runs on the CPU meanwhile, on all cores");
        } else if reasons.is_empty() && self.gpus.iter().all(|gpu| gpu.reason.is_some()) {
            reasons.push("no GPU could be opened".to_owned());
            hints.push(
                "`nvidia-smi` shows what occupies a GPU; docs/cuda.md names the libraries that training needs",
            );
        }
        (reasons, hints.first().copied())
    }
}

/// Tries whether training could use the GPU.
#[cfg(feature = "cuda")]
fn open(index: usize) -> Result<(), String> {
    crate::nn::cuda::probe(index).map_err(|error| error.to_string())
}

#[cfg(not(feature = "cuda"))]
fn open(_: usize) -> Result<(), String> {
    Err("this version trains on the CPU only".to_owned())
}

/// Runs `nvidia-smi`; Windows' Linux keeps it out of the search path of services.
fn nvidia_smi() -> Option<Result<String, String>> {
    let programs = ["nvidia-smi", "/usr/lib/wsl/lib/nvidia-smi"].map(Path::new);
    let run = |program: &Path| Command::new(program).args(QUERY).output().ok();
    let output = programs.into_iter().find_map(run)?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(if output.status.success() {
        Ok(printed)
    } else {
        // It complains on either stream.
        let complaint = printed + &String::from_utf8_lossy(&output.stderr);
        let first = complaint.lines().find(|line| !line.trim().is_empty());
        Err(first.unwrap_or("nothing, but it failed").trim().to_owned())
    })
}

/// The GPUs in the answer to [`QUERY`], and the driver's version; lines that are something else are passed over.
fn gpus(listing: &str) -> Vec<(Gpu, String)> {
    let gpu = |line: &str| {
        let mut values = line.splitn(4, ',').map(str::trim);
        let index = values.next()?.parse().ok()?;
        // On boards that share their memory with the processor it is not a number.
        let mebibytes: u64 = values.next()?.parse().unwrap_or(0);
        let driver = values.next()?.to_owned();
        let gpu = Gpu {
            index,
            name: values.next()?.to_owned(),
            memory_bytes: mebibytes.saturating_mul(1 << 20),
            reason: None,
        };
        Some((gpu, driver))
    };
    listing.lines().filter_map(gpu).collect()
}

/// The version in the text of `/proc/driver/nvidia/version`: `NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06 ...`.
fn driver_version(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("NVRM version"))?;
    let is_version = |word: &&str| {
        word.contains('.')
            && word
                .chars()
                .all(|letter| letter.is_ascii_digit() || letter == '.')
    };
    line.split_whitespace().find(is_version).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn found(library: bool, listing: Option<Result<&str, &str>>) -> Found {
        Found {
            library: library.then(|| "/usr/lib64/libcuda.so.1".into()),
            driver: None,
            listing: listing.map(|said| said.map(str::to_owned).map_err(str::to_owned)),
        }
    }

    const TWO: &str =
        "0, 81559, 580.65.06, NVIDIA H100 80GB HBM3\n1, [N/A], 580.65.06, Orin, nvgpu\n";

    type Opens<'a> = &'a dyn Fn(usize) -> Result<(), String>;

    #[test]
    fn what_stands_in_the_way_is_named() {
        let works = |_: usize| Ok(());
        let fails = |_: usize| Err("out of memory".to_owned());
        let cases: [(bool, Found, Opens<'_>, &[&str]); 7] = [
            (true, found(true, Some(Ok(TWO))), &works, &[]),
            (
                true,
                found(true, Some(Ok(TWO))),
                &fails,
                &["no GPU could be opened"],
            ),
            (
                false,
                found(true, Some(Ok(TWO))),
                &works,
                &["trains on the CPU only"],
            ),
            (true, found(false, None), &works, &["no NVIDIA driver"]),
            (
                false,
                found(false, None),
                &works,
                &["no NVIDIA driver", "trains on the CPU only"],
            ),
            (true, found(true, Some(Ok(""))), &works, &["names no GPU"]),
            (
                true,
                found(true, Some(Err("it failed"))),
                &works,
                &["nvidia-smi says: it failed"],
            ),
        ];
        for (built, found, open, expected) in cases {
            let cuda = Cuda::of(built, found, open);
            assert_eq!(cuda.usable, expected.is_empty(), "{cuda:?}");
            assert_eq!(cuda.hint.is_none(), cuda.usable, "{cuda:?}");
            let reason = cuda.reason.unwrap_or_default();
            for words in expected {
                assert!(reason.contains(words), "{reason}");
            }
        }
    }

    #[test]
    fn gpus_are_listed_by_name_and_memory() {
        let open = |index: usize| match index {
            0 => Ok(()),
            _ => Err("too old".to_owned()),
        };
        let devices = Devices {
            cpu: Cpu {
                name: None,
                threads: 1,
                instruction_sets: vec![],
            },
            cuda: Cuda::of(true, found(true, Some(Ok(TWO))), &open),
        };
        assert!(devices.cuda.usable);
        assert_eq!(devices.cuda.driver.as_deref(), Some("580.65.06"));
        assert_eq!(
            devices.to_text(),
            "cpu     usable      processor, 1 thread, no vector instructions that training knows\n\
             cuda:0  usable      NVIDIA H100 80GB HBM3, 79.6 GiB\n\
             cuda:1  not usable  Orin, nvgpu, 0.0 GiB: too old\n"
        );
        let json: serde_json::Value = serde_json::from_str(&devices.to_json().unwrap()).unwrap();
        assert_eq!(json["cuda"]["gpus"][0]["memory_bytes"], 81_559_u64 << 20);
        assert_eq!(json["cuda"]["gpus"][1]["reason"], "too old");
    }

    #[test]
    fn versions_and_names_are_found_in_the_systems_text() {
        let version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27\nGCC version:  gcc 12.2.0\n";
        assert_eq!(driver_version(version).as_deref(), Some("580.65.06"));
        assert_eq!(driver_version(""), None);
        let described = "processor\t: 0\nmodel name\t: AMD EPYC 9B14\nmodel name\t: other\n";
        assert_eq!(model_name(described).as_deref(), Some("AMD EPYC 9B14"));
        assert_eq!(model_name("BogoMIPS\t: 108.00\n"), None);
    }
}
