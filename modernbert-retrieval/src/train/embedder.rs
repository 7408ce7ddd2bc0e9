//! The model under training: an encoder with a pooling, or with a projection of every token.

use burn::module::{Module, Param};
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use modernbert::Loader;
use modernbert::batch::PackedBatch;
use modernbert::checkpoint::{F32Tensor, TensorFiles, WEIGHTS_FILE, save, write_safetensors};
use modernbert::config::{Head, ModernBertConfig, Pooling};
use modernbert::device::read;
use modernbert::model::{Architecture, ModernBert, pool};
use modernbert::ops::linear::linear;
use modernbert::sentences::{
    DENSE_FOLDER, MultiVectorSettings, SentenceFiles, SentenceSettings, Similarity,
};
use modernbert::tokenizer::Tokenizer;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;

use super::error::TrainError;
use super::vectors::{TextVectors, normalize_rows};

/// Name of the projection's weight in its file.
const WEIGHT: &str = "linear.weight";
/// Components of a token's vector in ColBERT.
pub const TOKEN_WIDTH: usize = 128;

/// An encoder and, for a vector per token, a projection.
#[derive(Module, Debug)]
pub struct Embedder {
    /// The encoder.
    pub model: ModernBert,
    /// The projection of each token; `None` for one vector per text.
    pub dense: Option<Projection>,
}

/// `x · weightᵀ`.
#[derive(Module, Debug)]
pub struct Projection {
    /// `[width, hidden]`, f32.
    pub weight: Param<Tensor<2>>,
}

impl Architecture for Embedder {
    const CLASS: &'static str = ModernBert::CLASS;
    const HEAD: Head = Head::None;

    fn encoder(&self) -> &ModernBert {
        &self.model
    }

    fn try_map_encoder<E>(
        mut self,
        change: impl FnOnce(ModernBert) -> Result<ModernBert, E>,
    ) -> Result<Self, E> {
        self.model = change(self.model)?;
        Ok(self)
    }
}

/// Kind of the vectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VectorKind {
    /// One vector per text.
    Single {
        /// Reduction of the tokens' vectors to one.
        pooling: Pooling,
        /// True if vectors are scaled to length one.
        normalize: bool,
        /// Tokens of a text at most.
        max_length: usize,
        /// Text that is put before queries; can be empty.
        query_prompt: String,
        /// Text that is put before documents; can be empty.
        document_prompt: String,
    },
    /// A vector of length one per token: ColBERT.
    PerToken(MultiVectorSettings),
}

impl VectorKind {
    /// True for a vector per token.
    pub fn is_per_token(&self) -> bool {
        matches!(self, Self::PerToken(_))
    }
}

/// A batch of texts as the model takes it.
#[derive(Clone, Debug)]
pub struct TextBatch {
    /// Tokens of all texts.
    pub packed: PackedBatch,
    /// `false` for tokens without a vector, `[tokens]`; used by models with a vector per token.
    pub counts: Vec<bool>,
}

impl Embedder {
    /// Vectors of the texts of a batch, f32.
    pub fn forward(&self, batch: &TextBatch, kind: &VectorKind) -> TextVectors {
        let hidden = self.model.forward(&batch.packed).cast(FloatDType::F32);
        let layout = &batch.packed.layout;
        match (kind, &self.dense) {
            (VectorKind::PerToken(_), Some(dense)) => TextVectors {
                values: normalize_rows(linear(hidden, dense.weight.val(), None)),
                offsets: layout.cu_seqlens().iter().map(|&at| at as usize).collect(),
                counts: Some(batch.counts.clone()),
            },
            (
                VectorKind::Single {
                    pooling, normalize, ..
                },
                _,
            ) => {
                let pooled = pool(hidden, layout, *pooling);
                TextVectors::single(match normalize {
                    true => normalize_rows(pooled),
                    false => pooled,
                })
            }
            // `load` makes a projection for this kind.
            (VectorKind::PerToken(_), None) => TextVectors {
                values: normalize_rows(hidden),
                offsets: layout.cu_seqlens().iter().map(|&at| at as usize).collect(),
                counts: Some(batch.counts.clone()),
            },
        }
    }

    /// Loads the model that training starts from: the encoder of any model folder and, for a vector per token, the folder's projection
    /// or a new one, initialized from `seed`. Returns true with a new one.
    ///
    /// # Errors
    /// As [`ModernBert::load`]; a projection of another shape.
    pub fn load(loader: Loader, kind: &VectorKind, seed: u64) -> Result<(Self, bool), TrainError> {
        let folder = loader.folder().map_err(modernbert::LoadError::from)?;
        let model = ModernBert::load(loader)?;
        if !kind.is_per_token() {
            return Ok((Self { model, dense: None }, false));
        }
        let hidden = model.config().hidden_size;
        let device = model.device();
        let file = folder.join(DENSE_FOLDER).join(WEIGHTS_FILE);
        // Only a folder that names no projection gets a new one.
        let named = MultiVectorSettings::read(&folder)?.is_some();
        let (weight, fresh) = if named || file.is_file() {
            (read_projection(&file, hidden, &device)?, false)
        } else {
            (new_projection(hidden, seed, &device), true)
        };
        let dense = Some(Projection {
            weight: Param::from_tensor(weight),
        });
        Ok((Self { model, dense }, fresh))
    }

    /// Writes the model as a folder of sentence-transformers, or of PyLate for a vector per token; The files of the
    /// encoder (`model.safetensors`, `config.json`) are written last.
    ///
    /// # Errors
    /// A folder that can't be written, a device that can't be read.
    pub fn save(
        &self,
        folder: &Path,
        config: &ModernBertConfig,
        tokenizer: &Tokenizer,
        kind: &VectorKind,
        similarity: Similarity,
    ) -> Result<(), TrainError> {
        let failed = |source| TrainError::Write {
            path: folder.to_path_buf(),
            source,
        };
        std::fs::create_dir_all(folder).map_err(failed)?;
        // Settings of another head in the folder do not apply to this model.
        let config = ModernBertConfig {
            num_labels: None,
            id2label: None,
            problem_type: None,
            ..config.clone()
        };
        tokenizer.save(folder)?;
        if let Some(dense) = &self.dense {
            let [width, _] = dense.weight.dims();
            let values = read(dense.weight.val())?;
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            let shape = [width, config.hidden_size];
            let tensor = F32Tensor {
                name: WEIGHT,
                shape: &shape,
                bytes: &bytes,
            };
            let dense = folder.join(DENSE_FOLDER);
            std::fs::create_dir_all(&dense).map_err(failed)?;
            write_safetensors(&dense.join(WEIGHTS_FILE), &[tensor])?;
        }
        let files = match kind {
            VectorKind::Single {
                pooling,
                normalize,
                max_length,
                query_prompt,
                document_prompt,
            } => SentenceFiles::pooled(config.hidden_size, *pooling, *normalize, *max_length)
                .with_prompts(query_prompt, document_prompt),
            VectorKind::PerToken(settings) => {
                let width = self
                    .dense
                    .as_ref()
                    .map_or(TOKEN_WIDTH, |d| d.weight.dims()[0]);
                SentenceFiles::per_token(config.hidden_size, width, settings.clone())
            }
        };
        files
            .with_similarity(similarity)
            .write(folder)
            .map_err(failed)?;
        save(&self.model, &config, folder)?;
        Ok(())
    }
}

/// Kind of a folder's vectors by its files for sentence-transformers or PyLate; `None` where it has none of them.
///
/// # Errors
/// Files that are malformed, or ask for something that is not supported.
pub fn kind_of_folder(folder: &Path, positions: usize) -> Result<Option<VectorKind>, TrainError> {
    if let Some(settings) = MultiVectorSettings::read(folder)? {
        return Ok(Some(VectorKind::PerToken(settings)));
    }
    let settings = SentenceSettings::read(folder)?;
    let prompt = |text: Option<&str>| text.unwrap_or_default().to_string();
    Ok(settings.pooling.map(|pooling| VectorKind::Single {
        pooling,
        normalize: settings.normalize.unwrap_or(true),
        max_length: settings.max_length.unwrap_or(positions).min(positions),
        query_prompt: prompt(settings.query_prompt()),
        document_prompt: prompt(settings.document_prompt()),
    }))
}

fn read_projection(file: &Path, hidden: usize, device: &Device) -> Result<Tensor<2>, TrainError> {
    let files = TensorFiles::open(file)?;
    let wrong = |reason: String| TrainError::Projection {
        path: file.to_path_buf(),
        reason,
    };
    let Some((shape, values)) = files.read(WEIGHT)? else {
        return Err(wrong(format!("the tensor {WEIGHT} is missing")));
    };
    let &[width, input] = shape.as_slice() else {
        return Err(wrong(format!("{WEIGHT} has the shape {shape:?}")));
    };
    if input != hidden || width == 0 {
        return Err(wrong(format!(
            "{WEIGHT} has the shape {shape:?}, the encoder is {hidden} wide"
        )));
    }
    if let Some(value) = values.iter().find(|value| !value.is_finite()) {
        return Err(wrong(format!("{WEIGHT} contains {value}")));
    }
    Ok(Tensor::from_data(
        TensorData::new(values, [width, input]),
        device,
    ))
}

/// A projection with PyTorch's initialization of a linear layer: uniform within `±1 / sqrt(hidden)`.
fn new_projection(hidden: usize, seed: u64, device: &Device) -> Tensor<2> {
    let bound = 1.0 / (hidden as f32).sqrt();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..TOKEN_WIDTH * hidden)
        .map(|_| random.random_range(-bound..bound))
        .collect();
    Tensor::from_data(TensorData::new(values, [TOKEN_WIDTH, hidden]), device)
}
