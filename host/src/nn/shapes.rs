//! The shape of every node's output in a training step.

use graft_shared::error::{Context, Error, Result};

use super::cpu::{Geometry, Size};
use super::{Graph, Node, Op, Padding, Pool, PoolKind};

/// Height and width of what has none.
const PIXEL: Size = Size {
    height: 1,
    width: 1,
};

/// What a node puts out, and how it reads its input.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) channels: usize,
    pub(super) size: Size,
    /// The bounds of its activation.
    pub(super) low: f32,
    pub(super) high: f32,
    /// Of a convolution or a pool with windows, and of a linear layer: a convolution of one pixel.
    pub(super) geometry: Option<Geometry>,
}

impl Shape {
    fn new(channels: usize, size: Size, (low, high): (f32, f32)) -> Shape {
        Shape {
            channels,
            size,
            low,
            high,
            geometry: None,
        }
    }

    fn plain(channels: usize, size: Size) -> Shape {
        Shape::new(channels, size, (f32::NEG_INFINITY, f32::INFINITY))
    }

    fn of(geometry: Geometry, bounds: (f32, f32)) -> Shape {
        Shape {
            geometry: Some(geometry),
            ..Shape::new(geometry.output_channels, geometry.output, bounds)
        }
    }

    /// Values of a batch of `images`.
    pub(super) fn len(&self, images: usize) -> usize {
        images * self.channels * self.size.area()
    }
}

/// The shapes of `graph` for `images` pictures of `channels` x `height` x `width` a step.
///
/// # Errors
/// An operator that can't be trained, and shapes that do not fit.
pub(super) fn shapes(
    graph: &Graph,
    images: usize,
    channels: usize,
    height: usize,
    width: usize,
) -> Result<Vec<Shape>> {
    let mut shapes: Vec<Shape> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let shape = if let Op::Input = node.op {
            Shape::plain(channels, Size { height, width })
        } else {
            shape(node, &shapes, images)
                .with_context(|| format!("node `{}` in training", node.name))?
        };
        shapes.push(shape);
    }
    Ok(shapes)
}

/// The shape of `node` from those before it.
fn shape(node: &Node, before: &[Shape], images: usize) -> Result<Shape> {
    let input = |position: usize| -> Result<&Shape> {
        let index = node.inputs.get(position).context("an input is missing")?;
        before
            .get(*index)
            .context("it reads a node that does not come before it")
    };
    let from = input(0)?;
    let read = (images, from.channels, from.size.height, from.size.width);
    Ok(match &node.op {
        Op::Conv(conv) => {
            let weight = conv
                .weight
                .dims4()
                .context("its weight has four dimensions")?;
            let geometry = Geometry::new(read, weight, conv.stride, conv.padding, conv.groups)
                .context("its shapes do not fit")?;
            Shape::of(geometry, conv.activation.bounds())
        }
        Op::Add(activation) => {
            let other = input(1)?;
            if (from.channels, from.size.area()) != (other.channels, other.size.area()) {
                return Err(Error::new("the shapes that it adds differ"));
            }
            Shape::new(from.channels, from.size, activation.bounds())
        }
        Op::Pool(pool) if pool.kind == PoolKind::Max => {
            let geometry = window(read, pool).context("its window does not fit")?;
            Shape::of(geometry, (f32::NEG_INFINITY, f32::INFINITY))
        }
        Op::GlobalAveragePool => Shape::plain(from.channels, PIXEL),
        Op::Linear(layer) => {
            let (outputs, inputs) = layer
                .weight
                .dims2()
                .context("its weight has two dimensions")?;
            let geometry = Geometry::new(
                (images, from.channels * from.size.area(), 1, 1),
                (outputs, inputs, 1, 1),
                1,
                Padding::default(),
                1,
            )
            .context("its shapes do not fit")?;
            Shape::of(geometry, (f32::NEG_INFINITY, f32::INFINITY))
        }
        _ => {
            return Err(Error::new("its operator can't be fine-tuned")
                .hint("`--recipe head` trains the head of every backbone"));
        }
    })
}

/// A pool's windows as a convolution of each channel.
fn window(read: (usize, usize, usize, usize), pool: &Pool) -> candle_core::Result<Geometry> {
    Geometry::new(
        read,
        (read.1, read.1, pool.kernel, pool.kernel),
        pool.stride,
        pool.padding,
        1,
    )
}
