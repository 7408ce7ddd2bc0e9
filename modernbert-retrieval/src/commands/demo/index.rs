//! The index of the functions.

use modernbert::sentences::SentenceSettings;
use modernbert::{Encoder, Loader};
use modernbert_cli::counter::Counter;
use modernbert_cli::say;
use modernbert_cli::text::counted;
use modernbert_retrieval::functions::{Function, Functions};
use modernbert_retrieval::index::{Dtype, IndexOptions, IndexWriter, Similarity, VectorIndex};
use serde_json::json;

use super::Stage;
use crate::commands::index::model_id;
use crate::commands::search::text_line;

/// Functions that are encoded together, between two looks at the clock.
const CHUNK: usize = 512;
/// Functions in the index at most.
const MOST: usize = 60_000;
/// Hits that are shown of a search.
const SHOWN: usize = 3;

/// An index that was built.
pub(super) struct Built {
    /// Functions in it.
    pub(super) indexed: usize,
    index: VectorIndex,
    encoder: Encoder,
}

/// Encodes the functions, documented ones first, until the time is over, and at least the first ones.
pub(super) fn build(stage: &Stage<'_>, functions: &Functions) -> anyhow::Result<Built> {
    let model = stage.files.model();
    let settings = SentenceSettings::read(&model)?;
    let encoder = Encoder::load(Loader::new(&model).device(&stage.device.device))?
        .with_prompt(settings.document_prompt().map(str::to_string));
    let mut order: Vec<&Function> = functions.functions.iter().collect();
    order.sort_by_key(|function| function.doc.is_empty());
    order.truncate(MOST);
    let mut writer: Option<IndexWriter> = None;
    let mut counter = Counter::new("functions", order.len());
    let mut indexed = 0;
    let end = stage.clock.end();
    for chunk in order.chunks(CHUNK) {
        if indexed > 0 && stage.clock.elapsed() > end {
            break;
        }
        let texts: Vec<&str> = chunk
            .iter()
            .map(|function| function.code.as_str())
            .collect();
        let vectors = encoder.encode(&texts)?;
        for (function, vector) in chunk.iter().zip(vectors) {
            let writer = match &mut writer {
                Some(writer) => writer,
                None => {
                    let options = IndexOptions {
                        dimension: vector.values.len(),
                        dtype: Dtype::F16,
                        similarity: Similarity::Cosine,
                        model: model_id(Some(&model))?,
                    };
                    writer.insert(IndexWriter::create(&stage.files.index(), &options)?)
                }
            };
            let metadata = json!({
                "function": function.path,
                "crate": function.crate_name,
                "file": function.file,
                "line": function.line,
            });
            writer.add(&function.path, &vector.values, &metadata.to_string())?;
        }
        indexed += chunk.len();
        counter.update(indexed);
    }
    drop(counter);
    if let Some(writer) = &mut writer {
        writer.commit()?;
    }
    drop(writer);
    say(&format!(
        "{} of {} in the index",
        counted(indexed as u64, "function", "functions"),
        functions.functions.len()
    ));
    let encoder = encoder.with_prompt(settings.query_prompt().map(str::to_string));
    Ok(Built {
        indexed,
        index: VectorIndex::open(&stage.files.index())?,
        encoder,
    })
}

impl Built {
    /// Prints the nearest functions of a text.
    pub(super) fn show(&self, query: &str) -> anyhow::Result<()> {
        let vectors = self.encoder.encode(&[query])?;
        let values: Vec<f32> = vectors
            .into_iter()
            .flat_map(|vector| vector.values)
            .collect();
        say(&format!("\n\"{query}\""));
        for hits in self.index.search(&values, SHOWN, None)? {
            for hit in hits {
                say(&text_line(hit.score, hit.id, hit.metadata));
            }
        }
        Ok(())
    }
}
