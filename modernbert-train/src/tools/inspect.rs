//! Descriptions of recipes, runs, checkpoints and shards.

use serde_json::{Value, json};
use std::path::Path;

use super::ToolError;
use super::inspect_data::{shard, shards, token_folder};
use crate::engine::read_log;
use crate::pretrain::TrainingMemory;
use crate::recipe::{Recipe, RecipeError, RecipeText, TokenizerSource, builtin_or_file};
use crate::run_dir::{METRICS_FILE, RECIPE_FILE, RunInfo, list_checkpoints, recipe_of_run};
use crate::snapshot::{MANIFEST_FILE, RunState, Snapshot, read_state, verify};
use crate::tokenize::INDEX_FILE;
use modernbert::config::ModernBertConfig;
use modernbert::ops::cross_entropy::LARGE_CHUNK;
use modernbert_cli::text::human_count;

/// FLOP/s of an H100 in bf16 (989 TFLOP/s at most) at a model FLOP utilization of 40 %.
const H100_AT_40_PERCENT: f64 = 0.4 * 989e12;

/// Vocabulary assumed where the tokenizer is not trained: that of the published models.
const PUBLISHED_VOCAB: usize = 50_368;

/// Describes a recipe (a file, or the name of a built-in one), a run's folder, a checkpoint, a shard, or a folder of shards such as
/// `modernbert-train tokenize` writes. The hashes of checkpoints and shards are verified.
///
/// # Errors
/// A path that is none of these, or a damaged file.
pub fn inspect(path: &Path) -> Result<Value, ToolError> {
    if path.is_dir() {
        if path.join(MANIFEST_FILE).is_file() {
            return checkpoint(path);
        }
        if path.join(RECIPE_FILE).is_file() {
            return run(path);
        }
        if path.join(INDEX_FILE).is_file() {
            return token_folder(path);
        }
        return shards(path);
    }
    if path.extension().is_some_and(|ending| ending == "tokens") {
        return shard(path);
    }
    let (read, text) = recipe_at(path)?;
    recipe(&read).map_err(|error| match error {
        ToolError::Recipe(error) => ToolError::Recipe(text.locate(error)),
        error => error,
    })
}

/// The built-in recipe of a name, or that of a file.
pub(super) fn recipe_at(path: &Path) -> Result<(Recipe, RecipeText), ToolError> {
    let is_toml = path.extension().is_none_or(|ending| ending == "toml");
    match builtin_or_file(path, &[]) {
        Err(error) if !is_toml && path.is_file() => {
            let reason = match error {
                RecipeError::At { source, .. } => source.to_string(),
                error => error.to_string(),
            };
            Err(ToolError::NotInspected {
                path: path.to_path_buf(),
                reason,
            })
        }
        read => Ok(read?),
    }
}

/// The model of a recipe of one phase; where the tokenizer is not trained, its vocabulary is assumed to be that of the published models.
pub(super) fn config_of(recipe: &Recipe) -> Result<ModernBertConfig, ToolError> {
    let vocab = match (recipe.data.tokenizer.clone(), recipe.model.vocab_size) {
        (TokenizerSource::Path(_), Some(vocab)) => vocab,
        (TokenizerSource::Path(_), None) => PUBLISHED_VOCAB,
        (TokenizerSource::Train, _) => recipe.data.tokenizer_vocab,
    };
    Ok(recipe.model.config(vocab)?)
}

/// Sizes, memory and work of each phase.
fn recipe(recipe: &Recipe) -> Result<Value, ToolError> {
    let (recipe, _) = recipe.clone().resolve_model()?;
    recipe.validate()?;
    let mut phases = Vec::new();
    for phase in recipe.phases()? {
        let one = &phase.recipe;
        let config = config_of(one)?;
        let length = one.data.sequence_length;
        let predicted = (one.mask.train * length as f64) as usize;
        let flops = config.train_flops(&[length], predicted) as f64 / length as f64;
        let parameters = config.mlm_parameters();
        // Of a GPU, as the hours are.
        let memory = TrainingMemory::of(&config, one, LARGE_CHUNK);
        let warmup: Vec<Value> = one
            .batch_warmup()
            .sizes()
            .iter()
            .map(|(size, end)| json!({ "tokens_per_step": size * one.batch.tokens, "until_token": end }))
            .collect();
        phases.push(json!({
            "phase": phase.name,
            "tokens": one.run.total_tokens,
            "tokens_per_step": one.tokens_per_step(),
            "steps": one.run.total_tokens.div_ceil(one.tokens_per_step()),
            "sequence_length": length,
            "batch_warmup": warmup,
            "optimizer": one.optimizer.kind.name(),
            "learning_rate": one.optimizer.learning_rate,
            "schedule": one.schedule.kind(),
            "weight_decay": one.optimizer.weight_decay,
            "length_warmup": one.length_warmup(),
            "global_rope_theta": config.global_rope_theta,
            "global_rope_theta_from": one.model.rotary_ramp(&config, one.run.total_tokens).map(|ramp| ramp.from),
            "local_rope_theta": config.local_rope_theta,
            "parameters": parameters,
            "memory_bytes": memory.total(),
            "memory": { "state_bytes": memory.state, "activations_bytes": memory.activations, "logits_bytes": memory.logits },
            "checkpoint_bytes": parameters * if one.average().is_some() { 16 } else { 12 },
            "flops_per_token": flops,
            "flops": flops * one.run.total_tokens as f64,
            "hours_on_an_h100_at_40_percent": flops * one.run.total_tokens as f64 / H100_AT_40_PERCENT / 3600.0,
        }));
    }
    Ok(json!({ "kind": "recipe", "phases": phases }))
}

fn state_json(state: &RunState) -> Value {
    json!({
        "phase": state.phase_name,
        "phase_done": state.phase_done,
        "step": state.step,
        "tokens": state.tokens,
        "phase_tokens": state.phase_tokens,
        "phase_total": state.phase_total,
        "row": state.rows,
        "eval_loss": state.own_eval_loss(),
    })
}

fn run(path: &Path) -> Result<Value, ToolError> {
    let recipe = recipe_of_run(path)?;
    let phases: Vec<String> = recipe
        .phases()?
        .into_iter()
        .map(|phase| phase.name)
        .collect();
    let mut checkpoints = Vec::new();
    for one in list_checkpoints(path)? {
        let mut described = match read_state(&one.path) {
            Ok(state) => state_json(&state),
            Err(_) => json!({ "step": one.step }),
        };
        described["path"] = one.path.display().to_string().into();
        described["state"] = match verify(&one.path) {
            Ok(manifest) => {
                described["bytes"] = manifest.bytes().into();
                "good".into()
            }
            Err(error) => error.to_string().into(),
        };
        checkpoints.push(described);
    }
    let rows = read_log(&path.join(METRICS_FILE)).unwrap_or_default();
    let info = RunInfo::read(path)?;
    Ok(json!({
        "kind": "run",
        "path": path.display().to_string(),
        "phases": phases,
        "finished": path.join(modernbert::checkpoint::WEIGHTS_FILE).is_file(),
        "started_from": info.as_ref().and_then(|info| info.started_from.clone()),
        "shards": info.map(|info| info.shards),
        "log_rows": rows.len(),
        "last_row": rows.last(),
        "checkpoints": checkpoints,
    }))
}

fn checkpoint(path: &Path) -> Result<Value, ToolError> {
    let snapshot = Snapshot::open(path)?;
    let config = modernbert::checkpoint::read_config(path)?;
    Ok(json!({
        "kind": "checkpoint",
        "path": path.display().to_string(),
        "state": state_json(&snapshot.state),
        "files": snapshot.manifest.files,
        "model": {
            "layers": config.num_hidden_layers,
            "hidden": config.hidden_size,
            "heads": config.num_attention_heads,
            "vocabulary": config.vocab_size,
            "parameters": config.mlm_parameters(),
            "global_rope_theta": config.global_rope_theta,
            "local_rope_theta": config.local_rope_theta,
        },
    }))
}

/// Keys that come first; the others follow in alphabetical order.
const FIRST: [&str; 9] = [
    "kind",
    "phase",
    "path",
    "step",
    "tokens",
    "tokens_per_step",
    "steps",
    "sequence_length",
    "state",
];

/// The key of a list of texts that comes last, a line for each.
pub(super) const ASSUMPTIONS: &str = "assumptions";

/// A description as lines for a person.
pub fn lines(value: &Value) -> Vec<String> {
    let mut out = Vec::new();
    write_lines(value, 0, &mut out);
    out
}

fn write_lines(value: &Value, depth: usize, out: &mut Vec<String>) {
    let Value::Object(map) = value else { return };
    let indent = "  ".repeat(depth);
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| {
        FIRST
            .iter()
            .position(|first| first == key)
            .unwrap_or(FIRST.len() + usize::from(*key == ASSUMPTIONS))
    });
    for (key, value) in entries {
        match value {
            Value::Null => {}
            Value::Array(items) if items.is_empty() => {}
            Value::Array(items) if key == ASSUMPTIONS => {
                let texts = items.iter().map(|item| words(key, item));
                out.extend(texts.map(|text| format!("{indent}assumed: {text}")));
            }
            Value::Array(items) if items.iter().all(Value::is_object) => {
                for item in items {
                    out.push(format!("{indent}{key}:"));
                    write_lines(item, depth + 1, out);
                }
            }
            Value::Object(_) => {
                out.push(format!("{indent}{key}:"));
                write_lines(value, depth + 1, out);
            }
            _ => out.push(format!("{indent}{key}: {}", words(key, value))),
        }
    }
}

/// A value as text, large numbers followed by a short form.
fn words(key: &str, value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_u64().filter(|&n| n >= 10_000) {
            Some(n) if key.ends_with("bytes") => format!("{n} ({:.2} GB)", n as f64 / 1e9),
            Some(n) => format!("{n} ({})", human_count(n)),
            None => match number.as_f64() {
                Some(x) if key.starts_with("flops") => format!("{x:.4e}"),
                Some(x) if key.starts_with("hours") => format!("{x:.2}"),
                _ => number.to_string(),
            },
        },
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| words(key, item)).collect();
            items.join(", ")
        }
        other => other.to_string(),
    }
}
