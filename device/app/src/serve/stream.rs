//! From a source's frames to labels, sinks, and what the page shows.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use graft_engine::label::{Candidate, Verdict};
use graft_shared::error::Error;
use serde::Serialize;

use super::Service;
use super::model::{Failure, Labelling};
use super::sink::Event;
use super::source::{Frame, Incoming, Region};
use super::steady::{Steadiness, Steady};
use crate::clock::rfc3339;
use crate::report;

/// Labels that the page shows.
const HISTORY: usize = 100;

/// How frames are labelled.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) source: &'static str,
    pub(crate) incoming: Incoming,
    pub(crate) region: Option<Region>,
    pub(crate) steadiness: Steadiness,
}

/// A line of JSON for a frame.
#[derive(Debug, Serialize)]
struct Line<'a> {
    time: &'a str,
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(flatten)]
    verdict: Verdict<'a>,
    changed: bool,
    milliseconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    taken: Option<&'a str>,
    model_version: &'a str,
}

/// The last frame and the labels before it.
#[derive(Debug, Default)]
pub(crate) struct Live(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    frames: u64,
    last: Option<(Arc<Event>, Arc<Frame>)>,
    changes: VecDeque<Arc<Event>>,
}

impl Live {
    fn show(&self, event: &Arc<Event>, frame: &Arc<Frame>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.frames += 1;
        state.last = Some((event.clone(), frame.clone()));
        if event.changed {
            state.changes.push_front(event.clone());
            state.changes.truncate(HISTORY);
        }
    }

    /// One JSON object: the number of frames, the last one's label, the changes before it.
    pub(crate) fn json(&self) -> String {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = state.last.as_ref();
        let now = now.map_or("null", |(event, _)| &event.json);
        let changes: Vec<_> = state.changes.iter().map(|event| &*event.json).collect();
        format!(
            "{{\"frame\":{},\"now\":{now},\"history\":[{}]}}\n",
            state.frames,
            changes.join(",")
        )
    }

    /// The last frame.
    pub(crate) fn frame(&self) -> Option<Arc<Frame>> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.last.as_ref().map(|(_, frame)| frame.clone())
    }
}

/// Labels frames until the source ends.
pub(crate) async fn run(service: Arc<Service>, mut stream: Stream) {
    let mut steady = Steady::new(stream.steadiness);
    let mut previous: Option<String> = None;
    let mut failing = false;
    while let Some(frame) = stream.incoming.next().await {
        let Some(model) = service.models.current() else {
            continue;
        };
        let frame = Arc::new(frame);
        let (picture, engine, region) = (frame.clone(), model.clone(), stream.region);
        let labelled = service
            .queue
            .wait(move || engine.classify(&picture.picture, region))
            .await;
        let labelling = match labelled {
            Ok(Ok(labelling)) => labelling,
            Ok(Err(Failure::Picture(error) | Failure::Model(error))) => {
                service.metrics.refused.count();
                // A camera that gives nothing but damaged frames is told of once.
                if !failing || frame.path.is_some() {
                    let place = frame.path.as_deref().unwrap_or(stream.source);
                    report(&Error::new(format!("can't label a picture of {place}")).source(error));
                }
                failing = true;
                continue;
            }
            Err(_) => continue,
        };
        failing = false;
        service.metrics.labelled.count();
        service.metrics.label_time.record(labelling.time);
        let card = model.engine.card();
        let threshold = service.ask.threshold.unwrap_or(card.decision.threshold);
        let Labelling {
            mut classification,
            taken,
            time,
        } = labelling;
        // Files have nothing to do with each other.
        let files = frame.path.is_some();
        let (shown, changed) = if files {
            let verdict = Verdict::new(card, &classification, Some(1), Some(threshold));
            (verdict.label, true)
        } else {
            let now = Instant::now();
            let shown = steady.take(&model.version, &mut classification, threshold, now);
            (
                shown.label.and_then(|label| card.labels.get(label)),
                shown.changed,
            )
        };
        let mut verdict = Verdict::new(card, &classification, service.ask.top, Some(threshold));
        verdict.label = shown;
        verdict.unknown = shown.is_none();
        let top = verdict.top.first().copied();
        let Some(Candidate { label: top, score }) = top else {
            continue;
        };
        let time_of_day = rfc3339(frame.time);
        let line = Line {
            time: &time_of_day,
            source: stream.source,
            path: frame.path.as_deref(),
            verdict,
            changed,
            milliseconds: time.as_secs_f64() * 1e3,
            taken: taken.as_deref(),
            model_version: &model.version,
        };
        let Ok(json) = serde_json::to_string(&line) else {
            continue;
        };
        let label = shown.map(str::to_owned);
        let before = if changed {
            std::mem::replace(&mut previous, label.clone())
        } else {
            None
        };
        let event = Arc::new(Event {
            frame: None,
            json,
            label,
            best: top.to_owned(),
            score,
            changed,
            previous: before,
        });
        service.live.show(&event, &frame);
        for sink in &service.sinks {
            sink.offer(&event, &frame);
        }
    }
}
