//! Labels in output order: unique, kept exactly as typed.

use std::collections::HashSet;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::limits::{MAX_LABEL_BYTES, MAX_LABELS, MIN_LABELS};

/// The labels of a model; label `i` names output `i`.
///
/// No two are equal byte for byte. Unicode is neither normalised nor trimmed: a label that looks like another but is
/// spelt differently is a different label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Labels {
    labels: Vec<String>,
}

impl Labels {
    /// Takes labels in output order.
    ///
    /// # Errors
    /// When there are fewer than [`MIN_LABELS`] or more than [`MAX_LABELS`], when one is blank, longer than
    /// [`MAX_LABEL_BYTES`], holds a control character (a line break or tab would break the files that list labels), or
    /// when two are equal.
    pub fn new(labels: Vec<String>) -> Result<Self> {
        if labels.len() < MIN_LABELS {
            return Err(Error::new(format!(
                "{} labels, but a classifier needs at least {MIN_LABELS}",
                labels.len()
            ))
            .hint("put the photos of each label in a folder of its own"));
        }
        if labels.len() > MAX_LABELS {
            return Err(Error::new(format!(
                "{} labels, but at most {MAX_LABELS} are possible",
                labels.len()
            )));
        }
        let mut seen = HashSet::with_capacity(labels.len());
        for (index, label) in labels.iter().enumerate() {
            let refuse =
                |why: String| Err(Error::new(format!("label {} ({label:?}) {why}", index + 1)));
            if label.trim().is_empty() {
                return refuse("is blank".into());
            }
            if label.len() > MAX_LABEL_BYTES {
                return Err(Error::new(format!(
                    "label {} has {} bytes, at most {MAX_LABEL_BYTES} are possible",
                    index + 1,
                    label.len()
                )));
            }
            if label.chars().any(char::is_control) {
                return refuse("holds a control character such as a line break or tab".into());
            }
            if !seen.insert(label.as_str()) {
                return refuse("is there twice".into());
            }
        }
        Ok(Self { labels })
    }

    /// How many labels there are: the number of the model's outputs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Never: there are at least two.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The label of output `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&str> {
        self.labels.get(index).map(String::as_str)
    }

    /// The labels in output order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + DoubleEndedIterator {
        self.labels.iter().map(String::as_str)
    }

    /// The output that `label`, spelt exactly so, names.
    #[must_use]
    pub fn index_of(&self, label: &str) -> Option<usize> {
        self.labels.iter().position(|known| known == label)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn labels(names: &[&str]) -> Result<Labels> {
        Labels::new(names.iter().map(|&name| name.to_owned()).collect())
    }

    #[test]
    fn keeps_order_and_spelling() {
        // The same word composed and decomposed, a blank at the end, another script: all different, all kept.
        let names = ["zebra", "café", "cafe\u{301}", "cat ", "cat", "子猫", "🌻"];
        let labels = labels(&names).unwrap();
        assert_eq!(labels.iter().collect::<Vec<_>>(), names);
        assert_eq!(labels.len(), 7);
        assert_eq!(labels.get(5), Some("子猫"));
        assert_eq!(labels.get(7), None);
        assert_eq!(labels.index_of("cat"), Some(4));
        assert_eq!(labels.index_of("Cat"), None);
    }

    #[test]
    fn refuses_with_the_reason() {
        let long = "x".repeat(MAX_LABEL_BYTES + 1);
        for (names, reason) in [
            (&[][..], "0 labels"),
            (&["only"], "at least 2"),
            (&["a", ""], "label 2 (\"\") is blank"),
            (&["a", " \u{3000}"], "is blank"),
            (&["a", "b", "a"], "label 3 (\"a\") is there twice"),
            (
                &["a\tb", "c"],
                "label 1 (\"a\\tb\") holds a control character",
            ),
            (&["a", &long], "label 2 has 257 bytes"),
        ] {
            let error = labels(names).unwrap_err();
            assert!(error.message().contains(reason), "{error}");
        }
        let many = (0..=MAX_LABELS).map(|index| index.to_string()).collect();
        assert!(Labels::new(many).unwrap_err().message().contains("32769"));
    }
}
