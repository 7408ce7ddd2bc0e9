//! Texts to vectors.

use std::path::Path;

use super::runner::{Runner, read_rows};
use super::{BatchOptions, InferenceError, Input, Progress, Stream};
use crate::checkpoint::{CheckpointError, load, open_checked};
use crate::config::Pooling;
use crate::model::{ModernBert, Precision, pool};
use crate::tokenizer::{Encoded, Tokenizer};
use burn::tensor::Device;

/// How a text becomes one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbedOptions {
    /// First token, or mean over the tokens, special tokens included.
    pub pooling: Pooling,
    /// Whether vectors are scaled to length one, so that their dot product is their cosine.
    pub normalize: bool,
    /// Dtype of products and attention, for models loaded by [`Encoder::from_folder`].
    pub precision: Precision,
}

impl Default for EmbedOptions {
    fn default() -> Self {
        Self {
            pooling: Pooling::Mean,
            normalize: true,
            precision: Precision::F32,
        }
    }
}

/// The vector of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// `[hidden]`.
    pub values: Vec<f32>,
    /// Tokens the model saw, special tokens included.
    pub tokens: usize,
    /// Whether the text was longer than that.
    pub truncated: bool,
}

/// A model and its tokenizer, turning texts into vectors.
///
/// ```no_run
/// use modernbert::inference::{BatchOptions, EmbedOptions, Encoder};
///
/// let device = modernbert::device::select(None)?.device;
/// let encoder = Encoder::from_folder("runs/demo".as_ref(), EmbedOptions::default(), BatchOptions::default(), &device)?;
/// let vectors = encoder.encode(&["fn main() {}".into(), ("a question", "an answer").into()])?;
/// assert_eq!(vectors.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Encoder {
    model: ModernBert,
    runner: Runner,
    options: EmbedOptions,
}

impl Encoder {
    /// An encoder of these parts.
    ///
    /// # Errors
    /// Batches without tokens, or a maximum length beyond the model's.
    pub fn new(
        model: ModernBert,
        tokenizer: Tokenizer,
        options: EmbedOptions,
        batches: BatchOptions,
    ) -> Result<Self, InferenceError> {
        let runner = Runner::new(model.config(), tokenizer, batches)?;
        Ok(Self {
            model,
            runner,
            options,
        })
    }

    /// Loads encoder and tokenizer from the folder of any ModernBERT; its head is left aside.
    ///
    /// # Errors
    /// A folder without a model or a tokenizer, and those of [`Self::new`].
    pub fn from_folder(
        folder: &Path,
        options: EmbedOptions,
        batches: BatchOptions,
        device: &Device,
    ) -> Result<Self, InferenceError> {
        let (config, files) = open_checked(folder)?;
        let model = ModernBert::new(&config, device).map_err(CheckpointError::from)?;
        let (model, _) = load(model, &files, &[])?;
        let tokenizer = Tokenizer::from_folder(folder)?;
        Self::new(
            model.with_precision(options.precision),
            tokenizer,
            options,
            batches,
        )
    }

    /// The model.
    pub fn model(&self) -> &ModernBert {
        &self.model
    }

    /// Length of the vectors.
    pub fn width(&self) -> usize {
        self.model.config().hidden_size
    }

    /// The vector of every input, in order.
    ///
    /// # Errors
    /// A tokenizer that doesn't belong to the model; a device that fails.
    pub fn encode(&self, inputs: &[Input<'_>]) -> Result<Vec<Embedding>, InferenceError> {
        self.encode_with(inputs, &mut |_| {})
    }

    /// As [`Self::encode`], telling after each batch how far it has come.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_with(
        &self,
        inputs: &[Input<'_>],
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<Embedding>, InferenceError> {
        let encoded = self.runner.tokenize(inputs)?;
        let sequences: Vec<&[u32]> = encoded.iter().map(|e| e.ids.as_slice()).collect();
        let model = &self.model;
        let vectors = self.runner.run(&sequences, model, progress, |batch| {
            let hidden = self.model.forward(batch);
            read_rows(pool(hidden, &batch.layout, self.options.pooling))
        })?;
        let finish = |(mut values, encoded): (Vec<f32>, &Encoded)| {
            if self.options.normalize {
                normalize(&mut values);
            }
            Embedding {
                values,
                tokens: encoded.ids.len(),
                truncated: encoded.truncated,
            }
        };
        Ok(vectors.into_iter().zip(&encoded).map(finish).collect())
    }

    /// Vectors of a stream of inputs that need not fit into memory, in order.
    ///
    /// Inputs are read in windows of [`BatchOptions::window`]; `E` is the error of their source.
    pub fn stream<'m, I, E>(
        &'m self,
        inputs: I,
        progress: impl FnMut(Progress) + 'm,
    ) -> Stream<'m, I::IntoIter, Embedding, E>
    where
        I: IntoIterator<Item = Result<Input<'static>, E>>,
        E: From<InferenceError>,
    {
        let options = self.runner.options.clone();
        let run = Box::new(
            |window: &[Input<'static>], progress: &mut dyn FnMut(Progress)| {
                self.encode_with(window, progress)
            },
        );
        Stream::new(inputs.into_iter(), options, run, Box::new(progress))
    }
}

/// Scales a vector to length one; a vector of zeros stays.
fn normalize(values: &mut [f32]) {
    let squares: f64 = values.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let norm = squares.sqrt();
    if norm > 0.0 {
        values
            .iter_mut()
            .for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
}
