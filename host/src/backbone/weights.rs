//! Weights files: the cache, and how sources fill it.

use std::fs;
use std::io;
use std::path::PathBuf;

use graft_shared::digest;
use graft_shared::error::{Context, Error, Result};
use graft_shared::files;

use super::registry::{BackboneSpec, Weights};
use super::sources::Source;

/// Where weights may come from.
#[derive(Clone, Debug, Default)]
pub struct FetchOptions {
    /// Folder of the cache; `None` for `graft` in the user's cache folder.
    pub model_dir: Option<PathBuf>,
    /// Never use the network.
    pub offline: bool,
    /// Weights of the user's own, in place of the registry's: a safetensors file with the architecture's tensors.
    pub own: Option<Source>,
}

/// A weights file whose content is what the registry says.
#[derive(Clone, Debug)]
pub struct WeightsFile {
    /// Where it is in the cache.
    pub path: PathBuf,
    /// SHA-256 of its bytes.
    pub digest: [u8; 32],
}

/// The user's cache folder for this program: `$XDG_CACHE_HOME/graft`, else `~/.cache/graft`.
///
/// # Errors
/// Neither variable is set.
pub fn default_cache_dir() -> Result<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("graft"))
        .ok_or_else(|| {
            Error::new("no folder for the cache: neither HOME nor XDG_CACHE_HOME is set")
                .hint("set HOME, or name folders with --model-dir and --bottleneck-dir")
        })
}

/// The folder that weights are kept in.
///
/// # Errors
/// As [`default_cache_dir`].
pub fn directory(options: &FetchOptions) -> Result<PathBuf> {
    options.model_dir.clone().map_or_else(default_cache_dir, Ok)
}

/// The weights file of a backbone if the cache has it.
///
/// # Errors
/// It is not there, can't be read, or has another content than the registry says.
pub fn cached(spec: &BackboneSpec, options: &FetchOptions) -> Result<WeightsFile> {
    let weights = pinned(spec)?;
    let path = directory(options)?.join(&weights.file);
    let bytes = fs::read(&path).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            Error::new(format!("{} is not there", path.display()))
        } else {
            Error::new(format!("reading {}", path.display())).source(error)
        }
    })?;
    let digest = check(weights, &bytes).with_context(|| format!("{}", path.display()))?;
    Ok(WeightsFile { path, digest })
}

/// The weights file of a backbone: from the cache, else from the first source that has it.
///
/// A file in the cache whose content is not what the registry says counts as absent, and is replaced.
///
/// # Errors
/// No source has the file, or with other content; the message names both hashes, and the file is not kept.
pub fn fetch(spec: &BackboneSpec, options: &FetchOptions) -> Result<WeightsFile> {
    let weights = pinned(spec)?;
    let mut last_error = match cached(spec, options) {
        Ok(file) => return Ok(file),
        Err(error) => error,
    };
    let mut skipped = false;
    for source in &spec.sources {
        if options.offline && source.needs_network() {
            skipped = true;
            continue;
        }
        match fetch_from(source, spec, options) {
            Ok(file) => return Ok(file),
            Err(error) => last_error = error,
        }
    }
    let error =
        Error::new(format!("the weights of `{}` can't be had", spec.name)).source(last_error);
    Err(if skipped {
        error.hint("run once without --offline, or put the file there by hand")
    } else if spec.sources.is_empty() {
        error.hint(format!(
            "nobody serves this file: bring it with `graft backbones fetch {} --from FILE`, its SHA-256 is {}",
            spec.name, weights.sha256
        ))
    } else {
        error
    })
}

/// Puts the weights file of a backbone into the cache from this source.
///
/// # Errors
/// The source has no such file, or with another content than the registry says.
pub fn fetch_from(
    source: &Source,
    spec: &BackboneSpec,
    options: &FetchOptions,
) -> Result<WeightsFile> {
    let weights = pinned(spec)?;
    let bytes = source.read(options.offline)?;
    let digest = check(weights, &bytes).with_context(|| format!("weights from {source}"))?;
    let directory = directory(options)?;
    fs::create_dir_all(&directory)
        .with_context(|| format!("making the cache folder {}", directory.display()))?;
    let path = directory.join(&weights.file);
    files::write_atomic(&path, &bytes)?;
    Ok(WeightsFile { path, digest })
}

/// The weights file that the registry pins.
fn pinned(spec: &BackboneSpec) -> Result<&Weights> {
    spec.weights.as_ref().ok_or_else(|| {
        let name = &spec.name;
        let error = Error::new(format!("no weights of `{name}` are pinned: bring a file"));
        match &spec.published {
            Some(published) => error.hint(format!(
                "`graft train --backbone {name} --weights {published}`, or a file of these tensors on this machine"
            )),
            None => error.hint(format!("`graft train --backbone {name} --weights FILE`")),
        }
    })
}

fn check(weights: &Weights, bytes: &[u8]) -> Result<[u8; 32]> {
    let digest = digest::sha256(bytes);
    let found = digest::hex(&digest);
    if found == weights.sha256 {
        return Ok(digest);
    }
    Err(Error::new(format!(
        "the weights file is not the expected one: its SHA-256 is {found}, expected {}",
        weights.sha256
    ))
    .hint("the download was damaged or the source has changed; the file is not used. Try again, or fetch it elsewhere"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use super::*;
    use crate::backbone::registry;

    fn spec(sha256: &str, sources: Vec<Source>) -> BackboneSpec {
        let mut spec = registry::all().unwrap().remove(0);
        spec.weights = Some(Weights {
            file: "weights.pth".into(),
            sha256: sha256.into(),
        });
        spec.sources = sources;
        spec
    }

    fn options(folder: &Path, offline: bool) -> FetchOptions {
        FetchOptions {
            model_dir: Some(folder.to_owned()),
            offline,
            own: None,
        }
    }

    #[test]
    fn a_cached_file_is_used_without_the_network() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("weights.pth"), b"weights").unwrap();
        let expected = digest::sha256(b"weights");
        let spec = spec(&digest::hex(&expected), Vec::new());
        let file = fetch(&spec, &options(folder.path(), true)).unwrap();
        assert_eq!(file.digest, expected);
    }

    #[test]
    fn a_wrong_hash_names_both_and_nothing_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.pth");
        fs::write(&path, b"damaged").unwrap();
        let expected = digest::hex(&digest::sha256(b"weights"));
        let report = fetch(&spec(&expected, Vec::new()), &options(folder.path(), true))
            .unwrap_err()
            .report();
        assert!(report.contains(&expected), "{report}");
        assert!(
            report.contains(&digest::hex(&digest::sha256(b"damaged"))),
            "{report}"
        );
        assert!(report.contains("hint: "), "{report}");
    }

    #[test]
    fn offline_without_the_file_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("cache");
        let served = registry::all().unwrap().remove(0).sources;
        let report = fetch(&spec("00", served), &options(&missing, true))
            .unwrap_err()
            .report();
        assert!(report.contains("--offline"), "{report}");
        assert!(!missing.exists());
    }

    #[test]
    fn what_is_not_pinned_is_named_for_the_user_to_bring() {
        let folder = tempfile::tempdir().unwrap();
        let spec = registry::find("resnet18").unwrap();
        let report = fetch(&spec, &options(folder.path(), false))
            .unwrap_err()
            .report();
        assert!(
            report.contains("--weights hf:timm/resnet18.tv_in1k/"),
            "{report}"
        );
    }

    #[test]
    fn a_file_of_the_users_is_a_source() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, file) = (folder.path().join("cache"), folder.path().join("mine.bin"));
        let from = Source::File {
            path: file.display().to_string(),
        };
        let spec = spec(&digest::hex(&digest::sha256(b"weights")), Vec::new());
        let options = options(&cache, true);
        let report = fetch(&spec, &options).unwrap_err().report();
        assert!(report.contains("--from FILE"), "{report}");
        fs::write(&file, b"others").unwrap();
        let report = fetch_from(&from, &spec, &options).unwrap_err().report();
        assert!(report.contains("mine.bin"), "{report}");
        assert!(!cache.exists());
        fs::write(&file, b"weights").unwrap();
        fetch_from(&from, &spec, &options).unwrap();
        assert_eq!(
            fetch(&spec, &options).unwrap().path,
            cache.join("weights.pth")
        );
    }
}
