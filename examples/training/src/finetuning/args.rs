//! Arguments of the finetuning programs.

use clap::Args;
use modernbert::checkpoint::ModelSource;
use modernbert::config::is_share;
use modernbert::output::OutputCheck;
use modernbert::wording::short;
use modernbert_cli::{DeviceArgs, say};
use modernbert_train::saving::is_resumable;
use std::path::{Path, PathBuf};

/// The model to start from, and settings that replace those of a program.
#[derive(Args, Clone, Debug)]
pub struct FinetuneArgs {
    /// Starts from this model: a folder with config.json, model.safetensors and tokenizer.json, or a name on the Hugging Face Hub.
    #[arg(long, value_name = "FOLDER|NAME")]
    pub model: String,
    /// Writes the finetuned model to this folder.
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Initializes the classifier and shuffles the samples with this seed.
    #[arg(long, default_value_t = 1618)]
    pub seed: u64,
    /// Trains for this many passes over the training set; the program has its own default.
    #[arg(long)]
    pub epochs: Option<usize>,
    /// Uses this peak learning rate; by default the program's, times 768 / width for models narrower than base.
    #[arg(long)]
    pub learning_rate: Option<f64>,
    /// Removes this share of each weight per step at the peak learning rate; the program has its own default.
    #[arg(long, value_name = "SHARE")]
    pub weight_decay: Option<f64>,
    /// Drops this share of the attention output after its projection, in training (0.1 by the authors); by default the config's
    /// attention_dropout.
    #[arg(long, value_name = "SHARE")]
    pub attention_output_dropout: Option<f64>,
    /// Uses this many examples per step; the program has its own default.
    #[arg(long)]
    pub batch_size: Option<usize>,
    /// Evaluates on the dev set after every N steps; by default after every epoch.
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    pub evaluate_every: Option<u64>,
    /// Stops after this many evaluations in a row without a better score, 0 for never; the program has its own default.
    #[arg(long, value_name = "EVALUATIONS")]
    pub patience: Option<usize>,
    /// Truncates inputs to this many tokens and counts those truncated; the program's default is 256, or 384 and more for questions about
    /// contexts.
    #[arg(long, value_name = "TOKENS")]
    pub max_length: Option<usize>,
    /// Accumulates gradients over this many micro-batches per step: more of them need less memory.
    #[arg(long, default_value_t = 1)]
    pub micro_batches: usize,
    /// Saves a checkpoint in --out after every N steps; off by default. These checkpoints are kept after the end of the run.
    #[arg(long, value_name = "STEPS", requires = "out", value_parser = clap::value_parser!(u64).range(1..))]
    pub save_every: Option<u64>,
    /// Saves a checkpoint in --out every this number of minutes.
    #[arg(long, value_name = "MINUTES", requires = "out", default_value_t = 15.0)]
    pub save_every_minutes: f64,
    /// Resumes from the newest checkpoint in --out, bit-identical to an uninterrupted run; give the other options as before.
    #[arg(long, requires = "out")]
    pub resume: bool,
    /// Writes the predictions of the best weights on the dev set to this file, one JSON line per row.
    #[arg(long, value_name = "FILE")]
    pub predictions: Option<PathBuf>,
    /// Prints plain lines instead of the dashboard, even on a terminal.
    #[arg(long)]
    pub lines: bool,
    /// The device argument, which all programs share.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Computes GEMMs and attention in this dtype.
    #[arg(long, default_value = "f32", value_parser = ["f32", "bf16"])]
    pub dtype: String,
}

impl FinetuneArgs {
    /// Checks the settings and `--out` before any work. `data` are the files and folders that will be read beside the model.
    pub(super) fn check(&self, data: &[&Path]) -> anyhow::Result<()> {
        if let Some(rate) = self.learning_rate {
            anyhow::ensure!(
                (f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX)).contains(&rate),
                "--learning-rate is {}; give a positive number that f32 holds",
                short(rate)
            );
        }
        if let Some(decay) = self.weight_decay {
            anyhow::ensure!(
                is_share(decay),
                "--weight-decay is {decay}; give a number from 0 to below 1"
            );
        }
        if let Some(rate) = self.attention_output_dropout {
            anyhow::ensure!(
                is_share(rate),
                "--attention-output-dropout is {rate}; give a number from 0 to below 1"
            );
        }
        if let Some(file) = &self.predictions {
            OutputCheck::file(file)
                .json_lines()
                .inputs([&self.model])
                .inputs(data)
                .of_argument("--predictions")
                .check()?;
            // The folder of the file exists by now; that of the model may not.
            let folder = file.parent().filter(|folder| *folder != Path::new(""));
            let folder = folder.unwrap_or(Path::new(".")).canonicalize()?;
            let is_inside = |out: &PathBuf| {
                let out = out.canonicalize().unwrap_or_else(|_| out.clone());
                file.starts_with(&out) || folder.starts_with(&out)
            };
            anyhow::ensure!(
                !self.out.as_ref().is_some_and(is_inside),
                "--predictions is inside of --out, which holds the model alone; give another place"
            );
        }
        let Some(out) = &self.out else { return Ok(()) };
        let source = ModelSource::parse(&self.model);
        let bytes = match &source {
            ModelSource::Folder(folder) => modernbert::checkpoint::read_config(folder)
                .map_or(0, |config| config.mlm_parameters().saturating_mul(4)),
            ModelSource::Hub(_) => 0,
        };
        OutputCheck::folder(out)
            .inputs([&self.model])
            .inputs(data)
            .needs(bytes)
            .resumes(self.resume, is_resumable)
            .check()?;
        Ok(())
    }
}

/// Arguments of the programs for GLUE's tasks.
#[derive(Args, Clone, Debug)]
pub struct GlueArgs {
    /// Reads GLUE's data from this folder: folders CoLA, RTE, … as distributed, or the Hub's Parquet files.
    #[arg(long, value_name = "FOLDER")]
    pub data: PathBuf,
    /// Uses only this many first rows of each set, for a short trial.
    #[arg(long)]
    pub max_rows: Option<usize>,
    /// The arguments that all finetuning programs share.
    #[command(flatten)]
    pub finetune: FinetuneArgs,
}

impl GlueArgs {
    /// Returns the training and dev sets of a task.
    ///
    /// # Errors
    /// Missing or malformed files.
    pub fn load(
        &self,
        task: modernbert_glue::task::Task,
    ) -> anyhow::Result<modernbert_glue::data::TaskData> {
        let mut data = modernbert_glue::data::TaskData::load(&self.data, task)?;
        if let Some(rows) = self.max_rows {
            data.train.truncate(rows);
            data.dev.iter_mut().for_each(|split| split.truncate(rows));
        }
        modernbert_glue::baseline::check_labels(&data)?;
        for note in modernbert_glue::data::notes(&data) {
            say(&note);
        }
        Ok(data)
    }
}
