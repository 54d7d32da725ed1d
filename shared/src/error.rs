//! The one error type of all crates: what happened, what caused it, what to do.

use std::error::Error as StdError;
use std::fmt;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, with the cause beneath it and, where there is one, a hint what to do.
///
/// `Display` prints the message alone; [`Error::report`] prints the whole chain, once, at the top of a program.
#[derive(Debug)]
pub struct Error {
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error that says what failed and where.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            source: None,
        }
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the cause, of any error type.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The message alone, without causes.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The message and its causes on one line, joined by `: `, for lists of refused files and for JSON.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = self.message.clone();
        for cause in self.causes() {
            line.push_str(": ");
            line.push_str(&cause.to_string());
        }
        line
    }

    /// The text for a terminal: `error:`, a `caused by:` for each cause, and the outermost `hint:` of the chain.
    #[must_use]
    pub fn report(&self) -> String {
        let mut report = format!("error: {}", self.message);
        let mut hint = self.hint.as_deref();
        for cause in self.causes() {
            report.push_str(&format!("\ncaused by: {cause}"));
            hint = hint.or_else(|| {
                cause
                    .downcast_ref::<Self>()
                    .and_then(|cause| cause.hint.as_deref())
            });
        }
        if let Some(hint) = hint {
            report.push_str(&format!("\nhint: {hint}"));
        }
        report
    }

    /// Whether the reader of a pipe has gone, as `head` does: it has what it wanted, and nothing failed.
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        self.causes()
            .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
            .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
    }

    fn causes(&self) -> impl Iterator<Item = &(dyn StdError + 'static)> {
        let mut next = StdError::source(self);
        std::iter::from_fn(move || {
            let cause = next?;
            next = cause.source();
            Some(cause)
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

/// Says what was being done when something failed.
pub trait Context<T> {
    /// Puts `message` above the error; a missing value becomes an error with that message.
    fn context(self, message: impl Into<String>) -> Result<T>;

    /// As [`Context::context`], the message made only when it is needed.
    fn with_context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context(self, message: impl Into<String>) -> Result<T> {
        self.map_err(|error| Error::new(message).source(error))
    }

    fn with_context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|error| Error::new(message()).source(error))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, message: impl Into<String>) -> Result<T> {
        self.ok_or_else(|| Error::new(message))
    }

    fn with_context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.ok_or_else(|| Error::new(message()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn report_names_every_cause_once_and_the_outermost_hint() {
        let inner = Error::new("inner").hint("mend the inside");
        let outer: Result<()> = Err(inner).context("middle").with_context(|| "outer");
        let outer = outer.unwrap_err();
        assert_eq!(
            outer.report(),
            "error: outer\ncaused by: middle\ncaused by: inner\nhint: mend the inside"
        );
        assert_eq!(outer.line(), "outer: middle: inner");
        assert_eq!(outer.to_string(), "outer");
        let hinted = outer.hint("mend the outside");
        assert!(hinted.report().ends_with("\nhint: mend the outside"));
    }

    #[test]
    fn foreign_errors_and_missing_values_become_ours() {
        let error = std::fs::read("no/such/file")
            .context("can't read the file")
            .unwrap_err();
        assert!(error.report().contains("caused by: No such file"));
        assert_eq!(
            None::<u8>.context("nothing there").unwrap_err().message(),
            "nothing there"
        );
    }
}
