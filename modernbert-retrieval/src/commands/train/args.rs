//! Arguments of `train`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use modernbert::config::{Pooling, fits_f32};
use modernbert::sentences::MultiVectorSettings;
use modernbert::tokenizer::Tokenizer;
use modernbert::wording::short;
use modernbert_cli::DeviceArgs;
use modernbert_retrieval::maxsim::Masked;
use modernbert_retrieval::train::losses::{
    Definition, Direction, Distillation, Hardness, HardnessMode, InBatch, Loss, LossSimilarity,
    Objective, Partition,
};
use modernbert_retrieval::train::{Length, StepOptions, TrainOptions, VectorKind};
use modernbert_train::saving::Saving;

use super::presets::Preset;
use crate::commands::common::SetArgs;

#[derive(Args)]
pub(crate) struct TrainArgs {
    /// Starts from this model: a folder with config.json, model.safetensors and tokenizer.json, or a name on the Hugging Face Hub.
    #[arg(long, value_name = "FOLDER|NAME")]
    pub(super) model: String,
    /// Trains on the rows of these files: .jsonl, .csv, .tsv or .parquet with query, positive and negatives, or documents and scores.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pub(super) train: Vec<PathBuf>,
    /// Evaluates on this data set, for example a BEIR folder; can be repeated. The weights with the best mean nDCG@10 are kept.
    #[arg(long, value_name = "FOLDER")]
    pub(super) eval: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) set: SetArgs,
    /// Writes the trained model into this folder, with metrics.jsonl and checkpoints.
    #[arg(long, value_name = "FOLDER")]
    pub(super) out: PathBuf,
    /// Takes the settings that are not given from this set: paper-single, paper-single-large, paper-multi, paper-multi-large or gooaq.
    #[arg(long, value_enum, value_name = "NAME", hide_possible_values = true)]
    pub(super) preset: Option<Preset>,
    #[command(flatten)]
    loss: LossArgs,
    #[command(flatten)]
    vectors: VectorArgs,
    #[command(flatten)]
    schedule: ScheduleArgs,
    #[command(flatten)]
    pub(super) saving: SavingArgs,
    /// The device argument, which all programs share.
    #[command(flatten)]
    pub(super) device: DeviceArgs,
    /// Computes matrix multiplications and attention in f32 or bf16; vectors and losses are f32.
    #[arg(long, default_value = "f32", value_parser = ["f32", "bf16"])]
    pub(super) dtype: String,
    /// Prints plain lines even on a terminal.
    #[arg(long)]
    pub(super) lines: bool,
}

#[derive(Args)]
struct LossArgs {
    /// Learns from other documents of the batch (in-batch), or from a teacher's scores: distill (PyLate's), distill-temperature
    /// (sentence-transformers'), mse or margin-mse. Default: in-batch.
    #[arg(long, value_enum, hide_possible_values = true)]
    loss: Option<LossName>,
    /// Multiplies similarities by this factor in the in-batch softmax. Default: 20, and 1 for a vector per token.
    #[arg(long)]
    scale: Option<f64>,
    /// Adds candidates to the softmax, separated by commas: query-query, document-query, document-document.
    #[arg(
        long,
        value_enum,
        value_name = "LIST",
        value_delimiter = ',',
        hide_possible_values = true
    )]
    directions: Vec<DirectionName>,
    /// Computes one softmax per direction, and the mean of their losses; for document-query alone.
    #[arg(long, requires = "directions")]
    per_direction: bool,
    /// Raises the logits of these negatives with their similarity: in-batch, hard or all.
    #[arg(
        long,
        value_enum,
        value_name = "NEGATIVES",
        requires = "hardness_strength",
        hide_possible_values = true
    )]
    hardness: Option<HardnessName>,
    /// Sets the strength of --hardness.
    #[arg(long, value_name = "FACTOR", requires = "hardness")]
    hardness_strength: Option<f64>,
    /// Learns leading parts of the vectors too (Matryoshka): numbers of components, separated by commas.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    matryoshka: Vec<usize>,
    /// Compares vectors by cosine or dot, for one vector per text. Default: cosine; dot for margin-mse.
    #[arg(long, value_enum, hide_possible_values = true)]
    similarity: Option<SimilarityName>,
    /// Divides similarities by this number in distill-temperature. Default: 1.
    #[arg(long, value_name = "NUMBER")]
    student_temperature: Option<f64>,
    /// Divides the teacher's scores by this number in distill-temperature. Default: 1.
    #[arg(long, value_name = "NUMBER")]
    teacher_temperature: Option<f64>,
}

#[derive(Args)]
struct VectorArgs {
    /// Trains a vector per token (ColBERT) instead of one per text. Default: as the model's folder says, else one per text.
    #[arg(long)]
    per_token: bool,
    /// Pools tokens by cls, mean, max or weightedmean. Default: as the model's folder says, else mean.
    #[arg(long, value_name = "NAME", conflicts_with = "per_token")]
    pooling: Option<Pooling>,
    /// Keeps the length of vectors instead of scaling them to one.
    #[arg(long, conflicts_with = "per_token")]
    no_normalize: bool,
    /// Puts this text before queries.
    #[arg(long, value_name = "TEXT", conflicts_with = "per_token")]
    query_prompt: Option<String>,
    /// Puts this text before documents.
    #[arg(long, value_name = "TEXT", conflicts_with = "per_token")]
    document_prompt: Option<String>,
    /// Truncates texts to this many tokens. Default: as the model's folder says, else 256.
    #[arg(long, value_name = "TOKENS", conflicts_with = "per_token")]
    max_length: Option<usize>,
    /// Truncates queries to this many tokens, or expands them to it with [MASK], for a vector per token. Default: 32.
    #[arg(long, value_name = "TOKENS")]
    query_length: Option<usize>,
    /// Truncates documents to this many tokens, for a vector per token. Default: 180.
    #[arg(long, value_name = "TOKENS")]
    document_length: Option<usize>,
    /// Puts this token after [CLS] in queries, for a vector per token. Default: "[Q] " or [unused0] where the tokenizer has it, else none.
    #[arg(long, value_name = "TOKEN")]
    query_prefix: Option<String>,
    /// Puts this token after [CLS] in documents, for a vector per token. Default: "[D] " or [unused1] where the tokenizer has it, else none.
    #[arg(long, value_name = "TOKEN")]
    document_prefix: Option<String>,
    /// Does not expand queries with [MASK], for a vector per token.
    #[arg(long)]
    no_query_expansion: bool,
}

#[derive(Args)]
struct ScheduleArgs {
    /// Trains for this many passes over the rows. Default: 1.
    #[arg(long, conflicts_with = "steps")]
    epochs: Option<f64>,
    /// Trains for this many optimizer steps, instead of epochs.
    #[arg(long)]
    steps: Option<u64>,
    /// Uses this many rows per batch, whose documents are each other's negatives. Default: 64.
    #[arg(long, value_name = "ROWS")]
    batch: Option<usize>,
    /// Averages the gradients of this many batches per step. Default: 1.
    #[arg(long, value_name = "BATCHES")]
    accumulate: Option<usize>,
    /// Computes batches of more tokens than this in two passes (GradCache), with at most this many tokens in memory; results differ only by rounding and, with dropout, by its draws.
    #[arg(long, value_name = "TOKENS", default_value_t = 16_384)]
    token_budget: usize,
    /// Scores this many queries at a time in two passes. Default: the number whose matrix of similarities takes 64 MB.
    #[arg(long, value_name = "QUERIES")]
    query_chunk: Option<usize>,
    /// Accepts a text twice in a batch, where it is its own negative.
    #[arg(long)]
    allow_duplicates: bool,
    /// Uses this peak learning rate. Default: 8e-5, times 768 / width for models narrower than base.
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    /// Removes this share of each weight per step at the peak learning rate.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    weight_decay: f64,
    /// Raises the learning rate in this share of the steps.
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    warmup: f64,
    /// Shuffles the rows, and initializes a new projection, with this seed.
    #[arg(long, default_value_t = 12)]
    seed: u64,
    /// Evaluates after every N steps. Default: after every epoch.
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    evaluate_every: Option<u64>,
    /// Stops after this many evaluations in a row without a better score.
    #[arg(long, value_name = "EVALUATIONS", value_parser = clap::value_parser!(u64).range(1..))]
    patience: Option<u64>,
    /// Shortens the run to end within this many minutes.
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<f64>,
}

#[derive(Args)]
pub(super) struct SavingArgs {
    /// Saves a checkpoint in --out after every N steps; off by default. These checkpoints are kept after the end of the run.
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) save_every: Option<u64>,
    /// Saves a checkpoint in --out every this number of minutes.
    #[arg(long, value_name = "MINUTES", default_value_t = 15.0)]
    save_every_minutes: f64,
    /// Resumes from the newest checkpoint in --out, bit-identical to an uninterrupted run; give the other options as before.
    #[arg(long)]
    pub(super) resume: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LossName {
    InBatch,
    Distill,
    DistillTemperature,
    Mse,
    MarginMse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DirectionName {
    QueryQuery,
    DocumentQuery,
    DocumentDocument,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum HardnessName {
    InBatch,
    Hard,
    All,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SimilarityName {
    Cosine,
    Dot,
}

impl TrainArgs {
    /// Refuses options of the other kind of model, which would have no effect.
    fn check_kind(&self, per_token: bool) -> anyhow::Result<()> {
        let args = &self.vectors;
        let of_texts = [
            ("--pooling", args.pooling.is_some()),
            ("--no-normalize", args.no_normalize),
            ("--query-prompt", args.query_prompt.is_some()),
            ("--document-prompt", args.document_prompt.is_some()),
            ("--max-length", args.max_length.is_some()),
            ("--similarity", self.loss.similarity.is_some()),
            ("--matryoshka", !self.loss.matryoshka.is_empty()),
            (
                "this --preset",
                self.preset.is_some_and(|preset| !preset.is_per_token()),
            ),
        ];
        let of_tokens = [
            ("--query-length", args.query_length.is_some()),
            ("--document-length", args.document_length.is_some()),
            ("--query-prefix", args.query_prefix.is_some()),
            ("--document-prefix", args.document_prefix.is_some()),
            ("--no-query-expansion", args.no_query_expansion),
        ];
        let given = |options: &[(&'static str, bool)]| {
            let mut given = options.iter().filter(|(_, given)| *given);
            given.next().map(|(option, _)| *option)
        };
        if !per_token && let Some(option) = given(&of_tokens) {
            bail!(
                "{option} is for models with a vector per token, and this one has one vector per text; leave it out, or give --per-token"
            );
        }
        if per_token && let Some(option) = given(&of_texts) {
            let why = if args.per_token {
                "--per-token is given"
            } else if self.preset.is_some_and(Preset::is_per_token) {
                "--preset says so"
            } else {
                "its folder says so"
            };
            bail!(
                "{option} is for models with one vector per text, and this one has a vector per token ({why}); leave it out"
            );
        }
        Ok(())
    }

    /// Kind of the vectors: the folder's, changed by the arguments.
    pub(super) fn kind(
        &self,
        of_folder: Option<VectorKind>,
        tokenizer: &Tokenizer,
        positions: usize,
    ) -> anyhow::Result<VectorKind> {
        let args = &self.vectors;
        let per_token = args.per_token || self.preset.is_some_and(Preset::is_per_token);
        let is_per_token = per_token || of_folder.as_ref().is_some_and(VectorKind::is_per_token);
        self.check_kind(is_per_token)?;
        let single = |kind: Option<VectorKind>| match kind {
            Some(VectorKind::Single {
                pooling,
                normalize,
                max_length,
                query_prompt,
                document_prompt,
            }) => (
                pooling,
                normalize,
                max_length,
                query_prompt,
                document_prompt,
            ),
            _ => {
                let length = DEFAULT_LENGTH.min(positions);
                (Pooling::Mean, true, length, String::new(), String::new())
            }
        };
        Ok(match of_folder {
            Some(VectorKind::PerToken(settings)) => {
                VectorKind::PerToken(self.per_token(settings, tokenizer, false))
            }
            _ if per_token => {
                let settings = MultiVectorSettings {
                    document_length: MultiVectorSettings::default()
                        .document_length
                        .min(positions),
                    // Other tokens attend to the expansion here: otherwise it has no vector in an unpadded forward pass.
                    attend_to_expansion: true,
                    ..MultiVectorSettings::default()
                };
                VectorKind::PerToken(self.per_token(settings, tokenizer, true))
            }
            kind => {
                let (pooling, normalize, max_length, query_prompt, document_prompt) = single(kind);
                VectorKind::Single {
                    pooling: args.pooling.unwrap_or(pooling),
                    normalize: normalize && !args.no_normalize,
                    max_length: args.max_length.unwrap_or(max_length),
                    query_prompt: args.query_prompt.clone().unwrap_or(query_prompt),
                    document_prompt: args.document_prompt.clone().unwrap_or(document_prompt),
                }
            }
        })
    }

    fn per_token(
        &self,
        mut settings: MultiVectorSettings,
        tokenizer: &Tokenizer,
        is_new: bool,
    ) -> MultiVectorSettings {
        let args = &self.vectors;
        for (prefix, given, unused) in [
            (&mut settings.query_prefix, &args.query_prefix, "[unused0]"),
            (
                &mut settings.document_prefix,
                &args.document_prefix,
                "[unused1]",
            ),
        ] {
            if let Some(given) = given {
                prefix.clone_from(given);
            } else if is_new && tokenizer.id(prefix).is_none() {
                // A token that the vocabulary has: PyLate's own prefixes would be new rows of the embedding.
                let known = tokenizer.id(unused).is_some();
                *prefix = if known { unused } else { "" }.to_string();
            }
        }
        settings.query_length = args.query_length.unwrap_or(settings.query_length);
        settings.document_length = args.document_length.unwrap_or(settings.document_length);
        settings.query_expansion &= !args.no_query_expansion;
        settings
    }

    /// The loss.
    pub(super) fn loss(&self, per_token: bool) -> anyhow::Result<Loss> {
        let args = &self.loss;
        let name = args
            .loss
            .or(self.preset.map(Preset::loss))
            .unwrap_or(LossName::InBatch);
        let objective = match name {
            LossName::InBatch => Objective::InBatch(self.in_batch(per_token)?),
            LossName::Distill => distillation(Definition::MinMax),
            LossName::DistillTemperature => {
                let positive = |option: &str, value: Option<f64>| {
                    let value = value.unwrap_or(1.0);
                    ensure!(
                        fits_f32(value),
                        "{option} is {}; give a positive number that f32 holds",
                        short(value)
                    );
                    Ok(value)
                };
                distillation(Definition::Temperature {
                    student: positive("--student-temperature", args.student_temperature)?,
                    teacher: positive("--teacher-temperature", args.teacher_temperature)?,
                })
            }
            LossName::Mse => Objective::Mse,
            LossName::MarginMse => Objective::MarginMse,
        };
        if name != LossName::InBatch {
            for (option, given) in [
                ("--scale", args.scale.is_some()),
                ("--directions", !args.directions.is_empty()),
                ("--hardness", args.hardness.is_some()),
            ] {
                ensure!(!given, "{option} is for --loss in-batch; leave it out");
            }
        }
        if name != LossName::DistillTemperature {
            for (option, given) in [
                ("--student-temperature", args.student_temperature.is_some()),
                ("--teacher-temperature", args.teacher_temperature.is_some()),
            ] {
                ensure!(
                    !given,
                    "{option} is for --loss distill-temperature; leave it out"
                );
            }
        }
        let mut dimensions = args.matryoshka.clone();
        dimensions.sort_unstable_by_key(|&size| std::cmp::Reverse(size));
        dimensions.dedup();
        Ok(Loss {
            objective,
            similarity: match args.similarity {
                Some(SimilarityName::Cosine) => LossSimilarity::Cosine,
                Some(SimilarityName::Dot) => LossSimilarity::Dot,
                None if name == LossName::MarginMse => LossSimilarity::Dot,
                None => LossSimilarity::Cosine,
            },
            dimensions,
            masked: Masked::NeverWins,
        })
    }

    fn in_batch(&self, per_token: bool) -> anyhow::Result<InBatch> {
        let args = &self.loss;
        let mut directions = vec![Direction::QueryToDocument];
        for name in &args.directions {
            let direction = match name {
                DirectionName::QueryQuery => Direction::QueryToQuery,
                DirectionName::DocumentQuery => Direction::DocumentToQuery,
                DirectionName::DocumentDocument => Direction::DocumentToDocument,
            };
            if !directions.contains(&direction) {
                directions.push(direction);
            }
        }
        let alike = [Direction::QueryToQuery, Direction::DocumentToDocument];
        if args.per_direction && directions.iter().any(|d| alike.contains(d)) {
            bail!(
                "--per-direction with query-query or document-document has softmaxes without the positive; give document-query alone"
            );
        }
        if let Some(strength) = args.hardness_strength {
            ensure!(
                strength == 0.0 || fits_f32(strength),
                "--hardness-strength is {}; give 0, or a positive number that f32 holds",
                short(strength)
            );
        }
        ensure!(
            args.hardness.is_none() || args.hardness_strength.is_some(),
            "--hardness has no effect without a strength; give --hardness-strength, such as 5"
        );
        let hardness = args.hardness.zip(args.hardness_strength);
        Ok(InBatch {
            scale: args.scale.unwrap_or(if per_token { 1.0 } else { 20.0 }),
            directions,
            partition: if args.per_direction {
                Partition::PerDirection
            } else {
                Partition::Joint
            },
            hardness: hardness.map(|(mode, strength)| Hardness {
                mode: match mode {
                    HardnessName::InBatch => HardnessMode::InBatchNegatives,
                    HardnessName::Hard => HardnessMode::HardNegatives,
                    HardnessName::All => HardnessMode::AllNegatives,
                },
                strength,
            }),
        })
    }

    /// Settings of the run, for a model of this width.
    pub(super) fn options(&self, loss: Loss, width: usize) -> anyhow::Result<TrainOptions> {
        let args = &self.schedule;
        for (option, given) in [
            ("--patience", args.patience.is_some()),
            ("--evaluate-every", args.evaluate_every.is_some()),
        ] {
            ensure!(
                !given || !self.eval.is_empty(),
                "{option} is for runs with evaluations; give --eval, or leave it out"
            );
        }
        let defaults = self
            .preset
            .map_or_else(TrainOptions::default, Preset::options);
        let scale = (768.0 / width as f64).max(1.0);
        let time_limit = args.minutes.map(|minutes| minutes_of("--minutes", minutes));
        Ok(TrainOptions {
            loss,
            length: match (args.steps, args.epochs) {
                (Some(steps), _) => Length::Steps(steps),
                (None, Some(epochs)) => Length::Epochs(epochs),
                (None, None) => defaults.length,
            },
            batch: args.batch.unwrap_or(defaults.batch),
            accumulate: args.accumulate.unwrap_or(defaults.accumulate),
            allow_duplicates: args.allow_duplicates,
            step: StepOptions {
                token_budget: args.token_budget,
                query_chunk: args.query_chunk,
            },
            learning_rate: args.learning_rate.unwrap_or(defaults.learning_rate * scale),
            weight_decay: args.weight_decay,
            warmup: args.warmup,
            seed: args.seed,
            evaluate_every: args.evaluate_every.or(defaults.evaluate_every),
            patience: args.patience,
            time_limit: time_limit.transpose()?,
        })
    }

    /// Seed of the run.
    pub(super) fn seed(&self) -> u64 {
        self.schedule.seed
    }

    /// The run's folder.
    pub(super) fn saving(&self) -> anyhow::Result<Saving> {
        let args = &self.saving;
        Ok(Saving {
            every_steps: args.save_every,
            every: minutes_of("--save-every-minutes", args.save_every_minutes)?,
            resume: args.resume,
            identity: format!("{} {}", self.model, self.dtype),
            ..Saving::new(&self.out)
        })
    }
}

/// Tokens of a text at most, where neither the folder nor an argument says it.
const DEFAULT_LENGTH: usize = 256;
/// Longest time between checkpoints or of a run: durations are added to a clock.
const TEN_YEARS: Duration = Duration::from_secs(315_360_000);

fn distillation(definition: Definition) -> Objective {
    Objective::Distillation(Distillation { definition })
}

fn minutes_of(option: &str, minutes: f64) -> anyhow::Result<Duration> {
    let time = Duration::try_from_secs_f64(60.0 * minutes).ok();
    let time = time.filter(|time| !time.is_zero() && *time <= TEN_YEARS);
    time.with_context(|| {
        format!(
            "{option} is {}; give a number of minutes, from a nanosecond to ten years",
            short(minutes)
        )
    })
}
