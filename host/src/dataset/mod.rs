//! The photos of a run: what was found, which of it is usable, and which side of the split each photo is on.

mod alike;
mod check;
mod clusters;
mod earlier;
mod group;
mod index_cache;
mod manifest;
mod near_duplicates;
mod scan;
mod split;
mod union;

use std::path::PathBuf;

use graft_shared::labels::Labels;

pub use check::{Check, check};
pub use earlier::{Earlier, SOURCE, SPLIT_BY, source_name};
pub use group::{GroupBy, group};
pub use manifest::{manifest_digest, manifest_tsv};
pub use scan::scan;
pub use split::{Percentages, split};

/// The side of the split that a photo is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Split {
    /// The head, the backbone and the calibration learn from these.
    Train,
    /// Settings are picked on these.
    Validation,
    /// Only the final figure is measured on these.
    Test,
}

impl Split {
    /// The name in `split.tsv`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "val",
            Self::Test => "test",
        }
    }

    /// Reads a name as people write it: `train`, `val`, `valid`, `validation`, `test`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "train" => Some(Self::Train),
            "val" | "valid" | "validation" => Some(Self::Validation),
            "test" => Some(Self::Test),
            _ => None,
        }
    }
}

/// One usable photo.
#[derive(Clone, Debug)]
pub struct Photo {
    /// Where the file is.
    pub path: PathBuf,
    /// Index into the dataset's labels.
    pub class: usize,
    /// SHA-256 of the file.
    pub content_hash: [u8; 32],
    /// The side given by the list or the folders, if any; what [`split`] decides otherwise.
    pub split: Option<Split>,
    /// The column `group` of a list, or the sub-folder inside the label folder.
    pub listed_group: Option<String>,
    /// Names the photos that share a side with this one: the smallest content hash among them.
    pub group: [u8; 32],
}

/// A photo that is left out, and why.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Where the file is.
    pub path: PathBuf,
    /// The reason, for people.
    pub reason: String,
}

/// All photos of a run.
#[derive(Debug)]
pub struct Dataset {
    /// Labels in output order: sorted by their bytes.
    pub labels: Labels,
    /// The usable photos, ordered by path.
    pub photos: Vec<Photo>,
    /// The others.
    pub refused: Vec<Refused>,
    /// What people should know about their data.
    pub warnings: Vec<String>,
    /// Whether the photos come from a list, whose groups have to be obeyed.
    pub is_list: bool,
}

impl Dataset {
    /// The indices of the photos on one side.
    #[must_use]
    pub fn indices(&self, side: Split) -> Vec<usize> {
        (0..self.photos.len())
            .filter(|&i| self.photos[i].split == Some(side))
            .collect()
    }

    /// The classes of the photos at `indices`.
    #[must_use]
    pub fn classes(&self, indices: &[usize]) -> Vec<usize> {
        indices.iter().map(|&i| self.photos[i].class).collect()
    }
}
