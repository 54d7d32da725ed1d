//! The whole chain, as a user runs it: the two programs, on pictures that the tests make and on real photos where
//! `../shared/data` holds them.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod arm;
mod backbones;
mod bulk;
mod compare;
mod deploy;
mod device;
mod fine_tuning;
mod habits;
mod layering;
mod messages;
mod onnx;
mod packages;
mod pictures;
mod retrain;
mod serve;
mod serve_camera;
mod serve_life;
mod serve_load;
mod serve_mqtt;
mod serve_page;
mod serve_stream;
mod serve_unit;
mod support;
mod train;
