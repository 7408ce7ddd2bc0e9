//! Predictions of the programs for GLUE's tasks.

use modernbert_glue::data::Split;
use modernbert_train::finetune::{classes, scores};
use serde_json::json;

use super::Session;

impl Session {
    /// Writes `--predictions` for rows with classes: set, row from 1, label, prediction. `outputs` are those of all sets, one after the other.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn write_classes(
        &self,
        labels: &[String],
        sets: &[Split],
        outputs: &[Vec<f32>],
    ) -> anyhow::Result<()> {
        let truth = sets.iter().flat_map(|set| {
            let rows = set.classes().into_iter().zip(1..);
            rows.map(|(class, row)| (set.name, row, class))
        });
        let truth: Vec<(&str, usize, usize)> = truth.collect();
        let rows = truth.into_iter().zip(classes(outputs));
        self.write_predictions(rows.map(|((set, row, class), predicted)| {
            json!({"set": set, "row": row, "label": labels[class], "prediction": labels[predicted]})
        }))
    }

    /// As [`Self::write_classes`], for rows with scores.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn write_scores(&self, set: &Split, outputs: &[Vec<f32>]) -> anyhow::Result<()> {
        let rows = set.scores().into_iter().zip(scores(outputs)).zip(1..);
        self.write_predictions(rows.map(|((score, predicted), row)| {
            json!({"set": set.name, "row": row, "label": score, "prediction": predicted})
        }))
    }
}
