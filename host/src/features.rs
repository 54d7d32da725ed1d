//! Bottlenecks: the frozen backbone's features of each photo, computed once and kept in a file.
//!
//! One file per preprocessing and weights: a header, then records of one size, only ever appended:
//!
//! | bytes | header | | bytes | record |
//! |---|---|---|---|---|
//! | 8 | magic `GRAFTBTL` | | 32 | SHA-256 of the photo's file |
//! | 4 | version | | 4 `len` | bottleneck, f32 |
//! | 4 | `len`, values of a bottleneck | | 8 | checksum: first bytes of the SHA-256 of the record so far |
//! | 32 | key: SHA-256 of all that the values depend on beside the photo | | | |
//!
//! Numbers are little-endian. A record whose checksum is wrong does not count, and at the end of the file it is cut off.
//! Several programs may use a file at once: appending happens under a lock, at a record's boundary.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use graft_shared::digest::{hex, sha256};
use graft_shared::error::{Context, Error, Result};
use graft_shared::limits::MAX_IMAGE_FILE_BYTES;
use graft_shared::preprocess::{Filter, Fit, Pixels, Preprocess};
use rayon::prelude::*;

use crate::backbone::{Backbone, weights};

const MAGIC: &[u8; 8] = b"GRAFTBTL";
/// Of the file's layout and of what fills it: raised when preprocessing or a kernel gives other bits.
const VERSION: u32 = 1;
const HEADER_LEN: u64 = 48;
const HASH_LEN: usize = 32;
const CHECKSUM_LEN: usize = 8;
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
    /// f32 `[photos, bottleneck_len]`: a row for each item that is not refused, in the items' order.
    pub matrix: Tensor,
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

    let mut values = Vec::with_capacity(items.len() * store.len);
    let mut refused_indices = refused.iter().map(|(index, _)| *index).peekable();
    for (index, item) in items.iter().enumerate() {
        if refused_indices.next_if_eq(&index).is_none() {
            store.read_into(&item.content_hash, &mut values)?;
        }
    }
    let rows = items.len() - refused.len();
    let matrix = Tensor::from_vec(values, (rows, store.len), &Device::Cpu)
        .context("putting the bottlenecks together")?;
    Ok(Extracted { matrix, refused })
}

/// A file of bottlenecks.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    file: File,
    /// Values of a bottleneck.
    len: usize,
    /// Where each photo's record begins.
    offsets: HashMap<[u8; 32], u64>,
}

impl Store {
    /// Opens the file in `directory` that belongs to this backbone and preprocessing; makes folder and file if need be.
    ///
    /// A file with a foreign header is begun anew: it is a cache.
    ///
    /// # Errors
    /// A folder or file that can't be made, read or written.
    pub fn open(directory: &Path, backbone: &Backbone, preprocess: &Preprocess) -> Result<Store> {
        Store::open_key(
            directory,
            key(backbone, preprocess),
            backbone.bottleneck_len,
        )
    }

    /// How many photos it holds.
    pub fn photos(&self) -> usize {
        self.offsets.len()
    }

    /// Whether it holds the photo with this SHA-256.
    pub fn contains(&self, content_hash: &[u8; 32]) -> bool {
        self.offsets.contains_key(content_hash)
    }

    fn open_key(directory: &Path, key: [u8; 32], len: usize) -> Result<Store> {
        fs::create_dir_all(directory)
            .with_context(|| format!("making the folder of bottlenecks {}", directory.display()))?;
        let path = directory.join(format!("{}.bin", hex(&key)));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("opening the bottlenecks in {}", path.display()))?;
        let mut store = Store {
            path,
            file,
            len,
            offsets: HashMap::new(),
        };
        store.locked(|store| store.index(&header(key, len)))?;
        Ok(store)
    }

    /// Reads the whole file, writes the header of a new one, and cuts off what is damaged at the end.
    fn index(&mut self, header: &[u8]) -> std::io::Result<()> {
        let mut reader = BufReader::with_capacity(1 << 20, &self.file);
        let mut found = Vec::new();
        reader.by_ref().take(HEADER_LEN).read_to_end(&mut found)?;
        if found != header {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(header)?;
            return self.file.sync_all();
        }
        let mut record = vec![0; self.record_len()];
        let (mut offset, mut sound_end) = (HEADER_LEN, HEADER_LEN);
        while read_whole(&mut reader, &mut record)? {
            let next = offset + record.len() as u64;
            if let Some(content_hash) = sound(&record) {
                self.offsets.insert(content_hash, offset);
                sound_end = next;
            }
            offset = next;
        }
        if self.file.metadata()?.len() > sound_end {
            self.file.set_len(sound_end)?;
            self.file.sync_all()?;
        }
        Ok(())
    }

    /// Adds records and waits until they are on the disk.
    fn append(&mut self, records: &[([u8; 32], Vec<f32>)]) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(records.len() * self.record_len());
        for (content_hash, values) in records {
            let start = bytes.len();
            bytes.extend_from_slice(content_hash);
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            let checksum = sha256(&bytes[start..]);
            bytes.extend_from_slice(&checksum[..CHECKSUM_LEN]);
        }
        self.locked(|store| {
            let record_len = store.record_len() as u64;
            // Another program may have died in the middle of a record.
            let whole = store.file.metadata()?.len().saturating_sub(HEADER_LEN) / record_len;
            let mut offset = HEADER_LEN + whole * record_len;
            store.file.set_len(offset)?;
            store.file.seek(SeekFrom::Start(offset))?;
            store.file.write_all(&bytes)?;
            store.file.sync_data()?;
            for (content_hash, _) in records {
                store.offsets.insert(*content_hash, offset);
                offset += record_len;
            }
            Ok(())
        })
    }

    /// Appends a photo's bottleneck to `values`.
    fn read_into(&mut self, content_hash: &[u8; 32], values: &mut Vec<f32>) -> Result<()> {
        let offset = *self
            .offsets
            .get(content_hash)
            .with_context(|| format!("no bottleneck of {}", hex(content_hash)))?;
        let mut record = vec![0; self.record_len()];
        self.file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| self.file.read_exact(&mut record))
            .with_context(|| format!("reading {}", self.path.display()))?;
        if sound(&record) != Some(*content_hash) {
            return Err(Error::new(format!(
                "{} was damaged while it was being used",
                self.path.display()
            ))
            .hint("run again: what is damaged is computed anew"));
        }
        let (numbers, _) = record[HASH_LEN..record.len() - CHECKSUM_LEN].as_chunks();
        values.extend(numbers.iter().map(|number| f32::from_le_bytes(*number)));
        Ok(())
    }

    fn record_len(&self) -> usize {
        HASH_LEN + size_of::<f32>() * self.len + CHECKSUM_LEN
    }

    /// Runs `action` while no other program may change the file.
    fn locked(&mut self, action: impl FnOnce(&mut Store) -> std::io::Result<()>) -> Result<()> {
        let result = self.file.lock().and_then(|()| action(self));
        // Closing the file unlocks it too.
        let _ = self.file.unlock();
        result.with_context(|| {
            format!(
                "reading and writing the bottlenecks in {}",
                self.path.display()
            )
        })
    }
}

/// The photo's hash in a record whose checksum is right.
fn sound(record: &[u8]) -> Option<[u8; HASH_LEN]> {
    let (content, checksum) = record.split_last_chunk::<CHECKSUM_LEN>()?;
    if sha256(content)[..CHECKSUM_LEN] != *checksum {
        return None;
    }
    content.first_chunk().copied()
}

/// Fills `record`; false at the end of the file, a part of a record included.
fn read_whole(reader: &mut impl Read, record: &mut [u8]) -> std::io::Result<bool> {
    match reader.read_exact(record) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn header(key: [u8; 32], len: usize) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&(len as u32).to_le_bytes());
    header.extend_from_slice(&key);
    header
}

/// SHA-256 of what a bottleneck depends on beside the photo: weights, preprocessing, normalisation, this version.
fn key(backbone: &Backbone, preprocess: &Preprocess) -> [u8; 32] {
    let mut parts = Vec::new();
    parts.extend_from_slice(&VERSION.to_le_bytes());
    parts.extend_from_slice(&backbone.weights_digest);
    parts.extend_from_slice(&(backbone.input_size as u64).to_le_bytes());
    for value in backbone.spec.mean.iter().chain(&backbone.spec.std) {
        parts.extend_from_slice(&value.to_le_bytes());
    }
    parts.extend_from_slice(&preprocess.width.to_le_bytes());
    parts.extend_from_slice(&preprocess.height.to_le_bytes());
    match preprocess.fit {
        Fit::Crop { crop_pct } => {
            parts.push(0);
            parts.extend_from_slice(&crop_pct.to_le_bytes());
        }
        Fit::Pad { colour } => {
            parts.push(1);
            parts.extend_from_slice(&colour);
        }
        Fit::Squash => parts.push(2),
    }
    parts.push(match preprocess.filter {
        Filter::Bilinear => 0,
        Filter::Bicubic => 1,
    });
    parts.push(u8::from(preprocess.dct_scaling));
    sha256(&parts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn record(number: u8) -> ([u8; 32], Vec<f32>) {
        ([number; 32], vec![f32::from(number), -1.5, 0.25])
    }

    fn values(store: &mut Store, number: u8) -> Vec<f32> {
        let mut values = Vec::new();
        store.read_into(&[number; 32], &mut values).unwrap();
        values
    }

    /// A store with records 1 to 3, closed, and its path.
    fn written(folder: &Path) -> PathBuf {
        let mut store = Store::open_key(folder, KEY, 3).unwrap();
        store.append(&[record(1), record(2)]).unwrap();
        store.append(&[record(3)]).unwrap();
        store.path.clone()
    }

    #[test]
    fn what_was_appended_is_there_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path());
        let mut store = Store::open_key(folder.path(), KEY, 3).unwrap();
        assert_eq!(store.photos(), 3);
        for number in 1..=3 {
            assert_eq!(values(&mut store, number), record(number).1);
        }
        assert!(!store.contains(&[4; 32]));
    }

    #[test]
    fn a_cut_tail_is_dropped_and_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let bytes = fs::read(&path).unwrap();
        for cut in 1..bytes.len() {
            fs::write(&path, &bytes[..bytes.len() - cut]).unwrap();
            let mut store = Store::open_key(folder.path(), KEY, 3).unwrap();
            let kept = (bytes.len() - cut).saturating_sub(HEADER_LEN as usize) / store.record_len();
            assert_eq!(store.photos(), kept, "{cut} bytes cut");
            store.append(&[record(9)]).unwrap();
            let mut store = Store::open_key(folder.path(), KEY, 3).unwrap();
            assert_eq!(store.photos(), kept + 1);
            assert_eq!(values(&mut store, 9), record(9).1);
        }
    }

    #[test]
    fn a_damaged_record_does_not_count_and_the_others_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let bytes = fs::read(&path).unwrap();
        for position in HEADER_LEN as usize..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 0x40;
            fs::write(&path, &damaged).unwrap();
            let store = Store::open_key(folder.path(), KEY, 3).unwrap();
            assert_eq!(store.photos(), 2, "byte {position}");
        }
    }

    #[test]
    fn another_key_is_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let other = Store::open_key(folder.path(), [8; 32], 3).unwrap();
        assert_eq!(other.photos(), 0);
        // A file under the wrong name is not believed.
        fs::copy(&path, &other.path).unwrap();
        assert_eq!(
            Store::open_key(folder.path(), [8; 32], 3).unwrap().photos(),
            0
        );
        assert_eq!(Store::open_key(folder.path(), KEY, 3).unwrap().photos(), 3);
    }

    #[test]
    fn two_programs_may_append_to_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = Store::open_key(folder.path(), KEY, 3).unwrap();
        let mut second = Store::open_key(folder.path(), KEY, 3).unwrap();
        for round in 0..10 {
            first.append(&[record(round)]).unwrap();
            second.append(&[record(100 + round)]).unwrap();
        }
        assert_eq!(values(&mut second, 109), record(109).1);
        let mut store = Store::open_key(folder.path(), KEY, 3).unwrap();
        assert_eq!(store.photos(), 20);
        assert_eq!(values(&mut store, 5), record(5).1);
    }

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
        let first = first.matrix.to_vec2::<f32>().unwrap();
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
        let mut second = extract(&items).matrix.to_vec2::<f32>().unwrap();
        second.reverse();
        assert_eq!(second, first);
    }
}
