//! Checks of a configuration; each error has its remedy.

use super::{ModernBertConfig, Pooling};
use crate::tokenizer::composed;
use crate::wording::{displayed, is_invisible, short};
use std::collections::HashSet;
use std::path::PathBuf;

/// Reason why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read or written.
    #[error(
        "{path}: {source}{remedy}", path = path.display(), remedy = crate::output::file_remedy(source)
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The text is not a JSON object.
    #[error(
        "{source_name}: not a JSON object: {message}; expected the config.json of a ModernBERT model, {}",
        crate::cached::replace_file(source_name)
    )]
    Json {
        /// The file, or the name the caller gave the text.
        source_name: String,
        /// Place and reason, as the JSON library reports them.
        message: String,
    },
    /// The file describes another model.
    #[error(
        "{source_name}: model_type is {found:?}; this library reads \"modernbert\", \"bert\", \"roberta\", \"xlm-roberta\", and \"flexbert\" of its own files"
    )]
    ModelType {
        /// The file, or the name the caller gave the text.
        source_name: String,
        /// The model type in the file.
        found: String,
    },
    /// A key has an invalid value.
    #[error("{source_name}: {key} is {value}; expected {expected}")]
    Value {
        /// The file, or the name the caller gave the text.
        source_name: String,
        /// The key, dotted where it is nested.
        key: String,
        /// Its value.
        value: String,
        /// The valid values.
        expected: String,
    },
    /// The settings do not describe a model.
    #[error("{setting} is {value}; {remedy}")]
    Setting {
        /// The field.
        setting: &'static str,
        /// Its value.
        value: String,
        /// Remedy.
        remedy: String,
    },
    /// A weight, or an activation of a forward pass, that the device can't hold in one tensor.
    #[error(
        "{what} takes {needed} bytes, and this device holds at most {limit} in one tensor; {remedy}"
    )]
    TooLarge {
        /// Name of the tensor.
        what: String,
        /// Its size in bytes.
        needed: u64,
        /// The device's limit in bytes.
        limit: u64,
        /// Remedy.
        remedy: String,
    },
    /// The settings in a file do not describe a model.
    #[error("{source_name}: {setting} is {value}; {remedy}")]
    InFile {
        /// The file, or the name the caller gave the text.
        source_name: String,
        /// The field.
        setting: &'static str,
        /// Its value.
        value: String,
        /// Remedy.
        remedy: String,
    },
    /// No preset has this name.
    #[error("there is no preset {name:?}; the presets are {known}")]
    Preset {
        /// The name given.
        name: String,
        /// The known names.
        known: String,
    },
}

/// Smallest `initializer_cutoff_factor`: values beyond it are drawn again, on average a hundred times at this factor.
const MIN_CUTOFF: f64 = 0.01;

/// Returns whether a number is positive and neither infinite nor 0 (nor of fewer digits) in f32, in which models compute.
pub fn fits_f32(value: f64) -> bool {
    (f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX)).contains(&value)
}

/// Returns whether a number is a share of at least 0 and below 1 in f32, in which models compute: 0.99999999999 is 1 there.
pub fn is_share(value: f64) -> bool {
    (0.0..1.0).contains(&value) && (value as f32) < 1.0
}

/// A label as it is displayed, with composed characters.
fn visible(label: &str) -> String {
    displayed(&composed(label))
}

/// Fewest positions of a model: `[CLS]`, a token, `[SEP]`.
const SHORTEST: usize = 3;

/// Larger sizes are mistakes; the bound keeps every count far from overflow.
pub(super) const MAX_SIZE: usize = 1 << 31;

/// Largest number of layers, which is the length of a list.
pub(super) const MAX_LAYERS: usize = 1 << 16;

pub(super) fn refuse(
    setting: &'static str,
    value: impl ToString,
    remedy: impl Into<String>,
) -> Result<(), ConfigError> {
    Err(ConfigError::Setting {
        setting,
        value: value.to_string(),
        remedy: remedy.into(),
    })
}

impl ModernBertConfig {
    /// Checks that a model can be built from these settings.
    ///
    /// # Errors
    /// The first setting that prevents it, its value and the remedy.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_sizes()?;
        self.validate_layers()?;
        self.validate_numbers()?;
        self.validate_labels()?;
        self.validate_flexbert()
    }

    fn validate_sizes(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        for (setting, size) in sizes {
            if size == 0 || size >= MAX_SIZE {
                refuse(
                    setting,
                    size,
                    format!("set it to 1 or more, below {MAX_SIZE}"),
                )?;
            }
        }
        if self.max_position_embeddings < SHORTEST {
            refuse(
                "max_position_embeddings",
                self.max_position_embeddings,
                format!("[CLS], a token and [SEP] need {SHORTEST}: set {SHORTEST} or more"),
            )?;
        }
        if self.num_hidden_layers >= MAX_LAYERS {
            refuse(
                "num_hidden_layers",
                self.num_hidden_layers,
                format!("set it below {MAX_LAYERS}"),
            )?;
        }
        let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
        if self.flexbert.head_dim.is_some() {
            return Ok(());
        }
        if !hidden.is_multiple_of(heads) {
            refuse(
                "num_attention_heads",
                heads,
                format!("choose a divisor of hidden_size ({hidden})"),
            )?;
        }
        let head_dim = self.head_dim();
        if !head_dim.is_multiple_of(2) {
            refuse(
                "num_attention_heads",
                heads,
                format!(
                    "with hidden_size {hidden} a head is {head_dim} wide, and rotary embeddings need an even width: \
                     change one of the two"
                ),
            )?;
        }
        Ok(())
    }

    fn validate_layers(&self) -> Result<(), ConfigError> {
        let (types, layers) = (self.layer_types.len(), self.num_hidden_layers);
        if types != layers {
            refuse(
                "layer_types",
                format!("a list of {types}"),
                format!(
                    "give one entry for each of the {layers} layers, or change num_hidden_layers"
                ),
            )?;
        }
        let window = self.local_attention;
        if window < 2 || !window.is_multiple_of(2) || window >= MAX_SIZE {
            refuse(
                "local_attention",
                window,
                format!(
                    "it is the total window, half of it on each side: set an even number from 2 to {} (published models: 128)",
                    MAX_SIZE - 2
                ),
            )?;
        }
        Ok(())
    }

    fn validate_numbers(&self) -> Result<(), ConfigError> {
        let positive = [
            ("norm_eps", self.norm_eps, "1e-5"),
            ("global_rope_theta", self.global_rope_theta, "160000"),
            ("local_rope_theta", self.local_rope_theta, "10000"),
            ("initializer_range", self.initializer_range, "0.02"),
            (
                "initializer_cutoff_factor",
                self.initializer_cutoff_factor,
                "2",
            ),
        ];
        for (setting, value, usual) in positive {
            if !fits_f32(value) {
                refuse(
                    setting,
                    short(value),
                    format!("set a positive number that f32 holds (published models: {usual})"),
                )?;
            }
        }
        let longest = self.max_position_embeddings as f64;
        for (setting, theta) in [
            ("global_rope_theta", self.global_rope_theta),
            ("local_rope_theta", self.local_rope_theta),
        ] {
            // The fastest frequency is at most 1 / theta.
            if !fits_f32(longest / theta.min(1.0)) {
                refuse(
                    setting,
                    short(theta),
                    "positions divided by it overflow f32: set 1 or more",
                )?;
            }
        }
        if self.initializer_cutoff_factor < MIN_CUTOFF {
            refuse(
                "initializer_cutoff_factor",
                short(self.initializer_cutoff_factor),
                format!(
                    "random weights beyond it are drawn again: set {MIN_CUTOFF} or more (published models: 2)"
                ),
            )?;
        }
        for (setting, value) in self.dropouts() {
            if !is_share(value) {
                refuse(
                    setting,
                    value,
                    "set a probability of at least 0 and below 1, also in f32",
                )?;
            }
        }
        Ok(())
    }

    fn validate_labels(&self) -> Result<(), ConfigError> {
        if matches!(
            self.classifier_pooling,
            Pooling::Max | Pooling::WeightedMean
        ) {
            refuse(
                "classifier_pooling",
                self.classifier_pooling.name(),
                "a classifier pools by \"cls\" or \"mean\"",
            )?;
        }
        if let Some(pad) = self.pad_token_id
            && pad as usize >= self.vocab_size
        {
            refuse(
                "pad_token_id",
                pad,
                format!(
                    "give the id of a token below vocab_size ({}), or none",
                    self.vocab_size
                ),
            )?;
        }
        if self.num_labels == Some(0) {
            refuse("num_labels", 0, "set 1 or more, or leave it out")?;
        }
        let named = self.id2label.as_deref().unwrap_or_default();
        let mut seen = HashSet::new();
        if let Some(label) = named
            .iter()
            .find(|label| label.trim().is_empty() || !seen.insert(visible(label)))
        {
            refuse(
                "id2label",
                if label.trim().is_empty() {
                    "one with an empty name".to_owned()
                } else {
                    format!("one with the name {label:?} twice, as far as can be seen")
                },
                "results name labels: give each label a name of its own",
            )?;
        }
        // Programs print labels on lines and terminals.
        let mut labels = named.iter();
        if let Some(label) = labels.find(|label| label.chars().any(is_invisible)) {
            refuse(
                "id2label",
                format!("{label:?}"),
                "remove line ends, tabs and other control characters from the label",
            )?;
        }
        if let (Some(labels), Some(n)) = (&self.id2label, self.num_labels)
            && labels.len() != n
        {
            refuse(
                "num_labels",
                n,
                format!(
                    "id2label names {} labels: make the two agree, or leave num_labels out",
                    labels.len()
                ),
            )?;
        }
        Ok(())
    }

    fn dropouts(&self) -> [(&'static str, f64); 4] {
        [
            ("attention_dropout", self.attention_dropout),
            ("embedding_dropout", self.embedding_dropout),
            ("mlp_dropout", self.mlp_dropout),
            ("classifier_dropout", self.classifier_dropout),
        ]
    }

    /// Refuses dropout, for callers that compare training with another implementation, which drops other elements.
    ///
    /// # Errors
    /// The first dropout that is not 0. Published models have none.
    pub fn check_no_dropout(&self) -> Result<(), ConfigError> {
        match self.dropouts().into_iter().find(|(_, value)| *value > 0.0) {
            Some((setting, value)) => refuse(
                setting,
                value,
                "which elements are dropped differs from implementation to implementation; set it to 0 in config.json to compare them",
            ),
            None => Ok(()),
        }
    }

    /// Checks that the layers follow the rule of the published models: layers 0, n, 2n, … are global and the last layer is one of them.
    /// Presets and pretraining follow it, unless `flexbert.sliding_windows` lists the windows; loading takes any layer types a file gives.
    ///
    /// # Errors
    /// The errors of [`Self::validate`], and layer types that break the rule.
    pub fn check_trainable(&self) -> Result<(), ConfigError> {
        self.validate()?;
        if self.flexbert.sliding_windows.is_some() {
            return Ok(());
        }
        let layers = self.num_hidden_layers;
        let Some(n) = self.global_every_n() else {
            return refuse(
                "layer_types",
                "irregular",
                "for training, let every n-th layer be global, starting with the first",
            );
        };
        if (layers - 1).is_multiple_of(n) {
            return Ok(());
        }
        let below = (layers - 1) / n * n + 1;
        refuse(
            "num_hidden_layers",
            layers,
            format!(
                "with one global layer in {n} the last layer would be local: use {below} or {} layers, or another spacing",
                below + n
            ),
        )
    }
}
