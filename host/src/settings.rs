//! What a run was told and what it chose: every setting with its value, who chose it and why.

use std::collections::BTreeMap;

use graft_shared::error::{Context, Result};
use serde::{Deserialize, Serialize};

/// Settings by name.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Settings(BTreeMap<String, Setting>);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Setting {
    value: String,
    chosen_by: ChosenBy,
    why: String,
}

/// Who chose a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

    /// What [`Settings::to_toml`] wrote.
    ///
    /// # Errors
    /// Text that is no table of settings.
    pub fn from_toml(text: &str) -> Result<Settings> {
        toml::from_str(text).context("the settings can't be read")
    }

    /// The value of a setting.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|setting| setting.value.as_str())
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
