//! A small pool of threads that share the work of one operator: made once, woken by a counter.

use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// How often a waiting thread looks before it sleeps or gives way: tens of microseconds, which bridges two operators.
const LOOKS: usize = 5_000;

/// Threads that run the parts of one job at the same time, the caller's among them.
#[derive(Debug)]
pub struct Threads {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held while a job runs: there is one job at a time.
    turn: Mutex<()>,
}

#[derive(Debug)]
struct Shared {
    /// Counts jobs: a worker has one to do when this differs from what it saw last.
    job_number: AtomicUsize,
    job: UnsafeCell<Option<Job>>,
    /// Workers that have not finished the job.
    unfinished: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
    asleep: AtomicUsize,
    bed: Mutex<()>,
    bell: Condvar,
}

/// Work that is borrowed for as long as the job runs.
#[derive(Clone, Copy)]
struct Job {
    work: *const (dyn Fn(usize) + Sync),
    parts: usize,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} parts", self.parts)
    }
}

// SAFETY: `job` is written by the holder of `turn` while every worker waits, and read by workers only between the
// increment of `job_number` (release) and their decrement of `unfinished` (release), which the holder awaits (acquire).
// The closure that it points to is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing in it is bound to a thread.
unsafe impl Send for Shared {}

impl Threads {
    /// A pool of `count` threads, the caller's included: 0 and 1 make none. Where the system gives fewer, it has fewer.
    #[must_use]
    pub fn new(count: usize) -> Threads {
        let shared = Arc::new(Shared {
            job_number: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            unfinished: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            asleep: AtomicUsize::new(0),
            bed: Mutex::new(()),
            bell: Condvar::new(),
        });
        let workers = (1..count)
            .map_while(|index| {
                let shared = Arc::clone(&shared);
                let name = format!("kernels {index}");
                let worker = thread::Builder::new().name(name);
                worker.spawn(move || shared.work(index)).ok()
            })
            .collect();
        Threads {
            shared,
            workers,
            turn: Mutex::new(()),
        }
    }

    /// Threads, the caller's included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `work(0)` to `work(parts - 1)`, at the same time where threads are free, and returns when all are done.
    ///
    /// # Panics
    /// When `work` does.
    pub fn run(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        if parts < 2 || parts > self.count() {
            return (0..parts).for_each(work);
        }
        // Another caller's job is running: this one is done here.
        let Ok(_turn) = self.turn.try_lock() else {
            return (0..parts).for_each(work);
        };
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. No worker holds the pointer when this function returns: it waits for
        // `unfinished` to become 0, whatever panics.
        let work_for_now: *const (dyn Fn(usize) + Sync) = unsafe {
            std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(work)
        };
        // SAFETY: `turn` is held and the last job is finished, so that nobody else looks at it.
        unsafe {
            *shared.job.get() = Some(Job {
                work: work_for_now,
                parts,
            });
        }
        shared
            .unfinished
            .store(self.workers.len(), Ordering::Relaxed);
        shared.job_number.fetch_add(1, Ordering::SeqCst);
        if shared.asleep.load(Ordering::SeqCst) > 0 {
            drop(shared.bed.lock().unwrap_or_else(PoisonError::into_inner));
            shared.bell.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| work(0)));
        let mut looks = 0;
        while shared.unfinished.load(Ordering::Acquire) > 0 {
            looks += 1;
            if looks < LOOKS {
                spin_loop();
            } else {
                thread::yield_now();
            }
        }
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        if shared.panicked.swap(false, Ordering::Relaxed) {
            resume_unwind(Box::new("a part of an operator panicked"));
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(
            self.shared
                .bed
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        self.shared.bell.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches what panics.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// What worker `index` does all its life.
    fn work(&self, index: usize) {
        let mut seen = 0;
        while self.await_job(seen) {
            seen = seen.wrapping_add(1);
            // SAFETY: between the increment of `job_number`, which was just seen, and the decrement below.
            let job = unsafe { *self.job.get() };
            if let Some(job) = job
                && index < job.parts
            {
                // SAFETY: the caller of `run` keeps the closure alive until `unfinished` is 0.
                let work = unsafe { &*job.work };
                if catch_unwind(AssertUnwindSafe(|| work(index))).is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                }
            }
            self.unfinished.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for the job after number `seen`; `false` when there will be none.
    fn await_job(&self, seen: usize) -> bool {
        let ready =
            || self.job_number.load(Ordering::SeqCst) != seen || self.stop.load(Ordering::SeqCst);
        for _ in 0..LOOKS {
            if ready() {
                return !self.stop.load(Ordering::SeqCst);
            }
            spin_loop();
        }
        let mut bed = self.bed.lock().unwrap_or_else(PoisonError::into_inner);
        self.asleep.fetch_add(1, Ordering::SeqCst);
        while !ready() {
            bed = self.bell.wait(bed).unwrap_or_else(PoisonError::into_inner);
        }
        self.asleep.fetch_sub(1, Ordering::SeqCst);
        !self.stop.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_runs_once_awake_or_asleep() {
        for count in [0, 1, 2, 3, 5] {
            let threads = Threads::new(count);
            assert_eq!(threads.count(), count.max(1));
            for round in 0..200 {
                for parts in 0..7 {
                    let ran: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                    threads.run(parts, &|part| {
                        ran[part].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(ran.iter().all(|times| times.load(Ordering::Relaxed) == 1));
                }
                if round % 64 == 63 {
                    thread::sleep(std::time::Duration::from_millis(5));
                }
            }
        }
    }

    #[test]
    fn callers_share_the_pool() {
        let threads = Threads::new(2);
        let ran = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        threads.run(2, &|_| {
                            ran.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(ran.load(Ordering::Relaxed), 3_000);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let threads = Threads::new(3);
        for bad in 0..3 {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                threads.run(3, &|part| assert_ne!(part, bad));
            }));
            assert!(caught.is_err());
            threads.run(3, &|_| {});
        }
    }
}
