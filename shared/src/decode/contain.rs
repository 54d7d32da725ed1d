//! A decoder's panic becomes an error, and nothing is printed about it.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::error::{Error, Result};

thread_local! {
    /// Whether a panic of this thread will be caught by [`contained`].
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a decoder, which keeps no state beyond the call: its panic is an error.
///
/// The first call wraps the process's panic hook, so that it stays silent about panics inside `decoder` and nothing
/// else.
pub(super) fn contained<T>(decoder: impl FnOnce() -> Result<T>) -> Result<T> {
    static SILENCE: Once = Once::new();
    SILENCE.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            // A thread that is ending has no such variable any more, and decodes nothing.
            if !CONTAINED.try_with(Cell::get).unwrap_or(false) {
                hook(panic);
            }
        }));
    });
    CONTAINED.set(true);
    let decoded = catch_unwind(AssertUnwindSafe(decoder));
    CONTAINED.set(false);
    decoded.unwrap_or_else(|panic| {
        let message = message(&*panic);
        Err(Error::new(format!("the decoder failed: {message}")))
    })
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it panicked")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, clippy::unwrap_used)]
    use std::process::Command;

    use super::*;

    #[test]
    fn a_panic_has_its_message() {
        assert_eq!(message(&"static"), "static");
        assert_eq!(message(&String::from("made")), "made");
        assert_eq!(message(&1), "it panicked");
        let error = contained::<()>(|| panic!("row {}", 7)).unwrap_err();
        assert!(error.line().contains("the decoder failed: row 7"));
    }

    /// Runs itself again, to see what is printed.
    #[test]
    fn only_a_decoders_panic_is_silent() {
        const INSIDE: &str = "GRAFT_TEST_PANICS";
        if std::env::var_os(INSIDE).is_some() {
            assert!(contained::<()>(|| panic!("in a decoder")).is_err());
            let outside = std::thread::spawn(|| panic!("outside"));
            assert!(outside.join().is_err());
            return;
        }
        let run = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                "decode::contain::tests::only_a_decoders_panic_is_silent",
            ])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{printed}");
        assert!(printed.contains("outside"), "{printed}");
        assert!(!printed.contains("in a decoder"), "{printed}");
    }
}
