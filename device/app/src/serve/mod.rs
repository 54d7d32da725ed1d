//! `serve`: the service, from its start to its end.
//!
//! | module | duty |
//! |---|---|
//! | `settings` | what it is told |
//! | `listen` | where clients come in |
//! | `http` | requests and answers |
//! | `queue` | the bounded way to the engine, and its threads |
//! | `model` | the model, replaced while requests run |
//! | `source` | where pictures come from beside HTTP |
//! | `stream` | a source's frames to labels |
//! | `steady` | labels smoothed over time |
//! | `pause` | how long to wait before something is tried again |
//! | `sink` | where labels go beside HTTP |

mod http;
mod listen;
mod model;
mod pause;
mod queue;
mod settings;
mod sink;
mod source;
mod steady;
mod stream;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use graft_shared::error::{Context, Error, Result};
use graft_shared::limits::DRAIN_DEADLINE;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use self::http::access::Access;
use self::http::body::Memory;
use self::http::connection;
use self::http::metrics::Metrics;
use self::listen::Listener;
use self::model::{Ask, Models, Opened};
use self::queue::Queue;
use self::settings::{Settings, Source};
use self::sink::{Sink, lines, mqtt, on_change, spool, webhook};
use self::source::command::{self, Running};
use self::source::{Incoming, Latest, camera, folder};
use self::stream::{Live, Stream};
use crate::cli::ServeArguments;
use crate::systemd::{Notifier, watchdog_interval};
use crate::{Outcome, report, say};

/// How often the model file is looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// What all parts of the service share.
#[derive(Debug)]
pub(crate) struct Service {
    models: Arc<Models>,
    queue: Queue,
    access: Access,
    memory: Memory,
    metrics: Metrics,
    /// How pictures are asked about where a request does not say.
    ask: Ask,
    /// The end is near: what is new is refused.
    draining: AtomicBool,
    notifier: Notifier,
    live: Live,
    sinks: Vec<Sink>,
    has_source: bool,
    /// Frames of a live source.
    latest: Option<Arc<Latest>>,
}

pub(crate) fn run(arguments: &ServeArguments) -> Result<Outcome> {
    let settings = Settings::read(arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start the service")?;
    let outcome = runtime.block_on(serve(settings));
    // A name that is still being looked up holds up no end.
    runtime.shutdown_background();
    outcome
}

async fn serve(settings: Settings) -> Result<Outcome> {
    let mut signals = Signals::new()?;
    let access = Access::new(&settings)?;
    let listener = Listener::bind(&settings.listen).await?;
    let address = listener.address().context("can't say where it listens")?;
    let models = Arc::new(Models::new(settings.model.clone()));
    let (sinks, mqtt) = sinks(&settings, &models)?;
    let service = Arc::new(Service {
        models,
        queue: Queue::start(settings.threads)?,
        access,
        memory: Memory::new(),
        metrics: Metrics::default(),
        ask: settings.ask,
        draining: AtomicBool::new(false),
        notifier: Notifier::from_environment()?,
        live: Live::default(),
        sinks,
        has_source: settings.source.is_some(),
        latest: match settings.source {
            Some(Source::Camera(_) | Source::Command(..) | Source::Stdin(_)) => {
                Some(Arc::default())
            }
            Some(Source::Folder(_)) | None => None,
        },
    });
    // Before the model is there, so that `/readyz` can say that it is not.
    let (alive, mut ended) = mpsc::channel::<()>(1);
    let (stop, stopped) = watch::channel(Some(alive));
    let door = tokio::spawn(connection::accept(listener, service.clone(), stopped));

    tokio::select! {
        opened = open(&service) => {
            let model = match opened? {
                Opened::New(model) | Opened::Same(model) => model,
            };
            say(&format!(
                "serving {} (version {}) at {address}",
                service.models.path().display(),
                model.version
            ));
            if let Some(path) = service.access.token_file() {
                say(&format!("clients show the token in {}", path.display()));
            }
            service.notifier.ready(&format!("serving at {address}"));
        }
        () = signals.end.asked_for() => return Ok(Outcome::Done),
    }
    tokio::spawn(keep_watch(service.clone()));
    let running = start_source(&service, settings)?;
    run_until_stopped(&service, &mut signals).await;

    service.notifier.stopping();
    service.draining.store(true, Ordering::Relaxed);
    if let Some(running) = running {
        running.end();
    }
    // Connections that were there end after the answer that they are at; new ones hear that it is too late.
    stop.send_replace(None);
    let published = async {
        if let Some(mqtt) = mqtt {
            mqtt.end().await;
        }
    };
    let (answered, published) = tokio::join!(
        timeout(DRAIN_DEADLINE, ended.recv()),
        timeout(DRAIN_DEADLINE, published)
    );
    if answered.is_err() {
        say("some clients were too slow for the end");
    }
    if published.is_err() {
        say("the disk was too slow for the events that wait for the MQTT broker");
    }
    door.abort();
    Ok(Outcome::Done)
}

/// The sinks that are wanted, and the end of the one that has one.
fn sinks(settings: &Settings, models: &Arc<Models>) -> Result<(Vec<Sink>, Option<mqtt::Ending>)> {
    let mut sinks = Vec::new();
    let mut ending = None;
    if let Some(path) = &settings.lines {
        sinks.push(lines::start(path, settings.wanted)?);
    }
    if let Some(line) = &settings.on_change {
        sinks.push(on_change::start(line.clone())?);
    }
    if let Some(url) = &settings.webhook {
        sinks.push(webhook::start(url, settings.wanted)?);
    }
    if let Some(spool) = &settings.spool {
        sinks.push(spool::start(spool.clone())?);
    }
    if let Some(mqtt) = &settings.mqtt {
        let (sink, end) = mqtt::start(mqtt, models.clone(), settings.wanted)?;
        sinks.push(sink);
        ending = Some(end);
    }
    Ok((sinks, ending))
}

/// Starts the source, if there is one; gives its child, if it has one.
fn start_source(service: &Arc<Service>, settings: Settings) -> Result<Option<Running>> {
    let latest = service.latest.clone().unwrap_or_default();
    let live = Incoming::Live(latest.clone());
    let (source, incoming, running) = match settings.source {
        None => return Ok(None),
        Some(Source::Camera(camera)) => {
            camera::start(camera, latest)?;
            ("camera", live, None)
        }
        Some(Source::Command(line, kind)) => {
            let running = command::start(line, kind, latest)?;
            ("command", live, Some(running))
        }
        Some(Source::Stdin(kind)) => {
            command::start_stdin(kind, latest)?;
            ("stdin", live, None)
        }
        Some(Source::Folder(folder)) => {
            let (sender, receiver) = mpsc::channel(1);
            folder::start(folder, sender)?;
            ("folder", Incoming::Each(receiver), None)
        }
    };
    tokio::spawn(stream::run(
        service.clone(),
        Stream {
            source,
            incoming,
            region: settings.region,
            steadiness: settings.steadiness,
        },
    ));
    Ok(running)
}

/// Takes new models until the end is asked for.
async fn run_until_stopped(service: &Arc<Service>, signals: &mut Signals) {
    let mut looks = interval(WATCH_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = signals.end.asked_for() => return,
            _ = signals.reload.recv() => {}
            _ = looks.tick() => {
                if !service.models.changed() {
                    continue;
                }
            }
        }
        tokio::select! {
            () = signals.end.asked_for() => return,
            () = reload(service) => {}
        }
    }
}

/// Takes what is new in the files; what is wrong with them leaves everything as it was.
async fn reload(service: &Arc<Service>) {
    service.notifier.reloading();
    if let Err(error) = service.access.reload() {
        report(&error);
    }
    let status = match open(service).await {
        Ok(Opened::Same(model)) => format!("the model is the same, version {}", model.version),
        Ok(Opened::New(model)) => {
            service.metrics.reloaded.count();
            format!("now serving version {}", model.version)
        }
        Err(error) => {
            service.metrics.reload_failed.count();
            report(&error);
            format!("the old model stays: {}", error.line())
        }
    };
    say(&status);
    service.notifier.ready(&status);
}

/// Opens the model beside the requests, on a thread of its own.
async fn open(service: &Service) -> Result<Opened> {
    let models = service.models.clone();
    let (sender, opened) = oneshot::channel();
    thread::Builder::new()
        .name("model".to_owned())
        .spawn(move || {
            // Nobody waits any more when the service ends.
            let _ = sender.send(models.open());
        })
        .context("can't start a thread for the model")?;
    opened
        .await
        .unwrap_or_else(|_| Err(Error::new("opening the model panicked")))
}

/// Tells systemd that the service is alive, whenever a picture went through the queue and the engine.
async fn keep_watch(service: Arc<Service>) {
    let Some(longest) = watchdog_interval() else {
        return;
    };
    let mut beats = interval(longest / 2);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        let models = service.models.clone();
        let labelled = service
            .queue
            .wait(move || models.current().is_some_and(|model| model.is_sound()))
            .await;
        // Where there are several threads, one that hangs does not hold up the others.
        if labelled == Ok(true) && service.queue.longest() < longest {
            service.notifier.alive();
        }
    }
}

/// What the system asks for.
struct Signals {
    end: End,
    reload: Signal,
}

/// The signals that end the service.
struct End {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let on = |kind| signal(kind).context("can't listen to signals");
        Ok(Self {
            end: End {
                terminate: on(SignalKind::terminate())?,
                interrupt: on(SignalKind::interrupt())?,
            },
            reload: on(SignalKind::hangup())?,
        })
    }
}

impl End {
    /// Waits until the end is asked for.
    async fn asked_for(&mut self) {
        let asked = tokio::select! {
            asked = self.terminate.recv() => asked,
            asked = self.interrupt.recv() => asked,
        };
        if asked.is_none() {
            pending().await
        }
    }
}
