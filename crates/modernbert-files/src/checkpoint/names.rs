//! Names of tensors in the files of BERT and RoBERTa, and their counterparts in this library.
//!
//! The model has one set of names, those of ModernBERT's files. [`Naming`] gives the names of another family's files; [`TensorFiles::in_family`] renames
//! the tensors of opened files once, before anything else reads them, and [`Naming::parts`] splits a parameter that is to be written.
//!
//! | parameter | BERT | RoBERTa, where it differs |
//! |---|---|---|
//! | `embeddings.tok_embeddings` | `embeddings.word_embeddings` | |
//! | `embeddings.norm` | `embeddings.LayerNorm` | |
//! | `layers.N.attn.Wqkv`: the rows of q, k, v | `encoder.layer.N.attention.self.query`, `key`, `value` | |
//! | `layers.N.attn.Wo`, `layers.N.attn_norm` | `encoder.layer.N.attention.output.dense`, `…output.LayerNorm` | |
//! | `layers.N.mlp.Wi` | `encoder.layer.N.intermediate.dense` | |
//! | `layers.N.mlp.Wo`, `layers.N.mlp_norm` | `encoder.layer.N.output.dense`, `…output.LayerNorm` | |
//! | `head` of masked language modeling | `cls.predictions.transform.dense`, `…LayerNorm` | `lm_head.dense`, `layer_norm` |
//! | `decoder` | `cls.predictions.decoder.weight`, `cls.predictions.bias` | `lm_head.decoder.weight`, `lm_head.bias` |
//! | `head`, `classifier` of sequences | `pooler.dense`, `classifier` | `classifier.dense`, `classifier.out_proj` |
//! | `head`, `classifier` of choices | `pooler.dense`, `classifier` | |
//! | `classifier` of tokens; of question answering | `classifier`; `qa_outputs` | |
//!
//! Names of the encoder, the pooler's too, begin with `bert.` or `roberta.` in the files of a model with a head. Norms of old files have `gamma` and `beta`.

use super::files::{Entry, TensorFiles};
use super::{CheckpointError, F32Tensor};
use crate::config::{Family, Head, ModernBertConfig};

/// Prefix of the encoder's tensors in this library.
const ENCODER: &str = "model.";
/// Parameters of heads.
const HEAD: [&str; 8] = [
    "head.dense.weight",
    "head.dense.bias",
    "head.norm.weight",
    "head.norm.bias",
    "decoder.weight",
    "decoder.bias",
    "classifier.weight",
    "classifier.bias",
];

/// The names of a family's files for a model with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Naming {
    family: Family,
    head: Head,
    /// True if the encoder's names begin with the name of the family.
    prefixed: bool,
}

/// Part of the name of the packed projection, and those of its three parts.
const PACKED: &str = "attn.Wqkv.";
const QKV: [&str; 3] = ["query", "key", "value"];

impl Naming {
    /// The names that transformers writes; `None` for ModernBERT, whose names are those of this library.
    pub fn new(family: Family, head: Head) -> Option<Self> {
        (family != Family::ModernBert).then_some(Self {
            family,
            head,
            prefixed: head != Head::None,
        })
    }

    fn prefix(self) -> &'static str {
        match (self.prefixed, self.family.is_roberta()) {
            (false, _) => "",
            (true, false) => "bert.",
            (true, true) => "roberta.",
        }
    }

    /// The names of a parameter's tensors, one or, for queries, keys and values, three. A parameter that the family does not have keeps its name.
    pub fn names(self, parameter: &str) -> Vec<String> {
        if let Some(name) = self.of_head(parameter) {
            return vec![name];
        }
        let name = parameter.strip_prefix(ENCODER).unwrap_or(parameter);
        let prefix = self.prefix();
        let Some((layer, name)) = name.strip_prefix("layers.").and_then(|n| n.split_once('.'))
        else {
            let name = match name.strip_prefix("embeddings.") {
                Some("tok_embeddings.weight") => "embeddings.word_embeddings.weight".to_string(),
                Some(rest) => match rest.strip_prefix("norm.") {
                    Some(kind) => format!("embeddings.LayerNorm.{kind}"),
                    None => name.to_string(),
                },
                None => return vec![parameter.to_string()],
            };
            return vec![format!("{prefix}{name}")];
        };
        let layer = format!("{prefix}encoder.layer.{layer}");
        if let Some(kind) = name.strip_prefix(PACKED) {
            return QKV
                .map(|part| format!("{layer}.attention.self.{part}.{kind}"))
                .to_vec();
        }
        let own = [
            ("attn.Wo.", "attention.output.dense"),
            ("attn_norm.", "attention.output.LayerNorm"),
            ("mlp.Wi.", "intermediate.dense"),
            ("mlp_norm.", "output.LayerNorm"),
            ("mlp.Wo.", "output.dense"),
        ];
        let found = own.iter().find_map(|(ours, theirs)| {
            let kind = name.strip_prefix(ours)?;
            Some(format!("{layer}.{theirs}.{kind}"))
        });
        vec![found.unwrap_or_else(|| parameter.to_string())]
    }

    /// The name of a parameter of the head.
    fn of_head(self, parameter: &str) -> Option<String> {
        let roberta = self.family.is_roberta();
        let table: &[(&str, &str)] = match (self.head, roberta) {
            (Head::None, _) => &[],
            (Head::MaskedLm, false) => &[
                ("head.dense.", "cls.predictions.transform.dense."),
                ("head.norm.", "cls.predictions.transform.LayerNorm."),
                ("decoder.weight", "cls.predictions.decoder.weight"),
                ("decoder.bias", "cls.predictions.bias"),
            ],
            (Head::MaskedLm, true) => &[
                ("head.dense.", "lm_head.dense."),
                ("head.norm.", "lm_head.layer_norm."),
                ("decoder.weight", "lm_head.decoder.weight"),
                ("decoder.bias", "lm_head.bias"),
            ],
            (Head::Sequence, true) => &[
                ("head.dense.", "classifier.dense."),
                ("classifier.", "classifier.out_proj."),
            ],
            (Head::Sequence | Head::Choice, _) => &[
                ("head.dense.", "pooler.dense."),
                ("classifier.", "classifier."),
            ],
            (Head::Token, _) => &[("classifier.", "classifier.")],
            (Head::Question, _) => &[("classifier.", "qa_outputs.")],
        };
        let (ours, theirs) = table.iter().find(|(ours, _)| parameter.starts_with(ours))?;
        let prefix = match theirs.starts_with("pooler") {
            true => self.prefix(),
            false => "",
        };
        Some(format!("{prefix}{theirs}{}", &parameter[ours.len()..]))
    }

    /// Names of old files, and of the other of two tied tensors, for a name of [`Self::names`].
    fn other_names(name: &str) -> impl Iterator<Item = String> {
        let old = [
            (".LayerNorm.weight", ".LayerNorm.gamma"),
            (".LayerNorm.bias", ".LayerNorm.beta"),
        ];
        let tied = [
            ("cls.predictions.bias", "cls.predictions.decoder.bias"),
            ("lm_head.bias", "lm_head.decoder.bias"),
        ];
        let renamed = old
            .iter()
            .find_map(|(new, old)| Some(format!("{}{old}", name.strip_suffix(new)?)));
        let other = tied
            .iter()
            .find(|(one, _)| *one == name)
            .map(|(_, other)| (*other).to_string());
        renamed.into_iter().chain(other)
    }

    /// Returns true for a tensor that a model of the family may have and that this head does not use.
    pub(super) fn may_be_unused(self, name: &str) -> bool {
        let bare = ["bert.", "roberta."]
            .iter()
            .find_map(|prefix| name.strip_prefix(prefix))
            .unwrap_or(name);
        let heads = ["cls.", "lm_head.", "classifier.", "qa_outputs."];
        let buffers = ["embeddings.position_ids", "embeddings.token_type_ids"];
        heads.iter().any(|head| name.starts_with(head))
            || bare.starts_with("pooler.")
            || buffers.contains(&bare)
    }

    /// A parameter as the tensors of the files: names, shapes and bytes in f32, row-major.
    pub fn parts<'b>(
        self,
        name: &str,
        shape: &[usize],
        bytes: &'b [u8],
    ) -> Vec<(String, Vec<usize>, &'b [u8])> {
        let names = self.names(name);
        let count = names.len();
        let mut shape = shape.to_vec();
        if let Some(rows) = shape.first_mut() {
            *rows /= count;
        }
        let length = bytes.len() / count;
        let part = |(i, name)| (name, shape.clone(), &bytes[i * length..(i + 1) * length]);
        names.into_iter().enumerate().map(part).collect()
    }
}

/// Tensors under the names of a family's files; those of ModernBERT are unchanged. See [`F32Tensor`].
pub fn tensors_in_family<'t>(
    naming: Option<Naming>,
    tensors: &'t [(String, Vec<usize>, Vec<u8>)],
) -> Vec<(String, Vec<usize>, &'t [u8])> {
    let parts = |(name, shape, bytes): &'t (String, Vec<usize>, Vec<u8>)| match naming {
        Some(naming) => naming.parts(name, shape, bytes),
        None => vec![(name.clone(), shape.clone(), bytes.as_slice())],
    };
    tensors.iter().flat_map(parts).collect()
}

/// The tensors for [`super::write_safetensors`].
pub fn borrowed<'t>(tensors: &'t [(String, Vec<usize>, &'t [u8])]) -> Vec<F32Tensor<'t>> {
    let tensor =
        |(name, shape, bytes): &'t (String, Vec<usize>, &'t [u8])| F32Tensor { name, shape, bytes };
    tensors.iter().map(tensor).collect()
}

impl TensorFiles {
    /// The same files with the tensors under the names of this library, for a model of `config` with `head`. Files of ModernBERT are unchanged.
    ///
    /// Weights of queries, keys and values become one tensor; nothing is read for it. Tensors that the model does not use keep their names.
    ///
    /// # Errors
    /// Queries, keys or values without the others, or with other shapes or dtypes than those.
    pub fn in_family(
        mut self,
        config: &ModernBertConfig,
        head: Head,
    ) -> Result<Self, CheckpointError> {
        let Some(mut naming) = Naming::new(config.family, head) else {
            return Ok(self);
        };
        let with = Naming {
            prefixed: true,
            ..naming
        };
        naming.prefixed = self.names().any(|name| name.starts_with(with.prefix()));
        self.naming = Some(naming);
        let spec = config.spec();
        let encoder = spec.encoder_tensors().into_iter();
        let encoder = encoder.map(|(name, _)| format!("{ENCODER}{name}"));
        let parameters: Vec<String> = encoder.chain(HEAD.map(str::to_string)).collect();
        let mut renamed = Vec::new();
        for parameter in parameters {
            let names = naming.names(&parameter);
            let found: Vec<Option<Entry>> = names.iter().map(|name| self.take(name)).collect();
            if found.iter().all(Option::is_none) {
                continue;
            }
            let entries = found.into_iter().zip(&names).map(|(entry, name)| {
                entry.ok_or_else(|| CheckpointError::Missing {
                    place: self.place(),
                    name: name.clone(),
                })
            });
            let entries = entries.collect::<Result<Vec<_>, _>>()?;
            renamed.push((parameter, self.packed(entries, &names)?));
        }
        // Names of another head must not be taken for those of this one.
        self.tensors
            .retain(|name, _| !HEAD.contains(&name.as_str()));
        self.tensors.extend(renamed);
        Ok(self)
    }

    /// Removes a tensor, by its name or an older one.
    fn take(&mut self, name: &str) -> Option<Entry> {
        let found = self.tensors.remove(name);
        found.or_else(|| Naming::other_names(name).find_map(|other| self.tensors.remove(&other)))
    }

    /// Several tensors as one, row by row.
    fn packed(&self, entries: Vec<Entry>, names: &[String]) -> Result<Entry, CheckpointError> {
        let mut entries = entries.into_iter();
        let Some(mut first) = entries.next() else {
            return Err(CheckpointError::Missing {
                place: self.place(),
                name: names.concat(),
            });
        };
        let shape = first.shape.clone();
        for (entry, name) in entries.zip(&names[1..]) {
            if entry.shape != shape {
                return Err(CheckpointError::Shape {
                    place: self.place(),
                    name: name.clone(),
                    found: entry.shape,
                    expected: shape,
                });
            }
            if entry.dtype != first.dtype {
                return Err(self.other_dtype(name, entry.dtype));
            }
            if let Some(rows) = first.shape.first_mut() {
                *rows += shape[0];
            }
            first.more.push(entry.bytes);
        }
        Ok(first)
    }

    /// Returns true for a tensor that a model of the files' family may have and that this one does not use.
    pub fn may_be_unused(&self, name: &str) -> bool {
        self.naming.is_some_and(|naming| naming.may_be_unused(name))
    }

    /// The name of a tensor in the files, for messages.
    pub fn shown(&self, name: &str) -> String {
        match self.naming {
            Some(naming) => naming.names(name).swap_remove(0),
            None => name.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_has_the_name_of_its_family() {
        let names = |family, head, parameter: &str| match Naming::new(family, head) {
            Some(naming) => naming.names(parameter).join(" "),
            None => parameter.to_string(),
        };
        use Family::{Bert, ModernBert, Roberta};
        for (family, head, parameter, expected) in [
            (
                ModernBert,
                Head::MaskedLm,
                "head.dense.weight",
                "head.dense.weight",
            ),
            (
                Bert,
                Head::None,
                "embeddings.norm.bias",
                "embeddings.LayerNorm.bias",
            ),
            (
                Bert,
                Head::MaskedLm,
                "model.embeddings.tok_embeddings.weight",
                "bert.embeddings.word_embeddings.weight",
            ),
            (
                Bert,
                Head::None,
                "layers.11.attn.Wqkv.bias",
                "encoder.layer.11.attention.self.query.bias encoder.layer.11.attention.self.key.bias encoder.layer.11.attention.self.value.bias",
            ),
            (
                Roberta,
                Head::Token,
                "model.layers.0.attn_norm.weight",
                "roberta.encoder.layer.0.attention.output.LayerNorm.weight",
            ),
            (
                Roberta,
                Head::Token,
                "model.layers.0.mlp.Wo.weight",
                "roberta.encoder.layer.0.output.dense.weight",
            ),
            (
                Bert,
                Head::Sequence,
                "head.dense.bias",
                "bert.pooler.dense.bias",
            ),
            (
                Roberta,
                Head::Sequence,
                "head.dense.bias",
                "classifier.dense.bias",
            ),
            (
                Roberta,
                Head::Sequence,
                "classifier.weight",
                "classifier.out_proj.weight",
            ),
            (
                Roberta,
                Head::Choice,
                "head.dense.bias",
                "roberta.pooler.dense.bias",
            ),
            (
                Bert,
                Head::Question,
                "classifier.weight",
                "qa_outputs.weight",
            ),
            (Bert, Head::MaskedLm, "decoder.bias", "cls.predictions.bias"),
            (
                Roberta,
                Head::MaskedLm,
                "decoder.weight",
                "lm_head.decoder.weight",
            ),
            (
                Roberta,
                Head::MaskedLm,
                "head.norm.weight",
                "lm_head.layer_norm.weight",
            ),
            // The projection of a multi-vector model.
            (Bert, Head::None, "dense.weight", "dense.weight"),
        ] {
            assert_eq!(names(family, head, parameter), expected);
        }
    }

    #[test]
    fn a_packed_projection_is_split_by_rows() {
        let naming = Naming::new(Family::Bert, Head::None);
        let bytes: Vec<u8> = (0..6 * 2 * 4).collect();
        let tensors = [("layers.0.attn.Wqkv.weight".to_string(), vec![6, 2], bytes)];
        let parts = tensors_in_family(naming, &tensors);
        let shapes: Vec<_> = parts
            .iter()
            .map(|(_, shape, bytes)| (&shape[..], bytes[0]))
            .collect();
        assert_eq!(shapes, [(&[2, 2][..], 0), (&[2, 2], 16), (&[2, 2], 32)]);
        assert!(parts[1].0.ends_with("self.key.weight"));
    }
}
