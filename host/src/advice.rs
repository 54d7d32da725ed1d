//! What to do after a run: label photos, bring the model to a board, and what in the photos would improve it most.

use std::path::Path;

use graft_engine::evaluate::Evaluation;

use crate::dataset::{Dataset, Split};

/// Training photos below which more of them help more than anything else.
const FEW_PHOTOS: usize = 40;
/// A label has few photos next to the others below this share of the median.
const FEW_BESIDE_OTHERS: f64 = 0.33;
/// Labels named at most in one line.
const NAMED: usize = 5;

/// What would improve the model most, as sentences; empty where nothing stands out.
#[must_use]
pub fn improvements(dataset: &Dataset, test: &Evaluation) -> Vec<String> {
    let classes = dataset.classes(&dataset.indices(Split::Train));
    let mut counts: Vec<(usize, &str)> = dataset.labels.iter().map(|label| (0, label)).collect();
    for class in classes {
        if let Some((count, _)) = counts.get_mut(class) {
            *count += 1;
        }
    }
    counts.sort_unstable();
    [more_photos(&counts), confused(test)]
        .into_iter()
        .flatten()
        .collect()
}

/// The labels with few photos; `counts` is sorted.
fn more_photos(counts: &[(usize, &str)]) -> Option<String> {
    let median = counts.get(counts.len() / 2)?.0;
    let enough = FEW_PHOTOS.min((median as f64 * FEW_BESIDE_OTHERS).ceil() as usize);
    if median < FEW_PHOTOS {
        return Some(format!(
            "more photos: half of the labels have {median} or fewer to train on; {FEW_PHOTOS} to 100 of each, from other days and places, help most"
        ));
    }
    let few: Vec<String> = counts
        .iter()
        .take_while(|(count, _)| *count < enough)
        .map(|(count, label)| format!("`{label}` ({count})"))
        .collect();
    let others = few.len().saturating_sub(NAMED);
    let tail = if others > 0 {
        format!(" and {others} others")
    } else {
        String::new()
    };
    let named = few.get(..few.len().min(NAMED))?.join(", ");
    (!few.is_empty())
        .then(|| format!("more photos of {named}{tail}: the middle label has {median} to train on"))
}

/// The pair of labels most often confused, both ways together; of equal pairs the first.
fn confused(test: &Evaluation) -> Option<String> {
    let at = |row: usize, column: usize| {
        let count = test.confusion.get(row).and_then(|row| row.get(column));
        count.copied().unwrap_or(0)
    };
    let labels = test.classes.len();
    let pairs = (0..labels).flat_map(|a| (a + 1..labels).map(move |b| (a, b)));
    let wrong = pairs.map(|(a, b)| (at(a, b) + at(b, a), a, b));
    let (wrong, a, b) = wrong.reduce(|most, pair| if pair.0 > most.0 { pair } else { most })?;
    let (a, b) = (test.classes.get(a)?, test.classes.get(b)?);
    (wrong > 1).then(|| {
        format!(
            "`{}` and `{}`: taken for each other in {wrong} of {} test photos; look for wrong labels, and for photos that show the difference",
            a.label, b.label, a.images + b.images
        )
    })
}

/// The commands to go on with: how to label photos, how to bring the model to a board and, where test photos were `wrong`,
/// how to see which.
#[must_use]
pub fn commands(model: &Path, split: &Path, wrong: bool) -> String {
    let model = quoted(model);
    let mut text = format!(
        "label photos:          graft label {model} PHOTO…\n\
         bring it to a board:   device/package/build arm64      (or armhf, amd64)\n\
         \x20                      graft deploy USER@HOST {model}\n"
    );
    if wrong {
        text += &format!(
            "which are wrong:       graft evaluate {model} {} --predictions predictions.tsv\n",
            quoted(split)
        );
    }
    text
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_with_few_photos_are_named() {
        let few = more_photos(&[(8, "sock"), (60, "hat"), (70, "shoe"), (90, "dress")]);
        let expected = "more photos of `sock` (8): the middle label has 70 to train on";
        assert_eq!(few.as_deref(), Some(expected));
        assert_eq!(more_photos(&[(60, "hat"), (70, "shoe")]), None);
        let all = more_photos(&[(8, "hat"), (9, "shoe")]).unwrap_or_default();
        assert!(all.contains("9 or fewer"), "{all}");
    }

    #[test]
    fn paths_are_quoted_for_a_shell() {
        assert_eq!(
            quoted(Path::new("runs/ö-1/model.onnx")),
            "runs/ö-1/model.onnx"
        );
        assert_eq!(quoted(Path::new("my run's")), "'my run'\\''s'");
    }
}
