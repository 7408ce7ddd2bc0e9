//! The class of Hugging Face's libraries that corresponds to each model.

use burn::module::Module;
use std::convert::Infallible;

use crate::config::Head;

use super::{
    MaskedLm, ModernBert, MultipleChoice, QuestionAnswerer, SequenceClassifier, TokenClassifier,
};

/// A module with a corresponding class in Hugging Face's libraries, one in each [`Family`](crate::config::Family).
pub trait Architecture: Module {
    /// Name of ModernBERT's class, as `architectures` in `config.json` gives it.
    const CLASS: &'static str;
    /// Head of the class.
    const HEAD: Head;

    /// The encoder of the model.
    fn encoder(&self) -> &ModernBert;

    /// The same model with the encoder that `change` returns for the present one, or the error of `change`.
    ///
    /// # Errors
    /// Those of `change`.
    fn try_map_encoder<E>(
        self,
        change: impl FnOnce(ModernBert) -> Result<ModernBert, E>,
    ) -> Result<Self, E>;

    /// The same model with the encoder that `change` returns for the present one.
    #[must_use]
    fn map_encoder(self, change: impl FnOnce(ModernBert) -> ModernBert) -> Self {
        let Ok(model) = self.try_map_encoder(|encoder| Ok::<_, Infallible>(change(encoder)));
        model
    }
}

impl Architecture for ModernBert {
    const CLASS: &'static str = "ModernBertModel";
    const HEAD: Head = Head::None;

    fn encoder(&self) -> &ModernBert {
        self
    }

    fn try_map_encoder<E>(
        self,
        change: impl FnOnce(ModernBert) -> Result<ModernBert, E>,
    ) -> Result<Self, E> {
        change(self)
    }
}

impl Architecture for MaskedLm {
    const CLASS: &'static str = "ModernBertForMaskedLM";
    const HEAD: Head = Head::MaskedLm;

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

impl Architecture for SequenceClassifier {
    const CLASS: &'static str = "ModernBertForSequenceClassification";
    const HEAD: Head = Head::Sequence;

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

impl Architecture for TokenClassifier {
    const CLASS: &'static str = "ModernBertForTokenClassification";
    const HEAD: Head = Head::Token;

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

impl Architecture for QuestionAnswerer {
    const CLASS: &'static str = "ModernBertForQuestionAnswering";
    const HEAD: Head = Head::Question;

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

impl Architecture for MultipleChoice {
    const CLASS: &'static str = "ModernBertForMultipleChoice";
    const HEAD: Head = Head::Choice;

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
