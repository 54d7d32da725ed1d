//! A command of the user's that is run when the label changes: for lamps, relays, messages.

use std::io::Write;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use graft_shared::error::{Error, Result};

use super::{Event, Sink, Wanted};
use crate::{children, report, say};

/// Changes that wait while the command runs.
const ROOM: usize = 8;
/// A command that runs for longer is ended.
const LONGEST: Duration = Duration::from_secs(30);

/// # Errors
/// When the system gives no thread.
pub(crate) fn start(line: String) -> Result<Sink> {
    Sink::on_thread("on-change", ROOM, Wanted::Changes, move |event| {
        if let Err(error) = run(&line, event) {
            report(&Error::new("can't run the command for a change").source(error));
        }
    })
}

/// Runs the command with the label in its environment, the event on its standard input, and waits for its end.
fn run(line: &str, event: &Event) -> std::io::Result<()> {
    let mut child = children::shell(line)
        .env("GRAFT_LABEL", event.label.as_deref().unwrap_or_default())
        .env(
            "GRAFT_PREVIOUS",
            event.previous.as_deref().unwrap_or_default(),
        )
        .env("GRAFT_SCORE", format!("{:.5}", event.score))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read it closes it; the event is shorter than a pipe.
        let _ = writeln!(stdin, "{}", event.json);
    }
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            if !status.success() {
                say(&format!("the command for a change failed: {status}"));
            }
            return Ok(());
        }
        if start.elapsed() > LONGEST {
            children::end(&mut child);
            say("the command for a change took too long and was ended");
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
}
