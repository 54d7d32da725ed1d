//! Events to an MQTT broker (3.1.1), each until the broker has acknowledged it, and to Home Assistant by its discovery.
//!
//! The sink is a thread with a runtime of its own: a disk that is slow holds up nobody else.
//!
//! | module | duty |
//! |---|---|
//! | `queue` | events that wait, in memory and in a file |
//! | `link` | one connection, and what was acknowledged on it |
//! | `discovery` | what Home Assistant is told |
//! | `target` | the broker, the topics and who we are |

mod discovery;
mod link;
mod queue;
mod target;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use graft_shared::error::{Context, Error, Result};
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use self::discovery::{Described, configurations};
use self::link::{Link, News};
use self::queue::Queue;
use self::target::Target;
use super::{Counts, Event, Sink, Wanted};
use crate::serve::model::Models;
use crate::serve::pause::Pause;
use crate::{report, say};

/// Events on their way to the queue.
const ROOM: usize = 64;
/// The file of the state folder that events wait in.
const QUEUE_FILE: &str = "mqtt-queue";
/// Bytes of an event; a longer one is lost.
const MAX_EVENT_BYTES: usize = 1 << 20;
/// How often the file is brought up to date and the model looked at.
const TICK: Duration = Duration::from_secs(1);
/// After a connection that lasted for longer pauses begin anew.
const LONG_ENOUGH: Duration = Duration::from_secs(1);
/// What waits at the end of the service has this long to go out; the rest goes to the file.
const LAST_EVENTS: Duration = Duration::from_secs(3);
/// The broker has this long to hear that we go.
const GOODBYE: Duration = Duration::from_millis(500);

/// Where events go.
#[derive(Debug, Clone)]
pub(crate) struct Mqtt {
    /// `mqtt://[USER@]HOST[:PORT][/PREFIX]`.
    pub(crate) url: String,
    pub(crate) password_file: Option<PathBuf>,
    /// The folder that events wait in.
    pub(crate) state: PathBuf,
}

/// Ends the sink in good order.
#[derive(Debug)]
pub(crate) struct Ending {
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl Ending {
    /// Waits until all is sent or in the file.
    pub(crate) async fn end(self) {
        // When the thread is gone already there is nobody to tell and nothing to wait for.
        let _ = self.stop.send(());
        let _ = self.ended.await;
    }
}

/// # Errors
/// When the URL names no broker that can be spoken to, a file can't be read, or the system gives no thread.
pub(crate) fn start(mqtt: &Mqtt, models: Arc<Models>, wanted: Wanted) -> Result<(Sink, Ending)> {
    let target = Target::new(mqtt)?;
    let queue = Queue::open(&mqtt.state.join(QUEUE_FILE))?;
    let (mut sink, events) = Sink::new("mqtt", ROOM, wanted);
    let counts = Arc::new(Counts::default());
    counts.waiting.set(queue.len() as i64);
    sink.counts = Some(counts.clone());
    let (stop, stopped) = oneshot::channel();
    let (done, ended) = oneshot::channel();
    let sender = Sender {
        target,
        models,
        queue,
        lost: sink.lost.clone(),
        counts,
        link: None,
        announced: None,
        last: None,
        refused: false,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start the MQTT client")?;
    let work = move || {
        runtime.block_on(sender.run(events, stopped));
        let _ = done.send(());
        // A name that is still being looked up holds up nobody.
        runtime.shutdown_background();
    };
    thread::Builder::new()
        .name("mqtt".to_owned())
        .spawn(work)
        .context("can't start a thread for MQTT")?;
    Ok((sink, Ending { stop, ended }))
}

/// What the thread works on.
struct Sender {
    target: Target,
    models: Arc<Models>,
    queue: Queue,
    lost: Arc<super::Counter>,
    counts: Arc<Counts>,
    link: Option<Link>,
    /// The version of the model that Home Assistant knows of, on this connection.
    announced: Option<String>,
    /// The last event: a broker that was started anew may have forgotten what it retained.
    last: Option<String>,
    /// The disk refuses, which was said.
    refused: bool,
}

impl Sender {
    async fn run(mut self, mut events: Receiver<Arc<Event>>, mut stop: oneshot::Receiver<()>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pause = Pause::default();
        let mut next_try = Instant::now();
        let mut told = false;
        let mut deadline: Option<Instant> = None;
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.take(&event),
                    None => break,
                },
                news = news(&mut self.link) => match news {
                    News::Connected => {
                        told = false;
                        say(&format!("connected to the MQTT broker {}", self.target));
                        self.greet();
                    }
                    News::Taken(number) => {
                        self.queue.taken(number);
                        self.counts.sent.count();
                    }
                    News::HomeAssistantStarted => self.announced = None,
                    News::Lost { error, lasted } => {
                        self.link = None;
                        if lasted > LONG_ENOUGH {
                            pause = Pause::default();
                        }
                        if !told {
                            say(&format!("no way to the MQTT broker {}, events wait: {error}", self.target));
                        }
                        told = true;
                        next_try = Instant::now() + pause.next();
                    }
                },
                _ = ticks.tick() => self.keep(!self.is_connected()),
                () = sleep_until(next_try), if self.link.is_none() && deadline.is_none() => {
                    self.link = Some(Link::open(&self.target));
                }
                _ = &mut stop, if deadline.is_none() => deadline = Some(Instant::now() + LAST_EVENTS),
                () = at(deadline) => break,
            }
            self.announce();
            if let Some(link) = &mut self.link {
                link.send(&self.target, &self.queue);
            }
            self.counts.waiting.set(self.queue.len() as i64);
            let all_sent = self.queue.len() == 0 && events.is_empty();
            if deadline.is_some() && (all_sent || !self.is_connected()) {
                break;
            }
        }
        while let Ok(event) = events.try_recv() {
            self.take(&event);
        }
        self.keep(true);
        if let Some(link) = self.link.take() {
            // One that does not answer finds out by itself.
            let _ = timeout(GOODBYE, link.close(&self.target)).await;
        }
    }

    fn is_connected(&self) -> bool {
        self.link.as_ref().is_some_and(Link::is_connected)
    }

    fn take(&mut self, event: &Event) {
        if event.json.len() > MAX_EVENT_BYTES {
            self.lost.count();
            return;
        }
        self.last = Some(event.json.clone());
        self.lost.add(self.queue.push(event.json.clone()));
    }

    /// Brings the file up to date; a disk that refuses is named once.
    fn keep(&mut self, away: bool) {
        match self.queue.keep(away) {
            Ok(()) => self.refused = false,
            Err(error) => {
                if !self.refused {
                    report(&Error::new("can't keep the events for MQTT").source(error));
                }
                self.refused = true;
            }
        }
    }

    /// Begins a connection.
    fn greet(&mut self) {
        self.announced = None;
        if let Some(link) = &mut self.link {
            link.publish(&self.target.availability_topic, "online");
            if self.queue.len() == 0
                && let Some(last) = &self.last
            {
                link.publish(&self.target.state_topic, last);
            }
        }
    }

    /// Tells Home Assistant of the model, if it does not know it yet.
    fn announce(&mut self) {
        let Some(link) = self.link.as_mut().filter(|link| link.is_connected()) else {
            return;
        };
        let Some(model) = self.models.current() else {
            return;
        };
        if self.announced.as_ref() == Some(&model.version) {
            return;
        }
        let labels: Vec<String> = model
            .engine
            .card()
            .labels
            .iter()
            .map(str::to_owned)
            .collect();
        let described = Described {
            id: &self.target.id,
            name: &self.target.name,
            state_topic: &self.target.state_topic,
            availability_topic: &self.target.availability_topic,
            labels: &labels,
            model_version: &model.version,
        };
        for (topic, sensor) in configurations(&described) {
            link.publish(&topic, &sensor.to_string());
        }
        self.announced = Some(model.version.clone());
    }
}

/// What the connection has to tell; never, without one.
async fn news(link: &mut Option<Link>) -> News {
    match link {
        Some(link) => link.news().await,
        None => std::future::pending().await,
    }
}

/// Waits for a point in time; for ever, without one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
