//! The processes of a sweep: one for each device, from one queue of runs.

use anyhow::Context;
use modernbert::lock::is_locked;
use modernbert_cli::INTERRUPTED;
use modernbert_cli::text::human_seconds;
use modernbert_train::sweep::{RunStatus, SweepDir};
use ranks::spawn::{end_with_this_process, hang_up, log_file};
use std::collections::VecDeque;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::super::print;
use super::super::signals::Signals;

/// Pause between two checks of the processes.
const PAUSE: Duration = Duration::from_millis(50);

/// Longest wait for a process that an earlier sweep left behind: it saves its run and ends.
const PATIENCE: Duration = Duration::from_secs(300);

/// Bytes at the end of a run's output in which its error is searched for.
const TAIL: u64 = 65_536;

/// The queue of a sweep's runs.
pub(super) struct Queue<'a> {
    pub(super) dir: &'a SweepDir,
    /// Names of all runs.
    pub(super) runs: &'a [&'a str],
    /// The devices; one without a name is the default.
    pub(super) devices: &'a [Option<String>],
    pub(super) peak_tflops: Option<f64>,
}

/// A run that a process works on.
struct Job {
    run: usize,
    child: Child,
    log: PathBuf,
    /// Bytes of the log before this process.
    before: u64,
    started: Instant,
}

impl Drop for Job {
    /// Ends a process that is left when this one fails; its run is saved.
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            hang_up(&self.child);
            // An error here would hide the one that ends this process.
            let _ = self.child.wait();
        }
    }
}

/// End of a process.
enum End {
    Finished,
    Interrupted,
    Failed(String),
}

impl Queue<'_> {
    /// Runs these runs. Returns true if it was interrupted.
    pub(super) fn run(&self, todo: Vec<usize>) -> anyhow::Result<bool> {
        let mut signals = Signals::watch()?;
        let mut todo = VecDeque::from(todo);
        let mut jobs: Vec<Option<Job>> = self.devices.iter().map(|_| None).collect();
        let (mut done, mut seconds, mut is_interrupted) = (0_usize, 0.0, false);
        let mut waiting: Option<Instant> = None;
        loop {
            if signals.is_due() {
                jobs.iter().flatten().for_each(|job| hang_up(&job.child));
            }
            is_interrupted |= signals.is_stopping();
            for slot in &mut jobs {
                let Some(job) = slot else { continue };
                let Some(status) = job.child.try_wait()? else {
                    continue;
                };
                match self.ended(job, status)? {
                    End::Interrupted => is_interrupted = true,
                    End::Finished => {
                        done += 1;
                        seconds += job.started.elapsed().as_secs_f64();
                    }
                    End::Failed(_) => {}
                }
                *slot = None;
                let running = jobs.iter().flatten().count();
                self.say_left(done, seconds, todo.len() + running, is_interrupted);
                // The borrow of `jobs` has ended with the slot; the next pass sees the others.
                break;
            }
            let busy = jobs.iter().flatten().count();
            if is_interrupted || todo.is_empty() {
                if busy == 0 {
                    return Ok(is_interrupted);
                }
            } else if let Some(slot) = jobs.iter().position(Option::is_none) {
                match self.free(&todo) {
                    Some(place) => {
                        waiting = None;
                        if let Some(run) = todo.remove(place) {
                            jobs[slot] = Some(self.start(run, slot)?);
                        }
                    }
                    None if busy == 0 => {
                        let since = *waiting.get_or_insert_with(|| {
                            print("another process still works on the next run; waiting for it");
                            Instant::now()
                        });
                        anyhow::ensure!(
                            since.elapsed() < PATIENCE,
                            "{}: another process works on this run; end it, then run the same command again",
                            self.dir.run(self.runs[todo[0]]).display()
                        );
                    }
                    None => {}
                }
            }
            thread::sleep(PAUSE);
        }
    }

    /// The first run that no process of an earlier sweep works on.
    fn free(&self, todo: &VecDeque<usize>) -> Option<usize> {
        todo.iter()
            .position(|&run| is_locked(&self.dir.run(self.runs[run])) != Some(true))
    }

    /// Starts or resumes a run on the device of a slot.
    fn start(&self, run: usize, slot: usize) -> anyhow::Result<Job> {
        let name = self.runs[run];
        let folder = self.dir.run(name);
        let is_begun = self.dir.status(name) != RunStatus::Waiting;
        let program = std::env::current_exe().context("the program's own file is not known")?;
        let mut command = Command::new(program);
        match is_begun {
            true => command.arg("resume").arg(&folder),
            false => {
                let recipe = self.dir.recipe_of(name);
                command.arg("run").arg(recipe).arg("--out").arg(&folder)
            }
        };
        command.arg("--lines");
        let device = self.devices[slot].as_deref();
        if let Some(device) = device {
            command.args(["--device", device]);
        }
        if let Some(peak) = self.peak_tflops {
            command.args(["--peak-tflops", &peak.to_string()]);
        }
        if self.devices.len() > 1 && std::env::var_os("RAYON_NUM_THREADS").is_none() {
            // Processes that each start a thread per core would compete for the cores.
            let cores = thread::available_parallelism().map_or(1, usize::from);
            let threads = (cores / self.devices.len()).max(1);
            command.env("RAYON_NUM_THREADS", threads.to_string());
        }
        let log = self.dir.log_of(name);
        let output = log_file(&log)?;
        let before = output.metadata().map_or(0, |found| found.len());
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        end_with_this_process(&mut command);
        let child = command
            .spawn()
            .with_context(|| format!("the process of {name} can't be started"))?;
        print(&format!(
            "{}: {}{}; its output: {}",
            self.label(run),
            if is_begun { "resumed" } else { "begun" },
            device.map_or_else(String::new, |device| format!(" on {device}")),
            log.display()
        ));
        Ok(Job {
            run,
            child,
            log,
            before,
            started: Instant::now(),
        })
    }

    /// Records and prints the end of a run.
    fn ended(&self, job: &Job, status: ExitStatus) -> anyhow::Result<End> {
        let name = self.runs[job.run];
        let label = self.label(job.run);
        let took = human_seconds(job.started.elapsed().as_secs_f64());
        let end = match status.code() {
            Some(0) => End::Finished,
            Some(code) if code == i32::from(INTERRUPTED) => End::Interrupted,
            _ => End::Failed(reason(status, &job.log, job.before)),
        };
        match &end {
            End::Finished => {
                let summary = last_line(&job.log, job.before, "run: ");
                let summary = summary.unwrap_or_else(|| "finished".to_owned());
                let summary = summary.split(" out=").next().unwrap_or_default();
                print(&format!("{label}: {summary} ({took})"));
                self.dir.set_failure(name, None)?;
            }
            End::Interrupted => print(&format!("{label}: interrupted")),
            End::Failed(reason) => {
                print(&format!("{label}: failed: {reason}"));
                self.dir.set_failure(name, Some(reason))?;
            }
        }
        Ok(end)
    }

    /// Prints the time that is left, by the finished runs of this process.
    fn say_left(&self, done: usize, seconds: f64, left: usize, is_interrupted: bool) {
        if done > 0 && left > 0 && !is_interrupted {
            let rounds = left.div_ceil(self.devices.len());
            let seconds = seconds / done as f64 * rounds as f64;
            print(&format!("{left} to go, about {}", human_seconds(seconds)));
        }
    }

    /// `[3/12] NAME`.
    fn label(&self, run: usize) -> String {
        format!("[{}/{}] {}", run + 1, self.runs.len(), self.runs[run])
    }
}

/// The reason why a process failed: its error, or the signal that ended it.
fn reason(status: ExitStatus, log: &Path, before: u64) -> String {
    if let Some(error) = last_line(log, before, "error: ") {
        return error;
    }
    let place = log.display();
    match status.code() {
        Some(code) => format!("exit code {code}; its output is in {place}"),
        None => format!("{status}; its output is in {place}"),
    }
}

/// The rest of the last line that begins with `start` in a log, after its first `before` bytes.
fn last_line(log: &Path, before: u64, start: &str) -> Option<String> {
    let mut file = modernbert::read::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    let from = before.max(length.saturating_sub(TAIL));
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut text = Vec::new();
    file.take(TAIL).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    let found = text.lines().rev().find_map(|line| line.strip_prefix(start));
    found.map(str::to_owned)
}
