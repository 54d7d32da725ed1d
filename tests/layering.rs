//! Who may know whom: read from `cargo tree`, package by package, since Cargo unifies the features of one build.

use std::collections::BTreeSet;
use std::process::Command;

/// Packages of other projects that only the host may use, by the beginning of their name.
const TRAINING: [&str; 4] = ["candle", "burn", "tch", "cudarc"];

/// HTTP servers, none of which the host may link.
const SERVERS: [&str; 8] = [
    "hyper",
    "axum",
    "actix",
    "warp",
    "rocket",
    "rouille",
    "tiny_http",
    "tide",
];

/// The names of all packages that `package` is built from.
fn dependencies(package: &str) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}",
        ])
        .args(["--package", package])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    assert!(
        tree.status.success(),
        "{}",
        String::from_utf8_lossy(&tree.stderr)
    );
    let names: BTreeSet<_> = String::from_utf8(tree.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect();
    assert!(names.contains(package), "{package} is not in its own tree");
    names
}

/// The packages of this project among them.
fn ours(package: &str) -> Vec<String> {
    dependencies(package)
        .into_iter()
        .filter(|name| name == "graft" || name.starts_with("graft-"))
        .collect()
}

fn assert_none(package: &str, forbidden: &[&str]) {
    for name in dependencies(package) {
        assert!(
            !forbidden.iter().any(|prefix| name.starts_with(prefix)),
            "{package} depends on {name}"
        );
    }
}

#[test]
fn each_package_knows_only_those_below_it() {
    assert_eq!(ours("graft-shared"), ["graft-shared"]);
    assert_eq!(ours("graft-kernels"), ["graft-kernels"]);
    assert_eq!(
        ours("graft-engine"),
        ["graft-engine", "graft-kernels", "graft-shared"]
    );
    assert_eq!(
        ours("graft-device"),
        [
            "graft-cli",
            "graft-device",
            "graft-engine",
            "graft-kernels",
            "graft-shared"
        ]
    );
    assert_eq!(
        ours("graft"),
        [
            "graft",
            "graft-cli",
            "graft-engine",
            "graft-kernels",
            "graft-shared"
        ]
    );
}

#[test]
fn the_device_sees_no_training() {
    for package in [
        "graft-shared",
        "graft-kernels",
        "graft-engine",
        "graft-cli",
        "graft-device",
    ] {
        assert_none(package, &TRAINING);
    }
}

#[test]
fn the_host_sees_no_server() {
    assert_none("graft", &SERVERS);
}

#[test]
fn kernels_depend_on_nothing() {
    assert_eq!(dependencies("graft-kernels").len(), 1);
}
