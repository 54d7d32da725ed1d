//! A Mosquitto of Debian's, started for a test, killed and started again, and a client to see what it got.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use super::Dir;

const PATIENCE: Duration = Duration::from_secs(60);

/// A broker on loopback; its port stays the same from start to start.
pub(crate) struct Mosquitto {
    pub(crate) port: u16,
    child: Child,
    configuration: std::path::PathBuf,
}

impl Mosquitto {
    /// `None` where there is none, or no client that subscribes.
    pub(crate) fn start(dir: &Dir) -> Option<Self> {
        let there = |program: &str| Command::new(program).arg("--help").output().is_ok();
        if !there(program()) || !there("mosquitto_sub") {
            return None;
        }
        // The system does not give this port to anybody else soon.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let settings =
            format!("listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n");
        let configuration = dir.write("mosquitto.conf", settings);
        let child = run(&configuration, port);
        Some(Self {
            port,
            child,
            configuration,
        })
    }

    /// Ends it as a power cut does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, with nothing that it knew.
    pub(crate) fn start_again(&mut self) {
        self.child = run(&self.configuration, self.port);
    }

    /// All that is published under `topic`: a line each, the topic before the payload.
    pub(crate) fn subscribe(&self, topic: &str) -> Subscriber {
        let mut child = Command::new("mosquitto_sub")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(["-q", "1", "-t", topic, "-F", "%t %p"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Subscriber { child, lines }
    }

    /// Publishes a text.
    pub(crate) fn publish(&self, topic: &str, text: &str) {
        let done = Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(["-t", topic, "-m", text])
            .status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian's is in a folder that not every user looks in.
fn program() -> &'static str {
    let usual = "/usr/sbin/mosquitto";
    if Path::new(usual).exists() {
        usual
    } else {
        "mosquitto"
    }
}

fn run(configuration: &Path, port: u16) -> Child {
    let child = Command::new(program())
        .arg("-c")
        .arg(configuration)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(start.elapsed() < PATIENCE, "the broker does not start");
        thread::sleep(Duration::from_millis(10));
    }
    child
}

/// What a client hears.
pub(crate) struct Subscriber {
    child: Child,
    lines: Receiver<String>,
}

impl Subscriber {
    /// The payload of the next message of a topic that ends so; others are passed over.
    #[track_caller]
    pub(crate) fn wait_for(&self, topic: &str) -> String {
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                panic!("nothing came for {topic}");
            };
            let (there, payload) = line.split_once(' ').unwrap();
            if there.ends_with(topic) {
                return payload.to_owned();
            }
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
