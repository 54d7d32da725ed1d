//! The kernels as functions: arguments laid out as their source has them, and how many threads they need.
//!
//! Work is cut into blocks and parts by shapes alone, so that a result does not depend on the GPU.
#![allow(unsafe_code)]

use std::sync::Arc;

use graft_shared::error::{Error, Result};

use super::machine::{Address, Argument, Machine, Memory, THREADS};
use crate::nn::cpu;
use crate::nn::shapes::Shape;

/// Every kernel that is launched, by its name.
pub(super) const NAMES: [&str; 29] = [
    "sum_parts",
    "depthwise_forward_3",
    "depthwise_forward_5",
    "depthwise_forward_7",
    "depthwise_input_gradient_3",
    "depthwise_input_gradient_5",
    "depthwise_input_gradient_7",
    "depthwise_weight_gradient_3",
    "depthwise_weight_gradient_5",
    "depthwise_weight_gradient_7",
    "dense_forward",
    "dense_input_gradient",
    "dense_weight_gradient",
    "maximum_forward",
    "maximum_backward",
    "average_forward",
    "average_backward",
    "add_forward",
    "add_backward",
    "channel_sums",
    "batch_statistics",
    "running_statistics",
    "normalise_backward",
    "bias_backward",
    "cross_entropy",
    "mean_of",
    "adam_w",
    "momentum",
    "running_mean",
];

/// Results of a block along each axis of a matrix product.
const TILE: usize = 64;
/// Depth of a matrix product that is summed at once, where there are results enough to keep a GPU busy.
const SHORTEST_PART: usize = 512;
/// Blocks that keep a large GPU busy.
const BLOCKS: usize = 512;
/// Values that one thread sums at most.
const VALUES_OF_THREAD: usize = 32;

/// The sizes of a convolution or pool.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Geometry {
    images: i32,
    inputs: i32,
    outputs: i32,
    input: [i32; 2],
    output: [i32; 2],
    kernel: [i32; 2],
    stride: i32,
    before: [i32; 2],
}

impl Geometry {
    fn of(geometry: &cpu::Geometry) -> Geometry {
        let size = |size: cpu::Size| [size.height as i32, size.width as i32];
        Geometry {
            images: geometry.images as i32,
            inputs: geometry.input_channels as i32,
            outputs: geometry.output_channels as i32,
            input: size(geometry.input),
            output: size(geometry.output),
            kernel: size(geometry.kernel),
            stride: geometry.stride as i32,
            before: [geometry.padding.top as i32, geometry.padding.left as i32],
        }
    }
}

/// Values `[n, c, h, w]` as stored, and what their readers apply; `scale` and `shift` are `[c]`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Stored {
    pub(super) values: Address,
    pub(super) scale: Address,
    pub(super) shift: Address,
    pub(super) low: f32,
    pub(super) high: f32,
}

/// The gradient by a convolution's output before BatchNorm: `gradient` and `values` are `[n, c, h, w]`, the factors `[c]`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct OutputGradient {
    pub(super) gradient: Address,
    pub(super) values: Address,
    pub(super) by_gradient: Address,
    pub(super) by_value: Address,
    pub(super) constant: Address,
}

/// Where the gradient by `input` goes, and whether it is added to what is there (0 or 1).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct InputGradient {
    pub(super) input: Stored,
    pub(super) gradient: Address,
    pub(super) add: i32,
}

/// What belongs to one convolution's output, `[c]` each.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Channels {
    pub(super) scale: Address,
    pub(super) shift: Address,
    pub(super) mean: Address,
    pub(super) inverse_deviation: Address,
    pub(super) by_gradient: Address,
    pub(super) by_value: Address,
    pub(super) constant: Address,
}

/// BatchNorm's tensors, `[c]` each.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Norm {
    pub(super) gamma: Address,
    pub(super) beta: Address,
    pub(super) running_mean: Address,
    pub(super) running_variance: Address,
    pub(super) epsilon: f64,
}

// SAFETY: `repr(C)` structures of numbers and addresses, in the order of training.cu and normalise.cu; arrays of two
// integers are two integers.
unsafe impl Argument for Geometry {}
// SAFETY: as above.
unsafe impl Argument for Stored {}
// SAFETY: as above.
unsafe impl Argument for OutputGradient {}
// SAFETY: as above.
unsafe impl Argument for InputGradient {}
// SAFETY: as above.
unsafe impl Argument for Channels {}
// SAFETY: as above.
unsafe impl Argument for Norm {}

/// A machine with memory for what kernels leave to each other.
#[derive(Debug)]
pub(super) struct Kernels {
    machine: Arc<dyn Machine>,
    /// Parts of sums.
    parts: Memory,
}

impl Kernels {
    /// For shapes of `images` pictures a step.
    ///
    /// # Errors
    /// Tensors of 2^31 values and more, and no memory.
    pub(super) fn new(
        machine: Arc<dyn Machine>,
        images: usize,
        shapes: &[Shape],
    ) -> Result<Kernels> {
        let mut parts = images;
        for shape in shapes {
            let values = images * shape.size.area();
            if values * shape.channels > i32::MAX as usize {
                return Err(Error::new("a layer of 2^31 values and more in one step")
                    .hint("fewer photos in a step: `--set train_batch_size=16`"));
            }
            parts = parts.max(4 * shape.channels * Cut::of_channel(values).parts);
            if let Some(geometry) = &shape.geometry {
                parts = parts.max(weight_len(geometry) * Cut::of_weight(geometry).parts);
            }
        }
        let parts = machine.allocate(parts)?;
        Ok(Kernels { machine, parts })
    }

    /// The output of a convolution.
    ///
    /// # Errors
    /// A depthwise kernel that there is not, and what the GPU says; so do all others.
    pub(super) fn forward(
        &self,
        geometry: &cpu::Geometry,
        input: Stored,
        weight: Address,
        output: Address,
    ) -> Result<()> {
        let arguments: [&dyn Argument; 4] = [&Geometry::of(geometry), &input, &weight, &output];
        let values = geometry.images * geometry.output.area();
        if geometry.depthwise {
            let kernel = depthwise("depthwise_forward", geometry)?;
            return self.each(kernel, values * geometry.output_channels, &arguments);
        }
        let blocks = [
            values.div_ceil(TILE),
            geometry.output_channels.div_ceil(TILE),
            1,
        ];
        self.launch("dense_forward", blocks, &arguments)
    }

    /// The gradient by a convolution's input.
    pub(super) fn input_gradient(
        &self,
        geometry: &cpu::Geometry,
        gradient: OutputGradient,
        weight: Address,
        into: InputGradient,
    ) -> Result<()> {
        let arguments: [&dyn Argument; 4] = [&Geometry::of(geometry), &gradient, &weight, &into];
        let values = geometry.images * geometry.input.area();
        if geometry.depthwise {
            let kernel = depthwise("depthwise_input_gradient", geometry)?;
            return self.each(kernel, values * geometry.input_channels, &arguments);
        }
        let blocks = [
            values.div_ceil(TILE),
            geometry.input_channels.div_ceil(TILE),
            1,
        ];
        self.launch("dense_input_gradient", blocks, &arguments)
    }

    /// The gradient by a convolution's weight.
    pub(super) fn weight_gradient(
        &self,
        geometry: &cpu::Geometry,
        input: Stored,
        gradient: OutputGradient,
        into: Address,
    ) -> Result<()> {
        let cut = Cut::of_weight(geometry);
        let parts = self.parts.start();
        let arguments: [&dyn Argument; 5] = [
            &Geometry::of(geometry),
            &input,
            &gradient,
            &(cut.len as i32),
            &parts,
        ];
        if geometry.depthwise {
            let kernel = depthwise("depthwise_weight_gradient", geometry)?;
            self.launch(kernel, [geometry.output_channels, cut.parts, 1], &arguments)?;
        } else {
            let [rows, columns] = weight_tiles(geometry);
            self.launch(
                "dense_weight_gradient",
                [columns, rows, cut.parts],
                &arguments,
            )?;
        }
        let len = weight_len(geometry);
        let arguments: [&dyn Argument; 4] = [&(cut.parts as i32), &(len as i32), &parts, &into];
        self.each("sum_parts", len, &arguments)
    }

    /// Of a batch, over `values` values of each of `channels`: the sums for the statistics, then what readers apply.
    pub(super) fn batch_statistics(
        &self,
        planes: Planes,
        values: Address,
        norm: Norm,
        into: Channels,
    ) -> Result<()> {
        let cut = self.channel_sums(planes, Address::NONE, values, norm.running_mean)?;
        let arguments: [&dyn Argument; 6] = [
            &(cut.parts as i32),
            &(planes.channels as i32),
            &self.parts.start(),
            &(planes.values() as f64),
            &norm,
            &into,
        ];
        self.each("batch_statistics", planes.channels, &arguments)
    }

    /// What readers apply where the statistics stay.
    pub(super) fn running_statistics(
        &self,
        channels: usize,
        norm: Norm,
        into: Channels,
    ) -> Result<()> {
        self.each(
            "running_statistics",
            channels,
            &[&(channels as i32), &norm, &into],
        )
    }

    /// Gradients of gamma and beta, and the factors of an [`OutputGradient`]; `batch` says whose statistics were taken.
    pub(super) fn normalise_backward(
        &self,
        planes: Planes,
        (gradient, values): (Address, Address),
        batch: bool,
        into: Channels,
        (gamma, beta): (Address, Address),
    ) -> Result<()> {
        let cut = self.channel_sums(planes, gradient, values, into.mean)?;
        let per_value = if batch {
            1.0 / planes.values() as f64
        } else {
            0.0
        };
        let arguments: [&dyn Argument; 7] = [
            &(cut.parts as i32),
            &(planes.channels as i32),
            &self.parts.start(),
            &per_value,
            &into,
            &gamma,
            &beta,
        ];
        self.each("normalise_backward", planes.channels, &arguments)
    }

    /// The gradient of a bias; `zeros` are as many as channels.
    pub(super) fn bias_backward(
        &self,
        planes: Planes,
        gradient: Address,
        zeros: Address,
        into: Address,
    ) -> Result<()> {
        let cut = self.channel_sums(planes, gradient, gradient, zeros)?;
        let arguments: [&dyn Argument; 4] = [
            &(cut.parts as i32),
            &(planes.channels as i32),
            &self.parts.start(),
            &into,
        ];
        self.each("bias_backward", planes.channels, &arguments)
    }

    fn channel_sums(
        &self,
        planes: Planes,
        gradient: Address,
        values: Address,
        pivot: Address,
    ) -> Result<Cut> {
        let cut = Cut::of_channel(planes.values());
        let arguments: [&dyn Argument; 8] = [
            &(planes.images as i32),
            &(planes.channels as i32),
            &(planes.area as i32),
            &gradient,
            &values,
            &pivot,
            &(cut.len as i32),
            &self.parts.start(),
        ];
        self.launch("channel_sums", [planes.channels, cut.parts, 1], &arguments)?;
        Ok(cut)
    }

    /// The two sums of each channel, see the kernel `channel_sums`.
    #[cfg(test)]
    pub(super) fn sums(
        &self,
        planes: Planes,
        gradient: Address,
        values: Address,
        pivot: Address,
    ) -> Result<Vec<(f64, f64)>> {
        let cut = self.channel_sums(planes, gradient, values, pivot)?;
        let mut parts = vec![0.0; 4 * planes.channels * cut.parts];
        self.machine.read(&self.parts, &mut parts)?;
        let double = |index: usize| {
            let halves = [0, 1].map(|half| u64::from(parts[2 * index + half].to_bits()));
            f64::from_bits(halves[0] | halves[1] << 32)
        };
        let of_channel = |channel: usize, which: usize| -> f64 {
            let places = (0..cut.parts).map(|part| 2 * (part * planes.channels + channel) + which);
            places.map(double).sum()
        };
        Ok((0..planes.channels)
            .map(|channel| (of_channel(channel, 0), of_channel(channel, 1)))
            .collect())
    }

    /// The clamped sum of two inputs, the left one times the factors `kept` of the images.
    pub(super) fn add(
        &self,
        planes: Planes,
        (left, right): (Stored, Stored),
        (low, high): (f32, f32),
        kept: Address,
        output: Address,
    ) -> Result<()> {
        let [count, channels, area] = planes.arguments();
        let arguments: [&dyn Argument; 9] = [
            &count, &channels, &area, &left, &right, &low, &high, &kept, &output,
        ];
        self.each("add_forward", planes.len(), &arguments)
    }

    /// The gradient of one of its inputs, with its factors.
    pub(super) fn add_backward(
        &self,
        planes: Planes,
        (low, high): (f32, f32),
        kept: Address,
        (output, gradient): (Address, Address),
        into: InputGradient,
    ) -> Result<()> {
        let [count, channels, area] = planes.arguments();
        let arguments: [&dyn Argument; 9] = [
            &count, &channels, &area, &low, &high, &kept, &output, &gradient, &into,
        ];
        self.each("add_backward", planes.len(), &arguments)
    }

    /// The largest value of each window; `taps` are bytes.
    pub(super) fn maximum(
        &self,
        geometry: &cpu::Geometry,
        input: Stored,
        output: Address,
        taps: Address,
    ) -> Result<()> {
        let len = geometry.images * geometry.output_channels * geometry.output.area();
        self.each(
            "maximum_forward",
            len,
            &[&Geometry::of(geometry), &input, &output, &taps],
        )
    }

    pub(super) fn maximum_backward(
        &self,
        geometry: &cpu::Geometry,
        gradient: Address,
        taps: Address,
        into: InputGradient,
    ) -> Result<()> {
        let len = geometry.images * geometry.input_channels * geometry.input.area();
        self.each(
            "maximum_backward",
            len,
            &[&Geometry::of(geometry), &gradient, &taps, &into],
        )
    }

    /// The mean of each plane, times its factor.
    pub(super) fn average(
        &self,
        planes: Planes,
        input: Stored,
        kept: Address,
        output: Address,
    ) -> Result<()> {
        let [count, channels, area] = planes.arguments();
        self.each(
            "average_forward",
            planes.images * planes.channels,
            &[&count, &channels, &area, &input, &kept, &output],
        )
    }

    pub(super) fn average_backward(
        &self,
        planes: Planes,
        kept: Address,
        gradient: Address,
        into: InputGradient,
    ) -> Result<()> {
        let [count, channels, area] = planes.arguments();
        self.each(
            "average_backward",
            planes.len(),
            &[&count, &channels, &area, &kept, &gradient, &into],
        )
    }

    /// The loss of a batch, one value, and its gradient by the logits; `logits` and `targets` are `[rows, classes]`.
    pub(super) fn cross_entropy(
        &self,
        (rows, classes): (usize, usize),
        logits: Stored,
        targets: Address,
        gradient: Address,
        loss: Address,
    ) -> Result<()> {
        let losses = self.parts.start();
        self.launch(
            "cross_entropy",
            [rows, 1, 1],
            &[&(classes as i32), &logits, &targets, &gradient, &losses],
        )?;
        self.launch("mean_of", [1; 3], &[&(rows as i32), &losses, &loss])
    }

    /// A step of AdamW on `blocks` blocks of values; see the kernel.
    pub(super) fn adam_w(
        &self,
        blocks: usize,
        rates: Address,
        (rate, corrections): (f64, (f64, f64)),
        lists: [Address; 4],
    ) -> Result<()> {
        let [values, gradients, first, second] = lists;
        let arguments: [&dyn Argument; 8] = [
            &rates,
            &rate,
            &corrections.0,
            &corrections.1,
            &values,
            &gradients,
            &first,
            &second,
        ];
        self.launch("adam_w", [blocks, 1, 1], &arguments)
    }

    /// A step of gradient descent with momentum.
    pub(super) fn momentum(
        &self,
        blocks: usize,
        rates: Address,
        rate: f64,
        lists: [Address; 3],
    ) -> Result<()> {
        let [values, gradients, velocity] = lists;
        self.launch(
            "momentum",
            [blocks, 1, 1],
            &[&rates, &rate, &values, &gradients, &velocity],
        )
    }

    /// The running mean of `blocks` blocks of values follows them by `part` of the difference.
    pub(super) fn running_mean(
        &self,
        blocks: usize,
        part: f32,
        values: Address,
        mean: Address,
    ) -> Result<()> {
        self.launch("running_mean", [blocks, 1, 1], &[&part, &values, &mean])
    }

    /// One thread for each of `count` values.
    fn each(&self, kernel: &str, count: usize, arguments: &[&dyn Argument]) -> Result<()> {
        self.launch(kernel, [count.div_ceil(THREADS), 1, 1], arguments)
    }

    fn launch(&self, kernel: &str, blocks: [usize; 3], arguments: &[&dyn Argument]) -> Result<()> {
        // SAFETY: the functions above hand over what the kernels' source asks for; addresses come from the tape and the
        // step, which have memory of the length that each shape needs for as long as they live, on this machine.
        unsafe { self.machine.launch(kernel, blocks, arguments) }
    }
}

/// The planes of a tensor `[images, channels, area]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planes {
    pub(super) images: usize,
    pub(super) channels: usize,
    pub(super) area: usize,
}

impl Planes {
    /// Values of one channel.
    fn values(self) -> usize {
        self.images * self.area
    }

    fn len(self) -> usize {
        self.values() * self.channels
    }

    /// Number of planes, channels, and area.
    fn arguments(self) -> [i32; 3] {
        [self.images * self.channels, self.channels, self.area].map(|number| number as i32)
    }
}

/// How a sum is cut into parts, each of which is one block's.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Values of a part; the last may be shorter.
    len: usize,
    parts: usize,
}

impl Cut {
    fn new(values: usize, len: usize) -> Cut {
        let parts = values.div_ceil(len);
        Cut { len, parts }
    }

    /// A sum over the values of one channel.
    fn of_channel(values: usize) -> Cut {
        Cut::new(values, THREADS * VALUES_OF_THREAD)
    }

    /// A weight's gradient.
    fn of_weight(geometry: &cpu::Geometry) -> Cut {
        let values = geometry.images * geometry.output.area();
        if geometry.depthwise {
            return Cut::of_channel(values);
        }
        let [rows, columns] = weight_tiles(geometry);
        let parts = BLOCKS.div_ceil(rows * columns);
        Cut::new(values, values.div_ceil(parts).max(SHORTEST_PART))
    }
}

fn weight_len(geometry: &cpu::Geometry) -> usize {
    let inputs = if geometry.depthwise {
        1
    } else {
        geometry.input_channels
    };
    geometry.output_channels * inputs * geometry.kernel.area()
}

/// Tiles of a dense weight along its two axes.
fn weight_tiles(geometry: &cpu::Geometry) -> [usize; 2] {
    let columns = geometry.input_channels * geometry.kernel.area();
    [geometry.output_channels, columns].map(|len| len.div_ceil(TILE))
}

/// The kernel of that name for the side of a depthwise kernel.
fn depthwise(name: &str, geometry: &cpu::Geometry) -> Result<&'static str> {
    let wanted = format!("{name}_{}", geometry.kernel.height);
    NAMES
        .into_iter()
        .find(|name| *name == wanted)
        .ok_or_else(|| {
            Error::new(format!(
                "a depthwise kernel of {0}x{0} can't be trained: 3, 5 and 7 can",
                geometry.kernel.height
            ))
        })
}
