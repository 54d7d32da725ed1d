//! The sides that photos had in an earlier run of the same folder: they win, so that figures can be compared and nothing
//! that was trained on is ever tested on.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Dataset, Split};
use crate::run::names;

/// Sides by content hash.
#[derive(Debug, Default)]
pub struct Earlier {
    sides: HashMap<[u8; 32], Split>,
    /// The run folder they come from.
    pub run: Option<PathBuf>,
}

impl Earlier {
    /// The side of a content, if it had one.
    #[must_use]
    pub fn side(&self, content_hash: &[u8; 32]) -> Option<Split> {
        self.sides.get(content_hash).copied()
    }

    /// For tests and for callers that know the sides themselves.
    #[must_use]
    pub fn of(sides: HashMap<[u8; 32], Split>) -> Self {
        Self { sides, run: None }
    }

    /// From the newest run below `runs`, finished or not, that split as `settings` (name and value) say and was of the
    /// same `source`, or of a folder half of whose photos are in `dataset`: the folder may have been moved. A run that
    /// can't be read does not count.
    #[must_use]
    pub fn find(
        runs: &Path,
        source: &Path,
        settings: &[(&str, String)],
        dataset: &Dataset,
    ) -> Self {
        let mut folders: Vec<(SystemTime, PathBuf)> = fs::read_dir(runs)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter_map(|folder| {
                let metadata = fs::metadata(folder.join(names::SPLIT)).ok()?;
                Some((metadata.modified().ok()?, folder))
            })
            .collect();
        folders.sort_unstable();
        let present: HashSet<[u8; 32]> = dataset.photos.iter().map(|p| p.content_hash).collect();
        let source = source_name(source);
        for (_, folder) in folders.into_iter().rev() {
            let Some(recorded) = recorded(&folder) else {
                continue;
            };
            let value = |name: &str| recorded.get(name)?.get("value")?.as_str();
            if settings
                .iter()
                .any(|(name, wanted)| value(name) != Some(wanted.as_str()))
            {
                continue;
            }
            let Some(sides) = sides(&folder.join(names::SPLIT)) else {
                continue;
            };
            let shared = sides.keys().filter(|hash| present.contains(*hash)).count();
            let same_source = value(SOURCE) == Some(source.as_str());
            if shared > 0 && (same_source || 2 * shared >= sides.len()) {
                return Self {
                    sides,
                    run: Some(folder),
                };
            }
        }
        Self::default()
    }
}

/// The setting that names the source.
pub const SOURCE: &str = "source";

/// The setting that tells whether the split was given: such sides are no later run's.
pub const SPLIT_BY: &str = "split";

/// The source as a run records it: absolute, without links.
#[must_use]
pub fn source_name(source: &Path) -> String {
    fs::canonicalize(source)
        .unwrap_or_else(|_| source.to_path_buf())
        .to_string_lossy()
        .into_owned()
}

fn recorded(folder: &Path) -> Option<toml::Table> {
    fs::read_to_string(folder.join(names::SETTINGS))
        .ok()?
        .parse()
        .ok()
}

/// Reads the columns `split` and `content_hash`; a content on two sides has none.
fn sides(path: &Path) -> Option<HashMap<[u8; 32], Split>> {
    let bytes = fs::read(path).ok()?;
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let header: Vec<&[u8]> = lines.next()?.split(|&byte| byte == b'\t').collect();
    let column = |name: &str| header.iter().position(|column| *column == name.as_bytes());
    let (split, hash) = (column("split")?, column("content_hash")?);
    let mut sides = HashMap::new();
    let mut torn = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let values: Vec<&[u8]> = line.split(|&byte| byte == b'\t').collect();
        let side = Split::parse(std::str::from_utf8(values.get(split)?).ok()?)?;
        let hash = unhex(values.get(hash)?)?;
        if sides.insert(hash, side).is_some_and(|other| other != side) {
            torn.push(hash);
        }
    }
    torn.iter().for_each(|hash| {
        sides.remove(hash);
    });
    Some(sides)
}

fn unhex(text: &[u8]) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != bytes.len() || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::split::tests::dataset;
    use super::super::{Percentages, manifest_tsv, split};
    use super::*;

    fn write_run(runs: &Path, name: &str, dataset: &Dataset, settings: &str) {
        let folder = runs.join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(names::SPLIT), manifest_tsv(dataset).unwrap()).unwrap();
        fs::write(folder.join(names::SETTINGS), settings).unwrap();
    }

    #[test]
    fn the_run_of_the_same_folder_or_the_same_photos_is_found() {
        let root = tempfile::tempdir().unwrap();
        let percentages = Percentages {
            validation: 10,
            testing: 10,
        };
        let mut data = dataset(&[40, 40]);
        split(&mut data, percentages, &Earlier::default()).unwrap();
        let settings = "[source]\nvalue = \"/photos\"\n[testing_percentage]\nvalue = \"10\"\n";
        write_run(root.path(), "a-1", &data, settings);
        fs::create_dir(root.path().join("unreadable")).unwrap();
        fs::write(root.path().join("unreadable/split.tsv"), "path\n").unwrap();

        let find = |source: &str, percent: &str, data: &Dataset| {
            let settings = [("testing_percentage", percent.to_owned())];
            Earlier::find(root.path(), Path::new(source), &settings, data)
        };
        let found = find("/moved", "10", &data);
        assert_eq!(found.run, Some(root.path().join("a-1")));
        for photo in &data.photos {
            assert_eq!(found.side(&photo.content_hash), photo.split);
        }
        assert!(find("/photos", "20", &data).run.is_none());
        data.photos.retain(|photo| photo.class == 0);
        data.photos.truncate(10);
        assert!(find("/moved", "10", &data).run.is_none());
        assert!(find("/photos", "10", &data).run.is_some());
    }
}
