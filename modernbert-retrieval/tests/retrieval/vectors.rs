//! Files of vectors, and the commands that index and search them.

use std::path::{Path, PathBuf};

use modernbert_retrieval::vectors::{Vectors, model_hash};
use safetensors::tensor::{Dtype, TensorView};

use crate::files::{Place, assert_says, numbers};
use crate::program::{program, refused, succeeds, text};

const DIMENSION: usize = 8;

fn write_tensor(path: &Path, name: &str, shape: Vec<usize>, values: &[f32]) {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let view = TensorView::new(Dtype::F32, shape, &bytes).unwrap();
    std::fs::write(path, safetensors::serialize([(name, view)], None).unwrap()).unwrap();
}

fn json_lines(place: &Place, name: &str, ids: &[&str], values: &[f32]) -> PathBuf {
    let rows = ids.iter().zip(values.chunks_exact(DIMENSION));
    let line = |(id, vector): (&&str, &[f32])| {
        format!(
            "{}\n",
            serde_json::json!({ "index": 0, "id": id, "embedding": vector })
        )
    };
    place.write(name, &rows.map(line).collect::<String>())
}

fn refusal(path: &Path, texts: Option<&Path>) -> String {
    Vectors::read(path, texts, &[]).unwrap_err().to_string()
}

#[test]
fn tensors_and_json_lines_are_the_same_vectors() {
    let place = Place::new();
    let values = numbers(3 * DIMENSION, 1);
    let tensor = place.path().join("x.safetensors");
    write_tensor(&tensor, "embeddings", vec![3, DIMENSION], &values);
    let texts = place.write("texts.jsonl", "{\"_id\":\"a\",\"text\":\"x\",\"n\":1}\n{\"_id\":\"b\",\"text\":\"y\"}\n{\"_id\":3,\"text\":\"z\"}\n");
    let from_tensor = Vectors::read(&tensor, Some(&texts), &["n".to_string()]).unwrap();
    assert_eq!(from_tensor.ids, ["a", "b", "3"]);
    assert_eq!(from_tensor.metadata, ["{\"n\":1}", "", ""]);
    let lines = json_lines(&place, "x.jsonl", &["a", "b", "3"], &values);
    let from_lines = Vectors::read(&lines, None, &[]).unwrap();
    assert_eq!(
        (&from_lines.ids, &from_lines.values),
        (&from_tensor.ids, &from_tensor.values)
    );
}

#[test]
fn numbers_that_would_be_changed_are_refused() {
    let place = Place::new();
    let tensor = place.path().join("x.safetensors");
    let texts = place.write("texts.jsonl", "{\"_id\":\"a\"}\n{\"_id\":\"b\"}\n");
    for value in [f32::NAN, f32::INFINITY] {
        write_tensor(&tensor, "embeddings", vec![2, 2], &[1.0, 0.0, value, 1.0]);
        let said = ["x.safetensors", "component 0 of vector 2", "beyond f32"];
        assert_says(&refusal(&tensor, Some(&texts)), &said);
    }
    let lines = place.write("x.jsonl", "{\"id\":\"a\",\"embedding\":[1e39,1]}\n");
    assert_says(&refusal(&lines, None), &["x.jsonl", "component 0", "inf"]);
    let lines = place.write("x.jsonl", "");
    assert_says(&refusal(&lines, None), &["x.jsonl", "no vector"]);
    let big = "123456789012345678901234567890";
    for value in [
        big.to_string(),
        format!("{{\"deep\":[{big}]}}"),
        format!("-{big}"),
    ] {
        let lines = place.write(
            "x.jsonl",
            &format!("{{\"id\":\"a\",\"embedding\":[1],\"n\":{value}}}\n"),
        );
        let error = Vectors::read(&lines, None, &["n".to_string()]).unwrap_err();
        assert_says(&error.to_string(), &["x.jsonl:1", "'n'", "as a string"]);
        assert!(Vectors::read(&lines, None, &[]).is_ok());
    }
    let exact = "{\"id\":\"a\",\"embedding\":[1],\"n\":[18446744073709551615,0.1,1e9]}\n";
    let lines = place.write("x.jsonl", exact);
    let read = Vectors::read(&lines, None, &["n".to_string()]).unwrap();
    assert!(read.metadata[0].contains("18446744073709551615"));
}

#[test]
fn files_without_ids_or_with_other_shapes_are_refused() {
    let place = Place::new();
    let tensor = place.path().join("x.safetensors");
    write_tensor(&tensor, "embeddings", vec![2, 2], &[1.0; 4]);
    let one = place.write("one.jsonl", "{\"_id\":\"a\"}\n");
    assert_says(
        &refusal(&tensor, None),
        &["x.safetensors", "no ids", "--texts"],
    );
    assert_says(
        &refusal(&tensor, Some(&one)),
        &["2 vectors", "one.jsonl has 1 text;"],
    );
    write_tensor(&tensor, "embeddings", vec![4], &[1.0; 4]);
    assert_says(&refusal(&tensor, Some(&one)), &["[4]"]);
    write_tensor(&tensor, "weights", vec![2, 2], &[1.0; 4]);
    assert_says(&refusal(&tensor, Some(&one)), &["`embeddings`", "weights"]);
    let lines = place.write(
        "x.jsonl",
        "{\"id\":\"a\",\"embedding\":[1,2]}\n{\"id\":\"b\",\"embedding\":[1]}\n",
    );
    assert_says(
        &refusal(&lines, None),
        &["x.jsonl:2", "1 component, the vectors before have 2"],
    );
    let lines = place.write("x.jsonl", "{\"id\":\"a\",\"embedding\":[1,\"2\"]}\n");
    assert_says(
        &refusal(&lines, None),
        &["x.jsonl:1", "'embedding'", "list of numbers"],
    );
    let lines = place.write("x.jsonl", "{\"embedding\":[1,2]}\n");
    assert_says(&refusal(&lines, None), &["x.jsonl:1", "'_id', 'id'"]);
    assert_says(&refusal(&place.write("x.jsonl", ""), None), &["x.jsonl"]);
}

#[test]
fn the_hash_of_a_model_follows_its_files_only() {
    let place = Place::new();
    place.write("m/config.json", "{}");
    place.write("m/model.safetensors", "weights");
    place.write("m/1_Pooling/config.json", "{\"mean\":true}");
    let hash = || model_hash(&place.path().join("m")).unwrap();
    let first = hash();
    assert_eq!(first.len(), 64);
    place.write("m/README.md", "other words");
    place.write("m/logs/notes.json", "{}");
    assert_eq!(hash(), first);
    place.write("m/1_Pooling/config.json", "{\"mean\":false}");
    let second = hash();
    assert_ne!(second, first);
    // The bytes of two files, divided in another place.
    place.write("m/config.json", "{}w");
    place.write("m/model.safetensors", "eights");
    assert_ne!(hash(), second);
    assert_says(
        &model_hash(place.path()).unwrap_err().to_string(),
        &["config.json"],
    );
}

#[test]
fn the_program_builds_changes_and_searches_an_index() {
    let place = Place::new();
    let values = numbers(6 * DIMENSION, 3);
    let documents = json_lines(
        &place,
        "docs.jsonl",
        &["d0", "d1", "d2", "d3"],
        &values[..4 * DIMENSION],
    );
    let more = json_lines(
        &place,
        "more.jsonl",
        &["d3", "d4"],
        &values[4 * DIMENSION..],
    );
    let queries = json_lines(
        &place,
        "queries.jsonl",
        &["q1", "q2"],
        &values[DIMENSION..3 * DIMENSION],
    );
    let index = place.path().join("index");
    let (index, documents, more, queries) =
        (text(&index), text(&documents), text(&more), text(&queries));
    place.write("model/config.json", "{}");
    place.write("other/config.json", "{\"a\":1}");
    let (model, other) = (place.path().join("model"), place.path().join("other"));

    assert_says(
        &succeeds(&[
            "index",
            "build",
            index,
            "--vectors",
            documents,
            "--model",
            text(&model),
        ]),
        &["built: 4 vectors of 8"],
    );
    refused(
        &["index", "build", index, "--vectors", documents],
        &["contains an index"],
    );
    refused(
        &["index", "add", index, "--vectors", more],
        &["'d3'", "index update"],
    );
    refused(
        &[
            "index",
            "update",
            index,
            "--vectors",
            more,
            "--model",
            text(&other),
        ],
        &["not with"],
    );
    assert_says(
        &succeeds(&[
            "index",
            "update",
            index,
            "--vectors",
            more,
            "--model",
            text(&model),
        ]),
        &["added: 1, replaced: 1; 5 vectors"],
    );
    refused(
        &["index", "delete", index, "d0", "d9"],
        &["no id 'd9'", "nothing was deleted"],
    );
    assert_says(
        &succeeds(&["index", "delete", index, "d0"]),
        &["4 vectors left"],
    );
    assert_says(
        &succeeds(&["index", "compact", index]),
        &["2 deleted vectors removed"],
    );
    assert_says(
        &succeeds(&["index", "info", index]),
        &[
            "vectors     4",
            "deleted     0",
            "dtype       f16",
            &model_hash(&model).unwrap(),
            "similarity  cosine",
        ],
    );
    // Another index of the same vectors, compared as the model's folder says.
    place.write(
        "dot/config_sentence_transformers.json",
        "{\"similarity_fn_name\":\"dot\"}",
    );
    place.write("dot/config.json", "{}");
    let by_dot = place.path().join("by-dot");
    let dot = place.path().join("dot");
    let build = ["index", "build", text(&by_dot), "--vectors", documents];
    succeeds(&[&build[..], &["--model", text(&dot)]].concat());
    let info = succeeds(&["index", "info", text(&by_dot)]);
    assert_says(&info, &["similarity  dot"]);

    let stdout = succeeds(&["search", index, "--queries", queries, "--top", "2"]);
    let rows: Vec<serde_json::Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 4);
    assert_eq!(
        (&rows[0]["query"], &rows[0]["id"], &rows[0]["rank"]),
        (&"q1".into(), &"d1".into(), &1.into())
    );
    assert_eq!(rows[2]["id"], "d2");
    assert!((rows[0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-3);
    refused(
        &[
            "search",
            index,
            "--queries",
            queries,
            "--model",
            text(&other),
        ],
        &["not with"],
    );
    refused(
        &["search", index, "--queries", queries, "--filter", "x"],
        &["FIELD=VALUE"],
    );
    for option in ["--out", "--texts"] {
        refused(&["search", index, "a text", option, "x"], &[option]);
    }
    refused(
        &["search", "/no/index", "--queries", queries],
        &["/no/index", "no index"],
    );
    let short = place.write("short.jsonl", "{\"id\":\"q\",\"embedding\":[1,2]}\n");
    refused(
        &["search", index, "--queries", text(&short)],
        &["short.jsonl", "2 components", "has 8"],
    );
}

#[test]
fn faults_of_vectors_have_file_and_line_and_an_empty_index_a_note() {
    let place = Place::new();
    let index = place.path().join("index");
    let index = text(&index);
    let texts = place.write("texts.jsonl", "{\"_id\":1}\n\n{\"_id\":\"1\"}\n");
    let ones = [1.0; 2 * DIMENSION];
    let vectors = json_lines(&place, "v.jsonl", &["a", "b"], &ones);
    let (texts, vectors) = (text(&texts), text(&vectors));
    let build = ["index", "build", index, "--vectors", vectors];
    refused(
        &[&build[..], &["--texts", texts]].concat(),
        &["texts.jsonl:3", "'1'", "second time"],
    );
    let mut values = ones;
    values[DIMENSION..].fill(3e38);
    let large = json_lines(&place, "l.jsonl", &["a", "b"], &values);
    let dot = ["--similarity", "dot", "--dtype", "f32"];
    let build_large = ["index", "build", index, "--vectors", text(&large)];
    refused(
        &[&build_large[..], &dot].concat(),
        &["l.jsonl:2", "component 0", "too large"],
    );
    succeeds(&[&build[..], &dot].concat());
    let search = ["search", index, "--queries", text(&large)];
    refused(&search, &["l.jsonl:2", "component 0", "too large"]);
    succeeds(&["index", "delete", index, "a", "b"]);
    let output = program(&["search", index, "--queries", vectors]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no vector that can be found"), "{said}");
}

#[test]
fn an_index_without_a_model_gets_the_one_of_the_first_addition() {
    let place = Place::new();
    let index = place.path().join("index");
    let index = text(&index);
    let first = json_lines(&place, "v.jsonl", &["a"], &[1.0; DIMENSION]);
    let second = json_lines(&place, "w.jsonl", &["b"], &[2.0; DIMENSION]);
    let (model, other) = (tiny_models::masked_lm(), tiny_models::masked_lm());
    let path = other.path().join("config.json");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{config}\n")).unwrap();
    let (model, other) = (text(model.path()), text(other.path()));
    let vectors = ["--vectors", text(&first)];
    succeeds(&[&["index", "build", index][..], &vectors].concat());
    let add = ["index", "add", index, "--vectors", text(&second)];
    succeeds(&[&add[..], &["--model", model]].concat());
    assert!(!succeeds(&["index", "info", index]).contains("not known"));
    let search = ["search", index, "--queries", text(&first), "--model"];
    succeeds(&[&search[..], &[model]].concat());
    refused(&[&search[..], &[other]].concat(), &["built with the model"]);
}

#[test]
fn metadata_filters_and_fused_runs() {
    let place = Place::new();
    let values = numbers(4 * DIMENSION, 3);
    let documents = json_lines(
        &place,
        "docs.jsonl",
        &["d0", "d1", "d2"],
        &values[..3 * DIMENSION],
    );
    let texts = place.write("texts.jsonl", "{\"_id\":\"d0\",\"lang\":\"en\",\"n\":1}\n{\"_id\":\"d1\",\"lang\":\"de\",\"n\":1}\n{\"_id\":\"d2\",\"n\":2}\n");
    let queries = json_lines(&place, "queries.jsonl", &["q"], &values[3 * DIMENSION..]);
    let index = place.path().join("index");
    let (index, queries) = (text(&index), text(&queries));
    succeeds(&[
        "index",
        "build",
        index,
        "--vectors",
        text(&documents),
        "--texts",
        text(&texts),
        "--metadata",
        "lang,n",
        "--dtype",
        "int8",
    ]);
    let found = |filters: &[&str]| {
        let mut arguments = vec!["search", index, "--queries", queries];
        filters
            .iter()
            .for_each(|filter| arguments.extend(["--filter", *filter]));
        let stdout = succeeds(&arguments);
        let mut ids: Vec<String> = stdout
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["id"]
                    .as_str()
                    .unwrap()
                    .to_string()
            })
            .collect();
        ids.sort();
        ids
    };
    assert_eq!(found(&["lang=de"]), ["d1"]);
    assert_eq!(found(&["n=1"]), ["d0", "d1"]);
    assert_eq!(found(&["n=1", "lang=en"]), ["d0"]);
    assert!(found(&["lang=null"]).is_empty());
    let search = ["search", index, "--queries", queries, "--filter"];
    refused(
        &[&search[..], &["lnag=de"]].concat(),
        &["--filter lnag", "no vector"],
    );

    let run = place.path().join("vectors.run");
    succeeds(&["search", index, "--queries", queries, "--out", text(&run)]);
    let lexical = place.write("bm25.run", "q Q0 d2 1 9 bm25\nq Q0 d9 2 8 bm25\n");
    let fused = place.path().join("fused.run");
    succeeds(&[
        "fuse",
        text(&run),
        text(&lexical),
        "--out",
        text(&fused),
        "--top",
        "2",
    ]);
    let rows = std::fs::read_to_string(&fused).unwrap();
    assert_eq!(rows.lines().count(), 2);
    assert!(rows.starts_with("q Q0 d2 1 "), "{rows}");
    refused(
        &[
            "fuse",
            text(&run),
            text(&lexical),
            "--out",
            text(&fused),
            "--weights",
            "1",
        ],
        &["1 numbers for 2 runs"],
    );

    // Nothing that is there is replaced, an input least of all.
    let before = std::fs::read(&run).unwrap();
    let fuse = ["fuse", text(&run), text(&lexical), "--out"];
    refused(&[&fuse[..], &[text(&run)]].concat(), &["the input"]);
    refused(&[&fuse[..], &[text(&fused)]].concat(), &["exists"]);
    let search = ["search", index, "--queries", queries, "--out"];
    refused(&[&search[..], &[queries]].concat(), &["the input"]);
    refused(&[&search[..], &[text(&run)]].concat(), &["exists"]);
    let build = [
        "index",
        "build",
        text(place.path()),
        "--vectors",
        text(&documents),
    ];
    refused(&build, &["the input"]);
    let other = place.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("mine.txt"), "mine").unwrap();
    let build = [
        "index",
        "build",
        text(&other),
        "--vectors",
        text(&documents),
    ];
    refused(&build, &["mine.txt"]);
    // Neither a hidden file nor another program's vectors belong to an index.
    for name in [".git", "word.vec", "segment-1.vec", ".hidden"] {
        std::fs::rename(other.join("mine.txt"), other.join(name)).unwrap();
        refused(&build, &[name]);
        assert_eq!(std::fs::read_to_string(other.join(name)).unwrap(), "mine");
        std::fs::rename(other.join(name), other.join("mine.txt")).unwrap();
    }
    // A lock without a process id is somebody's file.
    std::fs::rename(other.join("mine.txt"), other.join("lock")).unwrap();
    refused(&build, &["lock", "move it away"]);
    assert_eq!(std::fs::read_to_string(other.join("lock")).unwrap(), "mine");
    // An interrupted build is replaced.
    std::fs::write(other.join("lock"), "4194304\n").unwrap();
    for name in ["segment-00000003.vec", ".partial-x1"] {
        std::fs::write(other.join(name), "left behind").unwrap();
    }
    succeeds(&build);
    assert_eq!(std::fs::read(&run).unwrap(), before);
}

/// A file size limit simulates a full disk: a write fails in the middle of a segment.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_the_index_as_it_was() {
    let place = Place::new();
    let documents = json_lines(&place, "docs.jsonl", &["d0"], &numbers(DIMENSION, 1));
    let ids: Vec<String> = (0..2000).map(|i| format!("n{i}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let many = json_lines(&place, "many.jsonl", &ids, &numbers(2000 * DIMENSION, 2));
    let index = place.path().join("index");
    succeeds(&[
        "index",
        "build",
        text(&index),
        "--vectors",
        text(&documents),
    ]);
    let script = "trap '' XFSZ; ulimit -f 16; exec \"$@\"";
    let arguments = [
        "-c",
        script,
        "sh",
        env!("CARGO_BIN_EXE_modernbert-retrieval"),
        "index",
        "add",
        text(&index),
        "--vectors",
        text(&many),
    ];
    let output = std::process::Command::new("sh")
        .args(arguments)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_says(
        &String::from_utf8(output.stderr).unwrap(),
        &["segment-00000002.vec", "ulimit -f"],
    );
    assert_says(
        &succeeds(&["index", "info", text(&index)]),
        &["vectors     1"],
    );
    assert!(
        program(&["index", "add", text(&index), "--vectors", text(&many)])
            .status
            .success()
    );
}

#[test]
fn evaluate_scores_vectors_and_combines_them_with_bm25() {
    let place = Place::beir();
    let unit = |i: usize| {
        (0..DIMENSION)
            .map(|j| f32::from(u8::from(i == j)))
            .collect::<Vec<f32>>()
    };
    // Query a is nearest to d3, then d1; query b to d3; query c is of another split.
    let a: Vec<f32> = unit(2)
        .iter()
        .zip(unit(0))
        .map(|(x, y)| 2.0 * x + y)
        .collect();
    let documents: Vec<f32> = (0..4).flat_map(unit).collect();
    let queries = [a, unit(2), unit(3)].concat();
    let files = ["docs.safetensors", "queries.safetensors"].map(|name| place.path().join(name));
    write_tensor(&files[0], "embeddings", vec![4, DIMENSION], &documents);
    write_tensor(&files[1], "embeddings", vec![3, DIMENSION], &queries);
    let folder = text(place.path());
    let results = tempfile::tempdir().unwrap();
    let out = results.path().join("out");
    let arguments = [
        "evaluate",
        "--data",
        folder,
        "--vectors",
        text(&files[0]),
        "--query-vectors",
        text(&files[1]),
    ];
    let stdout = succeeds(
        &[
            &arguments[..],
            &["--measures", "mrr@10,ndcg@10", "--out", text(&out)],
        ]
        .concat(),
    );
    // First relevant documents: d1 at rank 2 for a, d3 at rank 1 for b.
    assert_says(
        &stdout,
        &[
            "| vectors      | 0.7500 |",
            "| bm25+vectors |",
            "| bm25         |",
        ],
    );
    let name = format!(
        "{}.run",
        place.path().file_name().unwrap().to_str().unwrap()
    );
    let run = std::fs::read_to_string(out.join("vectors").join(name)).unwrap();
    assert!(run.starts_with("a Q0 d3 1 0.89"), "{run}");
    assert!(!run.contains("c Q0"), "{run}");

    let lines = json_lines(&place, "q.jsonl", &["a", "b", "a"], &queries);
    refused(
        &[
            "evaluate",
            "--data",
            folder,
            "--vectors",
            text(&files[0]),
            "--query-vectors",
            text(&lines),
        ],
        &["q.jsonl", "'a' occurs twice"],
    );
    refused(&arguments[..5], &["--query-vectors"]);

    // As the model's folder says: by distance d3 is nearest to query a, the root of 2 away, then d1, 2 away. Summed, both are 2 away.
    let config = "model/config_sentence_transformers.json";
    place.write(config, "{\"similarity_fn_name\":\"euclidean\"}");
    let model = place.path().join("model");
    let out = results.path().join("by-distance");
    let by_distance = [
        &arguments[..],
        &["--model", text(&model), "--out", text(&out)],
    ]
    .concat();
    succeeds(&by_distance);
    let name = format!(
        "{}.run",
        place.path().file_name().unwrap().to_str().unwrap()
    );
    let run = std::fs::read_to_string(out.join("vectors").join(&name)).unwrap();
    assert!(run.starts_with("a Q0 d3 1 -1.41421"), "{run}");
    let other = results.path().join("by-sum");
    let by_sum = [
        &by_distance[..by_distance.len() - 1],
        &[text(&other), "--similarity", "manhattan"],
    ];
    succeeds(&by_sum.concat());
    let run = std::fs::read_to_string(other.join("vectors").join(&name)).unwrap();
    let of_a = |line: &&str| line.starts_with("a Q0 ") && line.contains(" -2 ");
    assert_eq!(run.lines().filter(of_a).count(), 2, "{run}");
    place.write(config, "{\"similarity_fn_name\":\"jaccard\"}");
    refused(
        &by_distance,
        &[
            "config_sentence_transformers.json",
            "\"jaccard\"",
            "manhattan",
        ],
    );
    let unknown = [&arguments[..], &["--similarity", "jaccard"]].concat();
    refused(&unknown, &["--similarity", "jaccard"]);
    let short = place.write("short.jsonl", "{\"id\":\"a\",\"embedding\":[1,2]}\n");
    refused(
        &[
            "evaluate",
            "--data",
            folder,
            "--vectors",
            text(&files[0]),
            "--query-vectors",
            text(&short),
        ],
        &["short.jsonl", "2 components"],
    );
}
