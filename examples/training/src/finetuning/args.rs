//! Arguments of the finetuning programs.

use anyhow::Context;
use clap::Args;
use modernbert::checkpoint::{CONFIG_FILE, ModelSource};
use modernbert::output::OutputCheck;
use modernbert_cli::{DeviceArgs, say};
use modernbert_train::finetune::has_checkpoints;
use std::path::{Path, PathBuf};

/// The model to start from and what differs from a program's settings.
#[derive(Args, Clone, Debug)]
pub struct FinetuneArgs {
    /// Model to start from: a folder with config.json, model.safetensors and tokenizer.json, or a name on the Hugging Face Hub.
    #[arg(long, value_name = "FOLDER|NAME")]
    pub model: String,
    /// Folder for the finetuned model.
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Seed of the classifier's first weights and of the order of samples.
    #[arg(long, default_value_t = 1618)]
    pub seed: u64,
    /// Passes over the training set, instead of the program's.
    #[arg(long)]
    pub epochs: Option<usize>,
    /// Peak learning rate, instead of the program's times 768 / width for models narrower than base.
    #[arg(long)]
    pub learning_rate: Option<f64>,
    /// Share of a weight removed per step at the peak, instead of the program's.
    #[arg(long, value_name = "SHARE")]
    pub weight_decay: Option<f64>,
    /// Examples of a step, instead of the program's.
    #[arg(long)]
    pub batch_size: Option<usize>,
    /// Steps between two evaluations on the dev set; by default one after every epoch.
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    pub evaluate_every: Option<u64>,
    /// Evaluations in a row without a better score after which training stops, instead of the program's; 0 never stops early.
    #[arg(long, value_name = "EVALUATIONS")]
    pub patience: Option<usize>,
    /// Longest input in tokens, instead of the program's (256, or 384 and more for questions about contexts); what is longer is cut and counted.
    #[arg(long, value_name = "TOKENS")]
    pub max_length: Option<usize>,
    /// Micro-batches of a step, whose gradients are accumulated: more of them take less memory.
    #[arg(long, default_value_t = 1)]
    pub micro_batches: usize,
    /// Steps between checkpoints in --out; by default none by steps. Checkpoints by steps stay after the end of the run.
    #[arg(long, value_name = "STEPS", requires = "out", value_parser = clap::value_parser!(u64).range(1..))]
    pub save_every: Option<u64>,
    /// Minutes between checkpoints in --out.
    #[arg(long, value_name = "MINUTES", requires = "out", default_value_t = 15.0)]
    pub save_every_minutes: f64,
    /// Goes on from the newest checkpoint in --out, bit for bit as if the run had never stopped; give the other options as before.
    #[arg(long, requires = "out")]
    pub resume: bool,
    /// File for the predictions of the best weights on the dev set, a JSON line for each of its rows.
    #[arg(long, value_name = "FILE")]
    pub predictions: Option<PathBuf>,
    /// Plain lines even on a terminal.
    #[arg(long)]
    pub lines: bool,
    /// Device, the same in every program.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Dtype of matrix multiplications and attention.
    #[arg(long, default_value = "f32", value_parser = ["f32", "bf16"])]
    pub dtype: String,
}

impl FinetuneArgs {
    /// Checks settings, and the place for the model, before any work.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if let Some(rate) = self.learning_rate {
            anyhow::ensure!(
                rate > 0.0 && rate.is_finite(),
                "--learning-rate is {rate}; give a finite number above 0"
            );
        }
        if let Some(decay) = self.weight_decay {
            anyhow::ensure!(
                (0.0..1.0).contains(&decay),
                "--weight-decay is {decay}; give a number from 0 to below 1"
            );
        }
        if let Some(file) = &self.predictions {
            let check = OutputCheck::file(file).inputs([&self.model]).check();
            check.context("--predictions names a file that can't be written")?;
            anyhow::ensure!(
                self.out.as_ref().is_none_or(|out| !file.starts_with(out)),
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
        let resumable = |out: &Path| {
            has_checkpoints(out).is_ok_and(|has| has) || !out.join(CONFIG_FILE).exists()
        };
        OutputCheck::folder(out)
            .inputs([&self.model])
            .needs(bytes)
            .replaces(|out| self.resume && resumable(out))
            .check()?;
        Ok(())
    }
}

/// GLUE's data, for the programs of its tasks.
#[derive(Args, Clone, Debug)]
pub struct GlueArgs {
    /// Folder that holds CoLA, RTE, … as GLUE distributes them or as the Hub's Parquet files.
    #[arg(long, value_name = "FOLDER")]
    pub data: PathBuf,
    /// Only the first so many rows of each set, to try things out.
    #[arg(long)]
    pub max_rows: Option<usize>,
    /// The rest.
    #[command(flatten)]
    pub finetune: FinetuneArgs,
}

impl GlueArgs {
    /// Training and dev sets of a task.
    ///
    /// # Errors
    /// Files that are missing or wrong.
    pub fn load(
        &self,
        task: modernbert_glue::task::Task,
    ) -> anyhow::Result<modernbert_glue::data::TaskData> {
        let mut data = modernbert_glue::data::TaskData::load(&self.data, task)?;
        if let Some(rows) = self.max_rows {
            data.train.truncate(rows);
            data.dev.iter_mut().for_each(|split| split.truncate(rows));
        }
        for note in modernbert_glue::data::notes(&data) {
            say(&note);
        }
        Ok(data)
    }
}
