//! `graft deploy` to a 64-bit ARM system with a real ssh server, on loopback, in a root of its own.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::packages::package;
use crate::support::{Architecture, Dir, Root, TestCommand, graft, not_here, trained};

const MODEL: &str = "/var/lib/graft-device/model.onnx";

/// A running `sshd`.
struct Server {
    child: Child,
    options: Vec<String>,
}

impl Server {
    /// Whoever has the key in `dir` comes in as root, and as the user `pi`.
    fn start(root: &Root, dir: &Dir) -> Self {
        let key = dir.path("key");
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key)
            .status();
        assert!(made.unwrap().success());
        root.put(&dir.path("key.pub"), "/tmp/key.pub");
        root.shell(
            "useradd --create-home --password '*' pi; mkdir -p /run/sshd; for home in /root /home/pi; do \
             install -d -m 700 $home/.ssh; install -m 600 /tmp/key.pub $home/.ssh/authorized_keys; done; \
             chown -R pi: /home/pi/.ssh",
        )
        .run()
        .expect_code(0);
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = port.unwrap().port();
        let mut server = root
            .command("/usr/sbin/sshd")
            .args([
                "-D",
                "-e",
                "-o",
                "UsePAM=no",
                "-o",
                "ListenAddress=127.0.0.1",
                "-p",
            ])
            .arg(port.to_string())
            .into_command();
        let mut child = server.stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = said.next().unwrap().unwrap();
        assert!(line.contains("listening"), "{line}");
        std::thread::spawn(move || said.map_while(Result::ok).for_each(drop));
        let options = [
            format!("Port={port}"),
            format!("IdentityFile={}", key.display()),
            "IdentitiesOnly=yes".to_owned(),
            "StrictHostKeyChecking=no".to_owned(),
            "UserKnownHostsFile=/dev/null".to_owned(),
            "LogLevel=ERROR".to_owned(),
        ];
        Self {
            child,
            options: options.to_vec(),
        }
    }

    fn deploy(&self, dir: &Dir, host: &str, model: &Path, package: &Path) -> TestCommand {
        let options = self
            .options
            .iter()
            .flat_map(|option| ["--ssh-option", option]);
        graft(dir)
            .args(["deploy", host])
            .arg(model)
            .arg("--package")
            .arg(package)
            .args(options)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_model_goes_to_a_board_through_ssh() {
    let made = Root::new(Architecture::Arm64)
        .and_then(|root| Ok((root, package(Architecture::Arm64, "0.1.0")?)));
    let (root, package) = match made {
        Ok(made) => made,
        Err(reason) => return not_here(&reason),
    };
    let dir = Dir::new();
    let server = Server::start(&root, &dir);
    let trained = trained();

    let printed = server
        .deploy(&dir, "root@127.0.0.1", &trained.model, &package)
        .arg("--json")
        .run()
        .expect_code(0);
    let said: Value = serde_json::from_str(&printed.stdout).unwrap();
    assert_eq!(said["architecture"], "arm64");
    assert_eq!(said["machine"], "aarch64");
    assert_eq!(said["glibc"], "2.36");
    assert_eq!(said["probes"]["exact"], true);
    assert!(said["memory_bytes"].as_u64() > Some(0) && said["free_bytes"].as_u64() > Some(0));
    // A test photo of the run was labelled there.
    assert!(said["photo"]["milliseconds"].as_f64() > Some(0.0), "{said}");
    // No systemd runs in a folder: what is asked of it is seen where a whole system boots (tests/boot.sh).
    assert_eq!(said["service"], Value::Null);
    assert!(
        printed
            .stderr
            .contains("Debian GNU/Linux 12 (bookworm), arm64"),
        "{}",
        printed.stderr
    );
    let there = || std::fs::read(root.file(MODEL)).unwrap();
    assert!(there() == std::fs::read(&trained.model).unwrap());
    let left = || root.shell("ls -d /tmp/tmp.* 2>/dev/null || true").stdout();
    assert_eq!(left(), "", "left behind");

    // A model that is none stays here; a user who may not install is told what to do; so is who names no machine.
    let none = dir.write("none.onnx", "nothing");
    let refused = server
        .deploy(&dir, "root@127.0.0.1", &none, &package)
        .run()
        .expect_code(2);
    assert!(refused.stderr.contains("none.onnx"), "{}", refused.stderr);
    let refused = server
        .deploy(&dir, "pi@127.0.0.1", &trained.model, &package)
        .run()
        .expect_code(2);
    assert!(
        refused.stderr.contains("may not install packages there"),
        "{}",
        refused.stderr
    );
    assert!(
        refused.stderr.contains("hint: name root"),
        "{}",
        refused.stderr
    );
    let refused = server
        .deploy(&dir, "nobody-there@127.0.0.1", &trained.model, &package)
        .run()
        .expect_code(2);
    assert!(
        refused
            .stderr
            .contains("can't reach nobody-there@127.0.0.1 by ssh"),
        "{}",
        refused.stderr
    );
    let broken = dir.write("broken.deb", "no package");
    let refused = server
        .deploy(&dir, "root@127.0.0.1", &trained.model, &broken)
        .run()
        .expect_code(2);
    assert!(
        refused.stderr.contains("can't install the package"),
        "{}",
        refused.stderr
    );
    assert!(there() == std::fs::read(&trained.model).unwrap());
    assert_eq!(left(), "", "left behind by what was refused");
}
