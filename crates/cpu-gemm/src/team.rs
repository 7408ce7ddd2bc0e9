//! A fixed set of threads that run one function together, with barriers.
//!
//! A forward pass is a sequence of short phases. A thread pool would queue and join its tasks for each phase; the threads of a team stay in
//! the function and synchronize at barriers that spin for a short time.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Polls of a barrier before a thread yields: a few microseconds. Without the yield, waiting threads of a busy machine would take the processor from
/// the thread that they wait for.
const SPINS: usize = 4096;

/// The threads; see the module. The caller's thread is one of them.
#[derive(Debug)]
pub struct Team {
    shared: Arc<TeamState>,
    threads: Vec<JoinHandle<()>>,
    /// One caller at a time.
    turn: Mutex<()>,
}

/// Function of a run, without its lifetime.
#[derive(Clone, Copy)]
struct Job(*const (dyn Fn(&Worker<'_>) + Sync));

// SAFETY: the function is `Sync`, and `Team::run` returns only after all threads left it.
unsafe impl Send for Job {}

struct TeamState {
    size: usize,
    state: Mutex<JobState>,
    changed: Condvar,
    barrier: AtomicUsize,
    arrived: AtomicUsize,
    next: AtomicUsize,
    /// A worker panicked: barriers panic instead of waiting for it.
    failed: AtomicBool,
}

impl std::fmt::Debug for TeamState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} threads", self.size)
    }
}

struct JobState {
    /// Number of the run; a thread takes part in each once.
    run: usize,
    job: Option<Job>,
    /// Threads that have not left the job, the caller's not counted.
    busy: usize,
    panic: Option<Box<dyn Any + Send>>,
    ends: bool,
}

/// A thread of a team inside [`Team::run`].
#[derive(Debug)]
pub struct Worker<'a> {
    shared: &'a TeamState,
    index: usize,
}

impl Team {
    /// A team of `size` threads, the caller's included; at least one.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn new(size: usize) -> std::io::Result<Self> {
        let size = size.max(1);
        let shared = Arc::new(TeamState {
            size,
            state: Mutex::new(JobState {
                run: 0,
                job: None,
                busy: 0,
                panic: None,
                ends: false,
            }),
            changed: Condvar::new(),
            barrier: AtomicUsize::new(0),
            arrived: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
        });
        let mut team = Self {
            shared: shared.clone(),
            threads: Vec::new(),
            turn: Mutex::new(()),
        };
        for index in 1..size {
            let shared = shared.clone();
            let thread = std::thread::Builder::new()
                .name(format!("cpu-gemm-{index}"))
                .spawn(move || shared.worker_loop(index))?;
            team.threads.push(thread);
        }
        Ok(team)
    }

    /// Number of threads.
    pub fn size(&self) -> usize {
        self.shared.size
    }

    /// Calls `function` on every thread at once and returns when all of them have returned. Calls from several threads run one after the other.
    ///
    /// # Panics
    /// With the panic of a thread, after all of them have left. A call from inside of a call never returns.
    pub fn run(&self, function: &(dyn Fn(&Worker<'_>) + Sync)) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes; see `Job`.
        let job = Job(unsafe {
            std::mem::transmute::<
                *const (dyn Fn(&Worker<'_>) + Sync),
                *const (dyn Fn(&Worker<'_>) + Sync + 'static),
            >(function)
        });
        shared.failed.store(false, Ordering::Relaxed);
        shared.arrived.store(0, Ordering::Relaxed);
        shared.next.store(0, Ordering::Relaxed);
        {
            let mut state = shared.lock();
            state.run += 1;
            state.job = Some(job);
            state.busy = shared.size - 1;
        }
        shared.changed.notify_all();
        shared.call(0, job);
        let mut state = shared.lock();
        while state.busy > 0 {
            state = shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.job = None;
        if let Some(panic) = state.panic.take() {
            drop(state);
            resume_unwind(panic);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.lock().ends = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A thread catches the panics of jobs.
            let _ = thread.join();
        }
    }
}

impl TeamState {
    fn lock(&self) -> MutexGuard<'_, JobState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn worker_loop(&self, index: usize) {
        let mut done = 0;
        loop {
            let job = {
                let mut state = self.lock();
                loop {
                    if state.ends {
                        return;
                    }
                    match state.job {
                        Some(job) if state.run != done => {
                            done = state.run;
                            break job;
                        }
                        _ => {
                            state = self
                                .changed
                                .wait(state)
                                .unwrap_or_else(PoisonError::into_inner);
                        }
                    }
                }
            };
            self.call(index, job);
            let mut state = self.lock();
            state.busy -= 1;
            if state.busy == 0 {
                self.changed.notify_all();
            }
        }
    }

    /// Runs the job and keeps its panic, the first of all threads.
    fn call(&self, index: usize, job: Job) {
        let worker = Worker {
            shared: self,
            index,
        };
        // SAFETY: `Team::run` keeps the function alive until all threads have left.
        let function = unsafe { &*job.0 };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| function(&worker))) {
            self.failed.store(true, Ordering::Release);
            let mut state = self.lock();
            if state.panic.is_none() {
                state.panic = Some(panic);
            }
        }
    }
}

impl Worker<'_> {
    /// Index of the thread, below [`Self::count`].
    pub fn index(&self) -> usize {
        self.index
    }

    /// Number of threads.
    pub fn count(&self) -> usize {
        self.shared.size
    }

    /// Calls `task` for every index below `count`, each on one thread, in increasing order of their starts; then waits at a barrier. Every thread of
    /// the team must make the same calls. A thread that the system runs less gets fewer tasks.
    ///
    /// # Panics
    /// If another thread panicked.
    pub fn parallel_for(&self, count: usize, mut task: impl FnMut(usize)) {
        loop {
            let index = self.shared.next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            task(index);
        }
        self.barrier();
    }

    /// Waits until all threads have arrived.
    fn barrier(&self) {
        let shared = self.shared;
        let generation = shared.barrier.load(Ordering::Acquire);
        if shared.arrived.fetch_add(1, Ordering::AcqRel) + 1 == shared.size {
            // The last thread prepares the next phase before it releases the others.
            shared.arrived.store(0, Ordering::Relaxed);
            shared.next.store(0, Ordering::Relaxed);
            shared.barrier.fetch_add(1, Ordering::Release);
            return;
        }
        let mut spins = 0;
        while shared.barrier.load(Ordering::Acquire) == generation {
            assert!(
                !shared.failed.load(Ordering::Acquire),
                "another thread of the team panicked"
            );
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_and_phases_follow_each_other() {
        for size in [1, 2, 5] {
            let team = Team::new(size).unwrap();
            assert_eq!(team.size(), size);
            for _ in 0..50 {
                let counts: Vec<AtomicUsize> = (0..37).map(|_| AtomicUsize::new(0)).collect();
                team.run(&|worker| {
                    for phase in 0..20 {
                        worker.parallel_for(counts.len(), |i| {
                            // All tasks of the phase before are done.
                            let done = counts[(i + 7) % 37].load(Ordering::Relaxed);
                            assert!(done == phase || done == phase + 1);
                            counts[i].fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
                assert!(
                    counts
                        .iter()
                        .all(|count| count.load(Ordering::Relaxed) == 20)
                );
            }
        }
    }

    #[test]
    fn a_panic_of_one_thread_reaches_the_caller_and_the_team_goes_on() {
        let team = Team::new(3).unwrap();
        for guilty in 0..3 {
            let run = || {
                team.run(&|worker| {
                    assert!(worker.index() != guilty, "the guilty one");
                    worker.parallel_for(10, |_| {});
                });
            };
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        }
        let sum = AtomicUsize::new(0);
        team.run(&|worker| {
            worker.parallel_for(100, |i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
        });
        assert_eq!(sum.into_inner(), 4950);
    }

    #[test]
    fn callers_take_turns() {
        let team = Team::new(2).unwrap();
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        team.run(&|worker| {
                            worker.parallel_for(3, |_| {
                                sum.fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 600);
    }
}
