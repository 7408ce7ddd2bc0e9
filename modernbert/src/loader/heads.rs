//! `load` and `load_for_finetuning` of the encoder and of every head.

use super::{LoadError, Loader};
use crate::checkpoint::LoadReport;
use crate::model::{
    MaskedLm, ModernBert, MultipleChoice, QuestionAnswerer, SequenceClassifier, TokenClassifier,
};

/// The classifier that finetuning starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeadStart {
    /// The folder's, where it has one; a new one otherwise.
    #[default]
    Kept,
    /// A new one: the encoder, dense layer and norm of a model that was finetuned on another task are the start for this one.
    Fresh,
}

impl ModernBert {
    /// Loads the encoder alone from the folder of any ModernBERT, or by its name on the Hub; the head is left out.
    ///
    /// ```
    /// use modernbert::model::ModernBert;
    ///
    /// # let folder = tiny_models::masked_lm();
    /// # let name = folder.path();
    /// let encoder = ModernBert::load(name)?;
    /// assert_eq!(encoder.config().hidden_size, 32);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A folder or name that doesn't exist; a missing, malformed or misshapen tensor, or a non-finite weight, by name.
    pub fn load(model: impl Into<Loader>) -> Result<Self, LoadError> {
        let opened = model.into().open::<Self>()?;
        let model = opened.complete(Self::new)?;
        Ok(model.with_precision(opened.precision))
    }
}

impl MaskedLm {
    /// Loads a masked language model from a folder, or by its name on the Hub; every tensor must be there.
    ///
    /// ```
    /// use modernbert::{Loader, model::MaskedLm};
    ///
    /// # let folder = tiny_models::masked_lm();
    /// # let name = folder.path();
    /// let model = MaskedLm::load(Loader::new(name).device("flex"))?;
    /// assert_eq!(model.model.num_layers(), 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`ModernBert::load`]; a model with another head.
    pub fn load(model: impl Into<Loader>) -> Result<Self, LoadError> {
        let opened = model.into().open::<Self>()?;
        let model = opened.complete(Self::new)?;
        Ok(model.with_precision(opened.precision))
    }
}

impl SequenceClassifier {
    /// Loads a finetuned sequence classifier from a folder, or by its name on the Hub; every tensor must be there. The number of outputs
    /// is that of the file.
    ///
    /// ```
    /// use modernbert::model::SequenceClassifier;
    ///
    /// # let folder = tiny_models::sequence_classifier(&["bad", "good"]);
    /// # let name = folder.path();
    /// assert_eq!(SequenceClassifier::load(name)?.outputs(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`ModernBert::load`]; a model without a classifier, or with another head.
    pub fn load(model: impl Into<Loader>) -> Result<Self, LoadError> {
        let opened = model.into().open::<Self>()?;
        let model = opened.classifier(None, Self::new)?;
        Ok(model.with_precision(opened.precision))
    }

    /// Loads the model that finetuning starts from: a classifier with `outputs` outputs and the encoder of any ModernBERT.
    ///
    /// The dense layer and norm of the folder's head are taken over where it has them. What it lacks is initialized from `seed` and
    /// reported as fresh; the encoder must be complete.
    ///
    /// ```
    /// use modernbert::{HeadStart, model::SequenceClassifier};
    ///
    /// # let folder = tiny_models::masked_lm();
    /// # let name = folder.path();
    /// let (model, report) = SequenceClassifier::load_for_finetuning(name, 3, HeadStart::Fresh, 17)?;
    /// assert_eq!((model.outputs(), report.fresh), (3, vec!["classifier.weight".to_string(), "classifier.bias".to_string()]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`ModernBert::load`]; with [`HeadStart::Kept`] a classifier of another number of outputs.
    pub fn load_for_finetuning(
        model: impl Into<Loader>,
        outputs: usize,
        start: HeadStart,
        seed: u64,
    ) -> Result<(Self, LoadReport), LoadError> {
        let opened = model.into().open::<Self>()?;
        let precision = opened.precision;
        let (model, report) = opened.start(start == HeadStart::Fresh, seed, |config, device| {
            Self::new(config, outputs, device)
        })?;
        Ok((model.with_precision(precision), report))
    }
}

impl TokenClassifier {
    /// Loads a finetuned token classifier, as [`SequenceClassifier::load`].
    ///
    /// ```
    /// use modernbert::model::TokenClassifier;
    ///
    /// # let folder = tiny_models::token_classifier(&["O", "B-PER", "I-PER"]);
    /// # let name = folder.path();
    /// assert_eq!(TokenClassifier::load(name)?.outputs(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`SequenceClassifier::load`].
    pub fn load(model: impl Into<Loader>) -> Result<Self, LoadError> {
        let opened = model.into().open::<Self>()?;
        let model = opened.classifier(None, Self::new)?;
        Ok(model.with_precision(opened.precision))
    }

    /// Loads the model that finetuning starts from, as [`SequenceClassifier::load_for_finetuning`].
    ///
    /// # Errors
    /// As [`SequenceClassifier::load_for_finetuning`].
    pub fn load_for_finetuning(
        model: impl Into<Loader>,
        outputs: usize,
        start: HeadStart,
        seed: u64,
    ) -> Result<(Self, LoadReport), LoadError> {
        let opened = model.into().open::<Self>()?;
        let precision = opened.precision;
        let (model, report) = opened.start(start == HeadStart::Fresh, seed, |config, device| {
            Self::new(config, outputs, device)
        })?;
        Ok((model.with_precision(precision), report))
    }
}

impl QuestionAnswerer {
    /// Loads a finetuned model for extractive question answering, as [`SequenceClassifier::load`].
    ///
    /// ```
    /// use modernbert::model::QuestionAnswerer;
    ///
    /// # let folder = tiny_models::question_answerer();
    /// # let name = folder.path();
    /// assert_eq!(QuestionAnswerer::load(name)?.model.num_layers(), 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`SequenceClassifier::load`]; another number of outputs than two.
    pub fn load(model: impl Into<Loader>) -> Result<Self, LoadError> {
        let opened = model.into().open::<Self>()?;
        let model = opened.classifier(Some(2), |config, _, device| Self::new(config, device))?;
        Ok(model.with_precision(opened.precision))
    }

    /// Loads the model that finetuning starts from, as [`SequenceClassifier::load_for_finetuning`].
    ///
    /// # Errors
    /// As [`SequenceClassifier::load_for_finetuning`].
    pub fn load_for_finetuning(
        model: impl Into<Loader>,
        start: HeadStart,
        seed: u64,
    ) -> Result<(Self, LoadReport), LoadError> {
        let opened = model.into().open::<Self>()?;
        let precision = opened.precision;
        let (model, report) = opened.start(start == HeadStart::Fresh, seed, Self::new)?;
        Ok((model.with_precision(precision), report))
    }
}

impl MultipleChoice {
    /// Loads a finetuned multiple-choice model, as [`SequenceClassifier::load`].
    ///
    /// ```
    /// use modernbert::model::MultipleChoice;
    ///
    /// # let folder = tiny_models::multiple_choice();
    /// # let name = folder.path();
    /// assert_eq!(MultipleChoice::load(name)?.model.num_layers(), 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`SequenceClassifier::load`]; another number of outputs than one.
    pub fn load(model: impl Into<Loader>) -> Result<Self, LoadError> {
        let opened = model.into().open::<Self>()?;
        let model = opened.classifier(Some(1), |config, _, device| Self::new(config, device))?;
        Ok(model.with_precision(opened.precision))
    }

    /// Loads the model that finetuning starts from, as [`SequenceClassifier::load_for_finetuning`].
    ///
    /// # Errors
    /// As [`SequenceClassifier::load_for_finetuning`].
    pub fn load_for_finetuning(
        model: impl Into<Loader>,
        start: HeadStart,
        seed: u64,
    ) -> Result<(Self, LoadReport), LoadError> {
        let opened = model.into().open::<Self>()?;
        let precision = opened.precision;
        let (model, report) = opened.start(start == HeadStart::Fresh, seed, Self::new)?;
        Ok((model.with_precision(precision), report))
    }
}
