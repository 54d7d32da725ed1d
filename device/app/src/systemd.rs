//! What a service tells systemd (sd_notify(3)): that it is ready, alive, reloading, stopping. Children hear nothing of it.

use std::env;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use graft_shared::error::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// The line to systemd; silent where the program was not started by it.
#[derive(Debug)]
pub(crate) struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
}

impl Notifier {
    /// # Errors
    /// When `NOTIFY_SOCKET` names no socket.
    pub(crate) fn from_environment() -> Result<Self> {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else {
            return Ok(Self { socket: None });
        };
        let bytes = name.as_encoded_bytes();
        let address = match bytes.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&name),
        };
        let open = || {
            let socket = UnixDatagram::unbound()?;
            // A manager that does not read may not hold up the service.
            socket.set_nonblocking(true)?;
            Ok::<_, std::io::Error>((socket, address?))
        };
        let socket = open().context("can't use the socket that NOTIFY_SOCKET names")?;
        Ok(Self {
            socket: Some(socket),
        })
    }

    /// The service answers; `status` is for people.
    pub(crate) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// The service does its work.
    pub(crate) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// The service looks at its files anew; [`Notifier::ready`] ends that.
    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = now.tv_sec as i128 * 1_000_000 + now.tv_nsec as i128 / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    /// The service ends.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// What can't be said is not said: there is nobody else to tell.
    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.socket {
            let _ = socket.send_to_addr(message.as_bytes(), address);
        }
    }
}

/// How often systemd wants to hear that the service is alive, at least; `None` where it does not ask.
pub(crate) fn watchdog_interval() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let meant = number("WATCHDOG_PID").is_none_or(|id| id == u64::from(std::process::id()));
    let microseconds = number("WATCHDOG_USEC").filter(|&time| time > 0 && meant)?;
    Some(Duration::from_micros(microseconds))
}

/// The first folder that `StateDirectory=` of the unit made.
pub(crate) fn state_directory() -> Option<std::path::PathBuf> {
    let folders = env::var_os("STATE_DIRECTORY")?;
    env::split_paths(&folders).next()
}

fn one_line(text: &str) -> String {
    text.replace('\n', "; ")
}
