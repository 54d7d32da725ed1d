//! A verified graph -> our operators in the place of its patterns -> tract's optimized plan, ready to run.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use graft_kernels::{Isa, Threads};
use graft_shared::error::{Context, Error, Result};
use tract_core::ops::konst::Const;
use tract_core::ops::source::TypedSource;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::{Framework, expand};
use tract_onnx::tract_hir::ops::unimpl::UnimplementedOp;

use crate::ops::Import;
use crate::segment::{Segment, gather};
use crate::{passes, proto};

/// Which nodes run in our operators, and which in tract's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    /// Nodes that run in our operators: their results are the same to the bit everywhere.
    pub fast: usize,
    /// Nodes that run in tract's operators.
    pub tract: usize,
    /// The names of the tract operators that run, each once, sorted.
    pub tract_operators: Vec<String>,
    /// Every node in the order of execution.
    pub list: Vec<NodeInfo>,
}

/// One node of a planned graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// Its operator.
    pub operator: String,
    /// The instruction set that runs it, or `tract`.
    pub kernel: String,
    /// Multiply-adds of one run, where the operator is ours.
    pub macs: u64,
}

/// A graph ready to run, from any number of threads.
#[derive(Debug)]
pub(crate) struct Plan {
    runnable: Arc<TypedSimplePlan>,
    pub(crate) nodes: NodeReport,
    pub(crate) macs: u64,
}

impl Plan {
    /// Plans `proto`, whose one input is of the type and shape `input`, for as many `threads`.
    pub(crate) fn new(
        proto: proto::Model,
        input: (DatumType, &[usize]),
        threads: usize,
    ) -> Result<Plan> {
        let isa = Isa::detect();
        let threads = Arc::new(Threads::new(threads));
        let model = contained(|| gather(&optimize(proto, input, isa)?, &threads))
            .context("can't plan the model's graph")?;
        let (nodes, macs) = report(&model);
        let runnable =
            contained(|| TypedSimplePlan::new(model)).context("can't plan the model's graph")?;
        Ok(Plan {
            runnable,
            nodes,
            macs,
        })
    }

    /// The first output for `input`.
    pub(crate) fn run(&self, input: Tensor) -> Result<TValue> {
        contained(|| {
            let outputs = self.runnable.run(tvec!(input.into_tvalue()))?;
            let first = outputs.into_iter().next();
            first.ok_or_else(|| TractError::msg("no output"))
        })
        .context("can't run the model")
    }

    /// The `count` logits for the bytes of one image, height x width x 3.
    pub(crate) fn logits(&self, shape: [usize; 4], image: &[u8], count: usize) -> Result<Vec<f32>> {
        let input = contained(|| Tensor::from_shape(&shape, image))?;
        let output = self.run(input)?;
        let logits = contained(|| Ok(output.try_as_plain_ram()?.as_slice::<f32>()?.to_vec()))?;
        if logits.len() != count {
            return Err(Error::new(format!(
                "the model gave {} logits for {count} labels",
                logits.len()
            )));
        }
        if logits.iter().any(|logit| !logit.is_finite()) {
            return Err(Error::new(
                "the model gave a logit that is not a finite number",
            ));
        }
        Ok(logits)
    }

    /// The time of each of our operators in the order of [`NodeReport::list`], in nanoseconds, summed over `runs` runs
    /// of `input`.
    pub(crate) fn profile(&self, input: &Tensor, runs: usize) -> Result<Vec<u64>> {
        let timed = |on: bool| self.segments().for_each(|segment| segment.0.time(on));
        timed(true);
        let ran = (0..runs).try_for_each(|_| self.run(input.clone()).map(drop));
        timed(false);
        ran?;
        let times = self.segments().flat_map(|segment| segment.0.times());
        Ok(times.collect())
    }

    /// What each of our operators that makes bytes makes of `input`, by the node's name; not from several threads at once.
    pub(crate) fn activations(&self, input: Tensor) -> Result<Vec<(String, Vec<u8>)>> {
        self.segments().for_each(|segment| segment.0.watch());
        let ran = self.run(input);
        let made: Vec<_> = self
            .segments()
            .flat_map(|segment| segment.0.take_watched())
            .collect();
        ran.map(|_| made)
    }

    fn segments(&self) -> impl Iterator<Item = &Segment> {
        let nodes = self.runnable.model().nodes.iter();
        nodes.filter_map(|node| node.op_as::<Segment>())
    }
}

fn optimize(
    mut proto: proto::Model,
    (datum_type, shape): (DatumType, &[usize]),
    isa: Isa,
) -> TractResult<TypedModel> {
    let graph = proto.graph.as_mut().context("no graph")?;
    let mut operators = passes::rewrite(graph);
    let mut model = tract_onnx::onnx()
        .with_ignore_value_info(true)
        .model_for_proto_model(&proto.into())?;
    for node in model.nodes_mut() {
        if node.op_is::<UnimplementedOp>()
            && let Some(operator) = operators.remove(&node.name)
        {
            node.op = expand(Import { operator, isa });
        }
    }
    model.set_input_fact(0, InferenceFact::dt_shape(datum_type, shape))?;
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
    let mut push = |name: &str, operator: &str, kernel: &str, macs: u64| {
        nodes.list.push(NodeInfo {
            name: name.to_owned(),
            operator: operator.to_owned(),
            kernel: kernel.to_owned(),
            macs,
        });
    };
    for node in model
        .eval_order()
        .unwrap_or_default()
        .into_iter()
        .map(|id| model.node(id))
    {
        if let Some(Segment(body)) = node.op_as::<Segment>() {
            for step in &body.steps {
                push(
                    &step.node,
                    step.operator,
                    step.isa.name(),
                    step.kernel.macs(),
                );
            }
        } else if !node.op_is::<TypedSource>() && !node.op_is::<Const>() {
            push(&node.name, &node.op.name(), "tract", 0);
        }
    }
    let in_tract = nodes.list.iter().filter(|node| node.kernel == "tract");
    nodes.tract_operators = in_tract.map(|node| node.operator.clone()).collect();
    nodes.tract = nodes.tract_operators.len();
    nodes.fast = nodes.list.len() - nodes.tract;
    let macs = nodes.list.iter().map(|node| node.macs).sum();
    nodes.tract_operators.sort();
    nodes.tract_operators.dedup();
    (nodes, macs)
}

/// The instruction set that the kernels run on.
pub(crate) fn isa() -> &'static str {
    Isa::detect().name()
}
