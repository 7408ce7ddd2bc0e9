//! `sweep`: the runs of a grid.

mod queue;

use anyhow::{Context, bail};
use clap::Args;
use modernbert::device::select;
use modernbert::output::OutputCheck;
use modernbert_cli::text::{counted, human_count};
use modernbert_cli::{DeviceArgs, INTERRUPTED, check_stdout};
use modernbert_train::sweep::{Grid, NewRuns, Overrides, PlannedRun, Report, RunStatus, SweepDir};
use ranks::World;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::arguments::{SettingArgs, reads_and_needs};
use super::print;
use super::train::check_corpus;
use queue::Queue;

pub(crate) const SWEEP_HELP: &str = "\
A grid is a TOML file:

  base = \"17m\"                      a built-in recipe, or the path of one, relative to the grid's folder
  seeds = 3                         1, 2 and 3; or a list, such as [17, 18]
  [settings]                        optional: settings of all runs
  run.total_tokens = 50_000_000
  [grid]                            every combination of these values
  model.hidden_activation = [\"gelu\", \"silu\"]
  model.flexbert.normalization = [\"layernorm\", \"rmsnorm\"]

or, in place of [grid], a [[list]] table for each row, with a name and settings. Keys are those of recipes, phase.NAME.key for one phase; the value
\"unset\" restores a default. The first row is the one that the others are compared with.

Examples:
  modernbert-train sweep norms --out sweeps/norms --corpus shards/ --devices cuda:0,cuda:1
      a built-in grid: activations, blocks, norms, optimizers, schedules, windows
  modernbert-train sweep my.toml --dry-run
  modernbert-train sweep --report sweeps/norms

Every run is a folder FOLDER/runs/NAME-seedN that `resume`, `plot`, `diff` and the other commands take. Ctrl-C saves the runs and ends with
exit code 130; the same command goes on. Finished runs are not repeated. A run that fails is recorded, the others go on, and the exit code is 2;
--retry-failed runs it again. Rows and seeds can be added to the grid later.";

#[derive(Args)]
pub(crate) struct Sweep {
    /// Runs this grid: a TOML file, or the name of a built-in grid.
    #[arg(required_unless_present = "report", conflicts_with = "report")]
    grid: Option<PathBuf>,
    /// Writes the sweep to this folder.
    #[arg(
        long,
        value_name = "FOLDER",
        required_unless_present_any = ["report", "dry_run"],
        conflicts_with = "report"
    )]
    out: Option<PathBuf>,
    /// Makes table and picture again from the runs of this sweep's folder, and starts nothing.
    #[arg(long, value_name = "FOLDER")]
    report: Option<PathBuf>,
    /// Prints the runs with their settings and tokens, and starts nothing.
    #[arg(long, conflicts_with = "report")]
    dry_run: bool,
    /// Runs failed runs again.
    #[arg(long, conflicts_with_all = ["report", "dry_run"])]
    retry_failed: bool,
    /// Runs one process on each of these devices, such as cuda:0,cuda:1; a CPU may be named several times, its cores are then shared.
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        conflicts_with_all = ["device", "report"]
    )]
    devices: Vec<String>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Trains on this text instead of the recipe's; may be repeated.
    #[arg(long, value_name = "PATH", conflicts_with = "report")]
    corpus: Vec<PathBuf>,
    #[command(flatten)]
    settings: SettingArgs,
    /// Computes MFU from this peak of the device, in TFLOP/s at the dtype of training; by default from the built-in table of devices.
    #[arg(long, value_name = "TFLOPS", conflicts_with = "report")]
    peak_tflops: Option<f64>,
}

impl Sweep {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        check_stdout()?;
        if let Some(folder) = &self.report {
            let given = [
                ("--set", !self.settings.overrides.is_empty()),
                ("--dtype", self.settings.dtype.is_some()),
                ("--device", self.device.device.is_some()),
            ];
            if let Some((name, _)) = given.iter().find(|(_, is_given)| *is_given) {
                bail!("{name} has no effect beside --report; leave it out");
            }
            let dir = SweepDir::read(folder)?;
            report(&dir)?;
            return Ok(ExitCode::SUCCESS);
        }
        let path = self.grid.as_deref().context("name a grid")?;
        self.settings.check_corpus(&self.corpus)?;
        let grid = Grid::read(path)?;
        let overrides = Overrides {
            settings: self.settings.overrides()?,
            corpus: self.corpus.clone(),
        };
        let runs = grid.runs(&overrides)?;
        for run in &runs {
            check_corpus(&run.recipe, &run.text, &self.corpus)?;
        }
        if self.dry_run {
            return show(&grid, &runs);
        }
        let out = self.out.as_deref().context("--out is missing")?;
        self.start(&grid, &runs, path, out)
    }

    /// Runs what is not finished.
    fn start(
        &self,
        grid: &Grid,
        runs: &[PlannedRun],
        path: &Path,
        out: &Path,
    ) -> anyhow::Result<ExitCode> {
        let world = World::from_environment()?;
        anyhow::ensure!(
            world.size == 1,
            "a launcher such as torchrun, srun or mpirun has started this process as rank {} of {}; a sweep starts its processes itself \
             (--devices): start it once",
            world.rank,
            world.size
        );
        let devices = self.devices()?;
        check_out(out, path, runs)?;
        let (dir, new) = SweepDir::open(out, grid, runs)?;
        let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
        let mut todo = Vec::new();
        for (number, name) in names.iter().enumerate() {
            match dir.status(name) {
                RunStatus::Finished => {}
                RunStatus::Failed(_) if !self.retry_failed => {}
                RunStatus::Failed(_) => {
                    dir.set_failure(name, None)?;
                    todo.push(number);
                }
                _ => todo.push(number),
            }
        }
        announce(grid, &dir, &names, &new, self.retry_failed);
        let queue = Queue {
            dir: &dir,
            runs: &names,
            devices: &devices,
            peak_tflops: self.peak_tflops,
        };
        let is_interrupted = queue.run(todo)?;
        let found = Report::of(&dir)?;
        found.write(&dir)?;
        if is_interrupted {
            print(&format!(
                "interrupted, {} of {} runs are finished; go on with the same command: {}",
                found.count("finished"),
                names.len(),
                command_line()
            ));
            return Ok(ExitCode::from(INTERRUPTED));
        }
        say_report(&found, &dir);
        let failed = found.count("failed");
        if failed > 0 {
            bail!(
                "{} of {} runs failed, see the table; correct the cause and run the same command with --retry-failed, or leave the rows out of \
                 another sweep",
                failed,
                names.len()
            );
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The devices by name; one without a name is the default.
    fn devices(&self) -> anyhow::Result<Vec<Option<String>>> {
        if let Some(peak) = self
            .peak_tflops
            .filter(|peak| !(*peak > 0.0 && peak.is_finite()))
        {
            bail!("--peak-tflops is {peak}; give the device's peak, above 0, or leave it out");
        }
        if self.devices.is_empty() {
            self.device.select()?;
            return Ok(vec![self.device.device.clone()]);
        }
        let mut names: Vec<String> = Vec::new();
        for name in &self.devices {
            let found = select(Some(name.trim())).context("--devices")?.name;
            if found != "flex" && names.contains(&found) {
                bail!("--devices names {found} twice; name each GPU once");
            }
            names.push(found);
        }
        Ok(names.into_iter().map(Some).collect())
    }
}

/// Checks that the sweep can be written to `--out`, before anything is started.
fn check_out(out: &Path, grid: &Path, runs: &[PlannedRun]) -> anyhow::Result<()> {
    let (mut read, mut needed) = (vec![grid.to_path_buf()], 0_u64);
    for run in runs {
        let (paths, bytes) = reads_and_needs(&run.recipe)?;
        for path in paths {
            if !read.contains(&path) {
                read.push(path);
            }
        }
        if !out.join("runs").join(&run.name).exists() {
            needed = needed.saturating_add(bytes);
        }
    }
    // `SweepDir` itself checks the content of an existing folder.
    OutputCheck::folder(out)
        .inputs(read)
        .replaces(|_| true)
        .needs(needed)
        .check()?;
    Ok(())
}

/// Prints the runs of a grid.
fn show(grid: &Grid, runs: &[PlannedRun]) -> anyhow::Result<ExitCode> {
    for setting in &grid.common {
        print(&format!("all runs: {}={}", setting.key, setting.value));
    }
    let mut sum = 0_u64;
    for run in runs {
        let tokens = run.tokens()?;
        sum = sum.saturating_add(tokens);
        let settings = grid.rows[run.row].settings.iter();
        let settings: Vec<String> = settings
            .map(|one| format!("{}={}", one.key, one.value))
            .collect();
        let settings = match settings.is_empty() {
            true => "the base".to_owned(),
            false => settings.join(" "),
        };
        print(&format!(
            "{}: seed {}, {} tokens: {settings}",
            run.name,
            run.seed,
            human_count(tokens)
        ));
    }
    print(&format!(
        "sweep: {} of {} and {}, {} tokens",
        counted(runs.len() as u64, "run", "runs"),
        counted(grid.rows.len() as u64, "row", "rows"),
        counted(grid.seeds.len() as u64, "seed", "seeds"),
        human_count(sum)
    ));
    Ok(ExitCode::SUCCESS)
}

/// Prints what there is to do.
fn announce(grid: &Grid, dir: &SweepDir, names: &[&str], new: &NewRuns, retries: bool) {
    let count = |wanted: fn(&RunStatus) -> bool| {
        let states = names.iter().map(|name| dir.status(name));
        states.filter(wanted).count()
    };
    print(&format!(
        "sweep: {} of {} and {}: {} finished, {} begun, {} failed{}",
        counted(names.len() as u64, "run", "runs"),
        counted(grid.rows.len() as u64, "row", "rows"),
        counted(grid.seeds.len() as u64, "seed", "seeds"),
        count(|state| *state == RunStatus::Finished),
        count(|state| matches!(state, RunStatus::Incomplete | RunStatus::Running)),
        count(|state| matches!(state, RunStatus::Failed(_))),
        match count(|state| matches!(state, RunStatus::Failed(_))) {
            0 => "",
            _ if retries => "",
            _ => " (not run again without --retry-failed)",
        }
    ));
    if !new.names.is_empty() {
        print(&format!("new in this sweep: {}", new.names.join(", ")));
    }
}

fn report(dir: &SweepDir) -> anyhow::Result<()> {
    let found = Report::of(dir)?;
    found.write(dir)?;
    say_report(&found, dir);
    Ok(())
}

fn say_report(found: &Report, dir: &SweepDir) {
    print(&found.markdown());
    let runs: usize = found.rows.iter().map(|row| row.seeds.len()).sum();
    print(&format!(
        "sweep: runs={runs} finished={} failed={} out={}",
        found.count("finished"),
        found.count("failed"),
        dir.root().display()
    ));
}

/// The command of this process, quoted for a shell where necessary.
fn command_line() -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    let quoted = |word: String| match !word.is_empty() && word.chars().all(plain) {
        true => word,
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    let arguments = std::env::args_os().skip(1);
    let words = arguments.map(|word| quoted(word.to_string_lossy().into_owned()));
    let words: Vec<String> = words.collect();
    format!("modernbert-train {}", words.join(" "))
}
