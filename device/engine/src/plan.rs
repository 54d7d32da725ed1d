//! A verified graph -> our operators in the place of its patterns -> tract's optimized plan, ready to run.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use graft_kernels::{Isa, Threads};
use graft_shared::error::{Context, Error, Result};
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::ops::source::TypedSource;
use tract_onnx::tract_hir::internal::{Framework, expand};
use tract_onnx::tract_hir::ops::unimpl::UnimplementedOp;

use crate::ops::Import;
use crate::passes;
use crate::segment::{Segment, gather};

/// Which nodes run in our operators, and which in tract's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    /// Nodes that run in our operators: their results are the same to the bit everywhere.
    pub fast: usize,
    /// Nodes that run in tract's operators.
    pub tract: usize,
    /// The names of the tract operators that run, each once, sorted.
    pub tract_operators: Vec<String>,
    /// Every node in the order of execution: name, operator, kernel (an instruction set, or `tract`).
    pub list: Vec<(String, String, String)>,
}

/// A graph ready to run, from any number of threads.
#[derive(Debug)]
pub(crate) struct Plan {
    runnable: Arc<TypedSimplePlan>,
    input: [usize; 4],
    outputs: usize,
    pub(crate) nodes: NodeReport,
    pub(crate) macs: u64,
}

impl Plan {
    /// Plans `proto`, whose input is bytes `[1, height, width, 3]` and whose output is `[1, outputs]`, for as many
    /// `threads`.
    pub(crate) fn new(
        proto: ModelProto,
        [height, width]: [usize; 2],
        outputs: usize,
        threads: usize,
    ) -> Result<Plan> {
        let input = [1, height, width, 3];
        let isa = Isa::detect();
        let threads = Arc::new(Threads::new(threads));
        let model = contained(|| gather(&optimize(proto, input, isa)?, &threads))
            .context("can't plan the model's graph")?;
        let (nodes, macs) = report(&model);
        let runnable =
            contained(|| TypedSimplePlan::new(model)).context("can't plan the model's graph")?;
        Ok(Plan {
            runnable,
            input,
            outputs,
            nodes,
            macs,
        })
    }

    /// The logits for the bytes of one image, height x width x 3.
    pub(crate) fn run(&self, image: &[u8]) -> Result<Vec<f32>> {
        let logits = contained(|| {
            let input = Tensor::from_shape(&self.input, image)?;
            let outputs = self.runnable.run(tvec!(input.into_tvalue()))?;
            let output = outputs.first().context("no output")?;
            Ok(output.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
        })
        .context("can't run the model")?;
        if logits.len() != self.outputs {
            return Err(Error::new(format!(
                "the model gave {} logits for {} labels",
                logits.len(),
                self.outputs
            )));
        }
        if logits.iter().any(|logit| !logit.is_finite()) {
            return Err(Error::new(
                "the model gave a logit that is not a finite number",
            ));
        }
        Ok(logits)
    }
}

fn optimize(mut proto: ModelProto, input: [usize; 4], isa: Isa) -> TractResult<TypedModel> {
    let graph = proto.graph.as_mut().context("no graph")?;
    let mut operators = passes::rewrite(graph);
    let mut model = tract_onnx::onnx()
        .with_ignore_value_info(true)
        .model_for_proto_model(&proto)?;
    drop(proto);
    for node in model.nodes_mut() {
        if node.op_is::<UnimplementedOp>()
            && let Some(operator) = operators.remove(&node.name)
        {
            node.op = expand(Import { operator, isa });
        }
    }
    model.set_input_fact(0, InferenceFact::dt_shape(u8::datum_type(), input))?;
    model.into_optimized()
}

/// Runs what may panic on a graph that tract did not foresee: the graph is refused, the program goes on.
fn contained<T>(work: impl FnOnce() -> TractResult<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(chain(&error)),
        Err(panic) => Err(Error::new(format!("tract panicked: {}", text(&*panic)))),
    }
}

/// tract's error with its causes, which are not `std` errors one can keep.
fn chain(error: &TractError) -> Error {
    Error::new(
        error
            .chain()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(": "),
    )
}

fn text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

fn report(model: &TypedModel) -> (NodeReport, u64) {
    let mut nodes = NodeReport {
        fast: 0,
        tract: 0,
        tract_operators: vec![],
        list: vec![],
    };
    let mut macs = 0u64;
    for node in model
        .eval_order()
        .unwrap_or_default()
        .into_iter()
        .map(|id| model.node(id))
    {
        if node.op_is::<TypedSource>() || node.op_is::<Const>() {
            continue;
        }
        if let Some(Segment(body)) = node.op_as::<Segment>() {
            for step in &body.steps {
                nodes.fast += 1;
                macs += step.fast.kernel.macs();
                let (operator, isa) = (step.fast.name.to_owned(), step.fast.isa.name().to_owned());
                nodes.list.push((step.node.clone(), operator, isa));
            }
            continue;
        }
        let operator = node.op.name().into_owned();
        nodes.tract += 1;
        nodes.tract_operators.push(operator.clone());
        nodes
            .list
            .push((node.name.clone(), operator, "tract".to_owned()));
    }
    nodes.tract_operators.sort();
    nodes.tract_operators.dedup();
    (nodes, macs)
}

/// The instruction set that the kernels run on.
pub(crate) fn isa() -> &'static str {
    Isa::detect().name()
}
