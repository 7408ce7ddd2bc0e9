//! The model card: `README.md` of a model folder, as the Hugging Face Hub shows it.

use std::path::Path;

use crate::atomic::write_atomically;
use crate::config::{Family, Head, ModernBertConfig};

/// Name of the card in a model folder.
pub const CARD_FILE: &str = "README.md";

/// Content of a card beyond the model's config; empty fields are described as unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelCard {
    /// Name of the model.
    pub name: String,
    /// Training: recipe, tokens, the model it started from.
    pub training: String,
    /// Data: sources, size, licenses.
    pub data: String,
    /// Results, and how they were measured.
    pub results: String,
}

impl ModelCard {
    /// A card for the model in `folder`, named after the folder.
    pub fn named_after(folder: &Path) -> Self {
        let name = folder.file_name().map(|name| name.to_string_lossy());
        Self {
            name: name.map(String::from).unwrap_or_default(),
            ..Self::default()
        }
    }

    /// The card in Markdown: language, intended use, training, data and limits.
    pub fn render(&self, config: &ModernBertConfig) -> String {
        let class = config.architectures.first().map_or("", String::as_str);
        let (pipeline, purpose) = match Head::of_class(class) {
            Some(Head::Sequence) => ("text-classification", "classifies texts"),
            Some(Head::Token) => ("token-classification", "labels tokens"),
            Some(Head::Question) => ("question-answering", "finds answers in a given text"),
            Some(Head::Choice) => ("multiple-choice", "scores choices"),
            Some(Head::None) => ("feature-extraction", "computes hidden states of texts"),
            Some(Head::MaskedLm) | None => (
                "fill-mask",
                "predicts masked tokens and is meant to be finetuned",
            ),
        };
        let (family, paper) = match config.family {
            Family::ModernBert => ("ModernBERT", "2412.13663"),
            Family::Bert => ("BERT", "1810.04805"),
            Family::Roberta => ("RoBERTa", "1907.11692"),
            Family::XlmRoberta => ("XLM-RoBERTa", "1911.02116"),
        };
        // The languages of other families are those of the model that training started from.
        let (language, english) = match config.family {
            Family::ModernBert => (
                "language: en\n",
                "- **English only.** The tokenizer and the recipe are made for English text and code. Other languages need more tokens and have worse \
                 results.\n",
            ),
            _ => ("", ""),
        };
        let name = or(&self.name, family);
        let millions = config.encoder_parameters() as f64 / 1e6;
        let labels = config.id2label.as_ref().map_or(String::new(), |labels| {
            format!("\nLabels: {}.\n", labels.join(", "))
        });
        let unknown = "Not recorded. Describe it here before you publish the model.";
        format!(
            "\
---
{language}library_name: transformers
pipeline_tag: {pipeline}
tags:
- {tag}
---

# {name}

A [{family}](https://arxiv.org/abs/{paper}) encoder that {purpose}: {layers} layers of width {width}, {millions:.1} million \
parameters without its head, sequences of up to {positions} tokens.
{labels}
## Use

```rust
let encoder = modernbert::Encoder::load(\"FOLDER\")?;
let vectors = encoder.encode(&[\"a text\"])?;
```

The folder also loads in Python: `transformers.AutoModel.from_pretrained(\"FOLDER\")`.

## Training

{training}

## Data

{data}

## Results

{results}

## Limits

{english}- **Bias.** A model learns the views and stereotypes of the text it is trained on. Text from the web contains much of both. Measure \
the effect for your use, above all where decisions are about people.
- **No facts.** The model predicts likely tokens; it doesn't know whether they are true. It is an encoder and generates no text.
- **Length.** Texts beyond {positions} tokens are truncated.
",
            tag = config.family.model_type(),
            layers = config.num_hidden_layers,
            width = config.hidden_size,
            positions = config.max_position_embeddings,
            training = or(&self.training, unknown),
            data = or(&self.data, unknown),
            results = or(&self.results, unknown),
        )
    }

    /// Writes the card into `folder`; returns false where the folder has a `README.md`, which is never replaced.
    ///
    /// # Errors
    /// A folder that can't be written.
    pub fn write(&self, config: &ModernBertConfig, folder: &Path) -> std::io::Result<bool> {
        let path = folder.join(CARD_FILE);
        if path.symlink_metadata().is_ok() {
            return Ok(false);
        }
        write_atomically(&path, self.render(config).as_bytes())?;
        Ok(true)
    }
}

fn or<'t>(text: &'t str, other: &'t str) -> &'t str {
    if text.trim().is_empty() {
        other
    } else {
        text.trim_end()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_card_states_language_data_and_limits() {
        let card = ModelCard {
            name: "demo".into(),
            data: "Source code of 200 crates.".into(),
            ..ModelCard::default()
        };
        let text = card.render(&ModernBertConfig::base());
        for part in [
            "language: en\n",
            "pipeline_tag: fill-mask",
            "# demo",
            "22 layers of width 768",
            "Source code of 200 crates.",
            "English only",
            "Bias",
            "8192 tokens",
            "Not recorded",
        ] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
        let labeled = ModernBertConfig {
            architectures: vec!["ModernBertForSequenceClassification".into()],
            id2label: Some(vec!["no".into(), "yes".into()]),
            ..ModernBertConfig::base()
        };
        let text = card.render(&labeled);
        assert!(text.contains("text-classification") && text.contains("Labels: no, yes."));
    }

    #[test]
    fn a_card_of_the_user_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let card = ModelCard::named_after(folder.path());
        let config = ModernBertConfig::base();
        assert!(card.write(&config, folder.path()).unwrap());
        let path = folder.path().join(CARD_FILE);
        std::fs::write(&path, "mine").unwrap();
        assert!(!card.write(&config, folder.path()).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }
}
