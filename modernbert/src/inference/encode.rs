//! Texts to vectors.

use modernbert_files::sentences::SentenceSettings;

use super::runner::{Runner, Sequence, read_rows};
use super::{BatchOptions, InferenceError, Input, ResultStream, StreamProgress};
use crate::config::Pooling;
use crate::loader::Loader;
use crate::model::{ModernBert, pool};
use crate::similarity::normalize;
use crate::tokenizer::{Encoded, Tokenizer};

/// Settings of the vector of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbedOptions {
    /// First token, mean or weighted mean over the tokens, or largest value of each feature, special tokens included.
    pub pooling: Pooling,
    /// True if vectors are scaled to length one, so that their dot product is their cosine.
    pub normalize: bool,
}

impl Default for EmbedOptions {
    fn default() -> Self {
        Self {
            pooling: Pooling::Mean,
            normalize: true,
        }
    }
}

/// The vector of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// `[hidden]`.
    pub values: Vec<f32>,
    /// Tokens that the model read, special tokens included.
    pub tokens: usize,
    /// True if the text was longer than that.
    pub truncated: bool,
}

impl AsRef<[f32]> for Embedding {
    fn as_ref(&self) -> &[f32] {
        &self.values
    }
}

/// A model and its tokenizer, for vectors of texts.
///
/// ```
/// use modernbert::{Encoder, cosine_similarity};
///
/// # let folder = tiny_models::masked_lm();
/// # let name = folder.path();
/// let encoder = Encoder::load(name)?; // a folder, or a name on the Hub: "org/name"
/// let vectors = encoder.encode(&["one two", "three"])?;
/// println!("{}", cosine_similarity(&vectors[0], &vectors[1])?);
/// # assert_eq!(vectors.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Encoder {
    model: ModernBert,
    runner: Runner,
    options: EmbedOptions,
    /// Put before every text.
    prompt: Option<String>,
    /// Settings of the model's folder.
    settings: SentenceSettings,
}

impl Encoder {
    /// An encoder of these parts.
    ///
    /// # Errors
    /// Batches without tokens, a maximum length beyond the model's, a tokenizer of another model.
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
            prompt: None,
            settings: SentenceSettings::default(),
        })
    }

    /// Loads encoder and tokenizer of any ModernBERT, from a folder or by its name on the Hub; the head is left out.
    ///
    /// Pooling, normalization, the longest text and the default prompt are those of the folder's files for sentence-transformers, where
    /// it has them; otherwise the mean, scaled to length one.
    ///
    /// # Errors
    /// As [`ModernBert::load`] and [`Self::new`]; files for sentence-transformers that ask for something that is not supported.
    pub fn load(model: impl Into<Loader>) -> Result<Self, InferenceError> {
        let opened = model.into().open::<ModernBert>()?;
        let settings = SentenceSettings::read(&opened.folder)?;
        let defaults = EmbedOptions::default();
        let options = EmbedOptions {
            pooling: settings.pooling.unwrap_or(defaults.pooling),
            normalize: settings.normalize.unwrap_or(defaults.normalize),
        };
        let limit = opened.config.max_position_embeddings;
        let mut batches = opened.batches.clone();
        batches.max_length = batches.max_length.or(settings
            .max_length
            .map(|length| length.clamp(2, limit.max(2))));
        let encoder = opened.for_inference(ModernBert::new)?;
        let mut encoder = Self::new(encoder, opened.tokenizer()?, options, batches)?;
        encoder.prompt = settings.default_prompt_text().map(str::to_string);
        encoder.settings = settings;
        Ok(encoder)
    }

    /// The same encoder with another pooling.
    ///
    /// ```
    /// use modernbert::{Encoder, config::Pooling};
    ///
    /// # let folder = tiny_models::masked_lm();
    /// # let name = folder.path();
    /// let encoder = Encoder::load(name)?.with_pooling(Pooling::Cls).with_normalize(false);
    /// assert_eq!(encoder.encode(&["one"])?[0].values.len(), encoder.width());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_pooling(mut self, pooling: Pooling) -> Self {
        self.options.pooling = pooling;
        self
    }

    /// The same encoder with vectors that are scaled to length one, or not.
    #[must_use]
    pub fn with_normalize(mut self, normalize: bool) -> Self {
        self.options.normalize = normalize;
        self
    }

    /// The same encoder with a text that is put before every text, such as `query: `; `None` for none.
    #[must_use]
    pub fn with_prompt(mut self, prompt: Option<String>) -> Self {
        self.prompt = prompt.filter(|prompt| !prompt.is_empty());
        self
    }

    /// Settings of the vector of a text.
    pub fn options(&self) -> EmbedOptions {
        self.options
    }

    /// The model.
    pub fn model(&self) -> &ModernBert {
        &self.model
    }

    /// Width of the vectors.
    pub fn width(&self) -> usize {
        self.model.config().hidden_size
    }

    /// Tokens of a text at most, special tokens included; longer texts are truncated.
    pub fn max_length(&self) -> usize {
        self.runner.max_length
    }

    /// The vector of every text or pair, in order.
    ///
    /// ```
    /// # let folder = tiny_models::masked_lm();
    /// # let name = folder.path();
    /// let encoder = modernbert::Encoder::load(name)?;
    /// let texts = vec!["one".to_string(), "two three".to_string()];
    /// assert_eq!(encoder.encode(&texts)?.len(), 2);
    /// let pairs = [("one", "two"), ("three", "one")];
    /// assert_eq!(encoder.encode(&pairs)?.len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A text that can't be encoded, a prompt that leaves no token of a text or that the pooling leaves out, an output that is not finite or
    /// all zeros, a device that fails.
    pub fn encode<'a, T>(&self, texts: &'a [T]) -> Result<Vec<Embedding>, InferenceError>
    where
        &'a T: Into<Input<'a>>,
    {
        self.encode_with(&Input::of_all(texts), &mut |_| {})
    }

    /// As [`Self::encode`], reporting progress after each batch.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_with(
        &self,
        inputs: &[Input<'_>],
        progress: &mut dyn FnMut(StreamProgress),
    ) -> Result<Vec<Embedding>, InferenceError> {
        let encoded = match &self.prompt {
            Some(prompt) => {
                self.settings.check_prompt(prompt)?;
                self.runner.check_prompt(prompt)?;
                let prompted: Vec<Input<'_>> = inputs
                    .iter()
                    .map(|input| Input {
                        text: format!("{prompt}{}", input.text).into(),
                        pair: input.pair.as_deref().map(Into::into),
                    })
                    .collect();
                self.runner.tokenize(&prompted)?
            }
            None => self.runner.tokenize(inputs)?,
        };
        let sequences = Sequence::of_all(&encoded);
        let model = &self.model;
        let vectors = self.runner.run(&sequences, model, progress, |batch| {
            let hidden = self.model.forward(batch);
            read_rows(pool(hidden, &batch.layout, self.options.pooling))
        })?;
        if let Some(at) = vectors
            .iter()
            .position(|vector| vector.iter().all(|x| *x == 0.0))
        {
            return Err(InferenceError::Zero { index: at + 1 });
        }
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
        progress: impl FnMut(StreamProgress) + 'm,
    ) -> ResultStream<'m, I::IntoIter, Embedding, E>
    where
        I: IntoIterator<Item = Result<Input<'static>, E>>,
        E: From<InferenceError>,
    {
        let options = self.runner.options.clone();
        let run = Box::new(
            |window: &[Input<'static>], progress: &mut dyn FnMut(StreamProgress)| {
                self.encode_with(window, progress)
            },
        );
        ResultStream::new(inputs.into_iter(), options, run, Box::new(progress))
    }
}
