//! L-BFGS: minimises a smooth function of many variables from its value and gradient.
//!
//! Nocedal and Wright, *Numerical Optimization*, 2nd edition: algorithm 7.4 (two-loop recursion), 7.5 (L-BFGS) and
//! section 3.1 (sufficient decrease). Steps whose curvature is not positive are left out of the history, so the
//! inverse Hessian stays positive definite under backtracking.

use std::collections::VecDeque;

/// Number of (step, gradient change) pairs kept.
const HISTORY: usize = 12;
/// Sufficient decrease of Armijo's condition, as a fraction of the linear prediction.
const SUFFICIENT_DECREASE: f64 = 1e-4;
/// Halvings of a step before the search gives up: the function is then flat to rounding.
const MAX_HALVINGS: usize = 20;

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Largest gradient entry, relative to its value at the start, at which the minimum counts as found.
    pub gradient: f64,
    /// Relative decrease of the loss over five iterations below which the minimum counts as found.
    pub decrease: f64,
    /// Iterations after which the search ends unconverged.
    pub max_iterations: usize,
}

/// Where the search ended.
#[derive(Debug)]
pub struct Minimum {
    /// The variables.
    pub variables: Vec<f32>,
    /// The function's value there.
    pub loss: f64,
    /// Iterations taken.
    pub iterations: usize,
    /// Whether a tolerance was reached before `max_iterations`.
    pub converged: bool,
}

/// Minimises `objective`, which returns value and gradient, from `start`.
///
/// # Errors
/// What `objective` returns. A loss that is not finite at the start ends the search there, unconverged.
pub fn minimize<E>(
    start: Vec<f32>,
    tolerance: Tolerance,
    mut objective: impl FnMut(&[f32]) -> Result<(f64, Vec<f32>), E>,
) -> Result<Minimum, E> {
    let mut variables = start;
    let (mut loss, mut gradient) = objective(&variables)?;
    if !loss.is_finite() {
        return Ok(Minimum {
            variables,
            loss,
            iterations: 0,
            converged: false,
        });
    }
    let gradient_goal = tolerance.gradient * largest(&gradient).max(1e-12);
    let mut history = VecDeque::with_capacity(HISTORY);
    let mut losses = vec![loss];
    for iteration in 1..=tolerance.max_iterations {
        let direction = descent_direction(&gradient, &history);
        let slope = dot(&gradient, &direction);
        let mut step = if history.is_empty() {
            1.0 / norm(&gradient).max(1.0)
        } else {
            1.0
        };
        let mut accepted = None;
        for _ in 0..MAX_HALVINGS {
            let candidate: Vec<f32> = variables
                .iter()
                .zip(&direction)
                .map(|(x, d)| (f64::from(*x) + step * f64::from(*d)) as f32)
                .collect();
            let (value, slope_there) = objective(&candidate)?;
            if value.is_finite() && value <= loss + SUFFICIENT_DECREASE * step * slope {
                accepted = Some((candidate, value, slope_there));
                break;
            }
            step *= 0.5;
        }
        let Some((next, value, next_gradient)) = accepted else {
            return Ok(Minimum {
                variables,
                loss,
                iterations: iteration,
                converged: true,
            });
        };
        remember(
            &mut history,
            difference(&next, &variables),
            difference(&next_gradient, &gradient),
        );
        (variables, loss, gradient) = (next, value, next_gradient);
        losses.push(loss);
        let earlier = losses[losses.len().saturating_sub(6)];
        let flat = iteration >= 5 && earlier - loss <= tolerance.decrease * loss.abs().max(1e-12);
        if flat || largest(&gradient) <= gradient_goal {
            return Ok(Minimum {
                variables,
                loss,
                iterations: iteration,
                converged: true,
            });
        }
    }
    Ok(Minimum {
        variables,
        loss,
        iterations: tolerance.max_iterations,
        converged: false,
    })
}

/// One pair of the history: the step taken, the change of the gradient along it, and their product's inverse.
struct Pair {
    step: Vec<f32>,
    change: Vec<f32>,
    inverse_curvature: f64,
}

fn remember(history: &mut VecDeque<Pair>, step: Vec<f32>, change: Vec<f32>) {
    let curvature = dot(&step, &change);
    if curvature <= 1e-10 * norm(&step) * norm(&change) {
        return;
    }
    if history.len() == HISTORY {
        history.pop_front();
    }
    history.push_back(Pair {
        step,
        change,
        inverse_curvature: 1.0 / curvature,
    });
}

/// The two-loop recursion: minus the approximate inverse Hessian times the gradient.
fn descent_direction(gradient: &[f32], history: &VecDeque<Pair>) -> Vec<f32> {
    let mut direction: Vec<f32> = gradient.iter().map(|g| -g).collect();
    let mut weights = Vec::with_capacity(history.len());
    for pair in history.iter().rev() {
        let weight = pair.inverse_curvature * dot(&pair.step, &direction);
        add_scaled(&mut direction, -weight, &pair.change);
        weights.push(weight);
    }
    if let Some(newest) = history.back() {
        let scale = 1.0 / (newest.inverse_curvature * dot(&newest.change, &newest.change));
        direction
            .iter_mut()
            .for_each(|d| *d = (f64::from(*d) * scale) as f32);
    }
    for (pair, weight) in history.iter().zip(weights.iter().rev()) {
        let correction = weight - pair.inverse_curvature * dot(&pair.change, &direction);
        add_scaled(&mut direction, correction, &pair.step);
    }
    direction
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(x, y)| f64::from(*x) * f64::from(*y))
        .sum()
}

fn norm(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}

fn largest(a: &[f32]) -> f64 {
    a.iter()
        .fold(0.0f64, |most, x| most.max(f64::from(x.abs())))
}

fn difference(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(x, y)| x - y).collect()
}

fn add_scaled(target: &mut [f32], scale: f64, by: &[f32]) {
    for (t, b) in target.iter_mut().zip(by) {
        *t = (f64::from(*t) + scale * f64::from(*b)) as f32;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn finds_the_minimum_of_rosenbrock() {
        let tolerance = Tolerance {
            gradient: 1e-7,
            decrease: 1e-12,
            max_iterations: 500,
        };
        let minimum = minimize(vec![-1.2, 1.0], tolerance, |v| {
            let (x, y) = (f64::from(v[0]), f64::from(v[1]));
            let value = (1.0 - x).powi(2) + 100.0 * (y - x * x).powi(2);
            let gradient = vec![
                (-2.0 * (1.0 - x) - 400.0 * x * (y - x * x)) as f32,
                (200.0 * (y - x * x)) as f32,
            ];
            Ok::<_, ()>((value, gradient))
        })
        .unwrap();
        assert!(
            (minimum.variables[0] - 1.0).abs() < 1e-2 && (minimum.variables[1] - 1.0).abs() < 2e-2,
            "{minimum:?}"
        );
    }

    #[test]
    fn a_loss_that_is_not_finite_ends_unconverged() {
        let tolerance = Tolerance {
            gradient: 1e-6,
            decrease: 1e-9,
            max_iterations: 5,
        };
        let minimum =
            minimize(vec![0.0], tolerance, |_| Ok::<_, ()>((f64::NAN, vec![0.0]))).unwrap();
        assert!(!minimum.converged);
    }
}
