//! Where labels go beside HTTP. Each sink has a bounded queue and a thread or task of its own: one that is slow loses what
//! it has no room for, which is counted, and holds up nobody.
//!
//! | module | duty |
//! |---|---|
//! | `lines` | JSON lines to standard output or a file |
//! | `mqtt` | an MQTT broker, and Home Assistant by it |
//! | `on_change` | a command that is run when the label changes |
//! | `webhook` | a POST to another service |
//! | `spool` | pictures that the model is unsure of, for the next training |

pub(crate) mod lines;
pub(crate) mod mqtt;
pub(crate) mod on_change;
pub(crate) mod spool;
pub(crate) mod webhook;

use std::sync::Arc;
use std::thread;

use graft_shared::error::{Context, Result};
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::http::metrics::{Counter, Gauge};
use super::source::Frame;

/// A frame that was labelled.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// The frame itself, for the sink that keeps pictures: events that wait anywhere else would fill the memory with them.
    pub(crate) frame: Option<Arc<Frame>>,
    /// One JSON object.
    pub(crate) json: String,
    /// The label that is shown; `None` is unknown.
    pub(crate) label: Option<String>,
    /// The label with the best score, known or not.
    pub(crate) best: String,
    /// The best label's score.
    pub(crate) score: f32,
    /// Whether the label is another one than before.
    pub(crate) changed: bool,
    /// The label before, where it changed.
    pub(crate) previous: Option<String>,
}

/// The way to a sink.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) name: &'static str,
    sender: Sender<Arc<Event>>,
    wanted: Wanted,
    pub(crate) lost: Arc<Counter>,
    /// Of a sink that knows what became of its events.
    pub(crate) counts: Option<Arc<Counts>>,
}

/// What became of a sink's events.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sent: Counter,
    pub(crate) waiting: Gauge,
}

/// Which events a sink wants.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted {
    All,
    Changes,
    /// With a best score below this, and their frames.
    Below(f32),
}

impl Sink {
    /// A sink, and where its events come out.
    pub(crate) fn new(
        name: &'static str,
        room: usize,
        wanted: Wanted,
    ) -> (Self, Receiver<Arc<Event>>) {
        let (sender, receiver) = mpsc::channel(room);
        let sink = Self {
            name,
            sender,
            wanted,
            lost: Arc::default(),
            counts: None,
        };
        (sink, receiver)
    }

    /// A sink whose events a thread takes one by one.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn on_thread(
        name: &'static str,
        room: usize,
        wanted: Wanted,
        mut take: impl FnMut(&Event) + Send + 'static,
    ) -> Result<Self> {
        let (sink, mut events) = Self::new(name, room, wanted);
        let work = move || {
            while let Some(event) = events.blocking_recv() {
                take(&event);
            }
        };
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)
            .with_context(|| format!("can't start a thread for {name}"))?;
        Ok(sink)
    }

    /// Gives the event on, if it is wanted and there is room.
    pub(crate) fn offer(&self, event: &Arc<Event>, frame: &Arc<Frame>) {
        let event = match self.wanted {
            Wanted::All => event.clone(),
            Wanted::Changes if event.changed => event.clone(),
            Wanted::Below(score) if event.score < score => Arc::new(Event {
                frame: Some(frame.clone()),
                ..Event::clone(event)
            }),
            Wanted::Changes | Wanted::Below(_) => return,
        };
        if self.sender.try_send(event).is_err() {
            self.lost.count();
        }
    }
}
