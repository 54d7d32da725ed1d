# What there is to do: `just` lists it. Each recipe is one command, to be typed without just as well.

_default:
    @just --list

# the two programs, target/release/graft and target/release/graft-device
build:
    cargo build --release --workspace

# all tests; the first run fetches Python packages and an ARM emulator into the user's cache
test:
    cargo test --release --workspace

# from sample photos to labels, with nothing prepared
demo:
    cargo run --release --bin graft -- demo

# graft-device for 64-bit ARM boards, optimised for shipping
cross:
    device/cross

# format and lints
lint:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets -- --deny warnings

# licences, sources and known holes of the dependencies; needs cargo-deny
deny:
    cargo deny check

# everything that must hold before a change is kept
ci:
    .ci/run
