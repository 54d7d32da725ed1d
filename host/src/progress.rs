//! Progress on stderr: a bar with an ETA on a terminal, a plain line now and then in a pipe, nothing with `--quiet`.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// In a pipe, a stage that lasts says so this often.
const PLAIN_INTERVAL: Duration = Duration::from_secs(15);

/// Where progress goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    style: Style,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Quiet,
    Plain,
    Bar,
}

impl Progress {
    /// Fits stderr, unless `quiet`.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        let style = match (quiet, std::io::stderr().is_terminal() && !wants_plain()) {
            (true, _) => Style::Quiet,
            (false, true) => Style::Bar,
            (false, false) => Style::Plain,
        };
        Self { style }
    }

    /// A line for people.
    pub fn say(&self, text: &str) {
        if self.style != Style::Quiet {
            // A closed stderr is no reason to stop.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// A stage of `total` steps.
    #[must_use]
    pub fn stage(&self, name: &str, total: usize) -> Stage {
        let bar = ProgressBar::with_draw_target(
            Some(total as u64),
            if self.style == Style::Bar {
                ProgressDrawTarget::stderr()
            } else {
                ProgressDrawTarget::hidden()
            },
        );
        if let Ok(style) = ProgressStyle::with_template(
            "{prefix} {bar:30} {human_pos}/{human_len}  {per_sec}  {eta} left",
        ) {
            bar.set_style(style);
        }
        bar.set_prefix(name.to_owned());
        Stage {
            progress: *self,
            name: name.to_owned(),
            total,
            done: AtomicUsize::new(0),
            bar,
            start: Instant::now(),
            said: Mutex::new(Instant::now()),
        }
    }
}

/// Whether the environment asks for text without control codes: <https://no-color.org>, <https://bixense.com/clicolors>.
fn wants_plain() -> bool {
    let is = |name: &str, value: &str| std::env::var_os(name).is_some_and(|found| found == value);
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    no_color || is("CLICOLOR", "0") || is("TERM", "dumb")
}

/// Work with a known number of steps; may be advanced from many threads.
#[derive(Debug)]
pub struct Stage {
    progress: Progress,
    name: String,
    total: usize,
    done: AtomicUsize,
    bar: ProgressBar,
    start: Instant,
    said: Mutex<Instant>,
}

impl Stage {
    /// Counts `steps` as done.
    pub fn advance(&self, steps: usize) {
        let done = self.done.fetch_add(steps, Ordering::Relaxed) + steps;
        self.bar.inc(steps as u64);
        if self.progress.style == Style::Plain
            && let Ok(mut said) = self.said.try_lock()
            && said.elapsed() >= PLAIN_INTERVAL
        {
            *said = Instant::now();
            let left = self.start.elapsed().as_secs_f64() / done.max(1) as f64
                * self.total.saturating_sub(done) as f64;
            self.progress.say(&format!(
                "{}: {done} of {}, about {left:.0} s left",
                self.name, self.total
            ));
        }
    }

    /// Ends the stage and says how long it took.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
        let seconds = self.start.elapsed().as_secs_f64();
        if self.total > 0 && seconds >= 0.5 {
            self.progress.say(&format!(
                "{}: {} in {seconds:.1} s",
                self.name,
                self.done.load(Ordering::Relaxed)
            ));
        }
    }
}
