//! The Debian packages in Debian systems: installed, upgraded, removed, purged.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{
    Architecture, Dir, Root, cross_built, graft_device, not_here, project, trained,
};

const UNIT: &str = "/etc/systemd/system/multi-user.target.wants/graft-device.service";
const MODEL: &str = "/var/lib/graft-device/model.onnx";

/// The program that the other tests of that architecture run.
fn program(architecture: Architecture) -> Result<PathBuf, String> {
    match architecture.arm() {
        Some(arm) => cross_built(arm).map(Path::to_path_buf),
        None => Ok(graft_device(&Dir::new())
            .into_command()
            .get_program()
            .into()),
    }
}

/// A package by the documented command, and its copy with another version.
pub(crate) fn package(architecture: Architecture, version: &str) -> Result<PathBuf, String> {
    let output = Command::new(project().join("device/package/build"))
        .args([
            architecture.name(),
            "--profile",
            "release",
            "--version",
            version,
        ])
        .arg("--program")
        .arg(program(architecture)?)
        .arg("--output")
        .arg(Dir::until_the_next_run().keep())
        .output()
        .map_err(|error| format!("can't start device/package/build: {error}"))?;
    assert!(
        output.status.success(),
        "device/package/build failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout).unwrap().trim_end().into())
}

fn lives(architecture: Architecture) {
    let made = Root::new(architecture).and_then(|root| {
        Ok((
            root,
            package(architecture, "0.0.9")?,
            package(architecture, "0.1.0")?,
        ))
    });
    let (root, old, new) = match made {
        Ok(made) => made,
        Err(reason) => return not_here(&reason),
    };
    root.put(&old, "/old.deb");
    root.put(&new, "/new.deb");
    let run = |commands: &str| root.shell(commands).run().expect_code(0).stdout;

    let said = run("dpkg --install /old.deb");
    assert!(said.contains(&format!("Copy one to {MODEL}")), "{said}");
    assert_eq!(
        run("stat -c '%U:%G %a' /var/lib/graft-device"),
        "graft-device:graft-device 750\n"
    );
    let user = run("getent passwd graft-device");
    assert!(
        user.ends_with(":/var/lib/graft-device:/usr/sbin/nologin\n"),
        "{user}"
    );
    assert!(root.file(UNIT).is_symlink());
    for file in [
        "/etc/graft-device/serve.toml",
        "/usr/lib/systemd/system/graft-device.service",
        "/usr/share/bash-completion/completions/graft-device",
        "/usr/share/doc/graft-device/copyright",
        "/usr/share/doc/graft-device/examples/camera.conf",
        "/usr/share/doc/graft-device/examples/unix-socket.conf",
        "/usr/share/fish/vendor_completions.d/graft-device.fish",
        "/usr/share/zsh/vendor-completions/_graft-device",
    ] {
        assert!(root.file(file).is_file(), "no {file}");
    }
    // Systems without manual pages leave them out: what the package holds counts.
    let held = run("dpkg-deb --contents /old.deb");
    for page in ["", "-serve", "-label"] {
        assert!(
            held.contains(&format!("/usr/share/man/man1/graft-device{page}.1")),
            "{held}"
        );
    }

    // The system's own program labels, where it is the one that ships.
    root.put(&trained().model, MODEL);
    root.put(&trained().photos.join("tulip/000.jpg"), "/tulip.jpg");
    if architecture.arm().is_some() {
        let label = run(&format!("graft-device label {MODEL} /tulip.jpg --json"));
        let label: Value = serde_json::from_str(&label).unwrap();
        assert_eq!(label["label"], "tulip");
    }

    run("echo 'top = 2' >>/etc/graft-device/serve.toml; rm /usr/bin/graft-device");
    run("dpkg --install /new.deb </dev/null");
    assert_eq!(run("dpkg-query -Wf '${Version}' graft-device"), "0.1.0");
    let settings = || std::fs::read_to_string(root.file("/etc/graft-device/serve.toml"));
    assert!(settings().unwrap().ends_with("top = 2\n"));
    assert!(root.file("/usr/bin/graft-device").is_file() && root.file(UNIT).is_symlink());

    // Whoever has disabled the service keeps it so.
    run(
        "rm /etc/systemd/system/multi-user.target.wants/graft-device.service; dpkg --install /new.deb",
    );
    assert!(!root.file(UNIT).is_symlink());

    run("dpkg --remove graft-device");
    assert!(!root.file("/usr/bin/graft-device").exists());
    assert!(root.file(MODEL).is_file() && settings().unwrap().ends_with("top = 2\n"));

    run("dpkg --purge graft-device");
    let left = run("find / -xdev -name '*graft-device*' -not -path '/proc/*'");
    assert_eq!(left, "");
}

#[test]
fn the_amd64_package_comes_and_goes() {
    lives(Architecture::Amd64);
}

#[test]
fn the_arm64_package_comes_and_goes() {
    lives(Architecture::Arm64);
}

#[test]
fn the_armhf_package_comes_and_goes_and_refuses_old_processors() {
    lives(Architecture::Armhf);
    let made = Root::new(Architecture::Armhf)
        .and_then(|root| Ok((root, package(Architecture::Armhf, "0.1.0")?)));
    let Ok((root, package)) = made else {
        // Said above.
        return;
    };
    root.put(&package, "/new.deb");
    let pretend = "printf '#!/bin/sh\\necho armv6l\\n' >/usr/sbin/uname; chmod 755 /usr/sbin/uname";
    let refused = root
        .shell(&format!("{pretend}; dpkg --install /new.deb"))
        .run()
        .expect_code(1);
    assert!(
        refused.stderr.contains("(armv6l) is older than ARMv7")
            && refused.stderr.contains("Zero 2 W"),
        "{}",
        refused.stderr
    );
    assert!(!root.file("/usr/bin/graft-device").exists());
}
