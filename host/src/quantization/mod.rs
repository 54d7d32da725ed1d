//! How a network is quantized: what is tried, and what the device's engine says of each try.
//!
//! | module | duty |
//! |---|---|
//! | `record` | what came out |

mod record;

use std::sync::Arc;

use candle_core::Tensor;
use graft_engine::Engine;
use graft_shared::error::{Context, Result};
use graft_shared::preprocess::Pixels;
use rayon::prelude::*;

use self::record::share;
pub use self::record::{Layer, Quantized, Summary};
use crate::nn::{Graph, Node};
use crate::progress::Progress;
use crate::quantize::{
    Calibration, Equalized, Feedback, Method, PixelCode, QuantizedGraph, Sqnr, equalize, has_range,
    quantize,
};
use crate::weight_bits::{self, Judged, WeightBits};

/// Strengths of equalization that are tried.
const STRENGTHS: [f32; 2] = [0.5, 1.0];
/// Images on which the range of one layer is tried.
const IMAGES_PER_RANGE: usize = 48;
/// Layers whose range is tried by itself: the noisiest ones.
const LAYERS: usize = 8;
/// Images on which the noise of every layer is measured.
const IMAGES_PER_LAYER: usize = 16;

/// A network with what is needed to try ways to quantize it.
pub struct Quantizer<'a> {
    /// Folded.
    pub graph: &'a Graph,
    /// What was seen of its activations.
    pub seen: &'a Calibration,
    /// How the pixels come in.
    pub input: PixelCode,
    /// Makes the device's engine for a quantized graph.
    pub engine: &'a dyn Fn(&QuantizedGraph) -> Result<Engine>,
    /// Images that the tries are compared on.
    pub comparison: &'a [Pixels],
    /// The float graph's logits on them.
    pub float: &'a [Vec<f32>],
    /// Pictures as the float graph's input.
    pub normalise: &'a dyn Fn(&[Pixels]) -> Result<Tensor>,
}

/// A way to quantize.
#[derive(Clone)]
struct Way {
    strength: Option<f32>,
    equalized: Equalized,
    seen: Calibration,
    methods: Vec<Method>,
    feedback: Option<Arc<Feedback>>,
    loss: f64,
}

impl Quantizer<'_> {
    /// Picks channels' factors, then ranges, then bits of weights. Each step is taken only where the engine's logits on the
    /// comparison images come nearer to the float graph's by it, or, for bits, by its accuracy on the `judged` images.
    ///
    /// # Errors
    /// When an activation or weight can't be quantized, or the engine fails.
    pub fn run(
        &self,
        judged: Judged,
        weight_bits: WeightBits,
        progress: &Progress,
    ) -> Result<Quantized> {
        let plain = self.best_method(None)?;
        progress.say(&format!(
            "ranges by {}: {} lost",
            plain.methods.first().map_or("", |method| method.name()),
            share(plain.loss)
        ));
        let scaled = STRENGTHS
            .iter()
            .map(|strength| self.best_method(Some(*strength)))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .min_by(|a, b| a.loss.total_cmp(&b.loss))
            .context("no strength of equalization was tried")?;
        progress.say(&format!("channels equalized: {} lost", share(scaled.loss)));
        let kept = if scaled.loss < plain.loss {
            &scaled
        } else {
            &plain
        };
        let ranged = self.ranges(kept)?;
        progress.say(&format!(
            "ranges layer by layer: {} lost",
            share(ranged.loss)
        ));

        let fed_back = self.feedback(&ranged)?;
        progress.say(&format!(
            "rounding with feedback: {} lost",
            share(fed_back.loss)
        ));
        let best = if fed_back.loss < ranged.loss {
            &fed_back
        } else {
            &ranged
        };

        let eight = self.quantize(best, false)?;
        let seven = self.quantize(best, true)?;
        let of = weight_bits::dense(&eight).count();
        let all = |graph, seven| weight_bits::Choice { graph, seven, of };
        let choice = match weight_bits {
            WeightBits::Eight => all(eight, 0),
            WeightBits::Seven => all(seven, of),
            WeightBits::Auto => {
                let harm = |engine: &Engine, images| self.loss(engine, images);
                weight_bits::choose(eight, &seven, judged, self.engine, &harm)?
            }
        };
        progress.say(&choice.to_string());
        let loss = self.loss(&(self.engine)(&choice.graph)?, usize::MAX)?;

        let tries = [
            (self.quantize(&plain, false)?, &plain.equalized),
            (self.quantize(&scaled, false)?, &scaled.equalized),
            (self.quantize(&ranged, false)?, &ranged.equalized),
            (self.quantize(&fed_back, false)?, &fed_back.equalized),
            (choice.graph.clone(), &best.equalized),
        ];
        let noise = self.noise(&tries)?;
        let layers = self.layers(best, &choice.graph, &noise);
        let summary = self.summary([&plain, &scaled, &ranged, &fed_back], loss, &layers)?;
        progress.say(&summary.to_text());
        Ok(Quantized {
            graph: choice.graph.clone(),
            weight_bits: choice,
            layers,
            summary,
        })
    }

    /// The method that loses least when it picks all ranges.
    fn best_method(&self, strength: Option<f32>) -> Result<Way> {
        let equalized = match strength {
            Some(strength) => equalize(self.graph, self.seen, strength)?,
            None => Equalized::untouched(self.graph),
        };
        let mut way = Way {
            strength,
            seen: self.seen.scaled(&equalized.factors),
            equalized,
            methods: Vec::new(),
            feedback: None,
            loss: f64::INFINITY,
        };
        for method in Method::ALL {
            let methods = vec![method; self.graph.nodes.len()];
            let tried = Way {
                methods,
                ..way.clone()
            };
            let loss = self.loss_of(&tried, usize::MAX)?;
            if loss < way.loss || way.methods.is_empty() {
                way = Way { loss, ..tried };
            }
        }
        Ok(way)
    }

    /// `way` with another method where that loses less, the noisiest layers first.
    fn ranges(&self, way: &Way) -> Result<Way> {
        let graph = self.quantize(way, false)?;
        let noise = self.noise(&[(graph, &way.equalized)])?;
        let mut order: Vec<(f64, usize)> = noise
            .iter()
            .enumerate()
            .filter(|(index, _)| has_range(self.graph, *index))
            .filter_map(|(index, of)| Some((of.as_ref()?.first()?.decibels(), index)))
            .collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        order.truncate(LAYERS);
        let order: Vec<usize> = order.into_iter().map(|(_, index)| index).collect();
        let same = |a: &[Method], b: &[Method], index: usize| {
            way.seen.range(index, a[index], EVERYTHING)
                == way.seen.range(index, b[index], EVERYTHING)
        };
        let tried = |methods: &[Method], images: usize| {
            let methods = methods.to_vec();
            self.loss_of(
                &Way {
                    methods,
                    ..way.clone()
                },
                images,
            )
        };
        let (methods, loss) = layer_by_layer(&way.methods, way.loss, &order, &same, &tried)?;
        Ok(Way {
            methods,
            loss,
            ..way.clone()
        })
    }

    /// `way` with weights rounded with regard to each other.
    fn feedback(&self, way: &Way) -> Result<Way> {
        let inputs = |node: usize| self.graph.nodes[node].inputs.first().copied().unwrap_or(0);
        let feedback = Feedback::new(self.seen, &way.equalized.factors, &inputs);
        let mut way = Way {
            feedback: Some(Arc::new(feedback)),
            ..way.clone()
        };
        way.loss = self.loss_of(&way, usize::MAX)?;
        Ok(way)
    }

    fn quantize(&self, way: &Way, seven_bits: bool) -> Result<QuantizedGraph> {
        let Way {
            equalized,
            seen,
            methods,
            feedback,
            ..
        } = way;
        let (graph, feedback) = (&equalized.graph, feedback.as_deref());
        quantize(graph, seen, methods, self.input, seven_bits, feedback)
    }

    fn loss_of(&self, way: &Way, images: usize) -> Result<f64> {
        self.loss(&(self.engine)(&self.quantize(way, false)?)?, images)
    }

    fn loss(&self, engine: &Engine, images: usize) -> Result<f64> {
        let images = images.min(self.comparison.len());
        distance(engine, &self.comparison[..images], self.float)
    }

    /// The noise of each node in each of the `tries`; none for nodes that are no operator of the engine's.
    fn noise(&self, tries: &[(QuantizedGraph, &Equalized)]) -> Result<Vec<Option<Vec<Sqnr>>>> {
        let engines = tries
            .iter()
            .map(|(graph, _)| (self.engine)(graph))
            .collect::<Result<Vec<_>>>()?;
        let mut noise: Vec<Option<Vec<Sqnr>>> = vec![None; self.graph.nodes.len()];
        for picture in self.comparison.iter().take(IMAGES_PER_LAYER) {
            let made = engines
                .iter()
                .map(|engine| engine.activations(picture))
                .collect::<Result<Vec<_>>>()?;
            let input = (self.normalise)(std::slice::from_ref(picture))?;
            let logits = self.graph.forward(&input, &mut |index, activation| {
                let name = &self.graph.nodes[index].name;
                for (number, (graph, equalized)) in tries.iter().enumerate() {
                    let pooled = format!("{name}.nchw");
                    let bytes = made[number]
                        .iter()
                        .find(|(of, _)| of == name || *of == pooled);
                    if let Some((_, bytes)) = bytes {
                        let of =
                            noise[index].get_or_insert_with(|| vec![Sqnr::default(); tries.len()]);
                        let code = graph.nodes[index].output;
                        of[number].add_activation(
                            activation,
                            bytes,
                            code,
                            &equalized.factors[index],
                        )?;
                    }
                }
                Ok(())
            })?;
            let logits = logits.flatten_all().and_then(|flat| flat.to_vec1::<f32>());
            let logits = logits.context("the float logits")?;
            if let Some(last) = noise.last_mut() {
                let of = last.get_or_insert_with(|| vec![Sqnr::default(); tries.len()]);
                for (engine, of) in engines.iter().zip(of) {
                    for (value, got) in logits.iter().zip(engine.logits(picture)?) {
                        of.add(f64::from(*value), f64::from(got));
                    }
                }
            }
        }
        Ok(noise)
    }

    fn layers(&self, way: &Way, graph: &QuantizedGraph, noise: &[Option<Vec<Sqnr>>]) -> Vec<Layer> {
        let nodes = self.graph.nodes.iter().enumerate();
        let layer = |(index, node): (usize, &Node)| {
            let &[before, equalized, ranges, feedback, after] = noise[index].as_deref()? else {
                return None;
            };
            Some(Layer {
                name: node.name.clone(),
                range: has_range(self.graph, index).then(|| way.methods[index]),
                factor: way.equalized.factors[index]
                    .iter()
                    .copied()
                    .fold(1.0, f32::max),
                bits: graph.nodes[index].op.weight_bits(),
                before,
                equalized,
                ranges,
                feedback,
                after,
            })
        };
        nodes.filter_map(layer).collect()
    }

    fn summary(&self, ways: [&Way; 4], loss: f64, layers: &[Layer]) -> Result<Summary> {
        let [plain, scaled, ranged, fed_back] = ways;
        let kept = if scaled.loss < plain.loss {
            scaled
        } else {
            plain
        };
        let common = kept.methods.first().context("the graph has no nodes")?;
        let own_ranges = (kept.methods.iter().zip(&ranged.methods))
            .filter(|(a, b)| a != b)
            .count();
        let range = match own_ranges {
            0 => common.name().to_owned(),
            others => format!("{}, others for {others} layers", common.name()),
        };
        let noisiest = layers
            .iter()
            .min_by(|a, b| a.after.decibels().total_cmp(&b.after.decibels()))
            .context("no layer was measured")?;
        let logits = layers.last().context("no layer was measured")?;
        Ok(Summary {
            range,
            equalization: kept.strength,
            own_ranges,
            loss_before: plain.loss,
            loss_equalized: scaled.loss,
            loss_ranges: ranged.loss,
            loss_feedback: fed_back.loss,
            feedback: fed_back.loss < ranged.loss,
            loss,
            sqnr_logits: logits.after.decibels(),
            noisiest: noisiest.name.clone(),
            sqnr_noisiest: noisiest.after.decibels(),
        })
    }
}

/// Bounds that bound nothing.
const EVERYTHING: (f32, f32) = (f32::NEG_INFINITY, f32::INFINITY);

/// Whether two lists of methods come to the same range of a node.
type Same<'a> = dyn Fn(&[Method], &[Method], usize) -> bool + 'a;

/// Tries for each node of `order` the other methods than its own, and keeps the one that loses least on a few images; at
/// the end all of them or none, by the loss on all images. Nothing is tried where `same(a, b, node)` says that two lists
/// come to the same range.
fn layer_by_layer(
    start: &[Method],
    loss: f64,
    order: &[usize],
    same: &Same<'_>,
    tried: &dyn Fn(&[Method], usize) -> Result<f64>,
) -> Result<(Vec<Method>, f64)> {
    let mut best = start.to_vec();
    let mut least = tried(&best, IMAGES_PER_RANGE)?;
    for &node in order {
        for method in Method::ALL {
            let mut methods = best.clone();
            methods[node] = method;
            if same(&methods, &best, node) {
                continue;
            }
            let loss = tried(&methods, IMAGES_PER_RANGE)?;
            if loss < least {
                (best, least) = (methods, loss);
            }
        }
    }
    let all = tried(&best, usize::MAX)?;
    Ok(if all < loss {
        (best, all)
    } else {
        (start.to_vec(), loss)
    })
}

/// Mean squared distance of the engine's logits from the float graph's, as a share of the float logits' variance over
/// classes.
///
/// # Errors
/// When the engine fails.
pub fn distance(engine: &Engine, comparison: &[Pixels], float: &[Vec<f32>]) -> Result<f64> {
    let sums: Vec<(f64, f64)> = comparison
        .par_iter()
        .zip(float)
        .map(|(pixels, float)| {
            let int8 = engine.logits(pixels)?;
            let mean = float.iter().sum::<f32>() / float.len().max(1) as f32;
            let lost: f64 = int8
                .iter()
                .zip(float)
                .map(|(a, b)| f64::from(a - b).powi(2))
                .sum();
            let spread: f64 = float.iter().map(|b| f64::from(b - mean).powi(2)).sum();
            Ok((lost, spread))
        })
        .collect::<Result<_>>()?;
    let (lost, spread) = sums
        .iter()
        .fold((0.0, 0.0), |total, sum| (total.0 + sum.0, total.1 + sum.1));
    Ok(lost / spread.max(1e-12))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Each node has a loss for each method; on few images they are other ones.
    fn loss_of(methods: &[Method], images: usize, all: &[[f64; 3]], few: &[[f64; 3]]) -> f64 {
        let losses = if images == usize::MAX { all } else { few };
        let number = |method: &Method| Method::ALL.iter().position(|of| of == method).unwrap();
        methods
            .iter()
            .zip(losses)
            .map(|(method, of)| of[number(method)])
            .sum()
    }

    #[test]
    fn ranges_layer_by_layer_never_lose_more_than_one_method_for_all() {
        let all = [[1.0, 2.0, 3.0], [3.0, 1.0, 2.0], [2.0, 3.0, 2.5]];
        let misleading = [[3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [3.0, 1.0, 2.0]];
        let same = |a: &[Method], b: &[Method], node: usize| a[node] == b[node];
        for start in Method::ALL {
            let start = vec![start; 3];
            let before = loss_of(&start, usize::MAX, &all, &all);
            for few in [&all, &misleading] {
                let tried = |methods: &[Method], images| Ok(loss_of(methods, images, &all, few));
                let (methods, loss) =
                    layer_by_layer(&start, before, &[0, 1, 2], &same, &tried).unwrap();
                assert!(loss <= before);
                assert_eq!(loss, loss_of(&methods, usize::MAX, &all, &all));
                if few == &all {
                    use Method::{Extremes, Percentile};
                    assert_eq!(methods, [Extremes, Percentile, Extremes]);
                }
            }
        }
    }
}
