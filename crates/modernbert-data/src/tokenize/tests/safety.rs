//! Existing files are kept, new sets are complete, and every document is in one split.

use super::*;

fn index(folder: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(folder.join(INDEX_FILE)).unwrap()).unwrap()
}

/// A finished set of 100 documents.
fn set(folder: &TempDir) -> (PathBuf, [TokenizeSource; 1]) {
    let rows = write(&folder.path().join("rows.jsonl"), jsonl(0..100));
    let sources = [source("text", &[&rows], 1.0)];
    let out = folder.path().join("out");
    make(&sources, &out, &options()).unwrap();
    (out, sources)
}

fn replacing() -> TokenizeFolderOptions {
    TokenizeFolderOptions {
        overwrite: true,
        ..options()
    }
}

#[test]
fn an_old_set_stays_until_the_new_one_is_finished() {
    let folder = place();
    let (out, sources) = set(&folder);
    let before = files(&out);
    // A row in the middle that can't be read, a full disk, a signal: all end the work with an error.
    let bad = write(&folder.path().join("bad.jsonl"), jsonl(0..90) + "\n{");
    make(&[source("text", &[&bad], 1.0)], &out, &replacing()).unwrap_err();
    assert_eq!(files(&out), before);
    let stopped = tokenize(
        &TOKENIZER,
        &sources,
        &out,
        &replacing(),
        &mut |event| match event {
            TokenizeEvent::Done(..) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        },
    );
    assert!(matches!(stopped, Err(TokenizeFolderError::Interrupted)));
    assert_eq!(files(&out), before);
    // A smaller set replaces it without a remainder.
    let small = TokenizeFolderOptions {
        shard_tokens: 1_000_000,
        seed: 18,
        ..replacing()
    };
    make(&sources, &out, &small).unwrap();
    assert_eq!(samples(&out, false).len() + samples(&out, true).len(), 100);
    let names: Vec<String> = files(&out).into_keys().collect();
    assert_eq!(
        names,
        [
            "shards.json",
            "text/eval-00000.tokens",
            "text/train-00000.tokens",
            "tokenizer.json",
            "tokenizer_config.json"
        ]
    );
}

#[test]
fn what_is_not_of_a_set_is_never_touched() {
    let folder = place();
    let (out, sources) = set(&folder);
    let foreign = |name: &str| {
        let path = write(&out.join(name), "mine");
        let before = files(&out);
        let said = make(&sources, &out, &replacing()).unwrap_err().to_string();
        assert!(said.contains("not part of a finished set"), "{said}");
        assert_eq!(files(&out), before);
        fs::remove_file(path).unwrap();
    };
    foreign("notes.txt");
    foreign("text/train-00099.tokens");
    make(&sources, &out, &replacing()).unwrap();
    // An index of another format.
    fs::write(out.join(INDEX_FILE), "{}").unwrap();
    assert!(make(&sources, &out, &replacing()).is_err());
    let other = folder.path().join("model");
    write(&other.join("model.safetensors"), "weights");
    for options in [options(), replacing()] {
        let said = make(&sources, &other, &options).unwrap_err().to_string();
        assert!(said.contains("contains model.safetensors"), "{said}");
    }
    let file = write(&folder.path().join("file"), "mine");
    assert!(matches!(
        make(&sources, &file, &replacing()),
        Err(TokenizeFolderError::NotAFolder { .. })
    ));
    // An empty folder is accepted.
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    make(&sources, &empty, &options()).unwrap();
}

#[test]
fn what_was_changed_in_a_set_is_not_replaced() {
    let folder = place();
    let (out, sources) = set(&folder);
    let refused = |name: &str, before: &[u8]| {
        let now = files(&out);
        let said = make(&sources, &out, &replacing()).unwrap_err().to_string();
        assert!(
            said.contains(name) && said.contains("was changed"),
            "{said}"
        );
        assert_eq!(files(&out), now);
        fs::write(out.join(name), before).unwrap();
    };
    let shard = "text/train-00000.tokens";
    for name in [shard, "tokenizer.json", "tokenizer_config.json"] {
        let own = fs::read(out.join(name)).unwrap();
        // One byte of the content, the header untouched; a file cut short; another text.
        let mut byte = own.clone();
        let middle = byte.len() / 2;
        byte[middle] ^= 1;
        for changed in [&byte, &own[..own.len() - 2], b"mine"] {
            fs::write(out.join(name), changed).unwrap();
            refused(name, &own);
        }
    }
    // A valid shard of another set.
    let rows = write(&folder.path().join("other.jsonl"), jsonl(100..200));
    let other = folder.path().join("other");
    make(&[source("text", &[&rows], 1.0)], &other, &options()).unwrap();
    let own = fs::read(out.join(shard)).unwrap();
    fs::copy(other.join(shard), out.join(shard)).unwrap();
    refused(shard, &own);
    #[cfg(unix)]
    {
        let link = out.join("text/link");
        std::os::unix::fs::symlink(out.join(shard), &link).unwrap();
        let said = make(&sources, &out, &replacing()).unwrap_err().to_string();
        assert!(said.contains("text/link"), "{said}");
        fs::remove_file(link).unwrap();
    }
    // A set whose file was removed may be replaced.
    fs::remove_file(out.join(shard)).unwrap();
    make(&sources, &out, &replacing()).unwrap();
}

#[test]
fn the_remains_of_a_killed_process_are_removed_and_those_of_a_living_one_are_not() {
    let folder = place();
    let (out, sources) = set(&folder);
    write(&out.join(".tokenize-dead/lock"), "");
    write(&out.join(".tokenize-dead/new/shards.json"), "");
    write(&out.join(".tokenize-alive/lock"), "");
    let lock = fs::File::open(out.join(".tokenize-alive/lock")).unwrap();
    lock.lock().unwrap();
    make(&sources, &out, &replacing()).unwrap();
    assert!(!out.join(".tokenize-dead").exists() && out.join(".tokenize-alive").exists());
}

#[test]
fn a_small_source_holds_a_document_out_too() {
    let folder = place();
    let few = TokenizeFolderOptions {
        eval_fraction: 1e-9,
        ..options()
    };
    let rows = write(
        &folder.path().join("rows.jsonl"),
        jsonl((0..30).chain(0..30)),
    );
    let out = folder.path().join("out");
    make(&[source("text", &[&rows], 1.0)], &out, &few).unwrap();
    let (train, eval) = (samples(&out, false), samples(&out, true));
    // The same document twice, in one split.
    assert_eq!((train.len(), eval.len()), (58, 2));
    assert!(eval[0] == eval[1] && !train.contains(&eval[0]));
    let mut expected: Vec<Vec<u32>> = (0..30)
        .chain(0..30)
        .map(|i| TOKENIZER.encode(&document(i)).unwrap())
        .collect();
    expected.retain(|ids| *ids != eval[0]);
    assert_eq!(train, expected, "in the order of the file");
    let none = TokenizeFolderOptions {
        eval_fraction: 0.0,
        overwrite: true,
        ..options()
    };
    make(&[source("text", &[&rows], 1.0)], &out, &none).unwrap();
    assert_eq!(samples(&out, false).len(), 60);
}

#[test]
fn of_a_single_document_the_end_is_held_out() {
    let folder = place();
    let text: String = (0..60).map(document).collect();
    let path = write(&folder.path().join("a.txt"), &text);
    let few = TokenizeFolderOptions {
        eval_fraction: 0.05,
        seed: 1,
        ..options()
    };
    let whole = TOKENIZER.encode_plain(&text).unwrap();
    for (name, cut) in [
        ("whole", None),
        (
            "cut",
            Some(Cut {
                max_length: 34,
                min_length: 8,
                long_documents: LongDocuments::Split,
            }),
        ),
    ] {
        let out = folder.path().join(name);
        let options = TokenizeFolderOptions { cut, ..few.clone() };
        make(&[source("text", &[&path], 1.0)], &out, &options).unwrap();
        let content = |samples: Vec<Vec<u32>>| -> Vec<u32> {
            let inner = samples.iter().flat_map(|ids| &ids[1..ids.len() - 1]);
            inner.copied().collect()
        };
        let (train, eval) = (content(samples(&out, false)), content(samples(&out, true)));
        let share = eval.len() as f64 / (train.len() + eval.len()) as f64;
        assert!((0.03..0.1).contains(&share), "{share}");
        let joined = [train, eval].concat();
        assert_eq!(joined[..], whole[..joined.len()]);
        assert!(whole.len() - joined.len() < 8);
    }
    let short = write(&folder.path().join("b.txt"), document(9));
    let message = make(
        &[source("text", &[&short], 1.0)],
        &folder.path().join("short"),
        &TokenizeFolderOptions {
            min_length: 40,
            ..few
        },
    )
    .unwrap_err()
    .to_string();
    assert!(
        message.contains("too short") || message.contains("lower --min-length"),
        "{message}"
    );
}

#[test]
fn both_splits_have_a_document_whatever_their_hashes_are() {
    let folder = place();
    let text: String = (0..60).map(document).collect();
    let whole = |text: &str| TOKENIZER.encode(text).unwrap();
    let row = |text: &str| serde_json::json!({ "text": text }).to_string() + "\n";
    let rows = |name: &str, texts: &[&str]| {
        let rows: String = texts.iter().map(|text| row(text)).collect();
        write(&folder.path().join(name), rows)
    };
    let (a, b, c) = (document(1), document(2), document(3));
    let one = rows("one.jsonl", &[&text]);
    let copies = rows("copies.jsonl", &[&text, &text, "short"]);
    let three = rows("three.jsonl", &[&a, &b, &a, &c]);
    let out = folder.path().join("out");
    for seed in 0..24 {
        let options = TokenizeFolderOptions {
            eval_fraction: 0.6,
            seed,
            overwrite: true,
            ..options()
        };
        for (path, count) in [(&one, 1), (&copies, 2)] {
            make(&[source("text", &[path], 1.0)], &out, &options).unwrap();
            let (train, eval) = (samples(&out, false), samples(&out, true));
            assert_eq!((train.len(), eval.len()), (count, count), "seed {seed}");
            // The end of each copy.
            for (train, eval) in train.iter().zip(&eval) {
                let joined = [&train[..train.len() - 1], &eval[1..]].concat();
                assert_eq!(joined, whole(&text));
            }
        }
        make(&[source("text", &[&three], 1.0)], &out, &options).unwrap();
        let (train, eval) = (samples(&out, false), samples(&out, true));
        assert!(!train.is_empty() && !eval.is_empty(), "seed {seed}");
        assert!(train.iter().all(|document| !eval.contains(document)));
        let mut all = [train, eval].concat();
        let mut expected = [&a, &b, &a, &c].map(|text| whole(text)).to_vec();
        all.sort();
        expected.sort();
        assert_eq!(all, expected, "seed {seed}");
    }
}

#[test]
fn a_file_that_two_paths_lead_to_is_refused() {
    let folder = place();
    let rows = write(&folder.path().join("data/rows.jsonl"), jsonl(0..30));
    let data = folder.path().join("data");
    for paths in [[&*rows, &*rows], [&*data, &*rows], [&*data, &*data]] {
        let message = make(
            &[source("text", &paths, 1.0)],
            &folder.path().join("out"),
            &options(),
        )
        .unwrap_err()
        .to_string();
        assert!(message.contains("names this file twice"), "{message}");
    }
    #[cfg(unix)]
    {
        let link = folder.path().join("link.jsonl");
        fs::hard_link(&rows, &link).unwrap();
        let out = folder.path().join("out");
        for sources in [
            vec![source("text", &[&data, &link], 1.0)],
            vec![source("a", &[&rows], 0.5), source("b", &[&link], 0.5)],
        ] {
            let message = make(&sources, &out, &options()).unwrap_err().to_string();
            let names = ["link.jsonl", "rows.jsonl", "names this file twice"];
            assert!(names.iter().all(|name| message.contains(name)), "{message}");
        }
        // Another field is another text.
        let mut other = source("b", &[&link], 0.5);
        other.fields.text = "id".into();
        let sources = [source("a", &[&rows], 0.5), other];
        let message = make(&sources, &out, &options()).map(|_| ()).err();
        let twice = message.is_some_and(|error| matches!(error, TokenizeFolderError::Twice { .. }));
        assert!(!twice);
    }
}

#[test]
fn an_index_that_contradicts_itself_or_its_shards_is_refused() {
    let folder = place();
    let (out, _) = set(&folder);
    let good = index(&out);
    let says = |change: &dyn Fn(&mut serde_json::Value), words: &str| {
        let mut changed = good.clone();
        change(&mut changed);
        fs::write(out.join(INDEX_FILE), changed.to_string()).unwrap();
        let message = TokenFolder::open(&out, Check::Structure)
            .unwrap_err()
            .to_string();
        assert!(message.contains(words), "{message}");
    };
    let source = "/sources/0";
    let set = |at: &'static str, value: serde_json::Value| {
        move |index: &mut serde_json::Value| {
            *index.pointer_mut(at).unwrap() = value.clone();
        }
    };
    assert!(good.pointer(source).is_some());
    for file in [
        "../text/train-00000.tokens",
        "/etc/passwd",
        "text/../../x",
        "",
    ] {
        let change = set("/sources/0/train/shards/0/file", file.into());
        says(&change, "outside the folder");
    }
    says(
        &set("/sources/0/train/tokens", 5.into()),
        "the train split has 5 tokens",
    );
    says(
        &set("/sources/0/eval/samples", 0.into()),
        "the eval split has 0 samples",
    );
    says(
        &|index| {
            let train = &mut index["sources"][0]["train"];
            for at in ["/samples", "/shards/0/samples"] {
                let count = train.pointer(at).unwrap().as_u64().unwrap();
                *train.pointer_mut(at).unwrap() = (count + 1).into();
            }
        },
        "train-00000.tokens: contains",
    );
    says(
        &set("/sources/0/proportion", 0.5.into()),
        "the sum of the proportions is 0.5",
    );
    says(&set("/eval_fraction", 1.5.into()), "eval_fraction is 1.5");
    says(
        &|index| {
            let train = &mut index["sources"][0]["train"];
            let first = train["shards"][0].clone();
            train["shards"][1] = first;
        },
        "is listed twice",
    );
    says(&|index| index["version"] = 9.into(), "version 9");
    fs::write(out.join(INDEX_FILE), good.to_string()).unwrap();
    TokenFolder::open(&out, Check::Whole).unwrap();
}

#[test]
fn progress_is_of_bytes_within_a_file() {
    let folder = place();
    let text = jsonl((0..60).cycle().take(40_000));
    let rows = write(&folder.path().join("rows.jsonl"), &text);
    let (mut total, mut done, mut events) = (0, 0, 0);
    tokenize(
        &TOKENIZER,
        &[source("text", &[&rows], 1.0)],
        &folder.path().join("out"),
        &options(),
        &mut |event| {
            match event {
                TokenizeEvent::Source(_, bytes) => total = bytes,
                TokenizeEvent::Done(_, _, bytes) => {
                    done += bytes;
                    events += 1;
                }
                TokenizeEvent::Unreadable(_) => {}
            }
            ControlFlow::Continue(())
        },
    )
    .unwrap();
    assert_eq!((total, done), (text.len() as u64, text.len() as u64));
    assert!(events > 1, "{events} events");
}

#[test]
fn the_space_a_set_takes_is_known_before_it_is_made() {
    let folder = place();
    let rows = write(&folder.path().join("rows.jsonl"), jsonl(0..400));
    let long: Vec<String> = (0..40_000).map(document).collect();
    let book = write(&folder.path().join("book.txt"), long.join("\n"));
    for input in [rows, book] {
        let made = source("text", &[&input], 1.0);
        let inputs = made.inputs(&mut Default::default()).unwrap().inputs;
        let guessed = crate::tokenize::space::estimate(&TOKENIZER, &inputs, &made.fields);
        let out = folder.path().join("out");
        let options = TokenizeFolderOptions {
            eval_fraction: 0.0,
            overwrite: true,
            ..options()
        };
        let report = make(&[made], &out, &options).unwrap();
        let ids = 2 * report.index.sources[0].train.tokens;
        let off = guessed as f64 / ids as f64;
        assert!((0.9..1.1).contains(&off), "{guessed} for {ids} bytes");
    }
}
