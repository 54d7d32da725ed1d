//! The broker that is meant, the topics, and the name by which this service is known there.

use std::fmt;
use std::fs;

use graft_shared::digest::{hex, sha256};
use graft_shared::error::{Context, Error, Result};
use hyper::Uri;

use super::Mqtt;

/// MQTT's port without TLS.
const USUAL_PORT: u16 = 1_883;
/// Hexadecimal digits of an identity.
const IDENTITY_DIGITS: usize = 12;

/// Where to publish, and as whom.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    /// The same at each start on this machine with this prefix, and on no other.
    pub(super) id: String,
    /// For people: the name of the machine.
    pub(super) name: String,
    pub(super) state_topic: String,
    pub(super) availability_topic: String,
}

impl Target {
    /// # Errors
    /// When the URL is none of a broker that can be spoken to, or the password can't be read.
    pub(super) fn new(mqtt: &Mqtt) -> Result<Self> {
        let name = machine_name();
        let machine = fs::read_to_string("/etc/machine-id").unwrap_or_else(|_| name.clone());
        let mut target = Self::parse(&mqtt.url, machine.trim(), name)?;
        if let Some(path) = &mqtt.password_file {
            let password = fs::read_to_string(path)
                .with_context(|| format!("can't read the password in {}", path.display()))?;
            if target.user.is_none() {
                return Err(Error::new("there is an MQTT password, but no user")
                    .hint("write mqtt://USER@HOST"));
            }
            target.password = Some(password.trim_end_matches(['\r', '\n']).to_owned());
        }
        Ok(target)
    }

    fn parse(url: &str, machine: &str, name: String) -> Result<Self> {
        // Without what may be a password.
        let shown = match (url.find("://"), url.rfind('@')) {
            (Some(start), Some(end)) if start < end => {
                format!("{}…{}", &url[..start + 3], &url[end..])
            }
            _ => url.to_owned(),
        };
        let refused = || format!("can't publish to `{shown}`");
        let uri: Uri = url.parse().with_context(refused)?;
        if uri.scheme_str() != Some("mqtt") {
            return Err(Error::new(refused()).hint(
                "only mqtt:// is spoken; for TLS run a Mosquitto on this machine as a bridge, or a tunnel",
            ));
        }
        let authority = uri.authority().with_context(refused)?;
        let user = authority.as_str().rsplit_once('@').map(|(user, _)| user);
        if user.is_some_and(|user| user.contains(':')) {
            return Err(Error::new(refused()).hint(
                "others would see the password: put it into a file and name that with --mqtt-password-file",
            ));
        }
        let prefix = uri.path().trim_matches('/');
        if url.contains(['?', '#', '+']) || prefix.starts_with('$') {
            return Err(Error::new(refused()).hint(
                "the path is the beginning of the topics, without ? # + and a $ at its start",
            ));
        }
        let digest = hex(&sha256(
            format!("graft-device {machine} {prefix}").as_bytes(),
        ));
        let id = format!("graft_{}", &digest[..IDENTITY_DIGITS]);
        let prefix = match prefix {
            "" => id.replace('_', "/"),
            prefix => prefix.to_owned(),
        };
        Ok(Self {
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(USUAL_PORT),
            user: user.map(str::to_owned),
            password: None,
            id,
            name,
            state_topic: format!("{prefix}/state"),
            availability_topic: format!("{prefix}/availability"),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let (host, port, topic) = (&self.host, self.port, &self.state_topic);
        write!(formatter, "{host}:{port}, topic {topic}")
    }
}

/// The name that the kernel has for this machine.
fn machine_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_str().unwrap_or("graft").to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(url: &str) -> Result<Target> {
        Target::parse(url, "0123", "board".to_owned())
    }

    #[test]
    fn a_url_says_where_and_who() {
        let target = parse("mqtt://broker.local").unwrap();
        assert_eq!((target.host.as_str(), target.port), ("broker.local", 1_883));
        assert_eq!(target.user, None);
        let digits = target.id.strip_prefix("graft_").unwrap();
        assert_eq!(target.state_topic, format!("graft/{digits}/state"));
        let target = parse("mqtt://me@[::1]:1884/garden/gate/").unwrap();
        assert_eq!((target.host.as_str(), target.port), ("[::1]", 1_884));
        assert_eq!(target.user.as_deref(), Some("me"));
        assert_eq!(target.availability_topic, "garden/gate/availability");
        // Another machine or another prefix is somebody else.
        assert_ne!(target.id, parse("mqtt://me@[::1]:1884").unwrap().id);
        assert_eq!(target.id, parse("mqtt://other/garden/gate").unwrap().id);
    }

    #[test]
    fn what_can_not_be_spoken_to_is_refused() {
        for wrong in [
            "mqtts://a",
            "http://a",
            "a",
            "",
            "mqtt://",
            "mqtt://a/#",
            "mqtt://a/b+",
            "mqtt://a/$SYS",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let report = parse("mqtt://me:secret@a").unwrap_err().report();
        assert!(report.contains("--mqtt-password-file"), "{report}");
        assert!(!report.contains("secret"), "{report}");
    }
}
