//! The optimizers of fine-tuning: AdamW and stochastic gradient descent with momentum, state and all.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::nn::{Gradients, Parameter, Role};

/// Exponential decay of the gradients' mean and square, and what keeps the division finite: the values of Kingma and Ba 2015.
const BETAS: (f64, f64) = (0.9, 0.999);
const EPSILON: f64 = 1e-8;
/// Of stochastic gradient descent.
const MOMENTUM: f64 = 0.9;

/// Which rule moves the parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).
    AdamW,
    /// Gradient descent with momentum as PyTorch has it: `v = 0.9 v + g`, `p -= rate * v`.
    Sgd,
}

/// A rule with its state.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Optimizer {
    pub(super) rule: Rule,
    weight_decay: f64,
    /// Steps taken.
    pub(super) steps: u64,
    /// Mean of the gradients, or the velocity, for each parameter.
    pub(super) first: Vec<Vec<f32>>,
    /// Mean of their squares; empty lists for [`Rule::Sgd`].
    pub(super) second: Vec<Vec<f32>>,
}

impl Optimizer {
    /// At rest. `weight_decay` touches [`Role::Weight`] only.
    pub(super) fn new(rule: Rule, weight_decay: f64, parameters: &[Parameter]) -> Optimizer {
        let zeros = |parameter: &Parameter| vec![0.0; parameter.values.len()];
        Optimizer {
            rule,
            weight_decay,
            steps: 0,
            first: parameters.iter().map(zeros).collect(),
            second: match rule {
                Rule::AdamW => parameters.iter().map(zeros).collect(),
                Rule::Sgd => vec![Vec::new(); parameters.len()],
            },
        }
    }

    /// Counts a step; returns what AdamW divides its two means by.
    pub(super) fn begin(&mut self) -> (f64, f64) {
        self.steps += 1;
        let steps = self.steps.min(i32::MAX as u64) as i32;
        (1.0 - BETAS.0.powi(steps), 1.0 - BETAS.1.powi(steps))
    }

    /// The weight decay of a parameter.
    pub(super) fn decay(&self, role: Role) -> f64 {
        match role {
            Role::Weight => self.weight_decay,
            Role::Bias | Role::Norm => 0.0,
        }
    }

    /// One step; `rates` are the learning rates of the parameters, those of rate 0 stay as they are.
    pub(super) fn step(
        &mut self,
        parameters: &mut [Parameter],
        gradients: &Gradients,
        rates: &[f64],
    ) {
        let corrections = self.begin();
        let rule = self.rule;
        let decays: Vec<f64> = parameters
            .iter()
            .map(|parameter| self.decay(parameter.role))
            .collect();
        parameters
            .par_iter_mut()
            .zip(gradients)
            .zip(rates.par_iter().zip(decays))
            .zip(self.first.par_iter_mut().zip(&mut self.second))
            .for_each(
                |(((parameter, gradients), (&rate, decay)), (first, second))| {
                    if rate == 0.0 {
                        return;
                    }
                    match rule {
                        Rule::AdamW => {
                            let keep = (1.0 - rate * decay) as f32;
                            let step = (rate / corrections.0) as f32;
                            let root = corrections.1.sqrt().recip() as f32;
                            adam(
                                &mut parameter.values,
                                gradients,
                                first,
                                second,
                                (keep, step, root),
                            );
                        }
                        Rule::Sgd => {
                            let (rate, decay) = (rate as f32, decay as f32);
                            for ((value, &gradient), velocity) in
                                parameter.values.iter_mut().zip(gradients).zip(first)
                            {
                                *velocity = MOMENTUM as f32 * *velocity + gradient + decay * *value;
                                *value -= rate * *velocity;
                            }
                        }
                    }
                },
            );
    }
}

/// `keep` is what decay leaves of a value, `step` the rate over the first correction, `root` the inverse root of the second.
fn adam(
    values: &mut [f32],
    gradients: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    (keep, step, root): (f32, f32, f32),
) {
    let betas = (BETAS.0 as f32, BETAS.1 as f32);
    let states = first.iter_mut().zip(second);
    for ((value, &gradient), (first, second)) in values.iter_mut().zip(gradients).zip(states) {
        *first = betas.0 * *first + (1.0 - betas.0) * gradient;
        *second = betas.1 * *second + (1.0 - betas.1) * gradient * gradient;
        *value = keep * *value - step * *first / (second.sqrt() * root + EPSILON as f32);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parameter(values: &[f32], role: Role) -> Parameter {
        Parameter {
            name: String::new(),
            shape: vec![values.len()],
            values: values.to_vec(),
            role,
        }
    }

    /// Values that PyTorch's `AdamW(lr=0.1, weight_decay=0.5)` and `SGD(lr=0.1, momentum=0.9, weight_decay=0.5)` give in
    /// three steps from `[1, -2]` with gradients `[0.5, -0.1]`, `[0.25, 0.2]`, `[-1, 0.3]`.
    #[test]
    fn equals_pytorch_over_three_steps() {
        for (rule, expected) in [
            (Rule::AdamW, [0.699_203_7_f32, -1.727_415_6]),
            (Rule::Sgd, [0.659, -1.504_525]),
        ] {
            let mut parameters = vec![parameter(&[1.0, -2.0], Role::Weight)];
            let mut optimizer = Optimizer::new(rule, 0.5, &parameters);
            for gradient in [[0.5, -0.1], [0.25, 0.2], [-1.0, 0.3]] {
                optimizer.step(&mut parameters, &vec![gradient.to_vec()], &[0.1]);
            }
            for (value, expected) in parameters[0].values.iter().zip(expected) {
                assert!(
                    (value - expected).abs() < 1e-5,
                    "{rule:?}: {value}, not {expected}"
                );
            }
        }
    }

    #[test]
    fn decay_is_for_weights_and_a_rate_of_zero_leaves_all() {
        let mut parameters = vec![
            parameter(&[1.0], Role::Weight),
            parameter(&[1.0], Role::Norm),
            parameter(&[1.0], Role::Weight),
        ];
        let mut optimizer = Optimizer::new(Rule::AdamW, 0.5, &parameters);
        optimizer.step(&mut parameters, &vec![vec![0.0]; 3], &[0.1, 0.1, 0.0]);
        let values: Vec<f32> = parameters
            .iter()
            .map(|parameter| parameter.values[0])
            .collect();
        assert_eq!(values, [0.95, 1.0, 1.0]);
    }
}
