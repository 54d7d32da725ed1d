//! What training changes in a graph: its parameters as plain f32 values, and the running statistics of BatchNorm.

use std::borrow::Cow;
use std::collections::HashMap;

use candle_core::{Device, Tensor};
use graft_shared::error::{Context, Error, Result};
use safetensors::tensor::{Dtype, SafeTensors, View};

use super::{Graph, Op};

/// One parameter, its values in the order of its tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Node and tensor, such as `blocks.3.depthwise.weight`.
    pub name: String,
    /// Shape of the tensor.
    pub shape: Vec<usize>,
    /// The values.
    pub values: Vec<f32>,
    /// What it is for.
    pub role: Role,
}

/// What a parameter is for, and so whether weight decay touches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Multiplies activations: decays.
    Weight,
    /// Added to activations.
    Bias,
    /// Gamma or beta of BatchNorm.
    Norm,
}

/// Running mean and variance of one BatchNorm, `[channels]` each.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// The node that they belong to.
    pub name: String,
    /// Running mean.
    pub mean: Vec<f32>,
    /// Running variance.
    pub variance: Vec<f32>,
}

/// All parameters and running statistics of a graph, in the order of its nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// What is trained.
    pub parameters: Vec<Parameter>,
    /// What follows the batches.
    pub statistics: Vec<Statistics>,
    units: Vec<Unit>,
}

/// Where a node's tensors are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Unit {
    /// The node has none.
    Plain,
    /// A convolution with BatchNorm.
    Normalised {
        weight: usize,
        gamma: usize,
        beta: usize,
        statistics: usize,
        epsilon: f64,
    },
    /// A convolution or linear layer with a bias.
    Biased { weight: usize, bias: usize },
    /// A convolution with neither.
    Bare { weight: usize },
}

impl Unit {
    /// The index of the weight.
    pub(super) fn weight(self) -> Option<usize> {
        match self {
            Unit::Plain => None,
            Unit::Normalised { weight, .. }
            | Unit::Biased { weight, .. }
            | Unit::Bare { weight } => Some(weight),
        }
    }
}

impl Weights {
    /// The tensors of `graph`.
    ///
    /// # Errors
    /// A convolution with both bias and BatchNorm, and tensors that are not f32.
    pub fn of(graph: &Graph) -> Result<Weights> {
        let mut weights = Weights {
            parameters: Vec::new(),
            statistics: Vec::new(),
            units: Vec::with_capacity(graph.nodes.len()),
        };
        for node in &graph.nodes {
            let unit = weights
                .add(&node.name, &node.op)
                .with_context(|| format!("the tensors of `{}`", node.name))?;
            weights.units.push(unit);
        }
        Ok(weights)
    }

    fn add(&mut self, name: &str, op: &Op) -> Result<Unit> {
        match op {
            Op::Conv(conv) => {
                let weight = self.parameter(name, "weight", &conv.weight, Role::Weight)?;
                match (&conv.batch_norm, &conv.bias) {
                    (Some(_), Some(_)) => {
                        Err(Error::new("a bias under BatchNorm can't be trained"))
                    }
                    (Some(norm), None) => {
                        self.statistics.push(Statistics {
                            name: name.to_owned(),
                            mean: values(&norm.mean)?,
                            variance: values(&norm.variance)?,
                        });
                        Ok(Unit::Normalised {
                            weight,
                            gamma: self.parameter(name, "gamma", &norm.weight, Role::Norm)?,
                            beta: self.parameter(name, "beta", &norm.bias, Role::Norm)?,
                            statistics: self.statistics.len() - 1,
                            epsilon: norm.epsilon,
                        })
                    }
                    (None, Some(bias)) => Ok(Unit::Biased {
                        weight,
                        bias: self.parameter(name, "bias", bias, Role::Bias)?,
                    }),
                    (None, None) => Ok(Unit::Bare { weight }),
                }
            }
            Op::Linear(linear) => Ok(Unit::Biased {
                weight: self.parameter(name, "weight", &linear.weight, Role::Weight)?,
                bias: self.parameter(name, "bias", &linear.bias, Role::Bias)?,
            }),
            _ => Ok(Unit::Plain),
        }
    }

    fn parameter(&mut self, node: &str, tensor: &str, from: &Tensor, role: Role) -> Result<usize> {
        self.parameters.push(Parameter {
            name: format!("{node}.{tensor}"),
            shape: from.dims().to_vec(),
            values: values(from)?,
            role,
        });
        Ok(self.parameters.len() - 1)
    }

    /// Where the tensors of node `index` are.
    pub(super) fn unit(&self, index: usize) -> Unit {
        self.units.get(index).copied().unwrap_or(Unit::Plain)
    }

    /// How many parameters the nodes before `node` have.
    pub fn parameters_before(&self, node: usize) -> usize {
        let weights = self
            .units
            .iter()
            .skip(node)
            .filter_map(|unit| unit.weight());
        weights.min().unwrap_or(self.parameters.len())
    }

    /// `graph`, which these weights are [`Weights::of`], with their values in the place of its own.
    ///
    /// # Errors
    /// When the graph is another one.
    pub fn fill(&self, graph: &Graph) -> Result<Graph> {
        let mut graph = graph.clone();
        for (index, node) in graph.nodes.iter_mut().enumerate() {
            let unit = self.unit(index);
            match (&mut node.op, unit) {
                (
                    Op::Conv(conv),
                    Unit::Normalised {
                        weight,
                        gamma,
                        beta,
                        statistics,
                        ..
                    },
                ) => {
                    conv.weight = self.tensor(weight)?;
                    let norm = conv
                        .batch_norm
                        .as_mut()
                        .context("the weights are another graph's")?;
                    norm.weight = self.tensor(gamma)?;
                    norm.bias = self.tensor(beta)?;
                    let statistics = &self.statistics[statistics];
                    norm.mean = tensor(&statistics.mean, &[statistics.mean.len()])?;
                    norm.variance = tensor(&statistics.variance, &[statistics.variance.len()])?;
                }
                (Op::Conv(conv), Unit::Biased { weight, bias }) => {
                    conv.weight = self.tensor(weight)?;
                    conv.bias = Some(self.tensor(bias)?);
                }
                (Op::Conv(conv), Unit::Bare { weight }) => conv.weight = self.tensor(weight)?,
                (Op::Linear(linear), Unit::Biased { weight, bias }) => {
                    linear.weight = self.tensor(weight)?;
                    linear.bias = self.tensor(bias)?;
                }
                (_, Unit::Plain) => {}
                _ => return Err(Error::new("the weights are another graph's")),
            }
        }
        Ok(graph)
    }

    fn tensor(&self, parameter: usize) -> Result<Tensor> {
        let parameter = &self.parameters[parameter];
        tensor(&parameter.values, &parameter.shape)
    }
}

impl Weights {
    /// Every list of values by its name.
    pub fn lists(&self) -> impl Iterator<Item = (String, &[f32])> {
        let parameters = self.parameters.iter();
        let statistics = self.statistics.iter();
        parameters
            .map(|parameter| (parameter.name.clone(), &parameter.values[..]))
            .chain(statistics.flat_map(|of| {
                [
                    (format!("{}.running_mean", of.name), &of.mean[..]),
                    (format!("{}.running_variance", of.name), &of.variance[..]),
                ]
            }))
    }

    /// As [`Weights::lists`], to be filled.
    pub fn lists_mut(&mut self) -> impl Iterator<Item = (String, &mut [f32])> {
        let parameters = self.parameters.iter_mut();
        let statistics = self.statistics.iter_mut();
        parameters
            .map(|parameter| (parameter.name.clone(), &mut parameter.values[..]))
            .chain(statistics.flat_map(|of| {
                [
                    (format!("{}.running_mean", of.name), &mut of.mean[..]),
                    (
                        format!("{}.running_variance", of.name),
                        &mut of.variance[..],
                    ),
                ]
            }))
    }
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor
        .flatten_all()
        .and_then(|flat| flat.to_vec1())
        .context("a parameter that is not f32")
}

fn tensor(values: &[f32], shape: &[usize]) -> Result<Tensor> {
    Tensor::from_slice(values, shape, &Device::Cpu).context("putting a parameter back")
}

/// Lists of values as the bytes of a safetensors file, f32, each with its length for a shape.
///
/// # Errors
/// Two lists of one name.
pub fn write_lists<'a>(
    lists: impl IntoIterator<Item = (String, &'a [f32])>,
    metadata: Option<HashMap<String, String>>,
) -> Result<Vec<u8>> {
    let lists = lists.into_iter().map(|(name, values)| {
        let shape = [values.len()];
        (name, List { shape, values })
    });
    safetensors::serialize(lists, metadata).context("writing tensors")
}

/// Fills lists of values from the bytes that [`write_lists`] made.
///
/// # Errors
/// Bytes that are no safetensors file, and a list that is missing or of another length.
pub fn read_lists<'a>(
    bytes: &[u8],
    lists: impl IntoIterator<Item = (String, &'a mut [f32])>,
) -> Result<()> {
    let tensors = SafeTensors::deserialize(bytes).context("it is no safetensors file")?;
    for (name, values) in lists {
        let tensor = tensors
            .tensor(&name)
            .with_context(|| format!("it has no `{name}`"))?;
        let (numbers, _) = tensor.data().as_chunks::<4>();
        if tensor.dtype() != Dtype::F32 || numbers.len() != values.len() {
            return Err(Error::new(format!("its `{name}` has another shape")));
        }
        for (value, &bytes) in values.iter_mut().zip(numbers) {
            *value = f32::from_le_bytes(bytes);
        }
    }
    Ok(())
}

/// A list of values as safetensors writes it.
struct List<'a> {
    shape: [usize; 1],
    values: &'a [f32],
}

impl View for List<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let bytes: Vec<u8> = self
            .values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        bytes.into()
    }

    fn data_len(&self) -> usize {
        size_of_val(self.values)
    }
}
