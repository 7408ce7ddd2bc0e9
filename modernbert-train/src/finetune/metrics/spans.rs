//! Precision, recall and F1 of spans of tags.

use modernbert::inference::{TagScheme, TagSpan};
use std::collections::{BTreeMap, BTreeSet};

use super::Counts;

/// Rule that decides which sequences of tags are spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Matching {
    /// Ill-formed sequences too, [`TagScheme::spans`]: as CoNLL's script and seqeval's default mode.
    #[default]
    Lenient,
    /// Well-formed ones alone, [`TagScheme::strict_spans`]: as seqeval's strict mode.
    Strict,
}

/// Counts of spans, each right if its kind, its first and its last tag are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpanScores {
    /// Counts of each kind, by name.
    pub kinds: BTreeMap<String, Counts>,
}

impl SpanScores {
    /// Adds a sentence: its tags, and those predicted for it.
    pub fn add<'t>(
        &mut self,
        scheme: &TagScheme,
        matching: Matching,
        truth: impl IntoIterator<Item = &'t str>,
        predicted: impl IntoIterator<Item = &'t str>,
    ) {
        let (truth, predicted) = match matching {
            Matching::Lenient => (scheme.spans(truth), scheme.spans(predicted)),
            Matching::Strict => (scheme.strict_spans(truth), scheme.strict_spans(predicted)),
        };
        let there: BTreeSet<&TagSpan<'_>> = truth.iter().collect();
        for span in &truth {
            self.of(span.kind).truth += 1;
        }
        for span in &predicted {
            let counts = self.of(span.kind);
            counts.predicted += 1;
            counts.correct += usize::from(there.contains(span));
        }
    }

    fn of(&mut self, kind: &str) -> &mut Counts {
        self.kinds.entry(kind.to_string()).or_default()
    }

    /// Counts of all kinds together, for micro averages.
    pub fn total(&self) -> Counts {
        let kinds = self.kinds.values().copied();
        kinds.fold(Counts::default(), Counts::and)
    }

    /// Mean F1 of the kinds; `None` without a kind.
    pub fn macro_f1(&self) -> Option<f64> {
        // Every kind is there or was predicted, so that its F1 exists.
        let scores = self.kinds.values().filter_map(Counts::f1);
        let sum: f64 = scores.sum();
        (!self.kinds.is_empty()).then(|| sum / self.kinds.len() as f64)
    }

    /// A table of all kinds, a line each, with the numbers of all together in the last one.
    pub fn table(&self) -> String {
        let width = self.kinds.keys().map(|kind| kind.chars().count()).max();
        let width = width.unwrap_or(0).max("all".len());
        let line = |name: &str, counts: &Counts| {
            let shown = |value: Option<f64>| value.map_or("-".to_string(), |v| format!("{v:.4}"));
            format!(
                "  {name:width$}  {:>9}  {:>6}  {:>6}  {:>5}  {:>9}",
                shown(counts.precision()),
                shown(counts.recall()),
                shown(counts.f1()),
                counts.truth,
                counts.predicted
            )
        };
        let mut lines = vec![format!(
            "  {:width$}  precision  recall      F1  spans  predicted",
            ""
        )];
        lines.extend(self.kinds.iter().map(|(kind, counts)| line(kind, counts)));
        lines.push(line("all", &self.total()));
        lines.join("\n")
    }
}
