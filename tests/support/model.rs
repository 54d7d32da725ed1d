//! Models like a trained one but for what its card says.

use std::path::{Path, PathBuf};

use graft_engine::model::{Model, attach_card};
use graft_shared::card::Card;
use graft_shared::digest::sha256;

use super::{Dir, trained};

/// Writes the trained model with another card to `name` in `dir`.
pub(crate) fn model_with(dir: &Dir, name: &str, change: impl FnOnce(&mut Card)) -> PathBuf {
    dir.write(name, changed(&trained().model, change))
}

/// The bytes of a model file with another card.
pub(crate) fn changed(model: &Path, change: impl FnOnce(&mut Card)) -> Vec<u8> {
    let file = std::fs::read(model).unwrap();
    let mut card = Model::parse(&file).unwrap().card;
    // The graph ends where the entry with the card begins: a tag, a length of up to five bytes, the key.
    let key = b"\x0a\x0agraft.card";
    let key = file
        .windows(key.len())
        .position(|window| window == key)
        .unwrap();
    let end = (key - 6..key)
        .find(|&end| sha256(&file[..end]) == card.graph_digest)
        .unwrap();
    change(&mut card);
    attach_card(&file[..end], &card).unwrap()
}
