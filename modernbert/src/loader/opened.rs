//! A model folder whose files are open.

use burn::tensor::Device;
use modernbert_files::sentences::{MODULES_FILE, MultiVectorSettings, POOLING_FILE};
use std::path::PathBuf;

use super::{BatchOptions, LoadError, Loader};
use crate::checkpoint::{CheckpointError, LoadPlan, LoadReport, TensorFiles, load, open_with_head};
use crate::config::{ConfigError, Family, Head, ModernBertConfig};
use crate::device;
use crate::model::{Architecture, InitMethod, ModernBert, Precision, initialize, initialize_with};
use crate::tokenizer::Tokenizer;

/// The classifier's weight, in the files of every model that has one.
const CLASSIFIER: &str = "classifier.weight";
/// Parameters of a head, by the beginning of their names.
const HEAD: [&str; 2] = ["head.", "classifier."];

/// A model folder, and the settings of the model.
pub(crate) struct Opened {
    pub(crate) folder: PathBuf,
    pub(crate) config: ModernBertConfig,
    pub(crate) device: Device,
    pub(crate) precision: Precision,
    half_residual: bool,
    int8: bool,
    fp8: bool,
    pub(crate) batches: BatchOptions,
    files: TensorFiles,
}

impl Loader {
    /// Finds the folder and opens its files for a model of class `M`; they are known to fit its config then.
    pub(crate) fn open<M: Architecture>(self) -> Result<Opened, LoadError> {
        let device = self.select_device()?;
        let folder = self.folder()?;
        let (config, files) = open_with_head(&folder, M::HEAD)?;
        Ok(Opened {
            folder,
            config,
            device,
            precision: self.precision,
            half_residual: self.half_residual,
            int8: self.int8,
            fp8: self.fp8,
            batches: self.batches,
            files,
        })
    }
}

impl Loader {
    /// Refuses a folder without a masked language model, before its weights are read.
    ///
    /// # Errors
    /// A folder that can't be found or whose files contradict its config; a model with another head or none.
    pub fn check_masked_lm(&self) -> Result<(), LoadError> {
        let folder = self.folder()?;
        let (config, files) = open_with_head(&folder, Head::MaskedLm)?;
        let opened = Opened {
            folder,
            config,
            device: Device::default(),
            precision: self.precision,
            half_residual: self.half_residual,
            int8: self.int8,
            fp8: self.fp8,
            batches: self.batches.clone(),
            files,
        };
        opened.check_class(Head::MaskedLm)?;
        match opened.has_head(Head::MaskedLm) {
            true => Ok(()),
            false => Err(LoadError::NoMaskedLm {
                place: opened.place(),
                found: opened.kind_of_encoder(),
                class: opened.config.family.class(Head::MaskedLm),
                tensor: opened.files.shown("head.dense.weight"),
            }),
        }
    }
}

impl Opened {
    /// The tokenizer of the folder.
    pub(crate) fn tokenizer(&self) -> Result<Tokenizer, LoadError> {
        Ok(Tokenizer::from_folder(&self.folder)?)
    }

    fn place(&self) -> String {
        self.folder.display().to_string()
    }

    /// Loads a model all of whose parameters must be in the folder.
    pub(crate) fn complete<M: Architecture>(
        &self,
        build: impl FnOnce(&ModernBertConfig, &Device) -> Result<M, ConfigError>,
    ) -> Result<M, LoadError> {
        let (model, plan) = self.planned(build)?;
        Ok(plan.fill(model, false)?)
    }

    /// As [`Self::complete`], as the model runs in a pipeline: for inference alone, with the loader's settings.
    pub(crate) fn for_inference<M: Architecture>(
        &self,
        build: impl FnOnce(&ModernBertConfig, &Device) -> Result<M, ConfigError>,
    ) -> Result<M, LoadError> {
        let (model, plan) = self.planned(build)?;
        let model = model.try_map_encoder(|encoder| {
            encoder
                .with_precision(self.precision)
                .with_half_residual(self.half_residual)
                .with_int8(self.int8)
                .with_fp8(self.fp8)
                .for_inference_from(&plan)
        })?;
        if self.int8 && model.encoder().packed_for().is_none() {
            return Err(LoadError::Int8 {
                place: self.place(),
            });
        }
        if self.fp8 && !model.encoder().supports_fp8() {
            return Err(LoadError::Fp8 {
                place: self.place(),
            });
        }
        let maps = device::is_host(&self.device);
        Ok(plan
            .fill(model, maps)?
            .map_encoder(ModernBert::for_inference))
    }

    /// A model of the folder's config, and the tensors that belong to its parameters.
    fn planned<M: Architecture>(
        &self,
        build: impl FnOnce(&ModernBertConfig, &Device) -> Result<M, ConfigError>,
    ) -> Result<(M, LoadPlan<'_>), LoadError> {
        self.check_class(M::HEAD)?;
        if M::HEAD == Head::MaskedLm {
            self.check_tied()?;
        }
        let model = build(&self.config, &self.device).map_err(CheckpointError::from)?;
        match LoadPlan::new(&model, &self.files, &[]) {
            Ok(plan) => Ok((model, plan)),
            Err(CheckpointError::Missing { place, name })
                if (name.starts_with("head.") || name.starts_with("decoder."))
                    && !self.has_head(M::HEAD) =>
            {
                let (class, tensor) = (self.class::<M>(), self.files.shown(&name));
                if M::HEAD == Head::MaskedLm {
                    return Err(LoadError::NoMaskedLm {
                        place,
                        found: self.kind_of_encoder(),
                        class,
                        tensor,
                    });
                }
                Err(LoadError::NoHead {
                    place,
                    class,
                    tensor,
                })
            }
            Err(CheckpointError::Missing { place, name }) => {
                let name = self.files.shown(&name);
                Err(CheckpointError::Missing { place, name }.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// As [`Self::complete`], for a model with a classifier; `build` also gets the number of its outputs, which the shape in the file
    /// decides, because `config.json` often doesn't say. `expected` is the number that the class prescribes.
    pub(crate) fn classifier<M: Architecture>(
        &self,
        expected: Option<usize>,
        build: impl FnOnce(&ModernBertConfig, usize, &Device) -> Result<M, ConfigError>,
    ) -> Result<M, LoadError> {
        let outputs = self.outputs::<M>(expected)?;
        self.complete(|config, device| build(config, outputs, device))
    }

    /// As [`Self::classifier`], as the model runs in a pipeline.
    pub(crate) fn classifier_for_inference<M: Architecture>(
        &self,
        expected: Option<usize>,
        build: impl FnOnce(&ModernBertConfig, usize, &Device) -> Result<M, ConfigError>,
    ) -> Result<M, LoadError> {
        let outputs = self.outputs::<M>(expected)?;
        self.for_inference(|config, device| build(config, outputs, device))
    }

    /// Refuses a decoder's weight beside `tie_word_embeddings` that is not that of the token embeddings: the file was made without the setting, and
    /// the model would predict other tokens.
    fn check_tied(&self) -> Result<(), LoadError> {
        const DECODER: &str = "decoder.weight";
        const EMBEDDINGS: &str = "model.embeddings.tok_embeddings.weight";
        if !self.config.tie_word_embeddings || self.files.shape(DECODER).is_none() {
            return Ok(());
        }
        let (decoder, embeddings) = (self.files.read(DECODER)?, self.files.read(EMBEDDINGS)?);
        match embeddings.is_some() && decoder != embeddings {
            true => Err(LoadError::Tied {
                place: self.files.place(),
            }),
            false => Ok(()),
        }
    }

    /// The class of transformers in the family of the folder.
    fn class<M: Architecture>(&self) -> &'static str {
        self.config.family.class(M::HEAD)
    }

    /// True if the files have this head, complete or not.
    fn has_head(&self, head: Head) -> bool {
        let any = |prefix: &str| self.files.names().any(|name| name.starts_with(prefix));
        match head == Head::MaskedLm {
            // The dense layer has the same name in every head.
            true => any("decoder.") || any("head.") && !any("classifier."),
            false => any("classifier."),
        }
    }

    /// Kind of a model without a head, by the files of its folder.
    fn kind_of_encoder(&self) -> &'static str {
        let has = |file: &str| self.folder.join(file).is_file();
        match MultiVectorSettings::read(&self.folder) {
            Ok(Some(_)) => "a model with a vector per token (ColBERT)",
            _ if has(MODULES_FILE) || has(POOLING_FILE) => "a model of text vectors",
            _ => "an encoder without a head",
        }
    }

    /// Outputs of the folder's classifier.
    fn outputs<M: Architecture>(&self, expected: Option<usize>) -> Result<usize, LoadError> {
        self.check_class(M::HEAD)?;
        let found = match self.files.shape(CLASSIFIER) {
            Some(&[found, ..]) => found,
            // The plan refuses the shape.
            Some([]) => 1,
            None if self.has_head(M::HEAD) => {
                return Err(LoadError::Checkpoint(CheckpointError::Missing {
                    place: self.files.place(),
                    name: self.files.shown(CLASSIFIER),
                }));
            }
            None => {
                return Err(LoadError::NoHead {
                    place: self.place(),
                    class: self.class::<M>(),
                    tensor: self.files.shown(CLASSIFIER),
                });
            }
        };
        // A multiple-choice model has one output for any number of labels.
        let labels = self.config.num_labels;
        if let Some(labels) = labels.filter(|&labels| labels != found && expected != Some(1)) {
            return Err(LoadError::Labels {
                place: self.place(),
                found,
                labels,
            });
        }
        match expected.filter(|&expected| expected != found) {
            Some(expected) => Err(LoadError::Outputs {
                place: self.place(),
                class: self.class::<M>(),
                found,
                expected,
            }),
            None => Ok(found),
        }
    }

    /// Loads a model that finetuning starts from: tensors of the head that the folder lacks are initialized from `seed`, and the classifier too
    /// where `fresh_classifier` says so.
    pub(crate) fn start<M: Architecture>(
        self,
        fresh_classifier: bool,
        seed: u64,
        build: impl FnOnce(&ModernBertConfig, &Device) -> Result<M, ConfigError>,
    ) -> Result<(M, LoadReport), LoadError> {
        let files = if fresh_classifier {
            self.files.without("classifier.")
        } else {
            self.files
        };
        let model = build(&self.config, &self.device).map_err(CheckpointError::from)?;
        let model = match self.config.family {
            Family::ModernBert => initialize(model, &self.config, seed),
            // Heads of these families are drawn as transformers draws them: normals that are not truncated.
            _ => initialize_with(model, &self.config, InitMethod::Default, false, seed)
                .map_err(|_| LoadError::Checkpoint(CheckpointError::NoWeights(self.folder)))?,
        };
        Ok(load(model, &files, &HEAD)?)
    }

    /// Refuses a folder whose config names another head.
    ///
    /// A folder that names no class with a classifier passes: older files keep the class of the pretrained model, and the tensors
    /// decide. But only a sequence classifier has a `problem_type`.
    fn check_class(&self, wanted: Head) -> Result<(), LoadError> {
        if wanted == Head::None {
            return Ok(());
        }
        let found = self.config.architectures.first();
        let other = match found.and_then(|class| Head::of_class(class)) {
            Some(found) if found == wanted => None,
            Some(found) if found.is_classifier() => Some(found),
            _ if self.config.problem_type.is_some() && wanted != Head::Sequence => {
                Some(Head::Sequence)
            }
            _ => None,
        };
        let family = self.config.family;
        match other {
            Some(found) => Err(LoadError::OtherHead {
                place: self.place(),
                found: family.class(found).to_string(),
                wanted: family.class(wanted),
            }),
            None => Ok(()),
        }
    }
}
