//! Batches made ahead of the step, on threads of their own.
//!
//! Each thread makes whole batches, every n-th of them, so that nothing is shared and nothing waits but for the step.
//! Made and waiting are at most as many batches as there are threads, and two with one thread.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, JoinHandle};

use graft_shared::error::{Context, Error, Result};

use super::loader::{Batch, Loader};

/// A step's number -> height and width of its pictures, in pixels.
pub type Sizes = Arc<dyn Fn(u64) -> usize + Send + Sync>;

/// The batches of some steps, in their order.
#[derive(Debug)]
pub struct Prefetch {
    threads: Vec<Thread>,
    first: u64,
    left: Range<u64>,
}

#[derive(Debug)]
struct Thread {
    made: Receiver<Result<Batch>>,
    used: Sender<Batch>,
    handle: JoinHandle<()>,
}

impl Prefetch {
    /// Begins to make the batches of `steps` on so many threads. One thread is enough beside a step on the CPU.
    ///
    /// # Errors
    /// No thread, or one that can't be started.
    pub fn start(
        loader: &Arc<Loader>,
        sizes: &Sizes,
        steps: Range<u64>,
        threads: usize,
    ) -> Result<Self> {
        if threads == 0 {
            return Err(Error::new("batches need at least one thread"));
        }
        let waiting = usize::from(threads == 1);
        let start = |index: usize| {
            let (made_sender, made) = sync_channel(waiting);
            let (used, used_receiver) = channel();
            let (loader, sizes) = (Arc::clone(loader), Arc::clone(sizes));
            let steps = (steps.start + index as u64..steps.end).step_by(threads);
            let handle = Builder::new()
                .name(format!("pictures {index}"))
                .spawn(move || make(&loader, &sizes, steps, &made_sender, &used_receiver))
                .context("starting a thread for batches")?;
            Ok(Thread { made, used, handle })
        };
        Ok(Self {
            threads: (0..threads).map(start).collect::<Result<_>>()?,
            first: steps.start,
            left: steps,
        })
    }

    /// Gives a batch back, so that its memory is used again.
    pub fn recycle(&self, batch: Batch) {
        // The thread may have ended: then the memory is freed.
        let _ = self.thread(batch.step).used.send(batch);
    }

    fn thread(&self, step: u64) -> &Thread {
        let index = step.wrapping_sub(self.first) % self.threads.len() as u64;
        &self.threads[index as usize]
    }
}

impl Iterator for Prefetch {
    type Item = Result<Batch>;

    /// Waits for the next batch; after an error there is none.
    fn next(&mut self) -> Option<Self::Item> {
        let step = self.left.next()?;
        let batch = match self.thread(step).made.recv() {
            Ok(batch) => batch,
            Err(_) => Err(Error::new("a thread for batches ended before its time")),
        };
        if batch.is_err() {
            self.left = 0..0;
        }
        Some(batch)
    }
}

impl Drop for Prefetch {
    /// Waits until the threads have ended: each finishes the batch that it is at.
    fn drop(&mut self) {
        for Thread { made, handle, .. } in self.threads.drain(..) {
            drop(made);
            let _ = handle.join();
        }
    }
}

fn make(
    loader: &Loader,
    sizes: &Sizes,
    steps: impl Iterator<Item = u64>,
    made: &SyncSender<Result<Batch>>,
    used: &Receiver<Batch>,
) {
    for step in steps {
        let mut batch = used.try_recv().unwrap_or_default();
        let result = loader
            .fill(step, sizes(step), &mut batch)
            .with_context(|| format!("making the batch of step {step}"));
        let failed = result.is_err();
        if made.send(result.map(|()| batch)).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::loader::testing::loader;
    use super::*;

    fn sizes() -> Sizes {
        Arc::new(|step| if step < 6 { 8 } else { 12 })
    }

    fn batches(steps: Range<u64>, threads: usize) -> Vec<Batch> {
        let loader = Arc::new(loader(3));
        let mut prefetch = Prefetch::start(&loader, &sizes(), steps, threads).unwrap();
        let mut batches = Vec::new();
        while let Some(batch) = prefetch.next() {
            let batch = batch.unwrap();
            batches.push(batch.clone());
            prefetch.recycle(batch);
        }
        batches
    }

    #[test]
    fn batches_are_the_same_for_every_number_of_threads_and_from_every_step_on() {
        let all = batches(0..15, 1);
        assert_eq!(all.len(), 15);
        let loader = loader(3);
        for (step, batch) in (0..).zip(&all) {
            let mut made = Batch::default();
            loader.fill(step, sizes()(step), &mut made).unwrap();
            assert_eq!(*batch, made);
        }
        for threads in [2, 3, 20] {
            assert_eq!(batches(0..15, threads), all);
        }
        assert_eq!(batches(7..15, 2), all[7..]);
        assert!(batches(4..4, 2).is_empty());
    }

    #[test]
    fn ends_early_and_with_an_error() {
        let loader = Arc::new(loader(1));
        let mut prefetch = Prefetch::start(&loader, &sizes(), 0..u64::MAX, 3).unwrap();
        assert_eq!(prefetch.next().unwrap().unwrap().step, 0);
        drop(prefetch);

        let broken: Sizes = Arc::new(|step| if step < 2 { 8 } else { 0 });
        let prefetch = Prefetch::start(&loader, &broken, 0..9, 1).unwrap();
        let results: Vec<Result<Batch>> = prefetch.collect();
        assert_eq!(results.len(), 3);
        let report = results[2].as_ref().unwrap_err().report();
        assert!(report.contains("step 2"), "{report}");
        assert!(Prefetch::start(&loader, &sizes(), 0..9, 0).is_err());
    }
}
