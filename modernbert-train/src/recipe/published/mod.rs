//! The authors' training files (YAML of Composer and FlexBERT) as recipes, with a report on every key.
//!
//! A key is a setting of the recipe, or has the one value that this crate computes, or concerns how their code runs and changes no result,
//! or names a path that is an argument here; any other key is refused. Source: the repository AnswerDotAI/ModernBERT, branch
//! `pretraining_documentation`, `yamls/modernbert/`.

mod keys;
#[cfg(test)]
mod tests;
mod yaml;

pub use yaml::YamlError;

use std::collections::BTreeMap;
use toml::{Table, Value as Toml};

use super::{Recipe, RecipeError};
use keys::{KEYS, Rule};
use yaml::{Leaf, Value};

/// Sequences of documents are shuffled by this seed where a file names none.
const SHUFFLE_SEED: u64 = 9176;

/// Outcome of the conversion of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Settings of the recipe, as `key = value`.
    Set(Vec<String>),
    /// The only value that this crate computes.
    Same,
    /// Without effect on any result, or an argument of another command: the reason.
    Ignored(&'static str),
    /// Not expressible: why.
    Refused(String),
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Set(settings) => f.write_str(&settings.join(", ")),
            Self::Same => f.write_str("the only way here"),
            Self::Ignored(why) => write!(f, "ignored: {why}"),
            Self::Refused(why) => write!(f, "refused: {why}"),
        }
    }
}

/// A key of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyReport {
    /// Its line, from 1.
    pub line: usize,
    /// The key, dotted.
    pub key: String,
    /// Its value, references replaced.
    pub value: String,
    /// Outcome of its conversion.
    pub outcome: Outcome,
}

/// A file as a recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Converted {
    /// The recipe of what could be expressed; corpus and tokenizer are still to be named.
    pub recipe: Recipe,
    /// Every key of the file, in its order.
    pub keys: Vec<KeyReport>,
}

impl Converted {
    /// The keys that could not be expressed.
    pub fn refused(&self) -> impl Iterator<Item = &KeyReport> {
        let refused = |key: &&KeyReport| matches!(key.outcome, Outcome::Refused(_));
        self.keys.iter().filter(refused)
    }
}

/// Reason why a file could not be converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The text could not be read.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// The settings make no recipe.
    #[error("{name}: {source}")]
    Recipe {
        /// The file.
        name: String,
        /// Why.
        source: Box<RecipeError>,
    },
}

/// Converts the text of a file called `name`. `devices` is the number of GPUs the file was written for (8 for the published ones): sizes of
/// the batch-size warmup are sequences of one device.
///
/// # Errors
/// Text that is no YAML of the subset that is read, with its line; settings that are no recipe together. Keys that can't be expressed are no
/// error but [`Outcome::Refused`].
pub fn convert(text: &str, name: &str, devices: u64) -> Result<Converted, ConvertError> {
    let leaves = yaml::read(text, name)?;
    let file = File {
        values: leaves
            .iter()
            .map(|leaf| (leaf.key.as_str(), &leaf.value))
            .collect(),
        devices: devices.max(1),
    };
    let mut table = Table::new();
    let mut keys = Vec::with_capacity(leaves.len());
    let mut set = |settings: &[(&'static str, Toml)]| {
        for (key, value) in settings {
            let (section, name) = key.split_once('.').unwrap_or(("run", *key));
            let entry = table
                .entry(section)
                .or_insert_with(|| Toml::Table(Table::new()));
            if let Toml::Table(inner) = entry {
                inner.insert(name.to_string(), value.clone());
            }
        }
    };
    if !file
        .values
        .contains_key("train_loader.dataset.shuffle_seed")
    {
        set(&[("data.seed", Toml::Integer(SHUFFLE_SEED as i64))]);
    }
    set(&[("data.long_documents", Toml::String("truncate".to_string()))]);
    let scheduled = file
        .get("scheduler.name")
        .is_some_and(|name| file.schedule(&name).is_ok());
    let of_schedule = |settings: &[(&'static str, Toml)]| {
        settings.iter().any(|(key, _)| key.starts_with("schedule."))
    };
    for leaf in &leaves {
        let outcome = match file.settings(leaf) {
            Ok(Found::Settings(settings)) if !scheduled && of_schedule(&settings) => {
                Outcome::Refused(
                    "it belongs to scheduler.name, which can't be expressed".to_string(),
                )
            }
            Ok(Found::Settings(settings)) => {
                set(&settings);
                let shown = settings
                    .iter()
                    .map(|(key, value)| format!("{key} = {value}"));
                Outcome::Set(shown.collect())
            }
            Ok(Found::Same) => Outcome::Same,
            Ok(Found::Ignored(why)) => Outcome::Ignored(why),
            Err(why) => Outcome::Refused(why),
        };
        keys.push(KeyReport {
            line: leaf.line,
            key: leaf.key.clone(),
            value: leaf.value.to_string(),
            outcome,
        });
    }
    keys.sort_by_key(|key| key.line);
    let recipe = table
        .try_into()
        .map_err(|error: toml::de::Error| ConvertError::Recipe {
            name: name.to_string(),
            source: Box::new(RecipeError::Parse {
                source_name: name.to_string(),
                message: error.message().to_string(),
            }),
        })?;
    Ok(Converted { recipe, keys })
}

/// Meaning of a key.
enum Found {
    Settings(Vec<(&'static str, Toml)>),
    Same,
    Ignored(&'static str),
}

/// A whole file, as some keys mean something only beside others.
struct File<'a> {
    values: BTreeMap<&'a str, &'a Value>,
    devices: u64,
}

impl File<'_> {
    fn settings(&self, leaf: &Leaf) -> Result<Found, String> {
        let fits = |pattern: &str| match pattern.strip_suffix('*') {
            Some(prefix) => leaf.key.starts_with(prefix),
            None => leaf.key == pattern,
        };
        let rule = KEYS.iter().find(|(pattern, _)| fits(pattern));
        let Some((_, rule)) = rule else {
            return Err("no such key is known".to_string());
        };
        let value = &leaf.value;
        match rule {
            Rule::Ignored(why) => Ok(Found::Ignored(why)),
            Rule::Same(allowed) => match allowed.contains(&value.to_string().as_str()) {
                true => Ok(Found::Same),
                false => Err(format!("only {} is computed here", allowed.join(" or "))),
            },
            Rule::Integer(key) => one(key, integer(self.number(value)?)),
            Rule::Float(key) => one(key, Toml::Float(self.number(value)?)),
            Rule::Flag(key) => match value.to_string().as_str() {
                "true" => one(key, Toml::Boolean(true)),
                "false" => one(key, Toml::Boolean(false)),
                other => Err(format!("{other} is neither true nor false")),
            },
            Rule::Special => self.special(leaf),
        }
    }

    /// Keys that need others, or another unit.
    fn special(&self, leaf: &Leaf) -> Result<Found, String> {
        let value = &leaf.value;
        let text = value.to_string();
        match leaf.key.as_str() {
            "model.model_config.rotary_emb_base" => {
                let base = Toml::Float(self.number(value)?);
                let mut settings = vec![("model.global_rope_theta", base.clone())];
                // Without a base of their own local layers have the global ones'.
                let local = self.get("model.model_config.local_attn_rotary_emb_base");
                if local.is_none_or(|local| local == "-1") {
                    settings.push(("model.local_rope_theta", base));
                }
                Ok(Found::Settings(settings))
            }
            "model.model_config.local_attn_rotary_emb_base" => match text.as_str() {
                "-1" => Ok(Found::Ignored("the base of global layers, set there")),
                _ => one("model.local_rope_theta", Toml::Float(self.number(value)?)),
            },
            "train_loader.batch_size_warmup_min_size" => {
                let micro = self.required("device_train_microbatch_size")?;
                let from = self.number(value)? / micro * self.devices as f64;
                Ok(Found::Settings(vec![
                    ("batch.warmup_from", integer(from)),
                    ("batch.warmup_step", Toml::Integer(self.devices as i64)),
                ]))
            }
            "global_train_batch_size" => {
                let micro = self.required("device_train_microbatch_size")?;
                let count = self.number(value)? / micro;
                if count.fract() != 0.0 {
                    return Err(format!(
                        "it is no multiple of device_train_microbatch_size ({micro})"
                    ));
                }
                one("batch.micro_batches", integer(count))
            }
            "device_train_microbatch_size" => {
                let length = self.required("max_seq_len")?;
                one("batch.tokens", integer(self.number(value)? * length))
            }
            "train_loader.dataset.max_seq_len" => {
                let same = self.get("max_seq_len").is_none_or(|length| length == text);
                match same {
                    true => one("data.sequence_length", integer(self.number(value)?)),
                    false => Err("it differs from max_seq_len".to_string()),
                }
            }
            "precision" => match text.as_str() {
                "amp_bf16" => one("run.precision", Toml::String("bf16".to_string())),
                "fp32" => one("run.precision", Toml::String("f32".to_string())),
                _ => Err("only amp_bf16 and fp32 are trained in".to_string()),
            },
            "scheduler.name" => self.schedule(&text),
            "scheduler.t_warmup" => self.span("schedule.warmup_tokens", &text, &["one_minus_sqrt"]),
            "scheduler.t_decay" => self.span(
                "schedule.decay_tokens",
                &text,
                &[
                    "constant_with_warmup",
                    "cosine_with_warmup",
                    "linear_decay_with_warmup",
                ],
            ),
            "scheduler.t_max" => match Some(&text) == self.get("max_duration").as_ref() {
                true => Ok(Found::Same),
                false => Err("a schedule ends with its run here".to_string()),
            },
            "scheduler.alpha_f" => match self.get("scheduler.name").as_deref() {
                Some("constant_with_warmup") => Ok(Found::Ignored("a constant rate has no end")),
                _ => one("schedule.final_fraction", Toml::Float(self.number(value)?)),
            },
            "optimizer.name" => match text.as_str() {
                "decoupled_stableadamw" => {
                    one("optimizer.kind", Toml::String("stable_adamw".to_string()))
                }
                "decoupled_adamw" => one("optimizer.kind", Toml::String("adamw".to_string())),
                _ => Err(
                    "only decoupled_stableadamw and decoupled_adamw are computed here, whose weight decay does not depend on the size of the rate"
                        .to_string(),
                ),
            },
            "optimizer.betas" => match value {
                Value::List(betas) if betas.len() == 2 => {
                    let beta = |i: usize| self.number(&Value::Text(betas[i].clone()));
                    Ok(Found::Settings(vec![
                        ("optimizer.beta1", Toml::Float(beta(0)?)),
                        ("optimizer.beta2", Toml::Float(beta(1)?)),
                    ]))
                }
                _ => Err("two numbers are wanted".to_string()),
            },
            "train_loader.batch_size_warmup_tokens" => {
                one("batch.warmup_tokens", integer(self.tokens(&text)?))
            }
            "max_duration" => one("run.total_tokens", integer(self.tokens(&text)?)),
            "eval_interval" => one("run.eval_every_tokens", integer(self.tokens(&text)?)),
            "save_interval" => {
                let steps = steps(&text)?;
                let mut settings = vec![("checkpoint.every_steps", integer(steps))];
                let kept = self.get("save_num_checkpoints_to_keep");
                if kept.is_none_or(|kept| kept == "-1") {
                    settings.push(("checkpoint.keep_every_steps", integer(steps)));
                }
                Ok(Found::Settings(settings))
            }
            "save_num_checkpoints_to_keep" => match text.as_str() {
                "-1" => Ok(Found::Ignored(
                    "all are kept: checkpoint.keep_every_steps, set by save_interval",
                )),
                _ => one("checkpoint.keep_last", integer(self.number(value)?)),
            },
            "console_log_interval" => one("run.log_every_steps", integer(steps(&text)?)),
            "init_from_checkpoint.mode" => {
                let tiling = match text.as_str() {
                    "tile_weights_from_middle" => "middle",
                    "tile_weights_from_edge" => "edge",
                    "center_weights" => "center",
                    _ => return Err("no such tiling".to_string()),
                };
                match tiling {
                    // The recipe's default, which is valid only beside model.tile_from.
                    "middle" => Ok(Found::Ignored(
                        "the default of model.tiling: name the smaller model with --set model.tile_from=FOLDER",
                    )),
                    _ => Err(format!(
                        "name the smaller model: --set model.tile_from=FOLDER --set model.tiling={tiling}"
                    )),
                }
            }
            other => Err(format!("{other} has no rule")),
        }
    }

    fn schedule(&self, name: &str) -> Result<Found, String> {
        let kind = |kind: &str| ("schedule.kind", Toml::String(kind.to_string()));
        Ok(Found::Settings(match name {
            // Their decay at the end of this schedule is a straight line.
            "warmup_stable_decay" => vec![
                kind(name),
                ("schedule.decay", Toml::String("linear".to_string())),
            ],
            "one_minus_sqrt" | "cosine_with_warmup" => vec![kind(name)],
            "constant_with_warmup" => vec![kind("constant")],
            "linear_decay_with_warmup" => vec![kind("linear_with_warmup")],
            _ => return Err("no such schedule is known".to_string()),
        }))
    }

    /// A stretch of the run, for all schedules but `without`.
    fn span(&self, key: &'static str, text: &str, without: &[&str]) -> Result<Found, String> {
        let schedule = self.get("scheduler.name").unwrap_or_default();
        if without.contains(&schedule.as_str()) {
            return match self.tokens(text)? == 0.0 {
                true => Ok(Found::Same),
                false => Err(format!("{schedule} has no such stretch")),
            };
        }
        if let Some(share) = text.strip_suffix("dur") {
            return one(key, Toml::String(format!("{}%", 100.0 * digits(share)?)));
        }
        let tokens = self.tokens(text)?;
        let total = self.get("max_duration").map(|total| self.tokens(&total));
        match total {
            Some(Ok(total)) if total == tokens => one(key, Toml::String("100%".to_string())),
            _ => one(key, integer(tokens)),
        }
    }

    /// Tokens of a duration in tokens or steps.
    fn tokens(&self, text: &str) -> Result<f64, String> {
        if let Some(tokens) = text.strip_suffix("tok") {
            return digits(tokens);
        }
        let Some(steps) = text.strip_suffix("ba") else {
            return Err(format!(
                "{text} is neither in tokens (tok) nor in steps (ba)"
            ));
        };
        let sequences = self.required("global_train_batch_size")?;
        Ok(digits(steps)? * sequences * self.required("max_seq_len")?)
    }

    fn get(&self, key: &str) -> Option<String> {
        self.values.get(key).map(ToString::to_string)
    }

    fn required(&self, key: &str) -> Result<f64, String> {
        let value = self.values.get(key);
        self.number(value.ok_or(format!("it needs {key}, which the file lacks"))?)
    }

    fn number(&self, value: &Value) -> Result<f64, String> {
        digits(&value.to_string())
    }
}

fn one(key: &'static str, value: Toml) -> Result<Found, String> {
    Ok(Found::Settings(vec![(key, value)]))
}

/// A duration in steps.
fn steps(text: &str) -> Result<f64, String> {
    let steps = text.strip_suffix("ba").and_then(|steps| digits(steps).ok());
    steps.ok_or_else(|| "steps are wanted, such as 100ba".to_string())
}

/// A number, in which underscores may separate digits.
fn digits(text: &str) -> Result<f64, String> {
    let plain = text.trim().replace('_', "");
    let number = plain
        .parse::<f64>()
        .ok()
        .filter(|number| number.is_finite());
    number.ok_or_else(|| format!("{text} is no number"))
}

/// A whole number; a fraction becomes a float, which the recipe refuses by its key.
fn integer(number: f64) -> Toml {
    match number.fract() == 0.0 && number.abs() < 9e15 {
        true => Toml::Integer(number as i64),
        false => Toml::Float(number),
    }
}
