//! What the tests stand on.

mod command;
mod data;
mod kinds;
mod programs;
mod python;
mod qemu;
mod trained;

pub(crate) use command::{Dir, Finished, TestCommand};
pub(crate) use data::{data, skip};
pub(crate) use kinds::make_kinds;
pub(crate) use programs::{Arm, cross_built, graft, graft_device};
pub(crate) use python::python;
pub(crate) use qemu::{armv7_libraries, qemu};
pub(crate) use trained::{Trained, make_pictures, make_pictures_alike, trained, trained_on_photos};
