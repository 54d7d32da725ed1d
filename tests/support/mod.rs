//! What the tests stand on.

mod browser;
mod command;
mod data;
mod debian;
mod http;
mod kinds;
mod model;
mod mosquitto;
mod mqtt_witness;
mod programs;
mod python;
mod qemu;
mod service;
mod trained;

pub(crate) use browser::Browser;
pub(crate) use command::{Dir, Finished, TestCommand};
pub(crate) use data::{data, long, not_here, project, skip};
pub(crate) use debian::{Architecture, Root};
pub(crate) use http::{Answer, Client};
pub(crate) use kinds::make_kinds;
pub(crate) use model::model_with;
pub(crate) use mosquitto::Mosquitto;
pub(crate) use mqtt_witness::Witness;
pub(crate) use programs::{Arm, cross_built, graft, graft_device};
pub(crate) use python::python;
pub(crate) use qemu::{armv7_libraries, qemu};
pub(crate) use service::Service;
pub(crate) use trained::{Trained, make_pictures, make_pictures_alike, trained, trained_on_photos};
