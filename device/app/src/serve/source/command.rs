//! A child process that writes frames to its standard output, such as ffmpeg or rpicam-vid: started anew when it ends, later
//! each time until it runs again. Also standard input, which ends when it ends.

use std::io;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use graft_shared::error::{Context, Error, Result};

use super::frames::{self, Kind};
use super::{Frame, Latest};
use crate::serve::pause::Pause;
use crate::{children, report, say};

/// The child, for whoever ends the service.
#[derive(Debug, Clone, Default)]
pub(crate) struct Running(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    child: Option<Child>,
    ended: bool,
}

impl Running {
    /// Ends the child, for good.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        if let Some(mut child) = state.child.take() {
            children::end(&mut child);
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts a thread that runs the command `line`.
///
/// # Errors
/// When the system gives no thread.
pub(crate) fn start(line: String, kind: Kind, latest: Arc<Latest>) -> Result<Running> {
    let running = Running::default();
    let for_ever = {
        let running = running.clone();
        move || keep_running(&line, kind, &latest, &running)
    };
    thread::Builder::new()
        .name("source".to_owned())
        .spawn(for_ever)
        .context("can't start a thread for the source")?;
    Ok(running)
}

/// Starts a thread that reads frames from standard input.
///
/// # Errors
/// When the system gives no thread.
pub(crate) fn start_stdin(kind: Kind, latest: Arc<Latest>) -> Result<()> {
    let read = move || {
        let mut take = |picture| latest.put(Frame::now(picture));
        match frames::read(io::stdin().lock(), kind, &mut take) {
            Ok(()) => say("standard input has ended"),
            Err(error) => report(&Error::new("can't read standard input").source(error)),
        }
    };
    thread::Builder::new()
        .name("source".to_owned())
        .spawn(read)
        .context("can't start a thread for the source")?;
    Ok(())
}

fn keep_running(line: &str, kind: Kind, latest: &Latest, running: &Running) {
    let mut pause = Pause::default();
    loop {
        let ended = run(line, kind, latest, running);
        if running.state().ended {
            return;
        }
        let what = match ended {
            Ok(what) => what,
            Err(error) => error.line(),
        };
        let wait = pause.next();
        say(&format!(
            "the source's command ended ({what}); it is started again in {} s",
            wait.as_secs()
        ));
        thread::sleep(wait);
    }
}

/// Runs the command once. Returns how it ended.
fn run(line: &str, kind: Kind, latest: &Latest, running: &Running) -> Result<String> {
    let stdout = {
        let mut state = running.state();
        if state.ended {
            return Ok(String::new());
        }
        let mut child = children::shell(line)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("can't start the shell")?;
        let stdout = child.stdout.take().context("it has no output")?;
        state.child = Some(child);
        stdout
    };
    let mut take = |picture| latest.put(Frame::now(picture));
    let read = frames::read(stdout, kind, &mut take);
    // What has closed its output, or can't be read, is of no use any more.
    let child = running.state().child.take();
    let mut status = None;
    if let Some(mut child) = child {
        thread::sleep(Duration::from_millis(10));
        status = child.try_wait().ok().flatten();
        children::end(&mut child);
    }
    read.context("can't read its output")?;
    Ok(status.map_or("it closed its output".to_owned(), |status| {
        status.to_string()
    }))
}
