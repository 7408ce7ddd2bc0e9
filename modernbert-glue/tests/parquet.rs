//! The Hub's form and the official form of the same data give the same examples: the TSV files written again as Parquet files with the
//! Hub's names, columns and class ids. Made-up files always, the official ones where `MODERNBERT_DATA` has them.
#![allow(clippy::unwrap_used)] // a test may fail loudly

mod common;

use modernbert_glue::data::{Split, TaskData};
use modernbert_glue::task::Task;
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, FloatType, Int32Type, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// Rows of a row group, few enough that readers meet several.
const GROUP: usize = 1000;
/// Rows from which on a set is split into two files.
const TWO_FILES: usize = 10_000;

/// A task in both forms.
struct Form {
    folder: &'static str,
    hub: &'static str,
    /// Columns of the texts, in the TSV file and on the Hub.
    texts: &'static [(&'static str, &'static str)],
    /// Column of the label in the TSV file.
    label: &'static str,
    /// Names of the classes; none for scores.
    classes: &'static [&'static str],
}

const ONE: &[(&str, &str)] = &[("sentence", "sentence")];
const TWO: &[(&str, &str)] = &[("sentence1", "sentence1"), ("sentence2", "sentence2")];
const NLI: &[(&str, &str)] = &[("sentence1", "premise"), ("sentence2", "hypothesis")];
const BINARY: &[&str] = &["0", "1"];
const ENTAILMENT: &[&str] = &["entailment", "not_entailment"];
const THREE: &[&str] = &["entailment", "neutral", "contradiction"];

#[rustfmt::skip]
const FORMS: [Form; 10] = [
    Form { folder: "CoLA", hub: "cola", texts: ONE, label: "label", classes: BINARY },
    Form { folder: "SST-2", hub: "sst2", texts: ONE, label: "label", classes: BINARY },
    Form { folder: "MRPC", hub: "mrpc", texts: &[("#1 String", "sentence1"), ("#2 String", "sentence2")], label: "Quality", classes: BINARY },
    Form { folder: "STS-B", hub: "stsb", texts: TWO, label: "score", classes: &[] },
    Form { folder: "QQP", hub: "qqp", texts: &[("question1", "question1"), ("question2", "question2")], label: "is_duplicate", classes: BINARY },
    Form { folder: "MNLI", hub: "mnli", texts: NLI, label: "gold_label", classes: THREE },
    Form { folder: "QNLI", hub: "qnli", texts: &[("question", "question"), ("sentence", "sentence")], label: "label", classes: ENTAILMENT },
    Form { folder: "RTE", hub: "rte", texts: TWO, label: "label", classes: ENTAILMENT },
    Form { folder: "WNLI", hub: "wnli", texts: TWO, label: "label", classes: BINARY },
    Form { folder: "AX", hub: "ax", texts: NLI, label: "label", classes: THREE },
];

/// Header and rows of a TSV file.
fn rows(path: &Path, form: &Form, split: &str) -> (Vec<String>, Vec<Vec<String>>) {
    let text = fs::read_to_string(path).unwrap();
    let text = text
        .trim_start_matches('\u{feff}')
        .trim_end_matches(['\r', '\n']);
    let mut lines = text
        .split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line));
    let cells = |line: &str| {
        line.split('\t')
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let header = match (form.folder, split) {
        ("CoLA", "train" | "dev") => cells("source\tlabel\tmark\tsentence"),
        _ => cells(lines.next().unwrap()),
    };
    let mut rows: Vec<_> = lines.map(cells).collect();
    if form.folder == "QQP" {
        // Questions with line breaks are cut apart; every reader leaves these rows out.
        rows.retain(|row| row.len() >= header.len());
    }
    assert!(
        rows.iter().all(|row| row.len() == header.len()),
        "{}",
        path.display()
    );
    (header, rows)
}

enum Column {
    Text(String, Vec<String>),
    Class(String, Vec<i64>),
    Score(String, Vec<f32>),
    Index(String, Vec<i32>),
}

impl Column {
    fn field(&self) -> String {
        match self {
            Self::Text(name, _) => format!("optional binary {name} (UTF8);"),
            Self::Class(name, _) => format!("optional int64 {name};"),
            Self::Score(name, _) => format!("optional float {name};"),
            Self::Index(name, _) => format!("optional int32 {name};"),
        }
    }
}

/// Writes rows `range` of the columns, every value present in an optional column, as pyarrow writes tables.
fn write(path: &Path, columns: &[Column], range: std::ops::Range<usize>) {
    let fields: String = columns.iter().map(Column::field).collect();
    let schema = parse_message_type(&format!("message schema {{ {fields} }}")).unwrap();
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .build();
    let file = fs::File::create(path).unwrap();
    let mut writer =
        SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties)).unwrap();
    for from in range.clone().step_by(GROUP) {
        let rows = from..range.end.min(from + GROUP);
        let present = vec![1i16; rows.len()];
        let present = Some(present.as_slice());
        let mut group = writer.next_row_group().unwrap();
        for column in columns {
            let mut out = group.next_column().unwrap().unwrap();
            match column {
                Column::Text(_, values) => {
                    let values: Vec<ByteArray> = values[rows.clone()]
                        .iter()
                        .map(|v| v.as_str().into())
                        .collect();
                    out.typed::<ByteArrayType>()
                        .write_batch(&values, present, None)
                }
                Column::Class(_, values) => {
                    out.typed::<Int64Type>()
                        .write_batch(&values[rows.clone()], present, None)
                }
                Column::Score(_, values) => {
                    out.typed::<FloatType>()
                        .write_batch(&values[rows.clone()], present, None)
                }
                Column::Index(_, values) => {
                    out.typed::<Int32Type>()
                        .write_batch(&values[rows.clone()], present, None)
                }
            }
            .unwrap();
            out.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}

fn convert_file(path: &Path, form: &Form, out: &Path) {
    let stem = path.file_stem().unwrap().to_str().unwrap();
    let split = match form.folder {
        "AX" => "test".to_string(),
        _ => stem.replace("dev", "validation"),
    };
    let (header, rows) = rows(path, form, stem);
    let place: HashMap<&str, usize> = header.iter().map(String::as_str).zip(0..).collect();
    let mut columns: Vec<Column> = form
        .texts
        .iter()
        .map(|(tsv, hub)| {
            let values = rows.iter().map(|row| row[place[tsv]].clone());
            Column::Text((*hub).to_string(), values.collect())
        })
        .collect();
    // The Hub writes -1 where labels are hidden.
    let hidden = split.starts_with("test");
    let label = |row: &Vec<String>| row[place[form.label]].clone();
    let name = "label".to_string();
    columns.push(match form.classes {
        [] if hidden => Column::Score(name, vec![-1.0; rows.len()]),
        [] => Column::Score(
            name,
            rows.iter().map(|row| label(row).parse().unwrap()).collect(),
        ),
        _ if hidden => Column::Class(name, vec![-1; rows.len()]),
        classes => {
            let class = |row| classes.iter().position(|c| *c == label(row)).unwrap() as i64;
            Column::Class(name, rows.iter().map(class).collect())
        }
    });
    columns.push(Column::Index(
        "idx".to_string(),
        (0..rows.len() as i32).collect(),
    ));
    let folder = out.join(form.hub);
    fs::create_dir_all(&folder).unwrap();
    let half = if rows.len() > TWO_FILES {
        rows.len() / 2
    } else {
        rows.len()
    };
    let files = [0..half, half..rows.len()];
    let files: Vec<_> = files.into_iter().filter(|rows| !rows.is_empty()).collect();
    for (i, rows) in files.iter().enumerate() {
        let name = format!("{split}-{i:05}-of-{:05}.parquet", files.len());
        write(&folder.join(name), &columns, rows.clone());
    }
}

/// Every TSV file of a GLUE folder as the Hub has it.
fn convert(glue: &Path) -> tempfile::TempDir {
    let out = tempfile::tempdir().unwrap();
    for form in &FORMS {
        let Ok(files) = fs::read_dir(glue.join(form.folder)) else {
            continue;
        };
        for file in files {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|kind| kind == "tsv") {
                convert_file(&path, form, out.path());
            }
        }
    }
    out
}

fn assert_same(task: Task, official: &[Split], hub: &[Split]) {
    assert_eq!(official.len(), hub.len(), "{task}");
    for (official, hub) in official.iter().zip(hub) {
        assert_eq!(official.name, hub.name, "{task}");
        assert!(official.examples == hub.examples, "{task} {}", hub.name);
        assert_eq!(official.partial, hub.partial, "{task} {}", hub.name);
        assert_eq!(official.empty_sentences, hub.empty_sentences, "{task}");
    }
}

#[test]
fn unusual_rows_are_the_same_in_both_forms() {
    let glue = tempfile::tempdir().unwrap();
    let tasks = [Task::Cola, Task::Rte, Task::Stsb, Task::Mnli];
    for task in tasks {
        common::write_task(glue.path(), task, 30, 10);
    }
    let write = |name: &str, text: &str| {
        let path = glue.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let mrpc = "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\t\" a \tb\"\r\n0\t7\t8\té\tb";
    write("MRPC/train.tsv", mrpc);
    write("MRPC/dev.tsv", mrpc);
    let qqp = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\ta\tb\t1\n1\t3\t4\tc\nd\te\t0\n\n2\t5\t6\tf\t\t0\n";
    write("QQP/train.tsv", qqp);
    write("QQP/dev.tsv", qqp);
    let hub = convert(glue.path());
    for task in tasks.into_iter().chain([Task::Mrpc, Task::Qqp]) {
        let official = TaskData::load(glue.path(), task).unwrap();
        let hub = TaskData::load(hub.path(), task).unwrap();
        assert!(!official.train.examples.is_empty(), "{task}");
        assert_same(task, &[official.train], &[hub.train]);
        assert_same(task, &official.dev, &hub.dev);
    }
}

#[test]
fn the_official_files_are_the_same_in_both_forms() {
    let Some(data) = test_support::data() else {
        return;
    };
    let glue = data.join("glue");
    let hub = convert(&glue);
    for task in Task::ALL {
        if task.train_split().is_some() {
            let official = TaskData::load(&glue, task).unwrap();
            let hub = TaskData::load(hub.path(), task).unwrap();
            assert_same(task, &[official.train], &[hub.train]);
            assert_same(task, &official.dev, &hub.dev);
        }
        if let Ok(official) = TaskData::load_test(&glue, task) {
            let hub = TaskData::load_test(hub.path(), task).unwrap();
            assert_same(task, &official, &hub);
        }
    }
}
