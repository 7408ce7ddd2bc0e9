//! The size of a set of shards, estimated before it is made.

use std::io::Read;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use modernbert_files::output::free_bytes;
use modernbert_files::read;
use modernbert_files::tokenizer::Tokenizer;

use super::TokenizeFolderError;
use super::source::size;
use crate::formats::{Compression, Content, Fields, FileKind, Format, InputFile, Record, Records};
use crate::shard::header::width;

/// Bytes of text that are tokenized of each source for the estimate.
const SAMPLE_BYTES: usize = 1 << 20;
/// Part of the estimate that must be free: the ids per byte vary within a text, and a set that fits must not be refused.
const CERTAIN: f64 = 0.8;

/// Refuses a disk that is certainly too full for the shards of these sources.
pub(super) fn check_space<'a>(
    tokenizer: &Tokenizer,
    sources: impl Iterator<Item = (&'a [InputFile], &'a Fields)>,
    out: &Path,
) -> Result<(), TokenizeFolderError> {
    let needed = sources
        .map(|(inputs, fields)| estimate(tokenizer, inputs, fields))
        .fold(0, u64::saturating_add);
    let free = free_bytes(out).unwrap_or(u64::MAX);
    if (needed as f64) * CERTAIN > free as f64 {
        return Err(TokenizeFolderError::Space {
            path: out.into(),
            needed,
            free,
        });
    }
    Ok(())
}

/// Bytes of the ids of a source, from the ids per byte on disk at its beginning. 0 where the bytes on disk are not those of the text: of
/// Parquet, whose other columns are not read, and of MDS.
pub(super) fn estimate(tokenizer: &Tokenizer, inputs: &[InputFile], fields: &Fields) -> u64 {
    let is_text = |input: &&InputFile| {
        let kind = FileKind::of(&input.path);
        !input.is_mds && kind.is_some_and(|kind| kind.format != Format::Parquet)
    };
    let total: u64 = inputs.iter().filter(is_text).map(size).sum();
    let (mut tokens, mut text, mut disk) = (0u64, 0usize, 0u64);
    for input in inputs.iter().filter(is_text) {
        if text >= SAMPLE_BYTES {
            break;
        }
        // A large text is one document: its beginning is enough.
        let kind = FileKind::of(&input.path);
        if kind.is_some_and(|kind| kind.format == Format::Text) && size(input) > SAMPLE_BYTES as u64
        {
            if kind.is_some_and(|kind| kind.compression == Compression::None) {
                let content = beginning(&input.path);
                text += content.len();
                disk += content.len() as u64;
                tokens += tokenizer
                    .encode_plain(&content)
                    .map_or(0, |ids| ids.len() as u64);
            }
            continue;
        }
        // The work itself reports faults.
        let Ok(records) = Records::open(input, fields) else {
            continue;
        };
        let read = records.read_bytes();
        for record in records {
            if let Ok(Record {
                content: Content::Text(content),
                ..
            }) = record
            {
                text += content.len();
                tokens += tokenizer
                    .encode_plain(&content)
                    .map_or(0, |ids| ids.len() as u64);
            }
            if text >= SAMPLE_BYTES {
                break;
            }
        }
        disk += read.load(Relaxed);
    }
    if disk == 0 {
        return 0;
    }
    let width = width(tokenizer.vocab_size() as u64);
    (tokens as f64 * width as f64 * (total as f64 / disk as f64)) as u64
}

/// The first megabyte of a file as text; bytes that are no UTF-8 become replacement characters.
fn beginning(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = read::open(path) {
        // What could be read is enough for an estimate.
        let _ = file.take(SAMPLE_BYTES as u64).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
