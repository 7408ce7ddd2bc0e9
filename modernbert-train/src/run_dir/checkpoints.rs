//! The checkpoints of a run: finding, choosing and removing them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{CHECKPOINTS, RunDirError, checkpoint_place};
use crate::recipe::CheckpointRecipe;
use crate::snapshot::{RunState, Snapshot, Warnings, aside, discard, read_state, verify};

/// Prefix of checkpoints; the step follows.
pub(super) const PREFIX: &str = "step-";

/// A checkpoint by its name; its content is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// The step in its name.
    pub step: u64,
    /// Its folder.
    pub path: PathBuf,
}

/// The checkpoints of a run, the oldest first.
///
/// # Errors
/// A folder that can't be read.
pub fn list_checkpoints(root: &Path) -> Result<Vec<StoredCheckpoint>, RunDirError> {
    let folder = root.join(CHECKPOINTS);
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RunDirError::io(&folder)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(RunDirError::io(&folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let step = name.strip_prefix(PREFIX).and_then(|step| step.parse().ok());
        if let Some(step) = step {
            let path = entry.path();
            found.push(StoredCheckpoint { step, path });
        }
    }
    found.sort_by_key(|checkpoint| checkpoint.step);
    Ok(found)
}

/// The checkpoints that the run itself wrote, the oldest first. A folder of another name (`step-7` for `step-00000007`) or with the state of another
/// step is a copy that the user made. One without a state that can be read is among them: [`discard`] decides by its manifest.
///
/// # Errors
/// A folder that can't be read.
pub(crate) fn own_checkpoints(root: &Path) -> Result<Vec<StoredCheckpoint>, RunDirError> {
    #[derive(serde::Deserialize)]
    struct Step {
        step: u64,
    }
    let mut found = list_checkpoints(root)?;
    found.retain(|one| {
        let of_another = read_state(&one.path).is_ok_and(|state: Step| state.step != one.step);
        one.path == checkpoint_place(root, one.step) && !of_another
    });
    Ok(found)
}

/// The folder of the run that a checkpoint belongs to.
///
/// # Errors
/// A checkpoint that is not in a run's folder.
pub fn run_of_checkpoint(checkpoint: &Path) -> Result<PathBuf, RunDirError> {
    let place = checkpoint
        .canonicalize()
        .map_err(|_| RunDirError::NoFolder(checkpoint.to_path_buf()))?;
    let run = place.parent().and_then(Path::parent);
    let run = run.filter(|run| run.join(super::RECIPE_FILE).is_file());
    run.map(Path::to_path_buf)
        .ok_or_else(|| RunDirError::OutsideRun(checkpoint.to_path_buf()))
}

/// Checkpoint that a resume starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The newest; damage to it is an error.
    #[default]
    Latest,
    /// The newest intact one before the newest.
    Previous,
    /// The one of this step.
    Step(u64),
}

/// Text that names no checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write latest, previous, or a step such as step-1200")]
pub struct ChoiceError;

impl FromStr for Choice {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Self, ChoiceError> {
        match text {
            "latest" => Ok(Self::Latest),
            "previous" => Ok(Self::Previous),
            other => {
                let step = other.strip_prefix(PREFIX).unwrap_or(other).parse();
                step.map(Self::Step).map_err(|_| ChoiceError)
            }
        }
    }
}

impl Choice {
    /// Opens the chosen checkpoint of a run; `None` if the run has none yet.
    ///
    /// # Errors
    /// A damaged checkpoint, with the file and the remedy; a step that was not saved.
    pub fn open(self, root: &Path) -> Result<Option<Snapshot>, RunDirError> {
        let found = list_checkpoints(root)?;
        let known = || {
            let names: Vec<_> = found
                .iter()
                .map(|checkpoint| format!("{PREFIX}{}", checkpoint.step))
                .collect();
            names.join(", ")
        };
        let missing = |wanted: &str| RunDirError::NoSuchCheckpoint {
            path: root.to_path_buf(),
            wanted: wanted.to_string(),
            known: known(),
        };
        let Some((newest, older)) = found.split_last() else {
            return match self {
                Self::Latest => Ok(None),
                Self::Previous | Self::Step(_) => Err(missing("checkpoint yet")),
            };
        };
        match self {
            Self::Latest => Snapshot::open(&newest.path)
                .map(Some)
                .map_err(|source| RunDirError::Damaged {
                    hint: match newest_good(older) {
                        Some(good) => format!(
                            "The previous one is intact: resume with --from previous to continue from step {}",
                            good.step
                        ),
                        None => "No other checkpoint of the run is good: begin it again with --restart".to_string(),
                    },
                    source: Box::new(source),
                }),
            Self::Previous => {
                let good = newest_good(older).ok_or_else(|| missing("good checkpoint before the newest"))?;
                Ok(Some(Snapshot::open(&good.path)?))
            }
            Self::Step(step) => {
                let one = found.iter().find(|checkpoint| checkpoint.step == step);
                let one = one.ok_or_else(|| missing(&format!("{PREFIX}{step}")))?;
                Ok(Some(Snapshot::open(&one.path)?))
            }
        }
    }
}

fn newest_good(checkpoints: &[StoredCheckpoint]) -> Option<&StoredCheckpoint> {
    checkpoints
        .iter()
        .rev()
        .find(|checkpoint| Snapshot::open(&checkpoint.path).is_ok())
}

/// Removes checkpoints that the rule doesn't keep. The last one of every phase is always kept. The best ones are those of the newest
/// checkpoint's phase, beside the newest itself: when the loss falls to the end, the mean of the best and the last still has them all. Before any is removed, the newest
/// is read back and verified by its hashes: if it is damaged, all are kept. What the run did not write is kept, with a warning.
pub(super) fn retain(
    root: &Path,
    rule: &CheckpointRecipe,
    warnings: &Warnings,
) -> Result<(), RunDirError> {
    let mut found = own_checkpoints(root)?;
    let states: Vec<Option<RunState>> =
        found.iter().map(|one| read_state(&one.path).ok()).collect();
    let phase = states
        .last()
        .and_then(|state| state.as_ref().map(|state| state.phase));
    let last = found.last().map(|one| one.step);
    let mut evaluated: Vec<(f64, u64)> = states
        .iter()
        .flatten()
        .filter(|state| Some(state.phase) == phase && Some(state.step) != last)
        .filter_map(|state| Some((state.own_eval_loss()?, state.step)))
        .filter(|(loss, _)| loss.is_finite())
        .collect();
    evaluated.sort_by(|a, b| a.0.total_cmp(&b.0));
    let best = evaluated.iter().take(rule.keep_best).map(|(_, step)| *step);
    let ends = states.iter().flatten().filter(|state| state.phase_done);
    let newest = found
        .iter()
        .rev()
        .take(rule.keep_last.max(1))
        .map(|one| one.step);
    let mut keep: BTreeSet<u64> = newest
        .chain(best)
        .chain(ends.map(|state| state.step))
        .collect();
    if let Some(every) = rule.keep_every_steps {
        keep.extend(
            found
                .iter()
                .map(|one| one.step)
                .filter(|step| step % every == 0),
        );
    }
    let newest = found.last().cloned();
    found.retain(|one| !keep.contains(&one.step));
    let (Some(newest), false) = (newest, found.is_empty()) else {
        return Ok(());
    };
    verify(&newest.path)?;
    for one in found {
        if let Some(warning) = discard(&one.path)? {
            warnings.add(warning);
        }
    }
    Ok(())
}

pub(super) fn set_aside_after(root: &Path, step: u64) -> Result<usize, RunDirError> {
    let mut count = 0;
    for one in list_checkpoints(root)? {
        if one.step <= step {
            continue;
        }
        let place = aside(&root.join(CHECKPOINTS), &format!("{PREFIX}{:08}", one.step));
        std::fs::rename(&one.path, &place).map_err(RunDirError::io(&place))?;
        count += 1;
    }
    Ok(count)
}
