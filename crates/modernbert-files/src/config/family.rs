//! Families of models whose files are read as, and written from, one configuration: ModernBERT itself, and BERT and RoBERTa.
//!
//! A family is a form of `config.json`, of the names of tensors ([`crate::checkpoint::names`]) and of the classes of transformers. The architecture is a
//! choice of [`FlexOptions`](super::FlexOptions) in every family.

/// Family of models: the form of `config.json` and of the names of tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Family {
    /// `modernbert`, and `flexbert` of this library.
    #[default]
    ModernBert,
    /// `bert`.
    Bert,
    /// `roberta`.
    Roberta,
    /// `xlm-roberta`: RoBERTa with other classes.
    XlmRoberta,
}

/// A head of transformers' models, by the class that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Head {
    /// The encoder alone.
    None,
    /// Masked language modeling.
    MaskedLm,
    /// Classification of sequences.
    Sequence,
    /// Classification of tokens.
    Token,
    /// Extractive question answering.
    Question,
    /// Multiple choice.
    Choice,
}

/// Each head with its class in each family, in the order of [`Family`].
const CLASSES: [(Head, [&str; 4]); 6] = [
    (
        Head::None,
        [
            "ModernBertModel",
            "BertModel",
            "RobertaModel",
            "XLMRobertaModel",
        ],
    ),
    (
        Head::MaskedLm,
        [
            "ModernBertForMaskedLM",
            "BertForMaskedLM",
            "RobertaForMaskedLM",
            "XLMRobertaForMaskedLM",
        ],
    ),
    (
        Head::Sequence,
        [
            "ModernBertForSequenceClassification",
            "BertForSequenceClassification",
            "RobertaForSequenceClassification",
            "XLMRobertaForSequenceClassification",
        ],
    ),
    (
        Head::Token,
        [
            "ModernBertForTokenClassification",
            "BertForTokenClassification",
            "RobertaForTokenClassification",
            "XLMRobertaForTokenClassification",
        ],
    ),
    (
        Head::Question,
        [
            "ModernBertForQuestionAnswering",
            "BertForQuestionAnswering",
            "RobertaForQuestionAnswering",
            "XLMRobertaForQuestionAnswering",
        ],
    ),
    (
        Head::Choice,
        [
            "ModernBertForMultipleChoice",
            "BertForMultipleChoice",
            "RobertaForMultipleChoice",
            "XLMRobertaForMultipleChoice",
        ],
    ),
];

impl Family {
    /// Every family, in the order of the enum.
    pub const ALL: [Self; 4] = [
        Self::ModernBert,
        Self::Bert,
        Self::Roberta,
        Self::XlmRoberta,
    ];

    /// The `model_type` of the family's files.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::ModernBert => "modernbert",
            Self::Bert => "bert",
            Self::Roberta => "roberta",
            Self::XlmRoberta => "xlm-roberta",
        }
    }

    /// Returns true for RoBERTa and XLM-RoBERTa, whose names of tensors and architectures are the same.
    pub fn is_roberta(self) -> bool {
        matches!(self, Self::Roberta | Self::XlmRoberta)
    }

    /// The class of transformers with this head.
    pub fn class(self, head: Head) -> &'static str {
        let of_head = CLASSES.iter().find(|(one, _)| *one == head);
        of_head.map_or("", |(_, classes)| classes[self as usize])
    }
}

impl Head {
    /// The head that a class of transformers has, in any family; `None` for other classes.
    pub fn of_class(class: &str) -> Option<Self> {
        let found = CLASSES.iter().find(|(_, classes)| classes.contains(&class));
        found.map(|(head, _)| *head)
    }

    /// Returns true for a head with a classifier.
    pub fn is_classifier(self) -> bool {
        !matches!(self, Self::None | Self::MaskedLm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_head_and_family() {
        for family in Family::ALL {
            for (head, _) in CLASSES {
                let class = family.class(head);
                assert!(class.starts_with(match family {
                    Family::ModernBert => "ModernBert",
                    Family::Bert => "Bert",
                    Family::Roberta => "Roberta",
                    Family::XlmRoberta => "XLMRoberta",
                }));
                assert_eq!(Head::of_class(class), Some(head));
            }
        }
        assert_eq!(Head::of_class("BertForPreTraining"), None);
    }
}
