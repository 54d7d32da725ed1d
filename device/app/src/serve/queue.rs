//! The one way to the engine: a bounded queue, and threads of its own that do what is in it, one thing after the other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use graft_shared::error::{Context, Result};
use graft_shared::limits::MAX_QUEUE;
use tokio::sync::{mpsc, oneshot};

type Job = Box<dyn FnOnce() + Send>;

/// Work for the engine waits here.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    sender: mpsc::Sender<Job>,
    workers: Arc<[Worker]>,
    start: Instant,
}

/// Why work was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is no room in the queue.
    Full,
    /// It panicked; what it worked on is lost, and nothing else.
    Panicked,
}

/// What a thread is at.
#[derive(Debug, Default)]
struct Worker {
    /// Milliseconds from the queue's start, plus one, since which it does the same; 0 while it waits.
    busy_since: AtomicU64,
}

impl Queue {
    /// Starts as many `threads`; they end when the queue is dropped.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(threads: usize) -> Result<Self> {
        let (sender, receiver) = mpsc::channel::<Job>(MAX_QUEUE);
        let receiver = Arc::new(Mutex::new(receiver));
        let workers: Arc<[Worker]> = (0..threads.max(1)).map(|_| Worker::default()).collect();
        let start = Instant::now();
        for index in 0..workers.len() {
            let (receiver, workers) = (receiver.clone(), workers.clone());
            let work = move || {
                let next = || receiver.lock().ok()?.blocking_recv();
                while let Some(job) = next() {
                    let busy_since = &workers[index].busy_since;
                    let now = start.elapsed().as_millis() as u64;
                    busy_since.store(now + 1, Ordering::Relaxed);
                    job();
                    busy_since.store(0, Ordering::Relaxed);
                }
            };
            thread::Builder::new()
                .name(format!("engine-{index}"))
                .spawn(work)
                .context("can't start a thread for the engine")?;
        }
        Ok(Self {
            sender,
            workers,
            start,
        })
    }

    /// Does `work` in its turn, unless the queue is full.
    pub(crate) async fn offer<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let (job, reply) = job(work);
        self.sender.try_send(job).map_err(|_| Refused::Full)?;
        reply.await.map_err(|_| Refused::Panicked)
    }

    /// Does `work` in its turn, which may be a while.
    pub(crate) async fn wait<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let (job, reply) = job(work);
        self.sender.send(job).await.map_err(|_| Refused::Full)?;
        reply.await.map_err(|_| Refused::Panicked)
    }

    /// How many wait.
    pub(crate) fn depth(&self) -> usize {
        self.sender.max_capacity() - self.sender.capacity()
    }

    /// For how long the thread that has been at the same longest has been at it.
    pub(crate) fn longest(&self) -> Duration {
        let now = self.start.elapsed().as_millis() as u64;
        let since = |worker: &Worker| worker.busy_since.load(Ordering::Relaxed);
        let busy = self.workers.iter().map(since).filter(|&since| since > 0);
        let longest = busy.map(|since| (now + 1).saturating_sub(since)).max();
        Duration::from_millis(longest.unwrap_or(0))
    }
}

/// Work whose panic drops the sender of its reply and harms nobody else.
fn job<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> (Job, oneshot::Receiver<T>) {
    let (sender, receiver) = oneshot::channel();
    let job = Box::new(move || {
        if let Ok(done) = catch_unwind(AssertUnwindSafe(work)) {
            // Nobody waits any more where the connection is gone.
            let _ = sender.send(done);
        }
    });
    (job, receiver)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, clippy::unwrap_used)]
    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(test)
    }

    #[test]
    fn a_panic_costs_the_work_that_panicked() {
        let queue = Queue::start(1).unwrap();
        run(async {
            for turn in 0..3 {
                let panicked = queue.offer(|| panic!("on purpose")).await;
                assert_eq!(panicked, Err::<(), _>(Refused::Panicked));
                assert_eq!(queue.offer(move || turn).await, Ok(turn));
            }
        });
    }

    #[test]
    fn a_full_queue_refuses_and_says_for_how_long_it_works() {
        let queue = Queue::start(1).unwrap();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        run(async {
            let hanging = queue.offer(move || wait.recv().is_err());
            let mut hanging = Box::pin(hanging);
            let once = std::future::poll_fn(|context| {
                let _ = hanging.as_mut().poll(context);
                std::task::Poll::Ready(())
            });
            once.await;
            while queue.longest() < Duration::from_millis(20) {
                thread::sleep(Duration::from_millis(1));
            }
            // The thread has one; so many wait.
            let mut waiting: Vec<_> = (0..MAX_QUEUE)
                .map(|turn| Box::pin(queue.offer(move || turn)))
                .collect();
            for work in &mut waiting {
                std::future::poll_fn(|context| {
                    assert!(work.as_mut().poll(context).is_pending());
                    std::task::Poll::Ready(())
                })
                .await;
            }
            assert_eq!(queue.depth(), MAX_QUEUE);
            assert_eq!(queue.offer(|| ()).await, Err(Refused::Full));
            drop(go);
            assert_eq!(hanging.await, Ok(true));
            for (turn, work) in waiting.into_iter().enumerate() {
                assert_eq!(work.await, Ok(turn));
            }
            assert_eq!(queue.longest(), Duration::ZERO);
        });
    }
}
