//! A training run frozen: twenty steps beside PyTorch's on the same weights, batches and optimizers.
//!
//! `loss_curve.py` made the numbers, with PyTorch 2.11.
#![allow(clippy::unwrap_used)]

use candle_core::Tensor;

use super::device::{Device, Gpu};
use super::optimizer::Rule;
use super::plan::{Circumstances, Plan};
use super::state::State;
use super::trainer::Trainer;
use crate::cli::Recipe;
use crate::nn::cuda;
use crate::nn::{
    Activation, BatchNorm, BatchStatistics, Conv, Graph, Linear, Node, Op, Padding, Weights,
};

const CLASSES: usize = 5;
const IMAGES: usize = 6;
const SIZE: usize = 18;

/// Norms of the gradients before the first step, in the order of the parameters.
const GRADIENT_NORMS: [f64; 23] = [
    1.401693, 0.110002, 0.122097, 0.514223, 0.064061, 0.128076, 0.414702, 0.087695, 0.072320,
    0.649768, 0.106788, 0.047648, 1.277567, 0.052228, 0.110434, 0.640186, 0.066318, 0.056973,
    0.334654, 0.093591, 0.108235, 0.743994, 0.297352,
];
const ADAMW: [f64; 20] = [
    1.735963, 1.729782, 1.676567, 1.694148, 1.612873, 1.626261, 1.68742, 1.617301, 1.731547,
    1.517006, 1.661463, 1.568833, 1.707608, 1.560828, 1.682472, 1.558313, 1.556416, 1.676479,
    1.72019, 1.656295,
];
const ADAMW_MEANS: [f32; 4] = [0.020502, -0.037802, -0.174567, 0.384009];
const SGD: [f64; 20] = [
    1.735963, 1.766771, 1.694912, 1.728579, 1.613625, 1.583743, 1.63153, 1.594282, 1.693322,
    1.643375, 1.663034, 1.564915, 1.768774, 1.594326, 1.742687, 1.600645, 1.577088, 1.80313,
    1.59509, 1.64234,
];
const SGD_MEANS: [f32; 4] = [0.06791, -0.114707, -0.049594, 0.3273];

/// Numbers that the script makes too: the fraction of a large sine.
fn values(seed: usize, count: usize, low: f64, high: f64) -> Vec<f32> {
    (0..count)
        .map(|index| {
            let number = (index as f64 * 12.9898 + seed as f64 * 78.233).sin() * 43758.5453;
            (low + (high - low) * (number - number.floor())) as f32
        })
        .collect()
}

fn tensor(seed: usize, shape: &[usize], low: f64, high: f64) -> Tensor {
    let values = values(seed, shape.iter().product(), low, high);
    Tensor::from_vec(values, shape, &candle_core::Device::Cpu).unwrap()
}

/// A unit for `weight` `[out, in / groups, k, k]`.
fn unit(
    seed: usize,
    weight: [usize; 4],
    stride: usize,
    padding: (usize, usize),
    activation: Activation,
) -> Op {
    let outputs = weight[0];
    let bound = (3.0 / weight[1..].iter().product::<usize>() as f64).sqrt();
    Op::Conv(Conv {
        weight: tensor(seed, &weight, -bound, bound),
        bias: None,
        batch_norm: Some(BatchNorm {
            weight: tensor(seed + 1, &[outputs], 0.5, 1.5),
            bias: tensor(seed + 2, &[outputs], -0.5, 0.5),
            mean: Tensor::zeros(outputs, candle_core::DType::F32, &candle_core::Device::Cpu)
                .unwrap(),
            variance: Tensor::ones(outputs, candle_core::DType::F32, &candle_core::Device::Cpu)
                .unwrap(),
            epsilon: 1e-3,
        }),
        stride,
        padding: Padding {
            top: padding.0,
            left: padding.0,
            bottom: padding.1,
            right: padding.1,
        },
        groups: if weight[1] == 1 { outputs } else { 1 },
        activation,
    })
}

fn net() -> Graph {
    let linear = Linear {
        weight: tensor(80, &[CLASSES, 32], -0.2, 0.2),
        bias: tensor(81, &[CLASSES], -0.1, 0.1),
    };
    let nodes = [
        (Op::Input, vec![]),
        (
            unit(10, [8, 3, 3, 3], 2, (0, 1), Activation::Relu6),
            vec![0],
        ),
        (
            unit(20, [24, 8, 1, 1], 1, (0, 0), Activation::Relu6),
            vec![1],
        ),
        (
            unit(30, [24, 1, 3, 3], 1, (1, 1), Activation::Relu6),
            vec![2],
        ),
        (
            unit(40, [8, 24, 1, 1], 1, (0, 0), Activation::None),
            vec![3],
        ),
        (Op::Add(Activation::None), vec![1, 4]),
        (
            unit(50, [16, 8, 3, 3], 2, (1, 1), Activation::Relu),
            vec![5],
        ),
        (
            unit(60, [16, 1, 5, 5], 2, (1, 2), Activation::Relu6),
            vec![6],
        ),
        (
            unit(70, [32, 16, 1, 1], 1, (0, 0), Activation::Relu6),
            vec![7],
        ),
        (Op::GlobalAveragePool, vec![8]),
        (Op::Linear(linear), vec![9]),
    ];
    Graph {
        nodes: nodes
            .into_iter()
            .enumerate()
            .map(|(index, (op, inputs))| Node {
                name: format!("node{index}"),
                op,
                inputs,
            })
            .collect(),
    }
}

fn plan(optimizer: Rule, learning_rate: f64) -> Plan {
    let circumstances = Circumstances {
        photos: 2000,
        smallest_class: 200,
        largest_class: 200,
        input_size: SIZE,
    };
    Plan {
        optimizer,
        learning_rate,
        first_layer_rate: 1.0,
        head_rate: 1.0,
        weight_decay: 0.05,
        label_smoothing: 0.1,
        drop_path: 0.0,
        dropout: 0.0,
        batch_norm: BatchStatistics::Batch,
        ..Plan::choose(Recipe::Balanced, circumstances).0
    }
}

#[test]
fn twenty_steps_lose_what_pytorch_loses() {
    twenty_steps(&Device::Cpu);
}

/// The kernels of a GPU, run by the processor.
#[test]
fn cuda_kernels_lose_what_pytorch_loses() {
    twenty_steps(&Device::Cuda(Gpu(cuda::host::machine())));
}

fn twenty_steps(device: &Device) {
    let graph = net();
    for (plan, losses, means) in [
        (plan(Rule::AdamW, 0.01), ADAMW, ADAMW_MEANS),
        (plan(Rule::Sgd, 0.05), SGD, SGD_MEANS),
    ] {
        let mut state = State::start(Weights::of(&graph).unwrap(), &plan);
        let sizes = (IMAGES, SIZE, CLASSES);
        let mut trainer = Trainer::new(&graph, sizes, (&plan, 0), &state, device).unwrap();
        for (step, &expected) in losses.iter().enumerate() {
            let input = values(1000 + step, IMAGES * 3 * SIZE * SIZE, -1.0, 1.0);
            let mut targets = vec![0.0; IMAGES * CLASSES];
            for image in 0..IMAGES {
                targets[image * CLASSES + (3 * step + 2 * image) % CLASSES] = 1.0;
            }
            let loss = trainer.step(&mut state, &input, &targets, 1.0).unwrap();
            assert!(
                (loss - expected).abs() < 1e-3,
                "{:?}, step {step}: {loss}, not {expected}",
                plan.optimizer
            );
            if step == 0 {
                for (gradient, norm) in trainer.gradients().iter().zip(GRADIENT_NORMS) {
                    let ours = gradient
                        .iter()
                        .map(|value| f64::from(*value).powi(2))
                        .sum::<f64>()
                        .sqrt();
                    assert!(
                        (ours - norm).abs() < 1e-4 * (1.0 + norm),
                        "{ours}, not {norm}"
                    );
                }
            }
        }
        trainer.fetch(&mut state).unwrap();
        let last = state.weights.statistics.last().unwrap();
        for (ours, expected) in last.mean.iter().zip(means) {
            assert!((ours - expected).abs() < 2e-3, "{ours}, not {expected}");
        }
    }
}
