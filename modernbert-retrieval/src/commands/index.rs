//! `modernbert-retrieval index`.

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use clap::{Args, Subcommand, ValueEnum};
use modernbert_cli::text::{counted, human_count, shown};
use modernbert_files::output::OutputCheck;
use modernbert_retrieval::index::{
    Dtype, IndexError, IndexOptions, IndexWriter, ModelId, Similarity, VectorIndex,
    has_index_files_only,
};
use modernbert_retrieval::vectors::{Vectors, model_hash};
use serde_json::Value;

use super::common::{print, similarity_or};

#[derive(Args)]
pub(crate) struct IndexArgs {
    #[command(subcommand)]
    command: IndexCommand,
}

#[derive(Subcommand)]
enum IndexCommand {
    /// Builds an index from a file of vectors.
    Build {
        /// Writes the index into this folder.
        #[arg(value_name = "INDEX")]
        index: PathBuf,
        #[command(flatten)]
        vectors: VectorArgs,
        /// Stores components as f32, f16 or int8.
        #[arg(long, value_enum, default_value = "f16", hide_possible_values = true)]
        dtype: DtypeName,
        /// Compares vectors by cosine, dot (product), euclidean or manhattan (distance). Default: the similarity of --model's folder, else cosine.
        #[arg(long, value_name = "NAME")]
        similarity: Option<Similarity>,
    },
    /// Adds vectors; an id that is in the index is an error.
    Add {
        /// Changes the index in this folder.
        #[arg(value_name = "INDEX")]
        index: PathBuf,
        #[command(flatten)]
        vectors: VectorArgs,
    },
    /// Adds vectors and replaces those whose ids are in the index.
    Update {
        /// Changes the index in this folder.
        #[arg(value_name = "INDEX")]
        index: PathBuf,
        #[command(flatten)]
        vectors: VectorArgs,
    },
    /// Deletes vectors by id.
    Delete {
        /// Changes the index in this folder.
        #[arg(value_name = "INDEX")]
        index: PathBuf,
        /// Deletes these ids; an id that is not in the index is an error.
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
    /// Removes the bytes of deleted vectors and merges small files.
    Compact {
        /// Changes the index in this folder.
        #[arg(value_name = "INDEX")]
        index: PathBuf,
    },
    /// Checks every byte against its checksum and prints counts and sizes.
    Info {
        /// Reads the index in this folder.
        #[arg(value_name = "INDEX")]
        index: PathBuf,
    },
}

/// Vectors and their origin.
#[derive(Args, Clone, Debug)]
pub(crate) struct VectorArgs {
    /// Reads vectors from this file, as `embed --out` writes it: .safetensors, or .jsonl.
    #[arg(long, value_name = "FILE")]
    vectors: PathBuf,
    /// Takes ids from the JSONL file that was embedded (fields `_id` or `id`), row by row.
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    /// Keeps these fields of the texts as metadata, separated by commas.
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    metadata: Vec<String>,
    /// Names the model's folder: its hash is stored, and vectors of another model are refused later.
    #[arg(long, value_name = "FOLDER")]
    model: Option<PathBuf>,
}

impl VectorArgs {
    fn read(&self) -> anyhow::Result<Vectors> {
        let vectors = Vectors::read(&self.vectors, self.texts.as_deref(), &self.metadata)?;
        let place = self.texts.as_ref().unwrap_or(&self.vectors);
        for (i, field) in self.metadata.iter().enumerate() {
            if self.metadata[..i].contains(field) {
                bail!("--metadata names the field '{field}' twice; name it once");
            }
            let has = |metadata: &String| has_field(metadata, field);
            if !vectors.metadata.iter().any(has) {
                bail!(
                    "{}: no row has the field '{field}' of --metadata; correct the name, or leave it out",
                    place.display()
                );
            }
        }
        Ok(vectors)
    }

    /// Puts file and line of a vector, or of its id, before an error of the index.
    fn at(&self, read: &Vectors, number: usize, error: IndexError) -> anyhow::Error {
        let place = match error {
            IndexError::DuplicateId { .. } | IndexError::EmptyId { .. } => {
                let file = self.texts.as_ref().unwrap_or(&self.vectors);
                let line = read.id_lines.get(number).copied().unwrap_or(number + 1);
                format!("{}:{line}", file.display())
            }
            IndexError::Dimension { .. }
            | IndexError::NotFinite { .. }
            | IndexError::TooLarge { .. }
            | IndexError::TooSmall { .. }
            | IndexError::Zero { .. } => read.place(&self.vectors, number),
            other => return other.into(),
        };
        anyhow!("{place}: {error}")
    }

    fn model(&self) -> anyhow::Result<ModelId> {
        model_id(self.model.as_deref())
    }
}

/// Returns true if metadata, a JSON object or empty, has a field.
pub(crate) fn has_field(metadata: &str, field: &str) -> bool {
    let fields: Value = serde_json::from_str(metadata).unwrap_or_default();
    fields.get(field).is_some()
}

/// Identity of the model in a folder; unknown without one.
pub(crate) fn model_id(folder: Option<&Path>) -> anyhow::Result<ModelId> {
    let Some(folder) = folder else {
        return Ok(ModelId::default());
    };
    Ok(ModelId {
        name: folder.display().to_string(),
        hash: model_hash(folder)?,
    })
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DtypeName {
    F32,
    F16,
    Int8,
}

pub(crate) fn run(args: &IndexArgs) -> anyhow::Result<()> {
    match &args.command {
        IndexCommand::Build {
            index,
            vectors,
            dtype,
            similarity,
        } => {
            let inputs = [
                Some(&vectors.vectors),
                vectors.texts.as_ref(),
                vectors.model.as_ref(),
            ];
            OutputCheck::folder(index)
                .inputs(inputs.into_iter().flatten())
                .replaces(has_index_files_only)
                .of_argument("INDEX")
                .check()?;
            let read = vectors.read()?;
            let options = IndexOptions {
                dimension: read.dimension,
                dtype: match dtype {
                    DtypeName::F32 => Dtype::F32,
                    DtypeName::F16 => Dtype::F16,
                    DtypeName::Int8 => Dtype::Int8,
                },
                similarity: similarity_or(*similarity, vectors.model.as_deref())?,
                model: vectors.model()?,
            };
            let mut writer = IndexWriter::create(index, &options)?;
            for (i, (id, vector, metadata)) in read.iter().enumerate() {
                let added = writer.add(id, vector, metadata);
                added.map_err(|error| vectors.at(&read, i, error))?;
            }
            writer.commit()?;
            print(&format!(
                "built: {} of {}",
                counted(writer.len(), "vector", "vectors"),
                counted(read.dimension, "component", "components")
            ));
        }
        IndexCommand::Add { index, vectors } => change(index, vectors, false)?,
        IndexCommand::Update { index, vectors } => change(index, vectors, true)?,
        IndexCommand::Delete { index, ids } => {
            let mut writer = IndexWriter::open(index)?;
            for id in ids {
                if !writer.delete(id) {
                    bail!("{}: no id '{id}'; nothing was deleted", index.display());
                }
            }
            writer.commit()?;
            print(&format!(
                "deleted: {}; {} left",
                ids.len(),
                counted(writer.len(), "vector", "vectors")
            ));
        }
        IndexCommand::Compact { index } => {
            let mut writer = IndexWriter::open(index)?;
            let removed = writer.compact()?;
            print(&format!(
                "compacted: {} removed, {} left",
                counted(removed, "deleted vector", "deleted vectors"),
                writer.len()
            ));
        }
        IndexCommand::Info { index } => {
            modernbert_cli::check_stdout()?;
            print(&info(index)?);
        }
    }
    Ok(())
}

fn change(index: &Path, vectors: &VectorArgs, replace: bool) -> anyhow::Result<()> {
    let read = vectors.read()?;
    let mut writer = IndexWriter::open(index)?;
    writer.set_model(&vectors.model()?)?;
    let mut replaced = 0;
    for (i, (id, vector, metadata)) in read.iter().enumerate() {
        let result = if replace {
            writer.update(id, vector, metadata)
        } else {
            writer.add(id, vector, metadata).map(|()| false)
        };
        replaced += usize::from(result.map_err(|error| vectors.at(&read, i, error))?);
    }
    writer.commit()?;
    print(&format!(
        "added: {}, replaced: {replaced}; {} in all",
        read.len() - replaced,
        counted(writer.len(), "vector", "vectors")
    ));
    Ok(())
}

fn info(folder: &Path) -> anyhow::Result<String> {
    let info = VectorIndex::open(folder)?.info();
    let model = &info.options.model;
    let known = |text: &str| {
        if text.is_empty() {
            "not known".to_string()
        } else {
            text.to_string()
        }
    };
    Ok(format!(
        "{}: every checksum agrees\nvectors     {}\ndeleted     {}\ncomponents  {}\ndtype       {}\nsimilarity  {}\nfiles       {}, {} bytes\n\
         changes     {}\nmodel       {}\nhash        {}",
        shown(folder),
        info.vectors,
        info.deleted,
        info.options.dimension,
        info.options.dtype.name(),
        info.options.similarity.name(),
        info.segments,
        human_count(info.bytes),
        info.generation,
        known(&model.name),
        known(&model.hash),
    ))
}
