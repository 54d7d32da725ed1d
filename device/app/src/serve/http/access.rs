//! Who is let in: whoever shows the token, and without one only this machine's own programs.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use graft_shared::digest::{hex, sha256};
use graft_shared::error::{Context, Error, Result};
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, WWW_AUTHENTICATE};

use super::problem::Problem;
use crate::serve::listen::Address;
use crate::serve::settings::Settings;

/// The name of a token that the service makes itself, in its state folder.
const TOKEN_FILE: &str = "token";
/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// Letters of a token, at least: fewer can be guessed.
const LEAST_TOKEN_LETTERS: usize = 16;

/// Who may ask for labels.
#[derive(Debug)]
pub(crate) struct Access {
    token: Option<Token>,
    /// Any program of this machine can connect, a page in its browser among them.
    host_matters: bool,
}

#[derive(Debug)]
struct Token {
    path: PathBuf,
    digest: RwLock<[u8; 32]>,
}

impl Access {
    /// # Errors
    /// When the token can't be read or made, or others could connect and there is no place for one.
    pub(crate) fn new(settings: &Settings) -> Result<Self> {
        let made = settings
            .state
            .as_ref()
            .map(|folder| folder.join(TOKEN_FILE));
        let path = match (&settings.token_file, settings.listen.is_open()) {
            (Some(path), _) => Some(path.clone()),
            (None, true) => {
                let path = made.ok_or_else(|| {
                    Error::new(format!(
                        "who may use the service at {}? Others can reach it",
                        settings.listen
                    ))
                    .hint("name a file with a token (--token-file), or a folder to make one in (--state)")
                })?;
                make(&path)?;
                Some(path)
            }
            (None, false) => None,
        };
        let token = match path {
            None => None,
            Some(path) => Some(Token {
                digest: RwLock::new(digest(&path)?),
                path,
            }),
        };
        Ok(Self {
            host_matters: token.is_none() && matches!(settings.listen, Address::Tcp(_)),
            token,
        })
    }

    /// Where the token is, if there is one.
    pub(crate) fn token_file(&self) -> Option<&Path> {
        self.token.as_ref().map(|token| token.path.as_path())
    }

    /// Reads the token anew.
    ///
    /// # Errors
    /// When it can't be read; then the old one stays.
    pub(crate) fn reload(&self) -> Result<()> {
        if let Some(token) = &self.token {
            let new = digest(&token.path)?;
            *token.digest.write().unwrap_or_else(PoisonError::into_inner) = new;
        }
        Ok(())
    }

    /// # Errors
    /// 401 without the token; 403 where a page of the web asks through a name that it made point here.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(token) = &self.token else {
            return if self.host_matters && !names_this_machine(headers) {
                let detail =
                    "ask for `localhost` or an address; other names are not this service's";
                Err(Problem::new(StatusCode::FORBIDDEN, detail))
            } else {
                Ok(())
            };
        };
        let shown = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| sha256(token.trim().as_bytes()));
        // Digests: where they first differ says nothing of the token.
        if shown == Some(*token.digest.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(());
        }
        let detail = "show the token: `Authorization: Bearer TOKEN`";
        Err(Problem::new(StatusCode::UNAUTHORIZED, detail)
            .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
    }
}

fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST) else {
        return true;
    };
    let host = host.to_str().unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

fn digest(path: &Path) -> Result<[u8; 32]> {
    let place = || format!("can't use the token in `{}`", path.display());
    let text = fs::read_to_string(path).with_context(place)?;
    let token = text.trim();
    if token.len() < LEAST_TOKEN_LETTERS {
        return Err(Error::new(place())
            .source(Error::new(format!(
                "it has {} letters, at least {LEAST_TOKEN_LETTERS} are needed",
                token.len()
            )))
            .hint("make one with `openssl rand -hex 32`"));
    }
    Ok(sha256(token.as_bytes()))
}

/// Makes a token for the owner's eyes, unless there is one.
fn make(path: &Path) -> Result<()> {
    let failed = || format!("can't make the token `{}`", path.display());
    let mut options = OpenOptions::new();
    let mut file = match options.write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(Error::new(failed()).source(error)),
    };
    let mut random = [0; TOKEN_BYTES];
    fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut random))
        .and_then(|()| file.write_all(format!("{}\n", hex(&random)).as_bytes()))
        .and_then(|()| file.sync_all())
        .with_context(failed)
}
