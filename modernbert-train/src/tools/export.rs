//! A checkpoint as a model folder.

use anyhow::{Context, Result};
use modernbert::checkpoint::{CONFIG_FILE, WEIGHTS_FILE};
use std::path::Path;

use crate::pretrain::run_of_checkpoint;
use crate::snapshot::verify;

const TOKENIZER_FILES: [&str; 2] = ["tokenizer.json", "tokenizer_config.json"];

/// Copies weights, config and tokenizer of a checkpoint into the folder `out`, which Hugging Face's libraries then read. The weights
/// come last, so a folder that has them is whole.
///
/// # Errors
/// A damaged checkpoint, or one that lies in no run; a folder that can't be written.
pub fn export(checkpoint: &Path, out: &Path) -> Result<()> {
    verify(checkpoint)?;
    let run = run_of_checkpoint(checkpoint)?;
    std::fs::create_dir_all(out)
        .with_context(|| format!("{}: can't be made; name another folder", out.display()))?;
    copy_tokenizer(&run, out)?;
    for name in [CONFIG_FILE, WEIGHTS_FILE] {
        copy(&checkpoint.join(name), &out.join(name))?;
    }
    Ok(())
}

/// Copies the tokenizer of a run's folder.
pub(super) fn copy_tokenizer(run: &Path, out: &Path) -> Result<()> {
    for name in TOKENIZER_FILES {
        copy(&run.join(name), &out.join(name))?;
    }
    Ok(())
}

/// Copies a file under a temporary name, then renames it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let temporary = to.with_file_name(format!(".{name}.{}", std::process::id()));
    let copied = std::fs::copy(from, &temporary)
        .and_then(|_| std::fs::File::open(&temporary)?.sync_all())
        .and_then(|()| std::fs::rename(&temporary, to));
    if copied.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    copied.with_context(|| format!("{} can't be copied to {}", from.display(), to.display()))
}
