//! Bottlenecks: the frozen backbone's features of each photo, computed once and kept in a file.

mod bottlenecks;
mod store;

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use graft_shared::digest::sha256;
use graft_shared::error::{Context, Error, Result};
use graft_shared::limits::MAX_IMAGE_FILE_BYTES;
use graft_shared::preprocess::{Pixels, Preprocess};
use rayon::prelude::*;

pub use self::bottlenecks::Bottlenecks;
pub(crate) use self::bottlenecks::TILE;
pub use self::store::Store;
use crate::backbone::{Backbone, weights};

/// Photos between two writes to the disk: about a second's work, which is what an interrupted run loses.
const PHOTOS_PER_WRITE: usize = 64;

/// A photo whose bottleneck is wanted.
#[derive(Clone, Debug)]
pub struct Item {
    /// SHA-256 of the file.
    pub content_hash: [u8; 32],
    /// Where the file is.
    pub path: PathBuf,
}

impl Item {
    /// The file's bytes.
    ///
    /// # Errors
    /// A file that can't be read, or that is not what it was when it was hashed.
    pub fn read(&self) -> Result<Vec<u8>> {
        let file = File::open(&self.path).context("it can't be opened")?;
        let mut bytes = Vec::new();
        file.take(MAX_IMAGE_FILE_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .context("it can't be read")?;
        if sha256(&bytes) != self.content_hash {
            return Err(Error::new("the file changed while it was being used"));
        }
        Ok(bytes)
    }
}

/// What [`extract`] found.
#[derive(Debug)]
pub struct Extracted {
    /// A row for each item that is not refused, in the items' order.
    pub bottlenecks: Bottlenecks,
    /// Items that can't be read, by index, in ascending order, and why.
    pub refused: Vec<(usize, Error)>,
}

/// The folder of bottlenecks in the user's cache folder.
///
/// # Errors
/// The environment names no such folder.
pub fn default_dir() -> Result<PathBuf> {
    Ok(weights::default_cache_dir()?.join("bottlenecks"))
}

/// The bottlenecks of `items`: those in the store are read, the others computed and appended to it.
///
/// `progress` is told how many photos were finished since it was last called. What was appended stays when a run ends
/// early. A photo's row does not depend on the others.
///
/// # Errors
/// A store that can't be read or written, no items, and preprocessing that does not fit the backbone. A photo that can't
/// be read is no error, it is in `refused`.
pub fn extract(
    backbone: &Backbone,
    preprocess: &Preprocess,
    items: &[Item],
    store: &mut Store,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Extracted> {
    let missing: Vec<usize> = (0..items.len())
        .filter(|&index| !store.contains(&items[index].content_hash))
        .collect();
    progress(items.len() - missing.len());

    let batch_len = (2 * rayon::current_num_threads()).clamp(4, PHOTOS_PER_WRITE);
    let mut refused = Vec::new();
    for chunk in missing.chunks(PHOTOS_PER_WRITE) {
        let mut records = Vec::with_capacity(chunk.len());
        for batch in chunk.chunks(batch_len) {
            let pictures: Vec<Result<Pixels>> = batch
                .par_iter()
                .map(|&index| preprocess.apply(&items[index].read()?))
                .collect();
            let mut hashes = Vec::with_capacity(batch.len());
            let mut usable = Vec::with_capacity(batch.len());
            for (&index, picture) in batch.iter().zip(pictures) {
                match picture {
                    Ok(picture) => {
                        hashes.push(items[index].content_hash);
                        usable.push(picture);
                    }
                    Err(error) => refused.push((index, error)),
                }
            }
            if !usable.is_empty() {
                let rows = backbone
                    .bottlenecks(&usable)?
                    .to_vec2::<f32>()
                    .context("reading the bottlenecks")?;
                records.extend(hashes.into_iter().zip(rows));
            }
            progress(batch.len());
        }
        store.append(&records)?;
    }

    let mut refused_indices = refused.iter().map(|(index, _)| *index).peekable();
    let usable = (0..).zip(items).filter_map(|(index, item)| {
        let refused = refused_indices.next_if_eq(&index).is_some();
        (!refused).then_some(&item.content_hash)
    });
    let bottlenecks = store.bottlenecks(usable)?;
    Ok(Extracted {
        bottlenecks,
        refused,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    /// Extraction from nothing, from the store, in another order, and with files that are of no use.
    #[test]
    fn rows_follow_the_items_and_come_from_the_store_the_second_time() {
        let folder = tempfile::tempdir().unwrap();
        let backbone = crate::backbone::testing::tiny();
        let preprocess = backbone.preprocess().unwrap();
        let mut items: Vec<Item> = (0..21)
            .map(|number| {
                let path = folder.path().join(format!("{number}.png"));
                image::RgbImage::from_fn(20 + number, 17, |x, y| {
                    image::Rgb([(x * number) as u8, (x * y) as u8, (y * 13) as u8])
                })
                .save(&path)
                .unwrap();
                let content_hash = sha256(&fs::read(&path).unwrap());
                Item { content_hash, path }
            })
            .collect();
        fs::write(&items[4].path, b"changed since").unwrap();
        fs::write(&items[9].path, b"no picture").unwrap();
        items[9].content_hash = sha256(b"no picture");

        let done = std::sync::atomic::AtomicUsize::new(0);
        let count = |photos| {
            done.fetch_add(photos, std::sync::atomic::Ordering::Relaxed);
        };
        let extract = |items: &[Item]| {
            let mut store = Store::open(folder.path(), &backbone, &preprocess).unwrap();
            super::extract(&backbone, &preprocess, items, &mut store, &count).unwrap()
        };
        let first = extract(&items);
        let refused: Vec<usize> = first.refused.iter().map(|(index, _)| *index).collect();
        assert_eq!(refused, [4, 9]);
        assert!(first.refused[0].1.line().contains("changed"));
        items.remove(9);
        items.remove(4);
        let rows = |extracted: Extracted| {
            let bottlenecks = extracted.bottlenecks;
            let all: Vec<usize> = (0..bottlenecks.photos()).collect();
            let rows = bottlenecks.rows(&all, |_| ()).unwrap();
            rows.chunks(bottlenecks.length())
                .map(<[f32]>::to_vec)
                .collect::<Vec<Vec<f32>>>()
        };
        let first = rows(first);
        assert_eq!(first.len(), items.len());
        for (row, item) in first.iter().zip(&items) {
            let picture = preprocess.apply(&fs::read(&item.path).unwrap()).unwrap();
            let alone = backbone.bottlenecks(&[picture]).unwrap();
            assert_eq!(alone.to_vec2::<f32>().unwrap(), std::slice::from_ref(row));
        }
        assert_eq!(done.load(std::sync::atomic::Ordering::Relaxed), 21);

        items
            .iter()
            .for_each(|item| fs::remove_file(&item.path).unwrap());
        items.reverse();
        let mut second = rows(extract(&items));
        second.reverse();
        assert_eq!(second, first);
    }
}
