//! The constants of each [`Task`].

use super::{Metric, SplitFile, Task, TaskKind};

pub(super) struct Facts {
    pub(super) name: &'static str,
    /// The official folder first, then other names in use.
    pub(super) folders: &'static [&'static str],
    pub(super) kind: TaskKind,
    pub(super) file_labels: &'static [&'static str],
    pub(super) text_a: &'static str,
    pub(super) text_b: Option<&'static str>,
    pub(super) label: &'static str,
    /// The text columns of the Hub's Parquet files, whose label column is always `label`.
    pub(super) hub_text: (&'static str, Option<&'static str>),
    pub(super) train: Option<SplitFile>,
    pub(super) dev: &'static [SplitFile],
    pub(super) test: &'static [SplitFile],
    pub(super) metrics: &'static [Metric],
}

const fn file(name: &'static str, rows: usize) -> SplitFile {
    SplitFile { name, rows }
}

const fn classes(labels: &'static [&'static str]) -> TaskKind {
    TaskKind::Classification { labels }
}

const NLI: &[&str] = &["entailment", "neutral", "contradiction"];
const ENTAILMENT: &[&str] = &["entailment", "not_entailment"];
const BINARY: &[&str] = &["0", "1"];

const COLA: Facts = Facts {
    name: "cola",
    folders: &["CoLA", "cola"],
    kind: classes(&["unacceptable", "acceptable"]),
    file_labels: BINARY,
    text_a: "sentence",
    text_b: None,
    label: "label",
    hub_text: ("sentence", None),
    train: Some(file("train", 8551)),
    dev: &[file("dev", 1043)],
    test: &[file("test", 1063)],
    metrics: &[Metric::Matthews, Metric::Accuracy],
};

const SST2: Facts = Facts {
    name: "sst2",
    folders: &["SST-2", "sst-2", "SST2", "sst2"],
    kind: classes(&["negative", "positive"]),
    file_labels: BINARY,
    text_a: "sentence",
    text_b: None,
    label: "label",
    hub_text: ("sentence", None),
    train: Some(file("train", 67349)),
    dev: &[file("dev", 872)],
    test: &[file("test", 1821)],
    metrics: &[Metric::Accuracy],
};

const MRPC: Facts = Facts {
    name: "mrpc",
    folders: &["MRPC", "mrpc"],
    kind: classes(&["not_equivalent", "equivalent"]),
    file_labels: BINARY,
    text_a: "#1 String",
    text_b: Some("#2 String"),
    label: "Quality",
    hub_text: ("sentence1", Some("sentence2")),
    train: Some(file("train", 3668)),
    dev: &[file("dev", 408)],
    test: &[file("test", 1725)],
    metrics: &[Metric::F1, Metric::Accuracy],
};

const STSB: Facts = Facts {
    name: "stsb",
    folders: &["STS-B", "sts-b", "STSB", "stsb"],
    kind: TaskKind::Regression { min: 0.0, max: 5.0 },
    file_labels: &[],
    text_a: "sentence1",
    text_b: Some("sentence2"),
    label: "score",
    hub_text: ("sentence1", Some("sentence2")),
    train: Some(file("train", 5749)),
    dev: &[file("dev", 1500)],
    test: &[file("test", 1379)],
    metrics: &[Metric::Spearman, Metric::Pearson],
};

const QQP: Facts = Facts {
    name: "qqp",
    folders: &["QQP", "qqp"],
    kind: classes(&["not_duplicate", "duplicate"]),
    file_labels: BINARY,
    text_a: "question1",
    text_b: Some("question2"),
    label: "is_duplicate",
    hub_text: ("question1", Some("question2")),
    train: Some(file("train", 363_846)),
    dev: &[file("dev", 40_430)],
    test: &[file("test", 390_965)],
    metrics: &[Metric::Accuracy, Metric::F1],
};

const MNLI: Facts = Facts {
    name: "mnli",
    folders: &["MNLI", "mnli"],
    kind: classes(NLI),
    file_labels: NLI,
    text_a: "sentence1",
    text_b: Some("sentence2"),
    label: "gold_label",
    hub_text: ("premise", Some("hypothesis")),
    train: Some(file("train", 392_702)),
    dev: &[file("dev_matched", 9815), file("dev_mismatched", 9832)],
    test: &[file("test_matched", 9796), file("test_mismatched", 9847)],
    metrics: &[Metric::Accuracy],
};

const QNLI: Facts = Facts {
    name: "qnli",
    folders: &["QNLI", "qnli"],
    kind: classes(ENTAILMENT),
    file_labels: ENTAILMENT,
    text_a: "question",
    text_b: Some("sentence"),
    label: "label",
    hub_text: ("question", Some("sentence")),
    train: Some(file("train", 104_743)),
    dev: &[file("dev", 5463)],
    test: &[file("test", 5463)],
    metrics: &[Metric::Accuracy],
};

const RTE: Facts = Facts {
    name: "rte",
    folders: &["RTE", "rte"],
    kind: classes(ENTAILMENT),
    file_labels: ENTAILMENT,
    text_a: "sentence1",
    text_b: Some("sentence2"),
    label: "label",
    hub_text: ("sentence1", Some("sentence2")),
    train: Some(file("train", 2490)),
    dev: &[file("dev", 277)],
    test: &[file("test", 3000)],
    metrics: &[Metric::Accuracy],
};

const WNLI: Facts = Facts {
    name: "wnli",
    folders: &["WNLI", "wnli"],
    kind: classes(&["not_entailment", "entailment"]),
    file_labels: BINARY,
    text_a: "sentence1",
    text_b: Some("sentence2"),
    label: "label",
    hub_text: ("sentence1", Some("sentence2")),
    train: Some(file("train", 635)),
    dev: &[file("dev", 71)],
    test: &[file("test", 146)],
    metrics: &[Metric::Accuracy],
};

const AX: Facts = Facts {
    name: "ax",
    folders: &["AX", "ax", "diagnostic"],
    kind: classes(NLI),
    file_labels: NLI,
    text_a: "sentence1",
    text_b: Some("sentence2"),
    label: "label",
    hub_text: ("premise", Some("hypothesis")),
    train: None,
    dev: &[],
    test: &[file("diagnostic", 1104)],
    metrics: &[Metric::Matthews, Metric::Accuracy],
};

pub(super) fn of(task: Task) -> &'static Facts {
    match task {
        Task::Cola => &COLA,
        Task::Sst2 => &SST2,
        Task::Mrpc => &MRPC,
        Task::Stsb => &STSB,
        Task::Qqp => &QQP,
        Task::Mnli => &MNLI,
        Task::Qnli => &QNLI,
        Task::Rte => &RTE,
        Task::Wnli => &WNLI,
        Task::Ax => &AX,
    }
}
