//! One connection to the broker. What the broker has acknowledged on it is told by the number of the event: a packet's identifier
//! means nothing on another connection, so nothing of the client's is taken from one to the next.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, QoS,
};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::discovery::{STARTED, STATUS_TOPIC};
use super::queue::Queue;
use super::target::Target;

/// The broker hears from us at least so often.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Events under way, at most, from the oldest that is not acknowledged on. With all else that is published that stays below the 100
/// identifiers that the client has, so that none is used twice at a time.
const UNDER_WAY: u64 = 32;
/// Packets between us and the client: the events under way, and what a connection begins with.
const PACKETS: usize = 64;
/// Bytes of a packet, both ways: two of the longest events.
const MAX_PACKET_BYTES: usize = 2 << 20;

/// What happened on a connection.
#[derive(Debug)]
pub(super) enum News {
    Connected,
    /// The broker has the event of that number.
    Taken(u64),
    HomeAssistantStarted,
    Lost {
        error: String,
        /// Zero where the broker did not let us in.
        lasted: Duration,
    },
}

/// A connection that is there or being made.
pub(super) struct Link {
    client: AsyncClient,
    driver: JoinHandle<()>,
    events: UnboundedReceiver<Result<Event, ConnectionError>>,
    /// Since when the broker has let us in.
    since: Option<Instant>,
    /// The next event to send.
    next: u64,
    /// Publications that have no identifier yet, in order: the number of an event, or `None` for something else.
    given: VecDeque<Option<u64>>,
    /// Publications that are not acknowledged, by identifier.
    under_way: HashMap<u16, Option<u64>>,
}

impl Link {
    /// Begins to connect.
    pub(super) fn open(target: &Target) -> Self {
        let mut options = MqttOptions::new(&target.id, &target.host, target.port);
        options
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_session(true)
            .set_max_packet_size(MAX_PACKET_BYTES, MAX_PACKET_BYTES)
            .set_last_will(LastWill::new(
                &target.availability_topic,
                "offline",
                QoS::AtLeastOnce,
                true,
            ));
        if let Some(user) = &target.user {
            options.set_credentials(user, target.password.as_deref().unwrap_or_default());
        }
        let (client, connection) = AsyncClient::new(options, PACKETS);
        let (sender, events) = mpsc::unbounded_channel();
        Self {
            client,
            driver: tokio::spawn(drive(connection, sender)),
            events,
            since: None,
            next: 0,
            given: VecDeque::new(),
            under_way: HashMap::new(),
        }
    }

    /// Whether the broker has let us in.
    pub(super) fn is_connected(&self) -> bool {
        self.since.is_some()
    }

    /// The next thing that happens.
    pub(super) async fn news(&mut self) -> News {
        loop {
            let event = self.events.recv().await;
            let lost = |error: String| News::Lost {
                error,
                lasted: self.since.map_or(Duration::ZERO, |since| since.elapsed()),
            };
            let event = match event {
                None => return lost("the client has ended".to_owned()),
                Some(Err(error)) => return lost(reason(&error)),
                Some(Ok(event)) => event,
            };
            match event {
                Event::Incoming(Packet::ConnAck(_)) => {
                    self.since = Some(Instant::now());
                    // What does not fit into an empty queue does not happen.
                    let _ = self.client.try_subscribe(STATUS_TOPIC, QoS::AtMostOnce);
                    return News::Connected;
                }
                Event::Incoming(Packet::Publish(said)) if said.payload == STARTED => {
                    return News::HomeAssistantStarted;
                }
                Event::Incoming(Packet::PubAck(acknowledged)) => {
                    if let Some(Some(number)) = self.under_way.remove(&acknowledged.pkid) {
                        return News::Taken(number);
                    }
                }
                Event::Outgoing(Outgoing::Publish(identifier)) => {
                    if let Some(given) = self.given.pop_front() {
                        self.under_way.insert(identifier, given);
                    }
                }
                _ => {}
            }
        }
    }

    /// Publishes something that is not an event; the broker retains it.
    pub(super) fn publish(&mut self, topic: &str, text: &str) -> bool {
        self.give(topic, text, None)
    }

    /// Publishes the events that may be under way.
    pub(super) fn send(&mut self, target: &Target, queue: &Queue) {
        let Some(first) = queue.first().filter(|_| self.is_connected()) else {
            return;
        };
        for event in queue.from(self.next) {
            if event.number >= first + UNDER_WAY
                || !self.give(&target.state_topic, &event.json, Some(event.number))
            {
                return;
            }
            self.next = event.number + 1;
        }
    }

    /// Whether the client has room for it.
    fn give(&mut self, topic: &str, text: &str, number: Option<u64>) -> bool {
        let given = self.client.try_publish(topic, QoS::AtLeastOnce, true, text);
        if given.is_ok() {
            self.given.push_back(number);
        }
        given.is_ok()
    }

    /// Says that we go, and goes.
    pub(super) async fn close(mut self, target: &Target) {
        if !self.is_connected() || !self.publish(&target.availability_topic, "offline") {
            return;
        }
        // The broker closes the connection when it has all that was sent before.
        if self.client.try_disconnect().is_ok() {
            while !matches!(self.news().await, News::Lost { .. }) {}
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Lets the client work until the connection is lost. It is a task of its own since its work must not be left half done, as an arm
/// of `select!` would.
async fn drive(
    mut connection: EventLoop,
    events: mpsc::UnboundedSender<Result<Event, ConnectionError>>,
) {
    loop {
        let event = connection.poll().await;
        let lost = event.is_err();
        if events.send(event).is_err() || lost {
            return;
        }
    }
}

/// An error in words that help.
fn reason(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(code) => format!(
            "it refused us ({code:?}): the user is in the URL, the password in the file of --mqtt-password-file"
        ),
        ConnectionError::NetworkTimeout | ConnectionError::FlushTimeout => "no answer".to_owned(),
        error => error.to_string(),
    }
}
