//! `split.tsv`: which photo was on which side, and the digest that a model's card names its data by.

use graft_shared::digest::{hex, sha256};
use graft_shared::error::{Context, Error, Result};

use super::Dataset;

/// The manifest: header `path label split content_hash group`, one photo a line, paths absolute so that the file can be
/// evaluated from anywhere; `group` is the photo's own content hash, since only exact copies are grouped.
///
/// # Errors
/// When a path or label holds a tab or a line break, or a path is not Unicode.
pub fn manifest_tsv(dataset: &Dataset) -> Result<String> {
    let mut text = String::from("path\tlabel\tsplit\tcontent_hash\tgroup\n");
    for photo in &dataset.photos {
        let absolute = std::path::absolute(&photo.path).context("the current folder")?;
        let path = absolute.to_str().ok_or_else(|| {
            Error::new(format!("`{}` is not Unicode", absolute.display())).hint("rename the file")
        })?;
        let label = dataset.labels.get(photo.class).unwrap_or_default();
        if [path, label]
            .iter()
            .any(|field| field.contains(['\t', '\n', '\r']))
        {
            return Err(
                Error::new(format!("`{path}` or its label holds a tab or a line break"))
                    .hint("rename the file or folder"),
            );
        }
        let side = photo.split.map_or("train", super::Split::name);
        let hash = hex(&photo.content_hash);
        text.push_str(&format!(
            "{path}\t{label}\t{side}\t{hash}\t{}\n",
            &hash[..16]
        ));
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
