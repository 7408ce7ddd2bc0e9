//! What the finetuning programs share: arguments, the opened model, a run with its last lines.

use clap::Args;
use modernbert::checkpoint::{ModelSource, WEIGHTS_FILE, save};
use modernbert::config::{ModernBertConfig, ProblemType};
use modernbert::device::NamedDevice;
use modernbert::model::{Precision, SequenceClassifier};
use modernbert::output::{OutputCheck, StagedFolder};
use modernbert::tokenizer::Tokenizer;
use modernbert::{HeadStart, Loader};
use modernbert_cli::{DeviceArgs, describe};
use modernbert_train::finetune::{
    Encoded, FinetuneOptions, Finetuned, Finetuning, Sample, Score, Text, encode,
};
use std::path::PathBuf;

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
    /// Sequences of a step, instead of the program's.
    #[arg(long)]
    pub batch_size: Option<usize>,
    /// Longest input in tokens; what is longer is cut and counted.
    #[arg(long, default_value_t = 256)]
    pub max_length: usize,
    /// Device, the same in every program.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Dtype of matrix multiplications and attention.
    #[arg(long, default_value = "f32", value_parser = ["f32", "bf16"])]
    pub dtype: String,
}

impl FinetuneArgs {
    /// Checks settings, and the place for the model, before any work.
    fn check(&self) -> anyhow::Result<()> {
        if let Some(rate) = self.learning_rate {
            anyhow::ensure!(
                rate > 0.0 && rate.is_finite(),
                "--learning-rate is {rate}; give a finite number above 0"
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
            .needs(bytes)
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
            println!("{note}");
        }
        Ok(data)
    }
}

/// A model that is about to be finetuned.
pub struct Session {
    args: FinetuneArgs,
    device: NamedDevice,
    precision: Precision,
    folder: PathBuf,
    config: ModernBertConfig,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
}

impl Session {
    /// Opens the model's folder and the device.
    ///
    /// # Errors
    /// A folder that is no model's, a device or dtype that isn't there.
    pub fn open(args: &FinetuneArgs) -> anyhow::Result<Self> {
        let precision: Precision = args.dtype.parse().map_err(anyhow::Error::msg)?;
        anyhow::ensure!(
            precision != Precision::F16,
            "--dtype is f16; training computes in f32 or bf16"
        );
        let device = args.device.select_for_training()?;
        println!("{}", describe(&device, precision.name()));
        args.check()?;
        let folder = Loader::from(&args.model).folder()?;
        Ok(Self {
            config: modernbert::checkpoint::read_config(&folder)?,
            tokenizer: Tokenizer::from_folder(&folder)?,
            args: args.clone(),
            device,
            precision,
            folder,
        })
    }

    /// Computes in f32 whatever was asked for.
    #[must_use]
    pub fn in_f32(mut self) -> Self {
        self.precision = Precision::F32;
        self
    }

    /// Texts to sequences; says how many were cut or empty.
    ///
    /// # Errors
    /// A maximum length too small for the special tokens.
    pub fn encode(&self, texts: &[Text<'_>]) -> anyhow::Result<Vec<Sample>> {
        let limit = self
            .args
            .max_length
            .min(self.config.max_position_embeddings);
        let Encoded {
            samples,
            truncated,
            empty,
        } = encode(&self.tokenizer, texts, limit)?;
        if truncated + empty > 0 {
            println!(
                "of {} inputs {truncated} were cut to {limit} tokens, {empty} have an empty text",
                samples.len()
            );
        }
        Ok(samples)
    }

    /// Finetunes a classifier with these labels (none: regression), prints the best score and saves the model with `--out`.
    ///
    /// # Errors
    /// Those of [`Finetuning::run`], and a folder that can't be written.
    pub fn finetune(
        &self,
        labels: &[String],
        train: Vec<Sample>,
        dev: Vec<Sample>,
        options: FinetuneOptions,
        score: impl FnMut(&[Vec<f32>]) -> Result<Score, String> + Send + 'static,
    ) -> anyhow::Result<Finetuned> {
        let args = &self.args;
        let scale = (768.0 / self.config.hidden_size as f64).max(1.0);
        let options = FinetuneOptions {
            epochs: args.epochs.unwrap_or(options.epochs),
            learning_rate: args.learning_rate.unwrap_or(options.learning_rate * scale),
            batch_size: args.batch_size.unwrap_or(options.batch_size),
            seed: args.seed,
            ..options
        };
        let outputs = labels.len().max(1);
        let loader = Loader::new(&self.folder)
            .device(&self.device.device)
            .precision(self.precision);
        // A classifier that the folder may have is for another task.
        let (model, _) =
            SequenceClassifier::load_for_finetuning(loader, outputs, HeadStart::Fresh, args.seed)?;
        let finetuned = Finetuning::new(train, dev, options, score).run(model)?;
        let metrics: Vec<String> = finetuned
            .best
            .score
            .metrics
            .iter()
            .map(|(name, value)| match value {
                Some(value) => format!("{name} {value:.4}"),
                None => format!("{name} n/a"),
            })
            .collect();
        println!(
            "best at step {} of {}: {}",
            finetuned.best.step,
            finetuned.planned_steps,
            metrics.join(", ")
        );
        if let Some(out) = &args.out {
            let mut config = self.config.clone();
            config.num_labels = Some(outputs);
            config.id2label = (!labels.is_empty()).then(|| labels.to_vec());
            config.problem_type = Some(match labels {
                [] => ProblemType::Regression,
                _ => ProblemType::SingleLabel,
            });
            let staged = StagedFolder::create(out)?;
            save(&finetuned.model, &config, staged.path())?;
            let positions = config.max_position_embeddings;
            let tokenizer = self.tokenizer.clone().with_max_length(positions);
            tokenizer.save(staged.path())?;
            staged.publish(WEIGHTS_FILE)?;
            println!("model in {}", out.display());
        }
        Ok(finetuned)
    }
}

/// Names of classes as [`Session::finetune`] takes them.
pub fn names(labels: &[&str]) -> Vec<String> {
    labels.iter().map(ToString::to_string).collect()
}
