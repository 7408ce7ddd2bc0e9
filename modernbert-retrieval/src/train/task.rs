//! Training of a retrieval model as a task of the training loop.

use burn::optim::GradientsParams;
use modernbert::config::ModernBertConfig;
use modernbert_train::engine::{BoxError, Counts, Evaluation, EvaluationError, LossSums, Task};
use modernbert_train::optim::NamedOptimizer;
use modernbert_train::saving::RunFolder;
use modernbert_train::snapshot::RunState;

use super::embedder::{Embedder, VectorKind};
use super::evaluate::EvalSet;
use super::losses::Loss;
use super::rows::TrainRow;
use super::sampler::Sampler;
use super::saving::save;
use super::step::{ContrastiveBatch, StepOptions, gradients};
use super::texts::TokenizedText;
use crate::metrics::Measure;

/// Name of the score by which the best weights are chosen.
const SCORE: &str = "ndcg@10";

/// Rows with the tokens of their texts.
#[derive(Clone, Debug)]
pub(super) struct TokenizedRows {
    pub(super) rows: Vec<TrainRow>,
    /// By index of the text; empty where no row has it in this role.
    pub(super) queries: Vec<TokenizedText>,
    pub(super) documents: Vec<TokenizedText>,
}

/// An evaluation during training.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluationPoint {
    /// Optimizer steps done.
    pub step: u64,
    /// nDCG@10 of each set, 0 to 1, by its name.
    pub sets: Vec<(String, f64)>,
    /// Their mean, by which the best weights are chosen.
    pub mean: f64,
}

/// Evaluations and losses of a run so far, part of its checkpoints.
#[derive(Clone, Debug, Default)]
pub(super) struct TaskHistory {
    /// The weights of the best evaluation, with its index.
    pub(super) best: Option<(Embedder, usize)>,
    pub(super) evaluations: Vec<EvaluationPoint>,
}

/// Rows of a micro-batch.
#[derive(Clone, Debug)]
pub(super) struct RowBatch {
    rows: Vec<u32>,
    /// Share of the step.
    share: f64,
    /// Number of the micro-batch in the run.
    number: u64,
}

pub(super) struct RetrievalTask {
    pub(super) data: TokenizedRows,
    pub(super) sampler: Sampler,
    pub(super) accumulate: u64,
    pub(super) seed: u64,
    pub(super) kind: VectorKind,
    pub(super) loss: Loss,
    pub(super) step: StepOptions,
    pub(super) sets: Vec<EvalSet>,
    pub(super) config: ModernBertConfig,
    pub(super) folder: Option<RunFolder>,
    pub(super) history: TaskHistory,
}

impl RetrievalTask {
    /// The texts of some rows: queries, then documents column by column.
    fn batch(&self, batch: &RowBatch) -> ContrastiveBatch<'_> {
        let rows: Vec<&TrainRow> = batch
            .rows
            .iter()
            .map(|&i| &self.data.rows[i as usize])
            .collect();
        let ways = rows.first().map_or(0, |row| row.documents.len());
        let queries = rows
            .iter()
            .map(|row| &self.data.queries[row.query as usize]);
        let columns = (0..ways).flat_map(|way| {
            let document = move |row: &&TrainRow| &self.data.documents[row.documents[way] as usize];
            rows.iter().map(document).collect::<Vec<_>>()
        });
        ContrastiveBatch {
            texts: queries.chain(columns).collect(),
            rows: rows.len(),
            ways,
            teacher: match self.loss.needs_scores() {
                true => rows.iter().flat_map(|row| row.scores.clone()).collect(),
                false => Vec::new(),
            },
            dropout_key: (self.seed, batch.number),
        }
    }

    fn lengths(&self, batch: &RowBatch) -> Vec<usize> {
        self.batch(batch)
            .texts
            .iter()
            .map(|text| text.ids.len())
            .collect()
    }
}

impl Task for RetrievalTask {
    type Model = Embedder;
    type Batch = RowBatch;

    const SCORED: bool = true;
    const COUNTS_CORRECT: bool = false;

    fn next_step(
        &mut self,
        state: &RunState,
        _seen: u64,
    ) -> Result<Option<Vec<RowBatch>>, BoxError> {
        let first = state.step * self.accumulate;
        let batches = (first..first + self.accumulate).map(|number| {
            let rows = self.sampler.batch(number)?;
            Some(RowBatch {
                rows,
                share: 1.0 / self.accumulate as f64,
                number,
            })
        });
        Ok(batches.collect())
    }

    fn counts(&self, batches: &[RowBatch]) -> Counts {
        let lengths: Vec<usize> = batches
            .iter()
            .flat_map(|batch| self.lengths(batch))
            .collect();
        let tokens = lengths.iter().sum::<usize>() as u64;
        Counts {
            tokens,
            slots: tokens,
            rows: batches.iter().map(|batch| batch.rows.len() as u64).sum(),
            // The shares of the micro-batches make their losses add up to a mean.
            weight: 1,
            flops: self.config.train_flops(&lengths, 0) as f64,
            position: None,
        }
    }

    fn gradients(&self, model: &Embedder, batch: RowBatch) -> (LossSums, GradientsParams) {
        let texts = self.batch(&batch);
        // Chunks have at most the token budget, and texts are truncated: both are far below 32 bits.
        let (loss, gradients) = gradients(
            model,
            &self.kind,
            &self.loss,
            &texts,
            self.step,
            batch.share,
        )
        .expect("a chunk of truncated texts fits a packed batch");
        let sums = LossSums {
            loss: loss * batch.share,
            correct: None,
        };
        (sums, gradients)
    }

    fn evaluation_items(&self) -> usize {
        self.sets.iter().map(EvalSet::texts).sum()
    }

    fn evaluate(&mut self, model: &Embedder, step: u64) -> Result<Evaluation, EvaluationError> {
        if self.sets.is_empty() {
            return Ok(Evaluation::default());
        }
        let measure = Measure::Ndcg(Some(10));
        let mut sets = Vec::with_capacity(self.sets.len());
        for set in &self.sets {
            let run = set.run(model, &self.kind, self.loss.similarity.into());
            let run = run.map_err(EvaluationError::other)?;
            let score = set.score(&run, &[measure]).mean(measure).unwrap_or(0.0);
            sets.push((set.name.clone(), score));
        }
        let mean = sets.iter().map(|(_, score)| score).sum::<f64>() / sets.len() as f64;
        let mut metrics = vec![(SCORE.to_string(), Some(mean))];
        if sets.len() > 1 {
            metrics.extend(
                sets.iter()
                    .map(|(name, score)| (name.clone(), Some(*score))),
            );
        }
        self.history
            .evaluations
            .push(EvaluationPoint { step, sets, mean });
        Ok(Evaluation {
            loss: None,
            accuracy: None,
            score: Some(mean),
            metrics,
            items: self.evaluation_items(),
        })
    }

    fn keep_best(&mut self, model: Embedder) {
        let last = self.history.evaluations.len().checked_sub(1);
        self.history.best = last.map(|last| (model, last));
    }

    fn warnings(&mut self) -> Vec<String> {
        let folder = self.folder.as_ref();
        folder.map_or(Vec::new(), RunFolder::warnings)
    }

    fn save(
        &mut self,
        model: &Embedder,
        optimizer: &NamedOptimizer,
        state: &RunState,
    ) -> Result<(), BoxError> {
        if let Some(folder) = &self.folder {
            save(folder, (model, optimizer), state, &self.history)?;
        }
        Ok(())
    }
}
