//! Labels that print alike though they are spelt differently: nobody could tell their answers apart.

use std::collections::BTreeMap;

use graft_shared::error::{Error, Result};
use unicode_normalization::UnicodeNormalization;

/// Refuses two labels that look the same: other normal forms of one text, blanks of another kind or at an end, characters
/// without a width. Labels that differ in case only look different and are told as a warning.
///
/// # Errors
/// When two labels print alike; both are named with what can't be seen spelt out.
pub(super) fn refuse_alike<'a>(labels: impl Iterator<Item = &'a str>) -> Result<Vec<String>> {
    let mut by_look: BTreeMap<String, &str> = BTreeMap::new();
    for label in labels {
        if let Some(other) = by_look.insert(look(label), label)
            && other != label
        {
            return Err(Error::new(format!(
                "two labels print alike: \"{}\" and \"{}\"",
                spelt(other),
                spelt(label)
            ))
            .hint("rename one of the two folders, or put their photos together"));
        }
    }
    let mut by_lower_case: BTreeMap<String, &str> = BTreeMap::new();
    let mut warnings = Vec::new();
    for (look, label) in &by_look {
        if let Some(other) = by_lower_case.insert(look.to_lowercase(), label) {
            warnings.push(format!(
                "`{other}` and `{label}` differ in upper and lower case only: are they one label?"
            ));
        }
    }
    Ok(warnings)
}

/// What is seen of a label: canonically composed (Unicode Annex 15, NFC), without characters that take no room, each run
/// of blanks one space, none at the ends.
fn look(label: &str) -> String {
    let visible: String = label.chars().filter(|&c| !is_without_width(c)).collect();
    let words: Vec<&str> = visible.split_whitespace().collect();
    words.join(" ").nfc().collect()
}

/// Format characters and fillers that most fonts draw as nothing (Unicode, general category Cf, and variation selectors).
fn is_without_width(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}')
}

/// All but printable ASCII as its code point.
fn spelt(label: &str) -> String {
    label
        .chars()
        .map(|c| {
            if c == ' ' || c.is_ascii_graphic() {
                c.to_string()
            } else {
                c.escape_unicode().to_string()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn labels_that_print_alike_are_named_both() {
        for (a, b, spelt) in [
            ("caf\u{e9}", "cafe\u{301}", "caf\\u{e9}"),
            ("cat", "cat ", "\"cat \""),
            ("cat", " cat", "\" cat\""),
            ("red cat", "red\u{a0}cat", "red\\u{a0}cat"),
            ("red cat", "red  cat", "red  cat"),
            ("cat", "c\u{200b}at", "c\\u{200b}at"),
            ("cat", "\u{feff}cat", "\\u{feff}cat"),
        ] {
            let report = refuse_alike([a, "dog", b].into_iter())
                .unwrap_err()
                .report();
            assert!(
                report.contains(spelt) && report.contains("hint:"),
                "{report}"
            );
        }
    }

    #[test]
    fn labels_that_look_different_are_fine() {
        let labels = [
            "cat",
            "Cat",
            "caf\u{e9}",
            "cafe",
            "x2",
            "x\u{b2}",
            "\u{732b}",
        ];
        let warnings = refuse_alike(labels.into_iter()).unwrap();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("`Cat` and `cat`"), "{}", warnings[0]);
    }
}
