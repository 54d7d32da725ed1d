//! What a run was told and what it chose: every setting with its value, who chose it and why.

use std::collections::BTreeMap;

use graft_shared::error::{Context, Result};
use serde::Serialize;

/// Settings by name.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Settings(BTreeMap<String, Setting>);

#[derive(Debug, Serialize)]
struct Setting {
    value: String,
    chosen_by: ChosenBy,
    why: String,
}

/// Who chose a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChosenBy {
    /// A flag on the command line.
    User,
    /// Nobody: the default.
    Default,
    /// The run, from the data.
    Graft,
}

impl Settings {
    /// Records a setting.
    pub fn set(
        &mut self,
        name: &str,
        value: impl ToString,
        chosen_by: ChosenBy,
        why: impl Into<String>,
    ) {
        self.0.insert(
            name.to_owned(),
            Setting {
                value: value.to_string(),
                chosen_by,
                why: why.into(),
            },
        );
    }

    /// As TOML, one table a setting.
    ///
    /// # Errors
    /// Never for what [`Settings::set`] takes; TOML's writer does not promise it.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).context("can't write the settings as TOML")
    }

    /// Names and values, for the card.
    #[must_use]
    pub fn pairs(&self) -> Vec<(String, String)> {
        self.0
            .iter()
            .map(|(name, setting)| (name.clone(), setting.value.clone()))
            .collect()
    }
}
