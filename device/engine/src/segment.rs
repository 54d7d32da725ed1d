//! Runs of our operators as one node of tract's graph: their activations lie in slots that are planned once and reused
//! from image to image, and each operator's work is shared among the threads.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use graft_kernels::{AlignedBytes, Invalid, Isa, Operator, SLACK, Threads};
use tract_core::ops::konst::Const;
use tract_core::ops::source::TypedSource;
use tract_onnx::tract_hir::internal::*;

use crate::ops::{Fast, Kernel, Output};

/// Elements of output below which an operator is not worth sharing among threads, if it multiplies little too.
const LITTLE_OUTPUT: usize = 16 * 1024;
/// Multiply-adds below which it is not.
const FEW_MACS: u64 = 200_000;

/// Gathers the [`Fast`] nodes of `model` that follow each other into one [`Segment`] each.
pub(crate) fn gather(model: &TypedModel, threads: &Arc<Threads>) -> TractResult<TypedModel> {
    let mut target = TypedModel {
        symbols: model.symbols.clone(),
        ..TypedModel::default()
    };
    let mut moved: HashMap<OutletId, OutletId> = HashMap::new();
    let mut pending: Vec<usize> = vec![];
    for id in model.eval_order()? {
        let node = model.node(id);
        if node.op_is::<Fast>() {
            pending.push(id);
            continue;
        }
        // What has no inputs may stand anywhere before its users.
        if !node.op_is::<TypedSource>() && !node.op_is::<Const>() {
            flush(model, &mut target, &mut moved, &mut pending, threads)?;
        }
        let inputs = node
            .inputs
            .iter()
            .map(|input| find(&moved, *input))
            .collect::<TractResult<TVec<_>>>()?;
        let outlets = if node.op_is::<TypedSource>() {
            tvec!(target.add_source(&node.name, model.outlet_fact(id.into())?.clone())?)
        } else {
            target.wire_node(&node.name, node.op.clone(), &inputs)?
        };
        for (slot, outlet) in outlets.into_iter().enumerate() {
            moved.insert(OutletId::new(id, slot), outlet);
        }
    }
    flush(model, &mut target, &mut moved, &mut pending, threads)?;
    let all = |outlets: &[OutletId]| {
        outlets
            .iter()
            .map(|outlet| find(&moved, *outlet))
            .collect::<TractResult<Vec<_>>>()
    };
    target.inputs = all(model.input_outlets()?)?;
    target.outputs = all(model.output_outlets()?)?;
    Ok(target)
}

fn find(moved: &HashMap<OutletId, OutletId>, outlet: OutletId) -> TractResult<OutletId> {
    moved
        .get(&outlet)
        .copied()
        .context("a node is used before it is made")
}

/// Makes a segment of the `pending` nodes, which stand in the order of execution.
fn flush(
    model: &TypedModel,
    target: &mut TypedModel,
    moved: &mut HashMap<OutletId, OutletId>,
    pending: &mut Vec<usize>,
    threads: &Arc<Threads>,
) -> TractResult<()> {
    let ids = std::mem::take(pending);
    let Some(last) = ids.last() else {
        return Ok(());
    };
    let name = format!("{}.segment", model.node(*last).name);
    let plan = Planner::plan(model, &ids)?;
    let inputs = plan
        .inputs
        .iter()
        .map(|input| find(moved, input.outlet))
        .collect::<TractResult<TVec<_>>>()?;
    let results: Vec<OutletId> = plan.results.iter().map(|result| result.outlet).collect();
    let segment = Segment(Arc::new(plan.finish(threads)?));
    for (result, outlet) in results
        .into_iter()
        .zip(target.wire_node(name, segment, &inputs)?)
    {
        moved.insert(result, outlet);
    }
    Ok(())
}

/// A run of operators: what tract sees of it.
#[derive(Debug, Clone)]
pub(crate) struct Segment(pub(crate) Arc<Body>);

/// What a segment is made of.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) steps: Vec<Step>,
    /// The slot and length of each input of bytes; one of floats is read where it is.
    inputs: Vec<Option<(usize, usize)>>,
    /// Where each output is found, and what it is.
    results: Vec<(Place, Output)>,
    /// Bytes of each slot.
    slots: Vec<usize>,
    /// Bytes of each thread's scratch.
    scratch: usize,
    threads: Arc<Threads>,
    /// Arenas that no run uses.
    idle: Mutex<Vec<Arena>>,
    /// Whether the time of each step is added up.
    timed: AtomicBool,
    /// What each step of bytes made in the last run, by the step's index; `None` where nobody watches.
    watched: Mutex<Option<Vec<Made>>>,
}

/// A step's index, and the bytes that it made.
type Made = (usize, Vec<u8>);

/// One operator at its place.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) node: String,
    pub(crate) operator: &'static str,
    pub(crate) isa: Isa,
    pub(crate) kernel: Kernel,
    /// The work in parts, one per thread.
    parts: Vec<Range<usize>>,
    inputs: TVec<Place>,
    output: Place,
    /// Nanoseconds that it took while the segment was timed.
    nanoseconds: AtomicU64,
}

/// Where an activation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Slot(usize),
    /// An output of the segment that nothing inside reads.
    Result(usize),
    /// An input of the segment that is not bytes.
    Input(usize),
}

/// The memory of one run.
#[derive(Debug)]
struct Arena {
    slots: Vec<AlignedBytes>,
    scratch: Vec<AlignedBytes>,
}

/// An activation while slots are given out.
struct Activation {
    outlet: OutletId,
    output: Output,
    place: Place,
}

/// Gives slots to activations, in the order of execution: a slot is free again after its last reader.
#[derive(Default)]
struct Planner {
    steps: Vec<(String, Fast, TVec<Place>, Place)>,
    inputs: Vec<Activation>,
    results: Vec<Activation>,
    slots: Vec<usize>,
    free: Vec<usize>,
    slot_of: HashMap<OutletId, usize>,
}

impl Planner {
    fn plan(model: &TypedModel, ids: &[usize]) -> TractResult<Planner> {
        let position: HashMap<usize, usize> =
            ids.iter().enumerate().map(|(at, id)| (*id, at)).collect();
        let read_outside = |outlet: OutletId| -> TractResult<bool> {
            let elsewhere = model
                .outlet_successors(outlet)
                .iter()
                .any(|reader| !position.contains_key(&reader.node));
            Ok(elsewhere || model.output_outlets()?.contains(&outlet))
        };
        let last_reader = |outlet: OutletId| {
            let readers = model.outlet_successors(outlet).iter();
            readers
                .filter_map(|reader| position.get(&reader.node))
                .max()
        };
        let mut planner = Planner::default();
        for id in ids {
            for &outlet in &model.node(*id).inputs {
                if position.contains_key(&outlet.node)
                    || planner.inputs.iter().any(|input| input.outlet == outlet)
                {
                    continue;
                }
                let fact = model.outlet_fact(outlet)?;
                let len = fact.shape.volume().to_usize()?;
                let place = if fact.datum_type == u8::datum_type() {
                    Place::Slot(planner.take(outlet, len))
                } else {
                    Place::Input(planner.inputs.len())
                };
                planner.inputs.push(Activation {
                    outlet,
                    output: Output::Row(len),
                    place,
                });
            }
        }
        for (at, id) in ids.iter().enumerate() {
            let node = model.node(*id);
            let fast = node.op_as::<Fast>().context("a node that is not ours")?;
            let outlet = OutletId::from(*id);
            let inputs = node
                .inputs
                .iter()
                .map(|input| {
                    planner
                        .place_of(*input)
                        .context("an activation has no place")
                })
                .collect::<TractResult<TVec<Place>>>()?;
            let outside = read_outside(outlet)?;
            let place = match fast.output {
                Output::Image(_) | Output::Row(_) if last_reader(outlet).is_some() => {
                    Place::Slot(planner.take(outlet, fast.output.len()))
                }
                _ => Place::Result(planner.results.len()),
            };
            if outside || matches!(place, Place::Result(_)) {
                planner.results.push(Activation {
                    outlet,
                    output: fast.output,
                    place,
                });
            }
            planner
                .steps
                .push((node.name.clone(), fast.clone(), inputs, place));
            for input in &node.inputs {
                if last_reader(*input) == Some(&at)
                    && (!position.contains_key(&input.node) || !read_outside(*input)?)
                    && let Some(slot) = planner.slot_of.remove(input)
                {
                    planner.free.push(slot);
                }
            }
        }
        Ok(planner)
    }

    fn place_of(&self, outlet: OutletId) -> Option<Place> {
        let slot = self.slot_of.get(&outlet).map(|slot| Place::Slot(*slot));
        let input = self.inputs.iter().find(|input| input.outlet == outlet);
        slot.or_else(|| input.map(|input| input.place))
    }

    /// The free slot that fits best, enlarged where none is large enough, or a new one.
    fn take(&mut self, outlet: OutletId, bytes: usize) -> usize {
        let fits = |slot: &usize| self.slots[*slot] >= bytes;
        let best = self
            .free
            .iter()
            .copied()
            .filter(fits)
            .min_by_key(|slot| self.slots[*slot])
            .or_else(|| {
                self.free
                    .iter()
                    .copied()
                    .max_by_key(|slot| self.slots[*slot])
            });
        let slot = match best {
            Some(slot) => {
                self.free.retain(|free| *free != slot);
                self.slots[slot] = self.slots[slot].max(bytes);
                slot
            }
            None => {
                self.slots.push(bytes);
                self.slots.len() - 1
            }
        };
        self.slot_of.insert(outlet, slot);
        slot
    }

    fn finish(self, threads: &Arc<Threads>) -> TractResult<Body> {
        let kernels = kernels(&self.steps)?;
        let mut scratch = 0;
        let steps = self.steps.into_iter().zip(kernels);
        let steps = steps.map(|((node, fast, inputs, output), kernel)| {
            let parts = match &kernel {
                Kernel::Image(operator) => {
                    scratch = scratch.max(operator.scratch_len());
                    parts(operator, threads.count())
                }
                Kernel::Logits(operator) => {
                    scratch = scratch.max(operator.scratch_len());
                    parts(operator, threads.count())
                }
                Kernel::Quantize(_) => vec![],
            };
            Step {
                node,
                operator: fast.operator.name(),
                isa: fast.isa,
                kernel,
                parts,
                inputs,
                output,
                nanoseconds: AtomicU64::new(0),
            }
        });
        let slot = |input: &Activation| match input.place {
            Place::Slot(slot) => Some((slot, input.output.len())),
            Place::Result(_) | Place::Input(_) => None,
        };
        Ok(Body {
            steps: steps.collect(),
            inputs: self.inputs.iter().map(slot).collect(),
            results: self
                .results
                .iter()
                .map(|result| (result.place, result.output))
                .collect(),
            slots: self.slots,
            scratch,
            threads: Arc::clone(threads),
            idle: Mutex::default(),
            timed: AtomicBool::new(false),
            watched: Mutex::default(),
        })
    }
}

/// Makes the operators of all steps ready, on all processors: laying weights out is most of a cold start.
fn kernels(steps: &[(String, Fast, TVec<Place>, Place)]) -> TractResult<Vec<Kernel>> {
    let next = AtomicUsize::new(0);
    let make = || {
        let indices = std::iter::from_fn(|| {
            let index = next.fetch_add(1, Ordering::Relaxed);
            (index < steps.len()).then_some(index)
        });
        indices
            .map(|index| (index, steps[index].1.kernel()))
            .collect::<Vec<_>>()
    };
    let mut made = thread::scope(|scope| {
        let count = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let helpers: Vec<_> = (1..count.min(steps.len()))
            .map(|_| scope.spawn(make))
            .collect();
        let mut made = make();
        for helper in helpers {
            match helper.join() {
                Ok(more) => made.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        made
    });
    made.sort_by_key(|(index, _)| *index);
    made.into_iter()
        .map(|(index, kernel)| kernel.with_context(|| format!("in `{}`", steps[index].0)))
        .collect()
}

/// The operator's work in as many parts as there are threads, or in one where sharing costs more than it spares.
fn parts<T>(operator: &Operator<T>, threads: usize) -> Vec<Range<usize>> {
    let little = operator.output_len() < LITTLE_OUTPUT && operator.macs() < FEW_MACS;
    operator.split(if little { 1 } else { threads })
}

impl Body {
    fn run(&self, inputs: &[TValue], results: &mut [Tensor]) -> TractResult<()> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let reused = idle().pop();
        let mut arena = reused.unwrap_or_else(|| self.arena());
        for (input, place) in inputs.iter().zip(&self.inputs) {
            if let Some((slot, len)) = place {
                let view = input.try_as_plain_ram()?;
                let bytes = view.as_slice::<u8>()?;
                ensure!(bytes.len() == *len, "an input of another length");
                arena.slots[*slot][..*len].copy_from_slice(bytes);
            }
        }
        let timed = self.timed.load(Ordering::Relaxed);
        let mut watched = Some(self.watched()).filter(|watched| watched.is_some());
        for (index, step) in self.steps.iter().enumerate() {
            let start = timed.then(Instant::now);
            step.run(&self.threads, &mut arena, inputs, results)
                .with_context(|| format!("in `{}`", step.node))?;
            if let Some(start) = start {
                let nanoseconds = start.elapsed().as_nanos() as u64;
                step.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
            }
            if let Some(watched) = watched.as_mut().and_then(|watched| watched.as_mut())
                && let Some(bytes) = step.made(&arena, results)?
            {
                watched.push((index, bytes));
            }
        }
        for ((place, output), result) in self.results.iter().zip(results) {
            if let Place::Slot(slot) = place {
                let mut view = result.try_as_plain_ram_mut()?;
                let bytes = view.as_slice_mut::<u8>()?;
                bytes.copy_from_slice(&arena.slots[*slot][..output.len()]);
            }
        }
        idle().push(arena);
        Ok(())
    }

    /// Sets all times to 0, and whether the times of further runs are added up.
    pub(crate) fn time(&self, on: bool) {
        if on {
            let steps = self.steps.iter();
            steps.for_each(|step| step.nanoseconds.store(0, Ordering::Relaxed));
        }
        self.timed.store(on, Ordering::Relaxed);
    }

    /// The time of each step in nanoseconds.
    pub(crate) fn times(&self) -> impl Iterator<Item = u64> {
        let steps = self.steps.iter();
        steps.map(|step| step.nanoseconds.load(Ordering::Relaxed))
    }

    /// Begins to keep what each step makes.
    pub(crate) fn watch(&self) {
        *self.watched() = Some(Vec::new());
    }

    /// Ends it: the node's name and the bytes of each step that made bytes, images in NHWC.
    pub(crate) fn take_watched(&self) -> Vec<(String, Vec<u8>)> {
        let watched = self.watched().take().unwrap_or_default().into_iter();
        watched
            .map(|(index, bytes)| (self.steps[index].node.clone(), bytes))
            .collect()
    }

    fn watched(&self) -> MutexGuard<'_, Option<Vec<Made>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arena(&self) -> Arena {
        let slots = self.slots.iter();
        Arena {
            slots: slots
                .map(|bytes| AlignedBytes::new(bytes + SLACK))
                .collect(),
            scratch: (0..self.threads.count())
                .map(|_| AlignedBytes::new(self.scratch))
                .collect(),
        }
    }
}

impl Step {
    fn run(
        &self,
        threads: &Threads,
        arena: &mut Arena,
        inputs: &[TValue],
        results: &mut [Tensor],
    ) -> TractResult<()> {
        match (self.output, &self.kernel) {
            (Place::Slot(slot), Kernel::Quantize(quantize)) => {
                let bytes = &mut arena.slots[slot][..quantize.len()];
                quantize.run(self.floats(inputs)?, bytes)?;
            }
            (Place::Result(index), Kernel::Quantize(quantize)) => {
                let mut view = results[index].try_as_plain_ram_mut()?;
                quantize.run(self.floats(inputs)?, view.as_slice_mut::<u8>()?)?;
            }
            (Place::Slot(slot), Kernel::Image(operator)) => {
                let mut output = std::mem::take(&mut arena.slots[slot]);
                let bytes = &mut output[..operator.output_len()];
                let ran = self.share(operator, threads, arena, bytes);
                arena.slots[slot] = output;
                ran?;
            }
            (Place::Result(index), Kernel::Image(operator)) => {
                let mut view = results[index].try_as_plain_ram_mut()?;
                self.share(operator, threads, arena, view.as_slice_mut::<u8>()?)?;
            }
            (Place::Result(index), Kernel::Logits(operator)) => {
                let mut view = results[index].try_as_plain_ram_mut()?;
                self.share(operator, threads, arena, view.as_slice_mut::<f32>()?)?;
            }
            (place, kernel) => bail!("{kernel:?} into {place:?}"),
        }
        Ok(())
    }

    /// The bytes that it has just made; `None` for logits.
    fn made(&self, arena: &Arena, results: &[Tensor]) -> TractResult<Option<Vec<u8>>> {
        let len = match &self.kernel {
            Kernel::Image(operator) => operator.output_len(),
            Kernel::Quantize(quantize) => quantize.len(),
            Kernel::Logits(_) => return Ok(None),
        };
        Ok(Some(match self.output {
            Place::Slot(slot) => arena.slots[slot][..len].to_vec(),
            Place::Result(index) => {
                let view = results[index].try_as_plain_ram()?;
                view.as_slice::<u8>()?.to_vec()
            }
            Place::Input(_) => bail!("an output in the place of an input"),
        }))
    }

    /// The input of floats that the step reads.
    fn floats<'a>(&self, inputs: &'a [TValue]) -> TractResult<&'a [f32]> {
        let [Place::Input(index)] = self.inputs[..] else {
            bail!("floats that are no input of the segment");
        };
        let picture = inputs.get(index).context("an input is missing")?;
        picture.try_as_plain_ram()?.as_slice::<f32>()
    }

    /// Runs the operator, its parts on one thread each.
    fn share<T: Send>(
        &self,
        operator: &Operator<T>,
        threads: &Threads,
        arena: &mut Arena,
        output: &mut [T],
    ) -> Result<(), Invalid> {
        let Arena { slots, scratch } = arena;
        let inputs: TVec<&[u8]> = self
            .inputs
            .iter()
            .filter_map(|place| match place {
                Place::Slot(slot) => Some(&*slots[*slot]),
                Place::Result(_) | Place::Input(_) => None,
            })
            .collect();
        if let ([units], [scratch, ..]) = (&*self.parts, &mut scratch[..]) {
            return operator.run_part(units.clone(), &inputs, output, scratch);
        }
        let mut rest = output;
        let pieces: Vec<_> = self
            .parts
            .iter()
            .zip(scratch)
            .map(|(units, scratch)| {
                let len = operator.output_range(units.clone()).len();
                let (piece, after) = std::mem::take(&mut rest).split_at_mut(len);
                rest = after;
                Mutex::new((piece, scratch, Ok(())))
            })
            .collect();
        threads.run(pieces.len(), &|part| {
            let mut piece = pieces[part].lock().unwrap_or_else(PoisonError::into_inner);
            let (output, scratch, ran) = &mut *piece;
            *ran = operator.run_part(self.parts[part].clone(), &inputs, output, scratch);
        });
        pieces.into_iter().try_for_each(|piece| {
            let (_, _, ran) = piece.into_inner().unwrap_or_else(PoisonError::into_inner);
            ran
        })
    }
}

impl PartialEq for Segment {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Segment {}

impl Op for Segment {
    fn name(&self) -> StaticName {
        "Segment".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Segment {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let tensors = self.0.results.iter().map(|(_, output)| output.tensor());
        let mut results = tensors.collect::<TractResult<TVec<Tensor>>>()?;
        self.0.run(&inputs, &mut results)?;
        Ok(results.into_iter().map(Tensor::into_tvalue).collect())
    }
}

impl TypedOp for Segment {
    fn output_facts(&self, _: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let facts = self.0.results.iter().map(|(_, output)| output.fact());
        Ok(facts.collect())
    }

    as_op!();
}

#[cfg(test)]
mod tests;
