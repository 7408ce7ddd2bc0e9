//! The class that Hugging Face's libraries have for each model.

use burn::module::Module;

use super::{
    MaskedLm, ModernBert, MultipleChoice, QuestionAnswerer, SequenceClassifier, TokenClassifier,
};

/// A module that Hugging Face's libraries have a class for.
pub trait Architecture: Module {
    /// Name of the class, as `architectures` in `config.json` gives it.
    const CLASS: &'static str;

    /// The encoder of the model.
    fn encoder(&self) -> &ModernBert;
}

impl Architecture for ModernBert {
    const CLASS: &'static str = "ModernBertModel";

    fn encoder(&self) -> &ModernBert {
        self
    }
}

impl Architecture for MaskedLm {
    const CLASS: &'static str = "ModernBertForMaskedLM";

    fn encoder(&self) -> &ModernBert {
        &self.model
    }
}

impl Architecture for SequenceClassifier {
    const CLASS: &'static str = "ModernBertForSequenceClassification";

    fn encoder(&self) -> &ModernBert {
        &self.model
    }
}

impl Architecture for TokenClassifier {
    const CLASS: &'static str = "ModernBertForTokenClassification";

    fn encoder(&self) -> &ModernBert {
        &self.model
    }
}

impl Architecture for QuestionAnswerer {
    const CLASS: &'static str = "ModernBertForQuestionAnswering";

    fn encoder(&self) -> &ModernBert {
        &self.model
    }
}

impl Architecture for MultipleChoice {
    const CLASS: &'static str = "ModernBertForMultipleChoice";

    fn encoder(&self) -> &ModernBert {
        &self.model
    }
}
