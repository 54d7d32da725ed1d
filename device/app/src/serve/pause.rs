//! Pauses before something is tried again: each twice the one before, up to a minute.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// When something is tried again.
#[derive(Debug)]
pub(crate) struct Pause {
    next: Duration,
    since: Instant,
}

impl Default for Pause {
    fn default() -> Self {
        Self {
            next: FIRST,
            since: Instant::now(),
        }
    }
}

impl Pause {
    /// How long to wait now. What went well for the longest pause since the last one begins with the first again.
    pub(crate) fn next(&mut self) -> Duration {
        if self.since.elapsed() >= LONGEST {
            self.next = FIRST;
        }
        let pause = self.next;
        self.next = (2 * pause).min(LONGEST);
        self.since = Instant::now() + pause;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute() {
        let mut pause = Pause::default();
        let pauses: Vec<_> = (0..8).map(|_| pause.next().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        let Some(long_ago) = Instant::now().checked_sub(LONGEST) else {
            return;
        };
        pause.since = long_ago;
        assert_eq!(pause.next(), FIRST);
    }
}
