//! Our operators inside tract: one file for each, and here what joins them to tract.
//!
//! ONNX graphs are NCHW, our kernels NHWC. Each operator takes its images in NHWC and is followed by tract's own move
//! of the channel axis; an operator whose input is such a move reads what lies before it. So a net of our operators
//! stays in NHWC throughout, and the moves, which nobody reads, drop out.

pub(crate) mod average_pool;
pub(crate) mod concat;
pub(crate) mod conv;
pub(crate) mod fully_connected;
pub(crate) mod global_average_pool;
pub(crate) mod head;
pub(crate) mod max_pool;
pub(crate) mod multiply;
pub(crate) mod quantize;
pub(crate) mod residual_add;
pub(crate) mod table;

use std::fmt::Debug;

use graft_kernels::{Invalid, Isa, Operator};
use quantize::Quantize;
use tract_core::ops::change_axes::AxisOp;
use tract_onnx::tract_hir::internal::*;

/// Height, width, channels of an activation of bytes.
pub(crate) type Image = [usize; 3];

/// What an operator makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Bytes; `[1, channels, height, width]` to the graph around.
    Image(Image),
    /// Bytes `[1, n]`.
    Row(usize),
    /// f32 `[1, n]`.
    Logits(usize),
}

impl Output {
    /// The tensor that it is, images in NHWC.
    pub(crate) fn fact(self) -> TypedFact {
        match self {
            Output::Image([height, width, channels]) => u8::fact([1, height, width, channels]),
            Output::Row(n) => u8::fact([1, n]),
            Output::Logits(n) => f32::fact([1, n]),
        }
    }

    /// A tensor for it, of zeros.
    pub(crate) fn tensor(self) -> TractResult<Tensor> {
        match self {
            Output::Image([height, width, channels]) => {
                Tensor::zero::<u8>(&[1, height, width, channels])
            }
            Output::Row(n) => Tensor::zero::<u8>(&[1, n]),
            Output::Logits(n) => Tensor::zero::<f32>(&[1, n]),
        }
    }

    /// Bytes or logits in it.
    pub(crate) fn len(self) -> usize {
        match self {
            Output::Image([height, width, channels]) => height * width * channels,
            Output::Row(n) | Output::Logits(n) => n,
        }
    }
}

/// A quantized operator that a pass has found, before the shapes of its inputs are known.
pub(crate) trait Quantized: Debug + Send + Sync {
    /// What `graft-device info` calls it.
    fn name(&self) -> &'static str;

    /// Whether its input is a picture of f32, not of bytes; it then reads NCHW.
    fn takes_floats(&self) -> bool {
        false
    }

    /// What comes out for `inputs`.
    fn output(&self, inputs: &[Image]) -> TractResult<Output>;

    /// The operator made ready for `inputs`.
    fn kernel(&self, isa: Isa, inputs: &[Image]) -> TractResult<Kernel>;
}

/// A quantized operator ready to run, by what it makes.
#[derive(Debug, Clone)]
pub(crate) enum Kernel {
    Image(Operator),
    Logits(Operator<f32>),
    Quantize(Quantize),
}

impl Kernel {
    /// Multiply-adds of one run.
    pub(crate) fn macs(&self) -> u64 {
        match self {
            Kernel::Image(operator) => operator.macs(),
            Kernel::Logits(operator) => operator.macs(),
            Kernel::Quantize(_) => 0,
        }
    }
}

/// A [`Quantized`] operator as tract's importer knows it: in NCHW, shapes still to be inferred.
#[derive(Debug, Clone)]
pub(crate) struct Import {
    pub(crate) operator: Arc<dyn Quantized>,
    pub(crate) isa: Isa,
}

impl Expansion for Import {
    fn name(&self) -> StaticName {
        self.operator.name().into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_output_arity(outputs, 1)?;
        let datum_type = match self.operator.takes_floats() {
            true => f32::datum_type(),
            false => u8::datum_type(),
        };
        for input in inputs {
            s.equals(&input.datum_type, datum_type)?;
        }
        s.given_all(
            inputs.iter().map(|input| &input.shape),
            move |s, shapes: Vec<TVec<TDim>>| {
                let images = shapes
                    .iter()
                    .map(|shape| image_of(shape))
                    .collect::<TractResult<Vec<_>>>()?;
                let (datum_type, shape) = match self.operator.output(&images)? {
                    Output::Image([height, width, channels]) => {
                        (u8::datum_type(), tvec![1, channels, height, width])
                    }
                    Output::Row(n) => (u8::datum_type(), tvec![1, n]),
                    Output::Logits(n) => (f32::datum_type(), tvec![1, n]),
                };
                s.equals(&outputs[0].datum_type, datum_type)?;
                s.equals(
                    &outputs[0].shape,
                    shape.iter().map(|d| d.to_dim()).collect::<TVec<TDim>>(),
                )
            },
        )
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let mut images = vec![];
        let mut sources = vec![];
        for (index, &outlet) in inputs.iter().enumerate() {
            let shape = &model.outlet_fact(outlet)?.shape;
            images.push(image_of(shape)?);
            sources.push(if shape.rank() == 4 && !self.operator.takes_floats() {
                to_nhwc(prefix, index, model, outlet)?
            } else {
                outlet
            });
        }
        let output = self.operator.output(&images)?;
        let fast = Fast {
            operator: Arc::clone(&self.operator),
            inputs: images.into(),
            isa: self.isa,
            output,
        };
        match output {
            Output::Image(_) => {
                let nhwc = model.wire_node(format!("{prefix}.nhwc"), fast, &sources)?;
                model.wire_node(prefix, NHWC_TO_NCHW, &nhwc)
            }
            Output::Row(_) | Output::Logits(_) => model.wire_node(prefix, fast, &sources),
        }
    }
}

const NHWC_TO_NCHW: AxisOp = AxisOp::Move(3, 1);
const NCHW_TO_NHWC: AxisOp = AxisOp::Move(1, 3);

/// The NHWC twin of an NCHW outlet.
fn to_nhwc(
    prefix: &str,
    index: usize,
    model: &mut TypedModel,
    outlet: OutletId,
) -> TractResult<OutletId> {
    let node = model.node(outlet.node);
    if node.op_as::<AxisOp>() == Some(&NHWC_TO_NCHW)
        && let [before] = node.inputs[..]
    {
        return Ok(before);
    }
    let moved = model.wire_node(format!("{prefix}.to_nhwc.{index}"), NCHW_TO_NHWC, &[outlet])?;
    moved
        .first()
        .copied()
        .context("a move of axes has no output")
}

/// The image that an NCHW tensor `[1, c, h, w]` or a row `[1, c]` is.
fn image_of(shape: &[TDim]) -> TractResult<Image> {
    let dims = shape
        .iter()
        .map(|d| Ok(d.to_usize()?))
        .collect::<TractResult<Vec<usize>>>()?;
    match dims[..] {
        [1, channels, height, width] => Ok([height, width, channels]),
        [1, channels] => Ok([1, 1, channels]),
        _ => bail!("a quantized operator takes one image, not a tensor of shape {dims:?}"),
    }
}

/// An operator in tract's graph, for [`crate::segment`] to take up and make ready.
#[derive(Debug, Clone)]
pub(crate) struct Fast {
    pub(crate) operator: Arc<dyn Quantized>,
    inputs: Arc<[Image]>,
    pub(crate) isa: Isa,
    pub(crate) output: Output,
}

impl Fast {
    /// The operator made ready: its weights are laid out.
    pub(crate) fn kernel(&self) -> TractResult<Kernel> {
        self.operator.kernel(self.isa, &self.inputs)
    }
}

impl PartialEq for Fast {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.operator, &other.operator)
    }
}

impl Eq for Fast {}

impl Op for Fast {
    fn name(&self) -> StaticName {
        self.operator.name().into()
    }

    op_as_typed_op!();
}

impl EvalOp for Fast {
    fn eval_out_of_plan(&self, _: TVec<TValue>) -> TractResult<Option<TVec<TValue>>> {
        Ok(None)
    }
}

impl TypedOp for Fast {
    fn output_facts(&self, _: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(self.output.fact()))
    }

    as_op!();
}

/// The one image of an operator with one input.
fn one<T: Copy>(inputs: &[T]) -> Result<T, Invalid> {
    match inputs {
        [input] => Ok(*input),
        _ => Err(Invalid("the operator takes one input")),
    }
}
