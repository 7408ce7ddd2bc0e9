//! Paths of a recipe: relative ones are relative to the recipe's folder.

use std::path::{Path, PathBuf};
use toml::{Table, Value};

use super::{CorpusSource, Recipe, TokenizerSource};

/// Keys of `[data]` and `[model]` that may hold paths, and the words among their values that are none.
const PATH_KEYS: [(&str, &str, &str); 5] = [
    ("data", "corpus", "registry"),
    ("data", "eval_corpus", "registry"),
    ("data", "tokenizer", "train"),
    ("model", "tile_from", ""),
    ("model", "from", ""),
];

impl Recipe {
    /// The recipe with every relative path joined to `folder`, phases included. A `model.from` that is no folder there is not changed: it is a
    /// name on the Hub.
    #[must_use]
    pub fn with_paths_in(mut self, folder: &Path) -> Self {
        // An empty path is an error of the recipe, and not its folder.
        let join = |path: &mut PathBuf| {
            if !path.as_os_str().is_empty() {
                *path = folder.join(&*path);
            }
        };
        let corpus = |corpus: &mut CorpusSource| {
            if let CorpusSource::Paths(paths) = corpus {
                paths.iter_mut().for_each(join);
            }
        };
        corpus(&mut self.data.corpus);
        self.data.eval_corpus.iter_mut().for_each(corpus);
        if let TokenizerSource::Path(path) = &mut self.data.tokenizer {
            join(path);
        }
        self.model.tile_from.iter_mut().for_each(join);
        if let Some(from) = &mut self.model.from {
            *from = model_in(folder, from);
        }
        for phase in &mut self.phase {
            settings_in(folder, &mut phase.settings);
        }
        self
    }
}

/// The paths among a phase's settings, which are still TOML.
fn settings_in(folder: &Path, settings: &mut Table) {
    for (section, key, word) in PATH_KEYS {
        let value = settings
            .get_mut(section)
            .and_then(Value::as_table_mut)
            .and_then(|table| table.get_mut(key));
        let Some(value) = value else { continue };
        let join = |value: &mut Value| {
            if let Value::String(text) = value
                && text.as_str() != word
                && !text.is_empty()
                && let Some(joined) = folder.join(&*text).to_str()
            {
                *text = joined.to_owned();
            }
        };
        match value {
            Value::Array(values) => values.iter_mut().for_each(join),
            one => join(one),
        }
    }
}

fn model_in(folder: &Path, from: &str) -> String {
    if from.is_empty() {
        return String::new();
    }
    let place = folder.join(from);
    let path = place.is_dir() || from.starts_with(['.', '/']);
    match place.to_str().filter(|_| path) {
        Some(place) => place.to_owned(),
        None => from.to_owned(),
    }
}
