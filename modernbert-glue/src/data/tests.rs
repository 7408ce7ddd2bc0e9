//! Small files, each with one fault.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;

/// A GLUE folder with the given files, named from its root.
fn glue(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    dir
}

fn rte(train: &str) -> TempDir {
    glue(&[
        ("RTE/train.tsv", train.as_bytes()),
        (
            "RTE/dev.tsv",
            b"index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n",
        ),
    ])
}

fn stsb(score: &str) -> TempDir {
    let text = format!("index\tsentence1\tsentence2\tscore\n0\ta\tb\t{score}\n");
    glue(&[
        ("STS-B/train.tsv", text.as_bytes()),
        ("STS-B/dev.tsv", text.as_bytes()),
    ])
}

fn message(dir: &Path, task: Task) -> String {
    TaskData::load(dir, task).unwrap_err().to_string()
}

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
}

const RTE_HEAD: &str = "index\tsentence1\tsentence2\tlabel\n";

#[test]
fn quotes_blanks_and_odd_line_ends_are_kept_as_text() {
    let dir = rte(
        "\u{feff}index\tsentence1\tsentence2\tlabel\r\n0\t\"one\ttwo\" \"\tnot_entailment\r\n1\t x \t\tentailment",
    );
    let data = TaskData::load(dir.path(), Task::Rte).unwrap();
    let [first, second] = &data.train.examples[..] else {
        panic!("{:?}", data.train)
    };
    assert_eq!(
        (first.text_a.as_str(), first.text_b.as_deref()),
        ("\"one", Some("two\" \""))
    );
    assert_eq!((first.index, first.label), (0, Label::Class(1)));
    assert_eq!(
        (second.text_a.as_str(), second.text_b.as_deref()),
        (" x ", Some(""))
    );
    assert_eq!((second.index, second.label), (1, Label::Class(0)));
    assert_eq!(data.train.empty_sentences, 1);
    assert!(data.train.partial && data.partial());
}

#[test]
fn columns_are_found_by_name_not_by_place() {
    let dir = rte("label\tsentence2\tnew\tsentence1\nentailment\tb\tx\ta\n");
    let example = &TaskData::load(dir.path(), Task::Rte)
        .unwrap()
        .train
        .examples[0];
    assert_eq!(
        (example.text_a.as_str(), example.text_b.as_deref()),
        ("a", Some("b"))
    );
}

#[test]
fn cola_has_no_header_but_its_test_file_does() {
    let rows = b"s\t1\t\tgood\ns\t0\t*\tbad";
    let dir = glue(&[
        ("cola/train.tsv", rows),
        ("cola/dev.tsv", rows),
        ("cola/test.tsv", b"index\tsentence\n0\tunknown\n"),
    ]);
    let data = TaskData::load(dir.path(), Task::Cola).unwrap();
    assert_eq!(data.train.labels(), [Label::Class(1), Label::Class(0)]);
    assert_eq!(data.dev[0].examples[1].text_a, "bad");
    assert_eq!(data.dev[0].examples[1].text_b, None);
    let test = TaskData::load_test(dir.path(), Task::Cola).unwrap();
    assert_eq!(
        (
            test[0].examples[0].text_a.as_str(),
            test[0].examples[0].label
        ),
        ("unknown", Label::Hidden)
    );
}

/// Predictions are written under the number of the row: a test set with gaps, repeats or another order would give them to other rows.
#[test]
fn the_index_of_a_test_set_counts_its_rows() {
    for (rows, said) in [
        ("0\ta\n0\tb\n", ["test.tsv:3", "'0', and 1 is expected"]),
        ("1\ta\n", ["test.tsv:2", "'1', and 0 is expected"]),
        ("x\ta\n", ["test.tsv:2", "'x', and 0 is expected"]),
    ] {
        let file = format!("index\tsentence\n{rows}");
        let dir = glue(&[("cola/test.tsv", file.as_bytes())]);
        let error = TaskData::load_test(dir.path(), Task::Cola).unwrap_err();
        assert_says(&error.to_string(), &said);
    }
}

#[test]
fn cola_with_a_header_is_not_the_official_file() {
    let dir = glue(&[("CoLA/train.tsv", b"sentence\tlabel\ngood\t1\n")]);
    assert_says(
        &message(dir.path(), Task::Cola),
        &["train.tsv:1:", "2 columns, 4 are expected"],
    );
}

#[test]
fn mrpc_hides_its_first_column_behind_a_mark() {
    let text = "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\t\" a\tb\r\n";
    let dir = glue(&[
        ("MRPC/train.tsv", text.as_bytes()),
        ("MRPC/dev.tsv", text.as_bytes()),
    ]);
    let data = TaskData::load(dir.path(), Task::Mrpc).unwrap();
    assert_eq!(data.train.examples[0].label, Label::Class(1));
    assert_eq!(data.train.examples[0].text_a, "\" a");
}

#[test]
fn mnli_without_mismatched_is_partial_and_without_matched_an_error() {
    let text =
        b"index\tsentence1\tsentence2\tlabel1\tgold_label\n0\ta\tb\tneutral\tcontradiction\n";
    let dir = glue(&[("MNLI/train.tsv", text), ("MNLI/dev_matched.tsv", text)]);
    let data = TaskData::load(dir.path(), Task::Mnli).unwrap();
    assert_eq!((data.dev.len(), data.dev[0].name), (1, "dev_matched"));
    assert_eq!(data.missing, [dir.path().join("MNLI/dev_mismatched.tsv")]);
    assert_eq!(data.dev[0].examples[0].label, Label::Class(2));
    assert!(data.partial());
    fs::rename(
        dir.path().join("MNLI/dev_matched.tsv"),
        dir.path().join("MNLI/dev_mismatched.tsv"),
    )
    .unwrap();
    assert_says(
        &message(dir.path(), Task::Mnli),
        &["dev_matched.tsv", "no such file"],
    );
}

#[test]
fn mnli_without_a_gold_label_is_an_error() {
    let dir = glue(&[(
        "MNLI/train.tsv",
        b"sentence1\tsentence2\tgold_label\na\tb\tneutral\na\tb\t-\n",
    )]);
    assert_says(
        &message(dir.path(), Task::Mnli),
        &["train.tsv:3:", "'-'", "entailment, neutral, contradiction"],
    );
}

#[test]
fn rows_of_qqp_broken_over_lines_are_counted() {
    let text = b"id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\ta\tb\t1\n1\t3\t4\tc\nd\te\t0\n\n2\t5\t6\tf\tg\t0\n";
    let dir = glue(&[("QQP/train.tsv", text), ("QQP/dev.tsv", text)]);
    let train = TaskData::load(dir.path(), Task::Qqp).unwrap().train;
    let skipped: Vec<_> = train
        .skipped
        .iter()
        .map(|row| (row.line, row.columns))
        .collect();
    assert_eq!(skipped, [(3, 4), (4, 3), (5, 1)]);
    assert_eq!(
        train
            .examples
            .iter()
            .map(|example| example.index)
            .collect::<Vec<_>>(),
        [0, 1]
    );
    assert_eq!(train.examples[1].text_a, "f");
}

#[test]
fn too_many_columns_in_qqp_are_still_an_error() {
    let text = b"id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\ta\tb\tc\t1\n";
    let dir = glue(&[("QQP/train.tsv", text)]);
    assert_says(
        &message(dir.path(), Task::Qqp),
        &["train.tsv:2:", "7 columns, 6 are expected"],
    );
}

#[test]
fn a_cut_row_is_an_error_everywhere_else() {
    let dir = rte(&format!("{RTE_HEAD}0\ta\tb\tentailment\n1\ta\tb\n"));
    assert_says(
        &message(dir.path(), Task::Rte),
        &["train.tsv:3:", "3 columns, 4 are expected", "correct"],
    );
    let dir = rte(&format!(
        "{RTE_HEAD}0\ta\tb\tentailment\n\n1\ta\tb\tentailment\n"
    ));
    assert_says(
        &message(dir.path(), Task::Rte),
        &["train.tsv:3:", "1 column, 4 are expected"],
    );
}

#[test]
fn a_header_without_the_label_column_says_what_is_there() {
    let dir = rte("index\tpremise\tsentence2\tlabel\n0\ta\tb\tentailment\n");
    assert_says(
        &message(dir.path(), Task::Rte),
        &["train.tsv", "'sentence1'", "'premise', 'sentence2'"],
    );
    let dir = rte("label\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n");
    assert_says(&message(dir.path(), Task::Rte), &["'label' more than once"]);
}

#[test]
fn labels_of_another_task_are_refused() {
    for label in ["1", "Entailment", "entailment ", "", "neutral"] {
        let dir = rte(&format!(
            "{RTE_HEAD}0\ta\tb\t{label}\n1\ta\tb\tentailment\n"
        ));
        assert_says(
            &message(dir.path(), Task::Rte),
            &["train.tsv:2:", &format!("'{label}'"), "not_entailment"],
        );
    }
}

#[test]
fn scores_that_are_no_scores_are_refused() {
    assert_eq!(
        TaskData::load(stsb("5.000").path(), Task::Stsb)
            .unwrap()
            .train
            .examples[0]
            .label,
        Label::Score(5.0)
    );
    assert_says(
        &message(stsb("high").path(), Task::Stsb),
        &["train.tsv:2:", "'high' is not a number"],
    );
    for score in ["5.01", "-0.1", "NaN", "inf"] {
        assert_says(
            &message(stsb(score).path(), Task::Stsb),
            &["train.tsv:2:", score, "between 0 and 5"],
        );
    }
}

#[test]
fn bytes_that_are_no_utf8_name_their_line() {
    let dir = glue(&[(
        "RTE/train.tsv",
        b"index\tsentence1\tsentence2\tlabel\n0\tcaf\xe9\tb\tentailment\n",
    )]);
    assert_says(&message(dir.path(), Task::Rte), &["train.tsv:2:", "UTF-8"]);
}

#[test]
fn files_without_rows_are_refused() {
    for text in ["", "\u{feff}", RTE_HEAD] {
        assert_says(
            &message(rte(text).path(), Task::Rte),
            &["train.tsv", "no rows"],
        );
    }
    let dir = glue(&[("CoLA/train.tsv", b"")]);
    assert_says(&message(dir.path(), Task::Cola), &["train.tsv", "no rows"]);
}

#[test]
fn missing_folders_and_files_are_named() {
    let dir = glue(&[(
        "RTE/train.tsv",
        b"sentence1\tsentence2\tlabel\na\tb\tentailment\n",
    )]);
    assert_says(
        &message(&dir.path().join("gone"), Task::Rte),
        &["gone", "no such folder"],
    );
    assert_says(
        &message(dir.path(), Task::Sst2),
        &["SST-2", "no such folder", "train.tsv, dev.tsv"],
    );
    assert_says(
        &message(dir.path(), Task::Rte),
        &["dev.tsv", "no such file"],
    );
    assert_says(&message(dir.path(), Task::Ax), &["ax", "no training set"]);
    let error = TaskData::load_test(dir.path(), Task::Ax)
        .unwrap_err()
        .to_string();
    assert_says(&error, &["AX", "diagnostic.tsv"]);
    fs::create_dir(dir.path().join("RTE/dev.tsv")).unwrap();
    assert_says(
        &message(dir.path(), Task::Rte),
        &["dev.tsv", "cannot be read"],
    );
}

#[test]
fn a_truncated_split_is_partial() {
    let dir = rte(&format!(
        "{RTE_HEAD}{}",
        "0\ta\tb\tentailment\n".repeat(2490)
    ));
    let mut train = TaskData::load(dir.path(), Task::Rte).unwrap().train;
    assert!(!train.partial);
    train.truncate(9999);
    assert!(!train.partial);
    train.truncate(5);
    assert!(train.partial && train.examples.len() == 5);
}

mod parquet_files {
    use super::*;
    use ::parquet::data_type::{ByteArray, ByteArrayType, FloatType, Int64Type};
    use ::parquet::file::properties::WriterProperties;
    use ::parquet::file::writer::SerializedFileWriter;
    use ::parquet::schema::parser::parse_message_type;
    use std::sync::Arc;

    enum Column {
        Text(&'static str, Vec<&'static str>),
        Class(&'static str, Vec<i64>),
        Score(&'static str, Vec<f32>),
    }

    use Column::{Class, Score, Text};

    /// Writes a file of these columns, as the Hub's are.
    fn write(path: &Path, columns: &[Column]) {
        let field = |column: &Column| match column {
            Text(name, _) => format!("required binary {name} (UTF8);"),
            Class(name, _) => format!("required int64 {name};"),
            Score(name, _) => format!("required float {name};"),
        };
        let fields: Vec<String> = columns.iter().map(field).collect();
        let schema = parse_message_type(&format!("message m {{ {} }}", fields.join(" "))).unwrap();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let properties = WriterProperties::builder()
            .set_compression(::parquet::basic::Compression::SNAPPY)
            .build();
        let file = fs::File::create(path).unwrap();
        let mut writer =
            SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties)).unwrap();
        let mut group = writer.next_row_group().unwrap();
        for column in columns {
            let mut out = group.next_column().unwrap().unwrap();
            match column {
                Text(_, values) => {
                    let values: Vec<ByteArray> = values.iter().map(|&v| v.into()).collect();
                    out.typed::<ByteArrayType>()
                        .write_batch(&values, None, None)
                }
                Class(_, values) => out.typed::<Int64Type>().write_batch(values, None, None),
                Score(_, values) => out.typed::<FloatType>().write_batch(values, None, None),
            }
            .unwrap();
            out.close().unwrap();
        }
        group.close().unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn the_hubs_form_gives_the_examples_of_the_official_one() {
        let text =
            "index\tsentence1\tsentence2\tlabel\n0\t\"a \t b\tnot_entailment\n1\tc\t\tentailment\n";
        let official = glue(&[
            ("RTE/train.tsv", text.as_bytes()),
            ("RTE/dev.tsv", text.as_bytes()),
        ]);
        let hub = tempfile::tempdir().unwrap();
        // The training set in two files.
        let first = |name: &'static str, at: usize| match name {
            "sentence1" => Text(name, vec![["\"a ", "c"][at]]),
            _ => Text(name, vec![[" b", ""][at]]),
        };
        for (at, class) in [(0, 1), (1, 0)] {
            let path = hub
                .path()
                .join(format!("rte/train-0000{at}-of-00002.parquet"));
            let columns = [
                first("sentence1", at),
                first("sentence2", at),
                Class("label", vec![class]),
            ];
            write(&path, &columns);
        }
        let columns = [
            Class("label", vec![1, 0]),
            Text("sentence2", vec![" b", ""]),
            Text("sentence1", vec!["\"a ", "c"]),
        ];
        write(&hub.path().join("rte/validation.parquet"), &columns);
        let official = TaskData::load(official.path(), Task::Rte).unwrap();
        let hub = TaskData::load(hub.path(), Task::Rte).unwrap();
        assert_eq!(official.train.examples, hub.train.examples);
        assert_eq!(official.dev[0].examples, hub.dev[0].examples);
        assert_eq!(hub.train.empty_sentences, 1);
        assert!(hub.partial());
        assert_eq!(notes(&official), notes(&hub));
    }

    #[test]
    fn premises_scores_and_hidden_labels_are_where_the_hub_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let stsb = [
            Text("sentence1", vec!["a"]),
            Text("sentence2", vec!["b"]),
            Score("label", vec![3.8]),
        ];
        write(&dir.path().join("stsb/train-0.parquet"), &stsb);
        write(&dir.path().join("stsb/validation-0.parquet"), &stsb);
        let data = TaskData::load(dir.path(), Task::Stsb).unwrap();
        assert_eq!(data.train.examples[0].label, Label::Score(3.8));
        let ax = [
            Text("premise", vec!["a"]),
            Text("hypothesis", vec!["b"]),
            Class("label", vec![-1]),
        ];
        write(&dir.path().join("ax/test-0.parquet"), &ax);
        let test = TaskData::load_test(dir.path(), Task::Ax).unwrap();
        assert_eq!(test[0].examples[0].label, Label::Hidden);
        assert_eq!(test[0].examples[0].text_b.as_deref(), Some("b"));
    }

    #[test]
    fn a_split_that_lacks_a_part_or_is_there_twice_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let columns = [Text("sentence", vec!["a"]), Class("label", vec![0])];
        let file = |name: &str| dir.path().join("sst2").join(name);
        write(&file("validation.parquet"), &columns);
        write(&file("train-00001-of-00002.parquet"), &columns);
        let load = || message(dir.path(), Task::Sst2);
        assert_says(&load(), &["the split train", "train-00001-of-00002"]);
        write(&file("train-00000-of-00002.parquet"), &columns);
        assert_eq!(
            TaskData::load(dir.path(), Task::Sst2)
                .unwrap()
                .train
                .examples
                .len(),
            2
        );
        write(&file("train.parquet"), &columns);
        assert_says(&load(), &["the split train", "keep one complete set"]);
    }

    #[test]
    fn what_is_wrong_is_named_with_file_and_row() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sst2/train-0.parquet");
        let load = || message(dir.path(), Task::Sst2);
        write(&path, &[Text("text", vec!["a"]), Class("label", vec![0])]);
        assert_says(
            &load(),
            &["train-0.parquet", "no column \"sentence\"", "\"text\""],
        );
        write(
            &path,
            &[Text("sentence", vec!["a", "b"]), Class("label", vec![0, 2])],
        );
        assert_says(&load(), &["train-0.parquet:2", "'2'", "from 0 to 1"]);
        write(
            &path,
            &[Score("sentence", vec![0.5]), Class("label", vec![0])],
        );
        assert_says(&load(), &["row 1", "'sentence' holds 0.5, not text"]);
        write(
            &path,
            &[Text("sentence", vec!["a"]), Class("label", vec![0])],
        );
        assert_says(&load(), &["validation-*.parquet", "no such file"]);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
        assert_says(&load(), &["train-0.parquet", "not a Parquet file"]);
    }
}

#[test]
fn notes_name_what_is_missing_broken_and_empty() {
    let text = b"id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\ta\tb\t1\n1\t3\t4\tc\nd\te\t0\n2\t5\t6\t\tg\t0\n";
    let dir = glue(&[("QQP/train.tsv", text), ("QQP/dev.tsv", text)]);
    let data = TaskData::load(dir.path(), Task::Qqp).unwrap();
    assert_eq!(
        notes(&data),
        [
            "train is partial: 2 of 363846 rows",
            "dev is partial: 2 of 40430 rows",
            "train: 2 malformed lines left out: 3, 4",
            "train: 1 examples with an empty sentence, kept",
            "dev: 2 malformed lines left out: 3, 4",
            "dev: 1 examples with an empty sentence, kept",
        ]
    );
}
