//! Stands between a client and its broker and writes down what the broker has acknowledged. A subscriber could not tell: a broker
//! that is killed forgets what it has not delivered.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A publication that was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub(crate) connection: usize,
    pub(crate) topic: String,
    pub(crate) payload: String,
}

/// The one who stands between.
pub(crate) struct Witness {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Acknowledged>>>,
}

impl Witness {
    pub(crate) fn start(broker: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::<Mutex<Vec<Acknowledged>>>::default();
        let all = seen.clone();
        thread::spawn(move || {
            for (connection, client) in listener.incoming().map_while(Result::ok).enumerate() {
                // Where the broker is away the client is let down, as by the broker.
                if let Ok(broker) = TcpStream::connect(("127.0.0.1", broker)) {
                    watch(connection, client, broker, all.clone());
                }
            }
        });
        Self { port, seen }
    }

    /// All that was acknowledged so far under topics that end so, in order.
    pub(crate) fn acknowledged(&self, topic: &str) -> Vec<Acknowledged> {
        let seen = self.seen.lock().unwrap();
        let of_topic = seen.iter().filter(|seen| seen.topic.ends_with(topic));
        of_topic.cloned().collect()
    }
}

/// Passes packets on both ways.
fn watch(
    connection: usize,
    client: TcpStream,
    broker: TcpStream,
    seen: Arc<Mutex<Vec<Acknowledged>>>,
) {
    let under_way = Arc::<Mutex<HashMap<[u8; 2], Acknowledged>>>::default();
    let (published, acknowledged) = (under_way.clone(), under_way);
    let ends = (client.try_clone().unwrap(), broker.try_clone().unwrap());
    thread::spawn(move || {
        pass_on(ends.0, ends.1, |first, body| {
            // PUBLISH with QoS 1: the topic, the identifier, the payload.
            if first >> 4 == 3 && first & 0b110 == 0b010 {
                let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let (topic, rest) = body[2..].split_at(length);
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let publication = Acknowledged {
                    connection,
                    topic: text(topic),
                    payload: text(&rest[2..]),
                };
                published
                    .lock()
                    .unwrap()
                    .insert([rest[0], rest[1]], publication);
            }
        });
    });
    thread::spawn(move || {
        pass_on(broker, client, |first, body| {
            // PUBACK.
            if first >> 4 == 4 {
                let publication = acknowledged.lock().unwrap().remove(&[body[0], body[1]]);
                seen.lock().unwrap().extend(publication);
            }
        });
    });
}

/// Shows each packet, and passes it on whole.
fn pass_on(mut from: TcpStream, mut to: TcpStream, mut see: impl FnMut(u8, &[u8])) {
    let mut next = || -> io::Result<()> {
        let mut packet = vec![0];
        from.read_exact(&mut packet)?;
        let (mut length, mut shift) = (0, 0);
        loop {
            let mut byte = [0];
            from.read_exact(&mut byte)?;
            packet.push(byte[0]);
            length |= usize::from(byte[0] & 127) << shift;
            shift += 7;
            if byte[0] < 128 {
                break;
            }
        }
        let head = packet.len();
        packet.resize(head + length, 0);
        from.read_exact(&mut packet[head..])?;
        // Before the other side can know of it.
        see(packet[0], &packet[head..]);
        to.write_all(&packet)
    };
    while next().is_ok() {}
    // The other direction ends too.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
