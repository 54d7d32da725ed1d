//! `split.tsv`: which photo was on which side, and the digest that a model's card names its data by.

use graft_shared::digest::{hex, sha256};
use graft_shared::error::{Context, Result};

use super::Dataset;

/// The manifest: header `path label split content_hash group`, one photo a line, paths absolute so that the file can be
/// evaluated from anywhere, in the file system's own bytes; `group` begins the group's name. [`super::scan`] refuses
/// photos whose name would break a line.
///
/// # Errors
/// When the current folder is gone.
pub fn manifest_tsv(dataset: &Dataset) -> Result<Vec<u8>> {
    let mut text = b"path\tlabel\tsplit\tcontent_hash\tgroup\n".to_vec();
    for photo in &dataset.photos {
        let absolute = std::path::absolute(&photo.path).context("the current folder")?;
        let label = dataset.labels.get(photo.class).unwrap_or_default();
        let side = photo.split.map_or("train", super::Split::name);
        let hash = hex(&photo.content_hash);
        let group = hex(&photo.group[..8]);
        text.extend_from_slice(absolute.as_os_str().as_encoded_bytes());
        text.extend_from_slice(format!("\t{label}\t{side}\t{hash}\t{group}\n").as_bytes());
    }
    Ok(text)
}

/// SHA-256 over label, side and content hash of every photo, in an order that file names do not change.
#[must_use]
pub fn manifest_digest(dataset: &Dataset) -> [u8; 32] {
    let mut rows: Vec<(usize, &str, [u8; 32])> = dataset
        .photos
        .iter()
        .map(|photo| {
            (
                photo.class,
                photo.split.map_or("", super::Split::name),
                photo.content_hash,
            )
        })
        .collect();
    rows.sort_unstable();
    let mut bytes = Vec::new();
    for label in dataset.labels.iter() {
        bytes.extend_from_slice(label.as_bytes());
        bytes.push(0);
    }
    for (class, side, hash) in rows {
        bytes.extend_from_slice(&(class as u64).to_le_bytes());
        bytes.extend_from_slice(side.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&hash);
    }
    sha256(&bytes)
}
