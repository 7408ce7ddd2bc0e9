#![allow(clippy::unwrap_used)]
use super::*;

fn columns(pair: Option<&str>) -> Columns {
    Columns {
        text: "text".to_string(),
        pair: pair.map(str::to_string),
        label: "label".to_string(),
    }
}

fn read(name: &str, content: &str, pair: Option<&str>) -> Result<Table, TableError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    Table::read(&path, &columns(pair))
}

fn plain(table: &Table) -> Vec<(&str, &str)> {
    let rows = table.rows.iter();
    rows.map(|row| (row.text.as_str(), row.label.as_str()))
        .collect()
}

#[test]
fn all_formats_hold_the_same_rows() {
    let csv = "\u{feff}label,text,other\r\ngood,\"a, \"\"b\"\"\nc\",x\r\nbad,d,y";
    let json = "\u{feff}{\"text\":\"a, \\\"b\\\"\\nc\",\"label\":\"good\"}\n\n{\"label\":\"bad\",\"text\":\"d\"}\n";
    let (csv, json) = (
        read("a.CSV", csv, None).unwrap(),
        read("a.jsonl", json, None).unwrap(),
    );
    assert_eq!(plain(&csv), plain(&json));
    assert_eq!(csv.rows[0].text, "a, \"b\"\nc");
    assert_eq!((csv.rows[0].line, csv.rows[1].line), (2, 4));
    let tsv = read("a.tsv", "\u{feff}text\tlabel\r\n\"a\t1\r\n", None).unwrap();
    assert_eq!(plain(&tsv), [("\"a", "1")]);
}

#[test]
fn classes_are_those_of_the_training_set() {
    let train = read("t.csv", "text,label\na,10\nb,9\nc,10\n", None).unwrap();
    let labels = LabelSet::of(&train).unwrap();
    assert_eq!(labels.names(), ["9", "10"]);
    assert_eq!(train.class_ids(&labels).unwrap(), [1, 0, 1]);
    let dev = read(
        "d.jsonl",
        "{\"text\":\"a\",\"label\":9}\n{\"text\":\"b\",\"label\":8}",
        None,
    )
    .unwrap();
    let message = dev.class_ids(&labels).unwrap_err().to_string();
    assert!(
        message.contains("d.jsonl:2") && message.contains("\"8\"") && message.contains("9, 10"),
        "{message}"
    );
    let one = read("o.csv", "text,label\na,x\nb,x\n", None).unwrap();
    assert!(matches!(
        LabelSet::of(&one),
        Err(TableError::OneClass { .. })
    ));
}

#[test]
fn numbers_of_any_size_stay_apart_and_in_order() {
    let rows = [
        "18446744073709551617",
        "18446744073709551616",
        "-3",
        "7",
        "-20",
    ];
    let json: Vec<String> = rows
        .iter()
        .map(|label| format!("{{\"text\":\"a\",\"label\":{label}}}"))
        .collect();
    let train = read("t.jsonl", &json.join("\n"), None).unwrap();
    let labels = LabelSet::of(&train).unwrap();
    assert_eq!(
        labels.names(),
        [
            "-20",
            "-3",
            "7",
            "18446744073709551616",
            "18446744073709551617"
        ]
    );
    let csv = read(
        "t.csv",
        &format!("text,label\na,{}\n", rows.join("\na,")),
        None,
    )
    .unwrap();
    assert_eq!(LabelSet::of(&csv).unwrap(), labels);
    // A fraction or an exponent hides which whole number was meant.
    for label in ["1e300", "9007199254740993.0"] {
        let row = format!("{{\"text\":\"a\",\"label\":{label}}}");
        let message = read("t.jsonl", &row, None).unwrap_err().to_string();
        assert!(message.contains("not an exact number"), "{message}");
    }
}

#[test]
fn spellings_of_one_label_are_refused() {
    for (a, b) in [
        ("1", "1.0"),
        ("1", "01"),
        ("-0.50", "-.5"),
        ("+7", "7"),
        ("good", "Good"),
        ("true", "True"),
        ("good", "go\u{200b}od"),
        ("a b", "a\u{a0}b"),
        ("1", "1E0"),
        ("1000", "1e3"),
        ("-0.05", "-5e-2"),
        ("caf\u{e9}", "cafe\u{301}"),
        ("good", "\u{ff47}ood"),
        ("\u{3c3}", "\u{3c2}"),
        ("\u{1f44d}", "\u{1f44d}\u{fe0f}"),
        ("good", "go\u{34f}od"),
        ("good", "good\u{3164}"),
        ("good", "good\u{e0020}"),
        ("a b", "a  b"),
        ("stra\u{df}e", "STRASSE"),
        ("GRO\u{df}", "GROSS"),
    ] {
        let train = read(
            "t.csv",
            &format!("text,label\nx,{a}\ny,{b}\nz,other\n"),
            None,
        )
        .unwrap();
        let message = LabelSet::of(&train).unwrap_err().to_string();
        assert!(
            message.contains("t.csv:3: ") && message.contains("in line 2"),
            "{message}"
        );
    }
    let train = read("t.csv", "text,label\nx,1.0\ny,2.0\nz, 1.0 \n", None).unwrap();
    let labels = LabelSet::of(&train).unwrap();
    assert_eq!(labels.names(), ["1.0", "2.0"]);
    let dev = read("d.csv", "text,label\nx,2\n", None).unwrap();
    let message = dev.class_ids(&labels).unwrap_err().to_string();
    assert!(message.contains("spells it \"2.0\""), "{message}");
    // Two words.
    let words = read("t.csv", "text,label\nx,Masse\ny,Ma\u{df}e\n", None).unwrap();
    assert_eq!(LabelSet::of(&words).unwrap().names().len(), 2);
    // Different numbers, different names.
    let fine = read("t.csv", "text,label\nx,1\ny,10\nz,-1\na,1.5\n", None).unwrap();
    assert_eq!(LabelSet::of(&fine).unwrap().names().len(), 4);
}

#[test]
fn control_characters_of_labels_are_named_with_their_line() {
    for label in ["a\\nb", "a\\tb", "\\u202eb"] {
        let rows = format!(
            "{{\"text\":\"x\",\"label\":\"c\"}}\n{{\"text\":\"y\",\"label\":\"{label}\"}}\n"
        );
        let message = LabelSet::of(&read("t.jsonl", &rows, None).unwrap()).unwrap_err();
        let message = message.to_string();
        assert!(
            message.contains("t.jsonl:2: the label") && message.contains("remove"),
            "{message}"
        );
    }
}

#[test]
fn scores_keep_their_whole_numbers() {
    let scores = |label: &str| {
        let table = read("a.csv", &format!("text,label\na,{label}\n"), None).unwrap();
        table.scores().map_err(|error| error.to_string())
    };
    assert_eq!(scores("16777216"), Ok(vec![16_777_216.0]));
    assert_eq!(scores("0.1"), Ok(vec![0.1]));
    for label in ["16777217", "1e39", "-1e-50"] {
        let message = scores(label).unwrap_err();
        assert!(
            message.contains("a.csv:2") && message.contains("scale the labels"),
            "{message}"
        );
    }
}

#[test]
fn scores_are_finite_numbers() {
    let table = read("s.csv", "text,label\na,1.5\nb,2\n", None).unwrap();
    assert_eq!(table.scores().unwrap(), [1.5, 2.0]);
    for label in ["NaN", "x", "inf", "1e99", "1,5"] {
        let table = read("s.csv", &format!("text,label\na,\"{label}\"\n"), None).unwrap();
        let message = table.scores().unwrap_err().to_string();
        assert!(message.contains("s.csv:2"), "{message}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (name, content, pair, said) in [
        ("a.xlsx", "", None, "pass a file that ends in"),
        ("a.md", "", None, "not a file of rows"),
        ("a.txt", "x\n", None, "a.txt:1: a text without a label"),
        ("a.csv", "", None, "the file is empty"),
        ("a.csv", "text,label\n", None, "no rows"),
        (
            "a.csv",
            "text,label\na,1,2\n",
            None,
            "a.csv:2: 3 columns where the header has 2; put double quotes",
        ),
        ("a.csv", "text,label\na\n", None, "a.csv:2: 1 column where"),
        (
            "a.tsv",
            "text\tlabel\na\t1\na\tb\t1\n",
            None,
            "a.tsv:3: 3 columns where the header has 2; a tab inside",
        ),
        (
            "a.csv",
            "title,label\na,1\n",
            None,
            "no column \"text\" in the header, which has \"title\", \"label\"",
        ),
        (
            "a.csv",
            "text;label\na;1\n",
            None,
            "separated by semicolons",
        ),
        ("a.csv", "text\tlabel\na\t1\n", None, "name it .tsv"),
        ("a.tsv", "text,label\na,1\n", None, "name it .csv"),
        ("a.csv", "text,label\na,1\n", Some("pair"), "\"pair\""),
        ("a.csv", "text,label\na,1\n", Some("text"), "named twice"),
        (
            "a.csv",
            "text,label,label\na,1,2\n",
            None,
            "more than one column is named \"label\"",
        ),
        (
            "a.csv",
            "text,label\na,1\nb,\n",
            None,
            "a.csv:3: the label is empty",
        ),
        (
            "a.tsv",
            "text\tlabel\na\t \n",
            None,
            "a.tsv:2: the label is empty",
        ),
        (
            "a.jsonl",
            "{\"text\":\"a\"}",
            None,
            "a.jsonl:1: no field \"label\"",
        ),
        ("a.jsonl", "\n{", None, "a.jsonl:2: not JSON"),
        (
            "a.jsonl",
            "{\"text\":1,\"label\":1}",
            None,
            "the field \"text\" is a number, not a string",
        ),
        (
            "a.jsonl",
            "{\"text\":null,\"label\":1}",
            None,
            "a.jsonl:1: the field \"text\" is null",
        ),
        (
            "a.jsonl",
            "{\"text\":\"a\",\"label\":null}",
            None,
            "a.jsonl:1: the label is null",
        ),
        (
            "a.jsonl",
            "{\"text\":\"a\",\"label\":[1,2]}",
            None,
            "the label is a list",
        ),
        (
            "a.jsonl",
            "{\"text\":\"a\",\"label\":1}\n{\"text\":\"a\",\"label\":\"x\"}",
            None,
            "a.jsonl:2: the label is a string, in line 1 it is a number",
        ),
        (
            "a.jsonl",
            "{\"text\":\"a\",\"label\":1,\"label\":2}",
            None,
            "more than one field \"label\"",
        ),
    ] {
        let message = read(name, content, pair).unwrap_err().to_string();
        assert!(message.contains(said), "{said} not in {message}");
    }
    let missing = Table::read(Path::new("/nonexistent/a.csv"), &columns(None)).unwrap_err();
    assert!(missing.to_string().contains("cannot be read"));
}

#[test]
fn numbers_that_differ_are_different_labels() {
    let train = read(
        "t.csv",
        "text,label\nw,1e3\nx,1e4\ny,1e400000\nz,e5\nv,1e\nu,10e3x\n",
        None,
    )
    .unwrap();
    assert_eq!(LabelSet::of(&train).unwrap().names().len(), 6);
}

#[test]
fn more_labels_than_a_model_has_are_refused() {
    let rows: String = (0..=modernbert_files::config::MAX_LABELS)
        .map(|i| format!("a,l{i}\n"))
        .collect();
    let train = read("t.csv", &format!("text,label\n{rows}"), None).unwrap();
    let message = LabelSet::of(&train).unwrap_err().to_string();
    assert!(
        message.contains("t.csv: 65537 different labels") && message.contains("regression"),
        "{message}"
    );
}

#[test]
fn a_file_to_score_on_has_a_label() {
    let check = |content: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.jsonl");
        std::fs::write(&path, content).unwrap();
        SeveralTable::read(&path, &columns(None), ",")
            .unwrap()
            .check_scored()
    };
    check("{\"text\":\"a\",\"label\":[]}\n{\"text\":\"b\",\"label\":[\"x\"]}\n").unwrap();
    let message = check("{\"text\":\"a\",\"label\":[]}\n").unwrap_err();
    assert!(message.to_string().contains("F1 is undefined"), "{message}");
}
