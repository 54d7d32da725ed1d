//! Content hashes of files that did not change since they were last hashed, by path, size and time of change.
//!
//! One file for each source: magic `GRAFTIDX`, version (u32), records sorted by their first field, and the SHA-256 of all
//! before it. A record: the first 16 bytes of the SHA-256 of the absolute path; size (u64); time of change in nanoseconds
//! since 1970 (i64); SHA-256 of the content. Little-endian. A file that is damaged counts as absent: it is a cache.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use graft_shared::digest::{hex, sha256};
use graft_shared::error::{Context, Result};
use graft_shared::files::write_atomic;

const MAGIC: &[u8; 8] = b"GRAFTIDX";
const VERSION: u32 = 1;
const KEY_LEN: usize = 16;
const RECORD_LEN: usize = KEY_LEN + 8 + 8 + 32;
const HEADER_LEN: usize = MAGIC.len() + 4;
/// A file that changed this shortly before it was hashed may change again without its time showing it.
const TOO_FRESH_NANOSECONDS: i64 = 2_000_000_000;

/// A file's content hash, and when it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    key: [u8; KEY_LEN],
    size: u64,
    modified: i64,
    /// SHA-256 of the content.
    pub(super) content_hash: [u8; 32],
}

/// What is known of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    key: [u8; KEY_LEN],
    size: u64,
    modified: i64,
}

impl Stamp {
    /// Of the file at the absolute `path`; `None` where the file system knows no times.
    pub(super) fn of(path: &Path, metadata: &Metadata) -> Option<Self> {
        Some(Self {
            key: *sha256(path.as_os_str().as_encoded_bytes()).first_chunk()?,
            size: metadata.len(),
            modified: nanoseconds(metadata.modified().ok()?)?,
        })
    }

    /// The entry to keep, unless the file is so fresh that its time proves nothing.
    pub(super) fn entry(self, content_hash: [u8; 32]) -> Option<Entry> {
        let now = nanoseconds(SystemTime::now())?;
        (now.saturating_sub(self.modified) > TOO_FRESH_NANOSECONDS).then_some(Entry {
            key: self.key,
            size: self.size,
            modified: self.modified,
            content_hash,
        })
    }
}

/// The index of one source, in memory.
#[derive(Debug)]
pub(super) struct IndexCache {
    path: PathBuf,
    /// Sorted by key.
    entries: Vec<Entry>,
}

impl IndexCache {
    /// Reads what `folder` knows of `source`.
    pub(super) fn open(folder: &Path, source: &Path) -> Self {
        let absolute = fs::canonicalize(source).unwrap_or_else(|_| source.to_path_buf());
        let name = hex(&sha256(absolute.as_os_str().as_encoded_bytes())[..KEY_LEN]);
        let path = folder.join(format!("index-{name}.bin"));
        let entries = fs::read(&path).ok().and_then(|bytes| parse(&bytes));
        Self {
            path,
            entries: entries.unwrap_or_default(),
        }
    }

    /// The entry of a file that did not change.
    pub(super) fn get(&self, stamp: &Stamp) -> Option<&Entry> {
        let found = self
            .entries
            .binary_search_by_key(&stamp.key, |entry| entry.key)
            .ok()?;
        self.entries
            .get(found)
            .filter(|entry| (entry.size, entry.modified) == (stamp.size, stamp.modified))
    }

    /// Replaces all entries, and the file where they differ.
    ///
    /// # Errors
    /// When the file can't be written.
    pub(super) fn replace(&mut self, mut entries: Vec<Entry>) -> Result<()> {
        entries.sort_unstable();
        entries.dedup_by_key(|entry| entry.key);
        if entries == self.entries {
            return Ok(());
        }
        self.entries = entries;
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.entries.len() * RECORD_LEN + 32);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        for entry in &self.entries {
            bytes.extend_from_slice(&entry.key);
            bytes.extend_from_slice(&entry.size.to_le_bytes());
            bytes.extend_from_slice(&entry.modified.to_le_bytes());
            bytes.extend_from_slice(&entry.content_hash);
        }
        let checksum = sha256(&bytes);
        bytes.extend_from_slice(&checksum);
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("making the folder {}", folder.display()))?;
        }
        write_atomic(&self.path, &bytes)
    }
}

fn parse(bytes: &[u8]) -> Option<Vec<Entry>> {
    let (content, checksum) = bytes.split_last_chunk::<32>()?;
    let records = content
        .strip_prefix(MAGIC)?
        .strip_prefix(&VERSION.to_le_bytes())?;
    if sha256(content) != *checksum || records.len() % RECORD_LEN != 0 {
        return None;
    }
    let entry = |record: &[u8]| {
        let (key, rest) = record.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let (modified, rest) = rest.split_first_chunk()?;
        Some(Entry {
            key: *key,
            size: u64::from_le_bytes(*size),
            modified: i64::from_le_bytes(*modified),
            content_hash: *rest.first_chunk()?,
        })
    };
    records.chunks(RECORD_LEN).map(entry).collect()
}

/// Since 1970, negative before.
fn nanoseconds(time: SystemTime) -> Option<i64> {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).ok(),
        Err(before) => i64::try_from(before.duration().as_nanos()).ok().map(|n| -n),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    fn file(folder: &Path, name: &str, content: &[u8], age: u64) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        let time = SystemTime::now() - Duration::from_secs(age);
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(time)
            .unwrap();
        path
    }

    fn stamp(path: &Path) -> Stamp {
        Stamp::of(path, &fs::metadata(path).unwrap()).unwrap()
    }

    #[test]
    fn a_file_is_known_until_its_size_or_time_changes() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let path = file(root, "a", b"one", 100);
        let entry = stamp(&path).entry([1; 32]).unwrap();
        let mut cache = IndexCache::open(&root.join("cache"), root);
        assert_eq!(cache.get(&stamp(&path)), None);
        cache.replace(vec![entry]).unwrap();
        let cache = IndexCache::open(&root.join("cache"), root);
        assert_eq!(cache.get(&stamp(&path)), Some(&entry));
        file(root, "a", b"two", 50);
        assert_eq!(cache.get(&stamp(&path)), None);
        assert_eq!(stamp(&file(root, "b", b"fresh", 0)).entry([2; 32]), None);
    }

    #[test]
    fn a_damaged_cache_counts_as_absent() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "a", b"one", 100);
        let mut cache = IndexCache::open(folder.path(), folder.path());
        cache
            .replace(vec![stamp(&path).entry([1; 32]).unwrap()])
            .unwrap();
        let bytes = fs::read(&cache.path).unwrap();
        for position in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 1;
            assert_eq!(parse(&damaged), None);
            assert_eq!(parse(&bytes[..position]), None);
        }
        assert_eq!(parse(&bytes).unwrap().len(), 1);
    }
}
