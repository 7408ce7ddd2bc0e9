//! Early stopping: the best score so far, and the end of a run that no longer improves.

/// Chooses the best evaluation and ends a run that no longer improves.
///
/// The best score and the evaluations since then are part of [`RunState`](crate::snapshot::RunState), so that a resumed run makes the same decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EarlyStopping {
    /// Evaluations in a row without a better score after which the run ends; `None` never ends it.
    pub patience: Option<u64>,
    /// The best score so far.
    pub best: Option<f64>,
    /// Evaluations since the best one.
    pub unimproved: u64,
}

impl EarlyStopping {
    /// Takes an evaluation's score; returns whether it is the best so far. The earlier of two equal scores stays the best.
    ///
    /// An undefined or non-finite score is never best.
    pub fn judge(&mut self, score: Option<f64>) -> bool {
        let better = is_better(score, self.best);
        if better {
            self.best = score;
            self.unimproved = 0;
        } else {
            self.unimproved += 1;
        }
        better
    }

    /// Returns true if the patience is used up.
    pub fn stops(&self) -> bool {
        self.patience
            .is_some_and(|patience| self.unimproved >= patience)
    }
}

/// Returns true if `new` beats `old`. An undefined or non-finite score beats none; any finite score beats an undefined one.
fn is_better(new: Option<f64>, old: Option<f64>) -> bool {
    let new = new.filter(|new| new.is_finite());
    new.is_some_and(|new| old.is_none_or(|old| new > old))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_defined_score_is_best_and_only_a_higher_one_replaces_it() {
        let mut stopping = EarlyStopping::default();
        let judged: Vec<bool> = [None, Some(-1.0), Some(-1.0), None, Some(0.5), Some(0.4)]
            .into_iter()
            .map(|score| stopping.judge(score))
            .collect();
        assert_eq!(judged, [false, true, false, false, true, false]);
        assert_eq!((stopping.best, stopping.unimproved), (Some(0.5), 1));
    }

    #[test]
    fn a_non_finite_score_is_never_best() {
        for score in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut stopping = EarlyStopping::default();
            assert!(!stopping.judge(Some(score)), "{score}");
            assert!(stopping.judge(Some(0.0)));
        }
    }

    #[test]
    fn patience_counts_evaluations_in_a_row() {
        let mut stopping = EarlyStopping {
            patience: Some(2),
            ..EarlyStopping::default()
        };
        let stops: Vec<bool> = [0.5, 0.4, 0.6, 0.5, 0.6]
            .into_iter()
            .map(|score| {
                stopping.judge(Some(score));
                stopping.stops()
            })
            .collect();
        assert_eq!(stops, [false, false, false, false, true]);
        let endless = EarlyStopping {
            unimproved: u64::MAX,
            ..EarlyStopping::default()
        };
        assert!(!endless.stops());
    }
}
