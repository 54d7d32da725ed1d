//! The systemd unit: how little it allows, and that the service needs no more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Dir, Service, graft_device, skip, trained};

/// Ten times the exposure that `systemd-analyze security` may find.
const EXPOSURE_LAN: &str = "12";
const EXPOSURE_SOCKET: &str = "4";
const EXPOSURE_CAMERA: &str = "15";

fn package(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../device/package")
        .join(name)
}

fn has_systemd_analyze() -> bool {
    let version = Command::new("systemd-analyze").arg("--version").output();
    version.is_ok_and(|version| version.status.success())
}

#[test]
fn the_unit_allows_little() {
    if !has_systemd_analyze() {
        return skip("no systemd-analyze");
    }
    let dir = Dir::new();
    let unit = dir.write(
        "graft-device.service",
        std::fs::read(package("graft-device.service")).unwrap(),
    );
    let exposure = |threshold: &str| {
        let command =
            dir.command("systemd-analyze")
                .args(["security", "--offline=true", "--no-pager"]);
        let finished = command
            .arg(format!("--threshold={threshold}"))
            .arg(&unit)
            .run();
        assert_eq!(
            finished.code,
            Some(0),
            "{}{}",
            finished.stdout,
            finished.stderr
        );
    };
    exposure(EXPOSURE_LAN);
    let drop_in = std::fs::read(package("unix-socket.conf")).unwrap();
    dir.write("graft-device.service.d/unix-socket.conf", drop_in);
    exposure(EXPOSURE_SOCKET);
    std::fs::remove_dir_all(dir.path("graft-device.service.d")).unwrap();
    let drop_in = std::fs::read(package("camera.conf")).unwrap();
    dir.write("graft-device.service.d/camera.conf", drop_in);
    exposure(EXPOSURE_CAMERA);
    let text = std::fs::read_to_string(&unit).unwrap();
    for line in [
        "Type=notify",
        "StartLimitIntervalSec=60",
        "StartLimitBurst=5",
        "WatchdogSec=30",
        "MemoryMax=256M",
        "TasksMax=32",
        "StateDirectory=graft-device",
        "User=graft-device",
    ] {
        assert!(text.lines().any(|other| other == line), "{line}");
    }
}

#[test]
fn the_default_configuration_is_right_and_names_every_key() {
    let dir = Dir::new();
    let text = std::fs::read_to_string(package("serve.toml")).unwrap();
    let keys: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# ").unwrap_or(line).split_once(" = "))
        .map(|(key, _)| key)
        .filter(|key| {
            key.chars()
                .all(|letter| letter.is_ascii_lowercase() || letter == '_')
        })
        .collect();
    let help = graft_device(&dir).args(["serve", "--help"]).stdout();
    let flags = help
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("--"));
    for flag in flags.filter_map(|line| line.split(' ').next()) {
        let has_key = keys.contains(flag.replace('-', "_").as_str());
        assert!(
            has_key || ["config", "stdin"].contains(&flag),
            "no key for --{flag}"
        );
    }
    // With every key in force it is read without a complaint, up to the model that is not there.
    let all: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest)
                if keys
                    .iter()
                    .any(|key| rest.starts_with(&format!("{key} = "))) =>
            {
                format!("{rest}\n")
            }
            _ => format!("{line}\n"),
        })
        // One source.
        .filter(|line| !line.starts_with("watch") && !line.starts_with("command = \"ffmpeg"))
        .filter(|line| !line.starts_with("camera ="))
        .filter(|line| !line.starts_with("token_file") && !line.starts_with("state"))
        .filter(|line| !line.starts_with("mqtt_password_file"))
        .collect();
    dir.write(
        "serve.toml",
        all.replace("/var/lib/graft-device", ".")
            .replace("127.0.0.1:8080", "127.0.0.1:0"),
    );
    let refused = graft_device(&dir)
        .args(["serve", "--config", "serve.toml", "--state", "."])
        .run()
        .expect_code(2);
    assert!(
        refused.stderr.contains("can't open the model ./model.onnx"),
        "{}",
        refused.stderr
    );
}

/// The system calls of a set, such as `@system-service`, sets in it included.
fn calls(set: &str) -> BTreeSet<String> {
    let printed = Command::new("systemd-analyze")
        .args(["syscall-filter", "--no-pager", set])
        .output()
        .unwrap();
    let mut calls = BTreeSet::new();
    for line in String::from_utf8(printed.stdout).unwrap().lines() {
        let name = line.trim();
        if !line.starts_with(' ') || name.is_empty() || name.starts_with('#') {
            continue;
        }
        if name.starts_with('@') {
            calls.extend(self::calls(name));
        } else {
            calls.insert(name.to_owned());
        }
    }
    calls
}

#[test]
fn the_service_needs_no_more_than_the_unit_gives() {
    if !has_systemd_analyze() || Command::new("strace").arg("--version").output().is_err() {
        return skip("no systemd-analyze or no strace");
    }
    let dir = Dir::new();
    std::fs::create_dir(dir.path("state")).unwrap();
    let model = dir.write("model.onnx", std::fs::read(&trained().model).unwrap());
    let served = graft_device(&dir)
        .arg("serve")
        .arg(&model)
        .args(["--listen", "0.0.0.0:0", "--state", "state"])
        .into_command();
    let trace = dir.path("trace");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-o"])
        .arg(&trace)
        .arg(served.get_program());
    command.args(served.get_args()).current_dir(dir.path(""));
    let mut service = Service::run(command);
    let token = std::fs::read_to_string(dir.path("state/token")).unwrap();
    let port = service.address().port();
    let mut client = crate::support::Client::connect(([127, 0, 0, 1], port).into());
    let photo = std::fs::read(trained().photos.join("rose/000.jpg")).unwrap();
    let authorization = format!("Bearer {}", token.trim());
    let headers = [("Authorization", authorization.as_str())];
    assert_eq!(
        client
            .request("POST", "/v1/label", &headers, &photo)
            .unwrap()
            .status,
        200
    );
    // strace hands signals on to the service, its only child.
    let child =
        std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", service.id())).unwrap();
    let child = child.split_whitespace().next().unwrap();
    let maps = std::fs::read_to_string(format!("/proc/{child}/maps")).unwrap();
    assert!(maps.lines().all(|line| !line.contains("rwx")), "{maps}");
    Command::new("kill")
        .args(["-s", "HUP", child])
        .status()
        .unwrap();
    service.wait_for("the model is the same");
    Command::new("kill")
        .args(["-s", "TERM", child])
        .status()
        .unwrap();
    service.ended();

    let mut allowed = calls("@system-service");
    for taken in ["@privileged", "@resources"] {
        for call in calls(taken) {
            allowed.remove(&call);
        }
    }
    let text = std::fs::read_to_string(trace).unwrap();
    let mut used = BTreeSet::new();
    for line in text.lines() {
        let Some(call) = line.split_once(' ').map(|(_, rest)| rest.trim_start()) else {
            continue;
        };
        let Some((name, rest)) = call.split_once('(') else {
            continue;
        };
        if name
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        {
            used.insert(name.to_owned());
        }
        let writes = name == "openat"
            && (rest.contains("O_WRONLY") || rest.contains("O_RDWR") || rest.contains("O_CREAT"));
        assert!(
            !writes || rest.contains("\"state/") || rest.contains("/dev/null"),
            "it writes elsewhere: {line}"
        );
    }
    assert!(used.contains("accept4") && used.len() > 20, "{used:?}");
    // strace itself starts the program.
    let more: Vec<_> = used
        .difference(&allowed)
        .filter(|name| *name != "execve")
        .collect();
    assert!(more.is_empty(), "not in the unit's filter: {more:?}");
}
