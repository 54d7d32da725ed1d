//! Which layers get by with weights of seven bits: on processors without a dot product instruction they run faster.

use std::fmt;

use graft_engine::Engine;
use graft_shared::error::Result;
use graft_shared::preprocess::Pixels;
use rayon::prelude::*;

use crate::quantize::{QuantizedGraph, QuantizedOp};

/// Share of the judged images that seven bits may get wrong beyond what eight bits do.
const TOLERANCE: f64 = 0.002;
/// Images on which the harm of each layer is measured by itself.
const IMAGES_PER_LAYER: usize = 32;

/// How many bits weights have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum WeightBits {
    /// Seven where that costs no accuracy.
    #[default]
    Auto,
    /// Eight everywhere.
    #[value(name = "8")]
    Eight,
    /// Seven in every dense convolution.
    #[value(name = "7")]
    Seven,
}

/// Images that decide, with their classes.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    /// Preprocessed.
    pub images: &'a [Pixels],
    /// The class of each.
    pub classes: &'a [usize],
}

/// What was chosen.
#[derive(Debug)]
pub struct Choice {
    /// The graph.
    pub graph: QuantizedGraph,
    /// Layers of seven bits.
    pub seven: usize,
    /// Layers that might have had them.
    pub of: usize,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Choice { seven, of, .. } = self;
        write!(
            f,
            "weights of seven bits in {seven} of {of} dense convolutions"
        )
    }
}

impl Choice {
    /// Bits of the weights in the card: seven where every layer that might has them.
    #[must_use]
    pub fn bits(&self) -> u8 {
        if self.of > 0 && self.seven == self.of {
            7
        } else {
            8
        }
    }
}

/// Takes as many layers from `seven` in place of those of `eight` as the engine's accuracy on the `judged` images allows:
/// all of them, or the ones that by themselves move the logits least. `harm` is how far a model's logits are off on some
/// images, `engine` makes a graph ready.
///
/// # Errors
/// When the engine fails.
pub fn choose(
    eight: QuantizedGraph,
    seven: &QuantizedGraph,
    judged: Judged,
    engine: &dyn Fn(&QuantizedGraph) -> Result<Engine>,
    harm: &dyn Fn(&Engine, usize) -> Result<f64>,
) -> Result<Choice> {
    let mut layers: Vec<usize> = dense(&eight).collect();
    let of = layers.len();
    let least = (right(&engine(&eight)?, judged)? as f64 - TOLERANCE * judged.images.len() as f64)
        .ceil() as usize;
    let enough = |layers: &[usize]| -> Result<bool> {
        Ok(right(&engine(&mixed(&eight, seven, layers))?, judged)? >= least)
    };
    let mut kept = of;
    if !enough(&layers)? {
        let mut by_harm = layers
            .iter()
            .map(|&layer| {
                let engine = engine(&mixed(&eight, seven, &[layer]))?;
                Ok((harm(&engine, IMAGES_PER_LAYER)?, layer))
            })
            .collect::<Result<Vec<_>>>()?;
        by_harm.sort_by(|a, b| a.0.total_cmp(&b.0));
        layers = by_harm.into_iter().map(|(_, layer)| layer).collect();
        // The largest number of harmless layers that is still right often enough.
        kept = 0;
        let mut too_many = of;
        while kept + 1 < too_many {
            let middle = kept.midpoint(too_many);
            if enough(&layers[..middle])? {
                kept = middle;
            } else {
                too_many = middle;
            }
        }
    }
    Ok(Choice {
        graph: mixed(&eight, seven, &layers[..kept]),
        seven: kept,
        of,
    })
}

/// The dense convolutions.
pub fn dense(graph: &QuantizedGraph) -> impl Iterator<Item = usize> {
    let is_dense = |op: &QuantizedOp| matches!(op, QuantizedOp::Conv { groups: 1, .. });
    let nodes = graph.nodes.iter().enumerate();
    nodes
        .filter(move |(_, node)| is_dense(&node.op))
        .map(|(index, _)| index)
}

/// `eight` with the `layers` of `seven`: a layer's rounding depends on no other's.
fn mixed(eight: &QuantizedGraph, seven: &QuantizedGraph, layers: &[usize]) -> QuantizedGraph {
    let mut graph = eight.clone();
    for &layer in layers {
        graph.nodes[layer] = seven.nodes[layer].clone();
    }
    graph
}

/// Images whose class has the highest logit.
fn right(engine: &Engine, judged: Judged) -> Result<usize> {
    let hits = judged
        .images
        .par_iter()
        .zip(judged.classes)
        .map(|(image, class)| {
            Ok(usize::from(
                engine.classify_pixels(image)?.best().0 == *class,
            ))
        })
        .collect::<Result<Vec<usize>>>()?;
    Ok(hits.iter().sum())
}
