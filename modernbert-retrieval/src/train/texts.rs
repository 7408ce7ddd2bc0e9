//! Texts to tokens, as the kind of a model asks for.

use modernbert::parallel::try_map;
use modernbert::tokenizer::Tokenizer;
use sha2::{Digest, Sha256};
use std::collections::HashSet;

use super::embedder::VectorKind;
use super::error::TrainError;

/// Role of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A query.
    Query,
    /// A document.
    Document,
}

/// The tokens of a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizedText {
    /// Token ids, `[CLS]` first.
    pub ids: Vec<u32>,
    /// `false` for tokens without a vector, `[tokens]`: those of the skip list in documents of a model with a vector per token.
    pub counts: Vec<bool>,
    /// True if the text was longer than the limit.
    pub truncated: bool,
}

impl TokenizedText {
    /// Adds the ids to a hash.
    pub(super) fn hash_into(&self, hash: &mut Sha256) {
        hash.update((self.ids.len() as u64).to_le_bytes());
        for id in &self.ids {
            hash.update(id.to_le_bytes());
        }
    }
}

/// Conversion of texts to tokens.
#[derive(Clone, Debug)]
pub struct TextOptions {
    tokenizer: Tokenizer,
    kind: VectorKind,
    query: RoleOptions,
    document: RoleOptions,
    skipped: HashSet<u32>,
}

#[derive(Clone, Debug)]
struct RoleOptions {
    prompt: String,
    prefix: Option<u32>,
    length: usize,
    /// Filled with `[MASK]` up to the length.
    expands: bool,
}

impl TextOptions {
    /// Checks the settings of `kind` against the tokenizer and the model's positions.
    ///
    /// # Errors
    /// A length outside of the model's positions or too small for the special tokens; a prompt that leaves no token of a text; a prefix that
    /// is no token.
    pub fn new(
        tokenizer: Tokenizer,
        kind: VectorKind,
        positions: usize,
    ) -> Result<Self, TrainError> {
        let check = |name: &'static str, length: usize, least: usize| {
            if (least..=positions).contains(&length) {
                return Ok(length);
            }
            Err(TrainError::Length {
                name,
                length,
                least,
                most: positions,
            })
        };
        let prefix = |text: &str| match text {
            "" => Ok(None),
            text => match tokenizer.id(text) {
                Some(id) => Ok(Some(id)),
                None => Err(TrainError::Prefix {
                    prefix: text.to_string(),
                }),
            },
        };
        let (query, document, skipped) = match &kind {
            VectorKind::Single {
                max_length,
                query_prompt,
                document_prompt,
                ..
            } => {
                let length = check("the longest text", *max_length, 3)?;
                for prompt in [query_prompt, document_prompt] {
                    // The space at the end becomes a part of the text's first token.
                    let tokens = tokenizer.encode(prompt.trim_end())?.len();
                    if !prompt.is_empty() && tokens >= length {
                        return Err(TrainError::Prompt {
                            prompt: prompt.clone(),
                            tokens,
                            length,
                        });
                    }
                }
                let options = |prompt: &String| RoleOptions {
                    prompt: prompt.clone(),
                    prefix: None,
                    length,
                    expands: false,
                };
                (
                    options(query_prompt),
                    options(document_prompt),
                    HashSet::new(),
                )
            }
            VectorKind::PerToken(settings) => {
                let query = RoleOptions {
                    prompt: String::new(),
                    prefix: prefix(&settings.query_prefix)?,
                    length: check("the longest query", settings.query_length, 4)?,
                    // Expansion tokens that nothing attends to have no vector in an unpadded forward pass, with which the
                    // published models are trained: such a model has no expansion.
                    expands: settings.query_expansion && settings.attend_to_expansion,
                };
                let document = RoleOptions {
                    prompt: String::new(),
                    prefix: prefix(&settings.document_prefix)?,
                    length: check("the longest document", settings.document_length, 4)?,
                    expands: false,
                };
                // A word that is no token skips nothing, as in PyLate, where it becomes the id of the unknown token.
                let skipped = settings
                    .skip_list
                    .iter()
                    .filter_map(|word| tokenizer.id(word));
                (query, document, skipped.collect())
            }
        };
        Ok(Self {
            tokenizer,
            kind,
            query,
            document,
            skipped,
        })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Kind of the vectors.
    pub fn kind(&self) -> &VectorKind {
        &self.kind
    }

    /// Tokens of one text.
    ///
    /// # Errors
    /// A text that can't be encoded.
    pub fn tokenize(&self, text: &str, role: Role) -> Result<TokenizedText, TrainError> {
        let options = match role {
            Role::Query => &self.query,
            Role::Document => &self.document,
        };
        let prompted;
        let text = if options.prompt.is_empty() {
            text
        } else {
            prompted = format!("{}{text}", options.prompt);
            &prompted
        };
        let room = options.length - usize::from(options.prefix.is_some());
        let encoded = self.tokenizer.encode_truncated(text, None, room)?;
        let mut ids = encoded.ids;
        if let Some(prefix) = options.prefix {
            ids.insert(1, prefix);
        }
        let counts = match role {
            Role::Document => ids.iter().map(|id| !self.skipped.contains(id)).collect(),
            Role::Query => {
                if options.expands {
                    ids.resize(options.length, self.tokenizer.special().mask);
                }
                vec![true; ids.len()]
            }
        };
        Ok(TokenizedText {
            ids,
            counts,
            truncated: encoded.truncated,
        })
    }

    /// Tokens of many texts, on all cores, in order.
    ///
    /// # Errors
    /// The first text that can't be encoded.
    pub fn tokenize_all<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        role: Role,
    ) -> Result<Vec<TokenizedText>, TrainError> {
        try_map(texts, |text| self.tokenize(text.as_ref(), role))
    }
}
