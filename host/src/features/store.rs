//! The cache of bottlenecks: a file for each preprocessing and weights.
//!
//! A header, then records of one size, only ever appended:
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
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use graft_shared::digest::{hex, sha256};
use graft_shared::error::{Context, Error, Result};
use graft_shared::preprocess::{Filter, Fit, Preprocess};

use super::Bottlenecks;
use crate::backbone::Backbone;

const MAGIC: &[u8; 8] = b"GRAFTBTL";
/// Of the file's layout and of what fills it: raised when preprocessing or a kernel gives other bits.
const VERSION: u32 = 1;
const HEADER_LEN: u64 = 48;
const HASH_LEN: usize = 32;
const CHECKSUM_LEN: usize = 8;

/// A file of bottlenecks.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    file: Arc<File>,
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
            file: Arc::new(file),
            len,
            offsets: HashMap::new(),
        };
        store.locked(|store| store.index(&header(key, len)))?;
        Ok(store)
    }

    /// Reads the whole file, writes the header of a new one, and cuts off what is damaged at the end.
    fn index(&mut self, header: &[u8]) -> std::io::Result<()> {
        let mut reader = BufReader::with_capacity(1 << 20, &*self.file);
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
    pub(super) fn append(&mut self, records: &[([u8; 32], Vec<f32>)]) -> Result<()> {
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

    /// The bottlenecks of the photos with these SHA-256, in this order. Each record is checked once more.
    ///
    /// # Errors
    /// A photo that it does not hold, and a record that can't be read or was damaged.
    pub fn bottlenecks<'a>(
        &self,
        content_hashes: impl Iterator<Item = &'a [u8; HASH_LEN]>,
    ) -> Result<Bottlenecks> {
        let mut record = vec![0; self.record_len()];
        let reading = || format!("reading {}", self.path.display());
        let mut offsets = Vec::new();
        for content_hash in content_hashes {
            let offset = *self
                .offsets
                .get(content_hash)
                .with_context(|| format!("no bottleneck of {}", hex(content_hash)))?;
            self.file
                .read_exact_at(&mut record, offset)
                .with_context(reading)?;
            if sound(&record) != Some(*content_hash) {
                return Err(Error::new(format!(
                    "{} was damaged while it was being used",
                    self.path.display()
                ))
                .hint("run again: what is damaged is computed anew"));
            }
            offsets.push(offset + HASH_LEN as u64);
        }
        Bottlenecks::from_file(Arc::clone(&self.file), offsets, self.len).with_context(reading)
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

    fn values(store: &Store, number: u8) -> Vec<f32> {
        let bottlenecks = store.bottlenecks([[number; 32]].iter()).unwrap();
        bottlenecks.rows(&[0], |_| ()).unwrap()
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
        let store = Store::open_key(folder.path(), KEY, 3).unwrap();
        assert_eq!(store.photos(), 3);
        for number in 1..=3 {
            assert_eq!(values(&store, number), record(number).1);
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
            let store = Store::open_key(folder.path(), KEY, 3).unwrap();
            assert_eq!(store.photos(), kept + 1);
            assert_eq!(values(&store, 9), record(9).1);
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
        assert_eq!(values(&second, 109), record(109).1);
        let store = Store::open_key(folder.path(), KEY, 3).unwrap();
        assert_eq!(store.photos(), 20);
        assert_eq!(values(&store, 5), record(5).1);
    }
}
