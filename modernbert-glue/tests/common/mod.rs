//! Rows in the official layout of a GLUE task, with words drawn at random and labels that mean nothing.

use modernbert_glue::task::Task;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// A stream of numbers that is the same everywhere.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    /// The next number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    /// From six to thirteen made-up words.
    pub(crate) fn sentence(&mut self) -> String {
        const SYLLABLES: [&str; 12] = [
            "ba", "do", "ki", "lu", "me", "na", "po", "ra", "si", "tu", "ve", "zo",
        ];
        let words: Vec<String> = (0..6 + self.below(8))
            .map(|_| {
                (0..1 + self.below(3))
                    .map(|_| SYLLABLES[self.below(12)])
                    .collect()
            })
            .collect();
        words.join(" ")
    }
}

/// Writes the training and dev files of CoLA, RTE, MRPC, STS-B or MNLI below `glue`.
pub(crate) fn write_task(glue: &Path, task: Task, train: usize, dev: usize) {
    let folder = glue.join(task.folder());
    fs::create_dir_all(&folder).unwrap();
    let mut numbers = Numbers(7);
    let dev_sets = task.dev_splits().iter().map(|split| (split.name, dev));
    for (name, rows) in std::iter::once(("train", train)).chain(dev_sets) {
        let mut text = match task {
            Task::Cola => String::new(),
            Task::Rte => "index\tsentence1\tsentence2\tlabel\n".to_string(),
            Task::Stsb => "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
                .to_string(),
            Task::Mrpc => "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n".to_string(),
            Task::Mnli => "index\tsentence1\tsentence2\tgold_label\n".to_string(),
            other => panic!("no layout for {other}"),
        };
        for row in 0..rows {
            let (first, second) = (numbers.sentence(), numbers.sentence());
            let label = numbers.below(2);
            match task {
                Task::Cola => writeln!(text, "mu01\t{label}\t\t{first}"),
                Task::Mrpc => writeln!(text, "{label}\t{row}\t{row}\t{first}\t{second}"),
                Task::Rte | Task::Mnli => {
                    let label = task.file_labels()[label];
                    writeln!(text, "{row}\t{first}\t{second}\t{label}")
                }
                _ => {
                    let score = numbers.below(501) as f64 / 100.0;
                    writeln!(
                        text,
                        "{row}\tmade-up\tnone\t2026\t{row}\tnone\tnone\t{first}\t{second}\t{score:.3}"
                    )
                }
            }
            .unwrap();
        }
        fs::write(folder.join(format!("{name}.tsv")), text).unwrap();
    }
}
