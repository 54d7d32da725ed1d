//! What is wrong with photos, before anything is trained on them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use graft_engine::label::Picture;
use graft_shared::decode::decode;
use graft_shared::error::{Context, Error, Result};
use graft_shared::preprocess::{Filter, Fit, Pixels, Preprocess};
use rayon::prelude::*;
use serde::Serialize;

use super::near_duplicates::{self, Look, brightness};
use super::union::Union;
use super::{Dataset, Split};
use crate::progress::Progress;

/// Side of the pixels that are looked at: the input of the default backbone.
const SIDE: u16 = 224;
/// A photo whose shorter side has fewer pixels would be enlarged more than twice.
const TINY_SIDE: usize = 112;
/// Variance of the Laplacian below which a photo counts as blurred.
const BLURRED_VARIANCE: f64 = 25.0;
/// The largest label having this many times the photos of the smallest is warned about.
const IMBALANCE: usize = 10;
/// Entries of a list that people see; `--json` has all.
const SHOWN: usize = 10;

/// The findings; paths with `\u{fffd}` for bytes that are no UTF-8.
#[derive(Debug, Serialize)]
pub struct Check {
    /// Usable photos.
    pub photos: usize,
    /// Photos of each label.
    pub labels: Vec<LabelCount>,
    /// Files that training would leave out.
    pub refused: Vec<RefusedFile>,
    /// Photos with few pixels.
    pub tiny: Vec<Tiny>,
    /// Photos without sharp edges.
    pub blurred: Vec<Blurred>,
    /// Sets of files with the same bytes.
    pub duplicates: Vec<Vec<Place>>,
    /// Sets of photos that show the same, exact copies included, unless all are.
    pub near_duplicates: Vec<Vec<Place>>,
    /// Those sets whose photos are under more than one label.
    pub two_labels: Vec<Vec<Place>>,
    /// Those sets whose photos are on more than one side of the given split.
    pub leaks: Vec<Vec<Place>>,
    /// The findings in a sentence each.
    pub warnings: Vec<String>,
}

/// How many photos a label has.
#[derive(Debug, Serialize)]
pub struct LabelCount {
    /// The label.
    pub label: String,
    /// Its usable photos.
    pub photos: usize,
}

/// A file that is left out.
#[derive(Debug, Serialize)]
pub struct RefusedFile {
    /// Where it is.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// A photo with few pixels.
#[derive(Debug, Serialize)]
pub struct Tiny {
    /// Where it is.
    pub path: String,
    /// In pixels.
    pub width: usize,
    /// In pixels.
    pub height: usize,
}

/// A photo without sharp edges.
#[derive(Debug, Serialize)]
pub struct Blurred {
    /// Where it is.
    pub path: String,
    /// Variance of the Laplacian of the brightness at 224 x 224 pixels.
    pub sharpness: f64,
}

/// A photo in a set.
#[derive(Debug, Serialize)]
pub struct Place {
    /// Where it is.
    pub path: String,
    /// Its label.
    pub label: String,
    /// Its side, where one was given.
    pub split: Option<&'static str>,
}

/// Decodes every photo and looks at it. The photos that don't decode leave the dataset.
///
/// # Errors
/// When fewer than two labels keep a photo.
pub fn check(mut dataset: Dataset, progress: &Progress) -> Result<Check> {
    let stage = progress.stage("looking at photos", dataset.photos.len());
    let seen: Vec<Result<Seen>> = dataset
        .photos
        .par_iter()
        .map(|photo| {
            let seen = see(Picture::File(photo.path.clone()));
            stage.advance(1);
            seen
        })
        .collect();
    stage.finish();
    let mut usable = Vec::with_capacity(seen.len());
    let mut refused = Vec::new();
    for (index, seen) in seen.into_iter().enumerate() {
        match seen {
            Ok(seen) => usable.push(seen),
            Err(error) => refused.push((index, error)),
        }
    }
    dataset.refuse(refused)?;
    Ok(find(&dataset, &usable))
}

struct Seen {
    width: usize,
    height: usize,
    sharpness: f64,
    look: Look,
}

fn see(picture: Picture) -> Result<Seen> {
    let image = decode(&picture.read()?)?;
    let preprocess = Preprocess {
        width: SIDE,
        height: SIDE,
        fit: Fit::Squash,
        filter: Filter::Bilinear,
        dct_scaling: false,
    };
    let pixels = preprocess
        .apply_pixels(&image)
        .context("it can't be preprocessed")?;
    Ok(Seen {
        width: image.width,
        height: image.height,
        sharpness: sharpness(&pixels),
        look: Look::of(&pixels),
    })
}

/// Variance of the Laplacian of the brightness (Pech-Pacheco et al., 2000).
fn sharpness(pixels: &Pixels) -> f64 {
    let grey: Vec<i32> = pixels
        .data
        .as_chunks::<3>()
        .0
        .iter()
        .map(|pixel| i32::from(brightness(pixel)))
        .collect();
    let rows: Vec<&[i32]> = grey.chunks_exact(pixels.width.max(1)).collect();
    let (mut sum, mut squares, mut count) = (0i64, 0i64, 0i64);
    for three in rows.windows(3) {
        let &[above, middle, below] = three else {
            continue;
        };
        for ((across, up), down) in middle.windows(3).zip(&above[1..]).zip(&below[1..]) {
            let value = i64::from(across[0] + across[2] + up + down - 4 * across[1]);
            sum += value;
            squares += value * value;
            count += 1;
        }
    }
    let mean = sum as f64 / count.max(1) as f64;
    squares as f64 / count.max(1) as f64 - mean * mean
}

fn find(dataset: &Dataset, seen: &[Seen]) -> Check {
    let photos = &dataset.photos;
    let path = |index: usize| photos[index].path.to_string_lossy().into_owned();
    let label = |class| dataset.labels.get(class).unwrap_or_default().to_owned();
    let mut union = Union::new(photos.len());
    union.join_equal(photos.iter().map(|photo| photo.content_hash).enumerate());
    let exact = union.sets();
    let looks: Vec<Look> = seen.iter().map(|seen| seen.look).collect();
    near_duplicates::join(&looks, &mut union);
    let sets = union.sets();
    let places = |sets: &[Vec<usize>], keep: &dyn Fn(&[usize]) -> bool| -> Vec<Vec<Place>> {
        let place = |&index: &usize| Place {
            path: path(index),
            label: label(photos[index].class),
            split: photos[index].split.map(Split::name),
        };
        sets.iter()
            .filter(|set| keep(set))
            .map(|set| set.iter().map(place).collect())
            .collect()
    };
    let mut counts = vec![0; dataset.labels.len()];
    photos.iter().for_each(|photo| counts[photo.class] += 1);
    let mut check = Check {
        photos: photos.len(),
        labels: counts
            .iter()
            .enumerate()
            .map(|(class, &photos)| LabelCount {
                label: label(class),
                photos,
            })
            .collect(),
        refused: dataset
            .refused
            .iter()
            .map(|refused| RefusedFile {
                path: refused.path.to_string_lossy().into_owned(),
                reason: refused.reason.clone(),
            })
            .collect(),
        tiny: (0..seen.len())
            .filter(|&index| seen[index].width.min(seen[index].height) < TINY_SIDE)
            .map(|index| Tiny {
                path: path(index),
                width: seen[index].width,
                height: seen[index].height,
            })
            .collect(),
        blurred: (0..seen.len())
            .filter(|&index| seen[index].sharpness < BLURRED_VARIANCE)
            .map(|index| Blurred {
                path: path(index),
                sharpness: seen[index].sharpness,
            })
            .collect(),
        duplicates: places(&exact, &|_| true),
        near_duplicates: places(&sets, &|set| {
            differ(set, |index| photos[index].content_hash)
        }),
        two_labels: places(&sets, &|set| differ(set, |index| photos[index].class)),
        leaks: places(&sets, &|set| {
            let sides: BTreeSet<_> = set
                .iter()
                .filter_map(|&index| photos[index].split)
                .collect();
            sides.len() > 1
        }),
        warnings: Vec::new(),
    };
    check.warnings = warnings(&check, dataset);
    check
}

fn differ<K: PartialEq>(set: &[usize], key: impl Fn(usize) -> K) -> bool {
    set.iter().any(|&index| key(index) != key(set[0]))
}

fn warnings(check: &Check, dataset: &Dataset) -> Vec<String> {
    let mut warnings = dataset.warnings.clone();
    let sorted = {
        let mut labels: Vec<&LabelCount> = check.labels.iter().collect();
        labels.sort_by_key(|label| label.photos);
        labels
    };
    if let (Some(least), Some(most)) = (sorted.first(), sorted.last())
        && most.photos >= IMBALANCE * least.photos
    {
        warnings.push(format!(
            "imbalance: `{}` has {} photos and `{}` {}",
            most.label, most.photos, least.label, least.photos
        ));
    }
    for (count, what) in [
        (check.refused.len(), "files are refused"),
        (check.tiny.len(), "photos are tiny"),
        (check.blurred.len(), "photos are blurred"),
        (
            check.near_duplicates.len(),
            "sets of near-duplicates: each will be on one side of the split",
        ),
        (
            check.two_labels.len(),
            "sets of (near-)duplicates are under two labels: one of them is wrong",
        ),
        (
            check.leaks.len(),
            "sets of (near-)duplicates are on two sides of the given split: leaks that flatter the accuracy",
        ),
    ] {
        if count > 0 {
            warnings.push(format!("{count} {what}"));
        }
    }
    warnings
}

impl Check {
    /// As one JSON object.
    ///
    /// # Errors
    /// Never for what is in it; JSON's writer does not promise it.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::new("can't write JSON").source(error))
    }

    /// For people: counts, then the first of each kind of finding, then what they mean.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for label in &self.labels {
            line(&mut text, &format!("{:>8}  {}", label.photos, label.label));
        }
        line(
            &mut text,
            &format!("{:>8}  photos of {} labels", self.photos, self.labels.len()),
        );
        list(&mut text, "refused", &self.refused, |refused| {
            format!("{}: {}", refused.path, refused.reason)
        });
        list(&mut text, "tiny", &self.tiny, |tiny| {
            format!("{}: {} x {} pixels", tiny.path, tiny.width, tiny.height)
        });
        list(&mut text, "blurred", &self.blurred, |blurred| {
            format!("{}: sharpness {:.1}", blurred.path, blurred.sharpness)
        });
        let set = |set: &Vec<Place>| {
            let paths: Vec<&str> = set
                .iter()
                .map(|place| place.path.as_str())
                .take(SHOWN)
                .collect();
            let more = set.len() - paths.len();
            paths.join("  ")
                + &if more > 0 {
                    format!("  and {more} more")
                } else {
                    String::new()
                }
        };
        list(&mut text, "exact duplicates", &self.duplicates, set);
        list(&mut text, "near-duplicates", &self.near_duplicates, set);
        list(&mut text, "under two labels", &self.two_labels, set);
        list(&mut text, "on two sides of the split", &self.leaks, set);
        if self.warnings.is_empty() {
            line(&mut text, "nothing to complain about");
        }
        for warning in &self.warnings {
            line(&mut text, &format!("warning: {warning}"));
        }
        text
    }
}

fn line(text: &mut String, line: &str) {
    // Writing to a string can't fail.
    let _ = writeln!(text, "{line}");
}

fn list<T>(text: &mut String, name: &str, items: &[T], show: impl Fn(&T) -> String) {
    if items.is_empty() {
        return;
    }
    line(text, &format!("{name}: {}", items.len()));
    for item in items.iter().take(SHOWN) {
        line(text, &format!("  {}", show(item)));
    }
    if items.len() > SHOWN {
        line(
            text,
            &format!("  and {} more (--json has all)", items.len() - SHOWN),
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::path::Path;

    use image::{Rgb, RgbImage};

    use super::super::scan;
    use super::*;

    /// Blocks of noise from a seed, with fine texture unless it is smooth.
    fn picture(seed: u32, side: u32, smooth: bool) -> RgbImage {
        let noise = |x: u32, y: u32| {
            let mut h = (seed * 7919 + x * 31 + y * 17).wrapping_mul(2_246_822_519);
            h ^= h >> 15;
            (h.wrapping_mul(3_266_489_917) >> 24) as u8
        };
        RgbImage::from_fn(side, side, |x, y| {
            let (x9, y9) = (x * 9 / side, y * 9 / side);
            if smooth {
                return Rgb([(x * 255 / side) as u8, (y * 255 / side) as u8, seed as u8]);
            }
            Rgb([noise(x9, y9) / 2 + noise(x, y + 999) / 8; 3])
        })
    }

    fn save(root: &Path, name: &str, image: &RgbImage) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        image.save(path).unwrap();
    }

    #[test]
    fn every_kind_of_finding_is_made() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for seed in 0..10 {
            let side = if seed < 8 { "train" } else { "test" };
            save(
                root,
                &format!("{side}/cat/{seed}.png"),
                &picture(seed, 240, false),
            );
            save(
                root,
                &format!("{side}/dog/{seed}.png"),
                &picture(100 + seed, 240, false),
            );
        }
        save(root, "train/dog/tiny.png", &picture(200, 60, false));
        save(root, "train/dog/blurred.png", &picture(201, 240, true));
        fs::copy(
            root.join("train/cat/1.png"),
            root.join("train/cat/1 copy.png"),
        )
        .unwrap();
        let larger = image::imageops::resize(
            &picture(2, 240, false),
            300,
            300,
            image::imageops::FilterType::Triangle,
        );
        save(root, "test/cat/larger.png", &larger);
        fs::copy(root.join("train/cat/3.png"), root.join("train/dog/cat.png")).unwrap();
        fs::write(root.join("train/cat/broken.jpg"), b"no picture").unwrap();

        let progress = Progress::new(true);
        let check = check(scan(root, None, &progress).unwrap(), &progress).unwrap();
        assert_eq!(check.photos, 25);
        assert_eq!(
            (check.refused.len(), check.tiny.len(), check.blurred.len()),
            (1, 1, 1)
        );
        assert!(check.blurred[0].path.ends_with("blurred.png"));
        assert_eq!(check.duplicates.len(), 2);
        assert_eq!(check.near_duplicates.len(), 1);
        assert_eq!(check.two_labels.len(), 1);
        assert_eq!(check.leaks.len(), 1);
        assert!(
            check.leaks[0]
                .iter()
                .any(|place| place.path.ends_with("larger.png"))
        );
        let text = check.to_text();
        assert!(text.contains("on two sides of the split: 1"), "{text}");
        assert!(check.to_json().unwrap().contains("\"two_labels\":[["));
    }
}
