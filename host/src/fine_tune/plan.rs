//! The plan of a fine-tuning: every setting that it depends on, chosen from the data unless given by hand.
//!
//! A plan is recorded in the run's settings and read back from there when a run is resumed, so that what was chosen from
//! the machine or the clock is not chosen again.

use graft_shared::error::{Context, Error, Result};
use serde::{Deserialize, Serialize};

use super::optimizer::Rule;
use crate::cli::Recipe;
use crate::nn::BatchStatistics;
use crate::pictures::Augmentation;
use crate::settings::{ChosenBy, Settings};

/// Below so many training photos a network learns its own statistics worse than it already knows them.
pub(super) const FEW_PHOTOS: usize = 1500;
/// The largest class is so many times the smallest, or the logits stay as they are.
const UNEVEN: usize = 20;
/// Steps that a fine-tuning takes at least, so that few photos are seen often enough.
const LEAST_STEPS: usize = 150;

/// Every setting of a fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Passes over the training photos, those with small pictures included.
    pub epochs: usize,
    /// Share of these, the first ones, with small pictures.
    pub small_share: f64,
    /// Side of the small pictures in pixels.
    pub small_size: usize,
    /// Photos in a step.
    pub train_batch_size: usize,
    /// What moves the weights.
    pub optimizer: Rule,
    /// Highest learning rate of the backbone's last layer.
    pub learning_rate: f64,
    /// That of the head, as a multiple.
    pub head_rate: f64,
    /// That of the first layer, as a multiple; those between lie between, geometrically.
    pub first_layer_rate: f64,
    /// Share of the steps in which the rate rises from 0; then it falls as a cosine.
    pub warm_up: f64,
    /// Pull of the weights towards 0; norms and biases are left alone.
    pub weight_decay: f64,
    /// Share of the target that is spread over all classes.
    pub label_smoothing: f64,
    /// Share of a sum's branches that a step leaves out at the network's end, the less the earlier (stochastic depth).
    pub drop_path: f64,
    /// Share of the bottleneck's values that a step leaves out.
    pub dropout: f64,
    /// Highest decay of the running mean of the weights, which is what is kept.
    pub ema: f64,
    /// Where BatchNorm takes its statistics from.
    pub batch_norm: BatchStatistics,
    /// Share of the network's nodes, from the input on, that stay as they are.
    pub frozen: f64,
    /// Smallest share of a photo's area that a random crop keeps.
    pub smallest_crop: f64,
    /// Random changes of light, colour and angle of each photo, and their strength from 0 to 1.
    pub operations_per_photo: usize,
    /// As said.
    pub magnitude: f64,
    /// Share of the photos with a rectangle erased.
    pub erasing: f64,
    /// Share of the photos that are mixed with another one.
    pub mixing: f64,
    /// Parameter of the Beta distribution of mixup, 0 for none.
    pub mixup: f64,
    /// That of cutmix.
    pub cutmix: f64,
    /// Power of a class's size that its share of the photos follows: 1 as they are, 0 all classes alike.
    pub frequency_power: f64,
    /// How far the logits are moved against the labels' frequencies at the end: 0 not at all, 1 as if all were equally
    /// frequent.
    pub logit_adjustment: f64,
    /// Epochs without a better validation after which training ends.
    pub patience: usize,
}

/// What a plan is chosen from.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// Photos to train on.
    pub photos: usize,
    /// Photos of the smallest and the largest label.
    pub smallest_class: usize,
    /// As said.
    pub largest_class: usize,
    /// Side of the model's input in pixels.
    pub input_size: usize,
}

impl Plan {
    /// The plan of a recipe, and why its values are what they are, by the names of the settings.
    pub fn choose(recipe: Recipe, from: Circumstances) -> (Plan, Vec<(&'static str, String)>) {
        let best = recipe == Recipe::Best;
        let few = from.photos < FEW_PHOTOS;
        let mut why = Vec::new();
        let batch = if few { 16 } else { 32 };
        // So many photos seen, in at least and at most so many epochs, of which this share with small pictures.
        let (seen, least, most, small) = match recipe {
            Recipe::Head | Recipe::Fast => (12_000, 2, 5, 0.75),
            Recipe::Balanced => (25_000, 3, 10, 0.75),
            Recipe::Best => (80_000, 6, 30, 0.5),
        };
        let photos = from.photos.max(1);
        let epochs = (seen / photos).clamp(least, most);
        let epochs = epochs.max((LEAST_STEPS * batch).div_ceil(photos));
        why.push(("epochs", format!("{photos} photos, each seen often enough")));
        // Random crops show things larger than the middle of a photo does: on smaller pictures they have the size that
        // they have when the model is used (Touvron et al. 2019, "Fixing the train-test resolution discrepancy").
        let small_size = (from.input_size * 6 / 7)
            .next_multiple_of(32)
            .min(from.input_size);
        if few {
            why.push((
                "batch_norm",
                format!("fewer than {FEW_PHOTOS} photos: too few to learn statistics anew"),
            ));
        }
        let uneven = from.largest_class > UNEVEN * from.smallest_class;
        if uneven {
            let (least, most) = (from.smallest_class, from.largest_class);
            why.push((
                "logit_adjustment",
                format!("labels of {least} to {most} photos: the rarest would hardly be named"),
            ));
        }
        let plan = Plan {
            epochs,
            small_share: small,
            small_size,
            train_batch_size: batch,
            optimizer: Rule::AdamW,
            learning_rate: if few { 1e-4 } else { 3e-4 },
            head_rate: 3.0,
            first_layer_rate: if few { 0.1 } else { 1.0 },
            warm_up: 0.05,
            weight_decay: 0.02,
            label_smoothing: 0.1,
            drop_path: 0.2,
            dropout: 0.2,
            ema: 0.999,
            batch_norm: if few {
                BatchStatistics::Running
            } else {
                BatchStatistics::Batch
            },
            frozen: if recipe == Recipe::Fast || few {
                0.3
            } else {
                0.0
            },
            smallest_crop: if best { 0.25 } else { 0.35 },
            operations_per_photo: if best { 2 } else { 1 },
            magnitude: if best { 0.4 } else { 0.2 },
            erasing: if best { 0.1 } else { 0.0 },
            mixing: if best { 0.3 } else { 0.0 },
            mixup: if best { 0.2 } else { 0.0 },
            cutmix: if best { 1.0 } else { 0.0 },
            frequency_power: 1.0,
            logit_adjustment: if uneven { 1.0 } else { 0.0 },
            patience: epochs.div_ceil(2),
        };
        (plan, why)
    }

    /// Puts `value` in the place of the setting `name`, as typed by a user.
    ///
    /// # Errors
    /// No such setting, or a value that it can't have.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let mut fields = self.fields()?;
        let field = fields
            .get_mut(name)
            .with_context(|| format!("fine-tuning has no setting `{name}`"))
            .map_err(|error| error.hint(format!("its settings are {}", self.names())))?;
        let typed = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        *field = typed;
        *self = serde_json::from_value(fields.into())
            .with_context(|| format!("`{value}` is no value for the setting `{name}`"))?;
        Ok(())
    }

    /// Checks what types alone do not.
    ///
    /// # Errors
    /// A value outside its range.
    pub fn validate(&self) -> Result<()> {
        let ranges = [
            ("epochs", self.epochs as f64, 1.0, 1e6),
            (
                "train_batch_size",
                self.train_batch_size as f64,
                2.0,
                4096.0,
            ),
            ("small_share", self.small_share, 0.0, 1.0),
            ("small_size", self.small_size as f64, 32.0, 1024.0),
            ("learning_rate", self.learning_rate, 0.0, 10.0),
            ("first_layer_rate", self.first_layer_rate, 1e-6, 1.0),
            ("head_rate", self.head_rate, 0.0, 1e3),
            ("warm_up", self.warm_up, 0.0, 0.99),
            ("weight_decay", self.weight_decay, 0.0, 10.0),
            ("label_smoothing", self.label_smoothing, 0.0, 0.99),
            ("drop_path", self.drop_path, 0.0, 0.9),
            ("dropout", self.dropout, 0.0, 0.9),
            ("ema", self.ema, 0.0, 1.0),
            ("frozen", self.frozen, 0.0, 1.0),
            ("logit_adjustment", self.logit_adjustment, 0.0, 2.0),
        ];
        for (name, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err(Error::new(format!(
                    "{name} of {value}; from {least} to {most} is possible"
                )));
            }
        }
        self.augmentation().validate()
    }

    /// Records every setting; `given` says which the user chose, `why` has reasons for others.
    ///
    /// # Errors
    /// Never for a plan; the writer does not promise it.
    pub fn record(
        &self,
        settings: &mut Settings,
        given: &dyn Fn(&str) -> bool,
        why: &[(&'static str, String)],
    ) -> Result<()> {
        for name in self.fields()?.keys() {
            self.record_one(name, settings, given, why)?;
        }
        Ok(())
    }

    /// Records the setting `name` alone, as [`Plan::record`] does.
    ///
    /// # Errors
    /// No such setting.
    pub fn record_one(
        &self,
        name: &str,
        settings: &mut Settings,
        given: &dyn Fn(&str) -> bool,
        why: &[(&'static str, String)],
    ) -> Result<()> {
        let fields = self.fields()?;
        let value = fields
            .get(name)
            .with_context(|| format!("fine-tuning has no setting `{name}`"))?;
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        let reason = why
            .iter()
            .find(|(of, _)| *of == name)
            .map(|(_, why)| why.as_str());
        if given(name) {
            settings.set(name, value, ChosenBy::User, "given on the command line");
        } else if let Some(reason) = reason {
            settings.set(name, value, ChosenBy::Graft, reason);
        } else {
            settings.set(name, value, ChosenBy::Default, "of the recipe");
        }
        Ok(())
    }

    /// The plan that [`Plan::record`] wrote, `None` where a setting is missing.
    pub fn recorded(&self, settings: &Settings) -> Option<Plan> {
        let mut plan = self.clone();
        for name in self.fields().ok()?.keys() {
            plan.set(name, settings.value(name)?).ok()?;
        }
        Some(plan)
    }

    /// The names of all settings.
    pub fn names(&self) -> String {
        let names: Vec<String> = self
            .fields()
            .map_or_else(|_| Vec::new(), |fields| fields.keys().cloned().collect());
        names.join(", ")
    }

    fn fields(&self) -> Result<serde_json::Map<String, serde_json::Value>> {
        match serde_json::to_value(self).context("can't write a plan")? {
            serde_json::Value::Object(fields) => Ok(fields),
            _ => Err(Error::new("a plan is no table")),
        }
    }

    /// What happens to the photos.
    pub(super) fn augmentation(&self) -> Augmentation {
        Augmentation {
            smallest_crop: self.smallest_crop as f32,
            operations_per_photo: self.operations_per_photo,
            magnitude: self.magnitude as f32,
            erasing: self.erasing as f32,
            mixing: self.mixing as f32,
            mixup: self.mixup as f32,
            cutmix: self.cutmix as f32,
            ..Augmentation::light()
        }
    }

    /// Epochs with small pictures: the last one never is.
    pub(super) fn small_epochs(&self) -> usize {
        let last = self.epochs.saturating_sub(1);
        ((self.epochs as f64 * self.small_share) as usize).min(last)
    }

    /// Side of the pictures in `epoch`, in pixels.
    pub(super) fn size(&self, epoch: usize, input_size: usize) -> usize {
        if epoch < self.small_epochs() {
            self.small_size
        } else {
            input_size
        }
    }

    /// Factor on the learning rates at `progress` from 0 to 1 of all steps: a line up, then half a cosine down.
    pub(super) fn rate(&self, progress: f64) -> f64 {
        if progress < self.warm_up {
            progress / self.warm_up
        } else {
            let fallen = (progress - self.warm_up) / (1.0 - self.warm_up).max(1e-9);
            0.5 * (1.0 + (std::f64::consts::PI * fallen.min(1.0)).cos())
        }
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "fine-tuning: {} epochs, the first {} at {} px, {} photos a step, learning rate {}",
            self.epochs,
            self.small_epochs(),
            self.small_size,
            self.train_batch_size,
            self.learning_rate
        )
    }
}
