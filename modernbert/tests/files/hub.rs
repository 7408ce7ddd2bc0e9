//! Models of the Hub, from a server on this machine.

use modernbert::Loader;
use modernbert::checkpoint::hub::{HubError, HubOptions, download, download_dataset};
use modernbert::checkpoint::save;
use modernbert::model::MaskedLm;
use modernbert::tokenizer::Tokenizer;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::model::{config, randomize, tokenizer};
use crate::server::{COMMIT, Server};
use test_support::device;

/// Content by name.
type Files = BTreeMap<String, Vec<u8>>;

const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba98";

fn read_files(folder: &Path) -> Files {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (
                path.file_name().unwrap().to_str().unwrap().into(),
                fs::read(path).unwrap(),
            )
        })
        .collect()
}

fn model_files() -> Files {
    let folder = tempfile::tempdir().unwrap();
    let model = randomize(MaskedLm::new(&config(), &device()).unwrap());
    save(&model, &config(), folder.path()).unwrap();
    tokenizer().save(folder.path()).unwrap();
    read_files(folder.path())
}

fn setup() -> (Server, tempfile::TempDir, HubOptions) {
    let server = Server::start(model_files());
    let cache = tempfile::tempdir().unwrap();
    let options = HubOptions {
        endpoint: server.endpoint.clone(),
        cache: cache.path().join("hub"),
        ..HubOptions::from_variables(|_| None).unwrap()
    };
    (server, cache, options)
}

fn closed() -> String {
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn a_model_is_downloaded_once_and_laid_out_as_python_does() {
    let (server, _cache, options) = setup();
    let folder = download("org/tiny", &options).unwrap();
    let repository = options.cache.join("models--org--tiny");
    assert_eq!(folder, repository.join("snapshots").join(COMMIT));
    assert_eq!(read_files(&folder), model_files());
    assert_eq!(
        fs::read_to_string(repository.join("refs/main")).unwrap(),
        COMMIT
    );
    assert!(!repository.join("refs").join(COMMIT).exists());
    #[cfg(unix)]
    for file in fs::read_dir(&folder).unwrap() {
        let target = fs::read_link(file.unwrap().path()).unwrap();
        assert!(target.starts_with("../../blobs"), "{}", target.display());
    }
    MaskedLm::load(Loader::new(&folder).device(device())).unwrap();
    Tokenizer::from_folder(&folder).unwrap();

    server.requests();
    assert_eq!(download("org/tiny", &options).unwrap(), folder);
    assert_eq!(
        server.requests(),
        ["/api/models/org/tiny/revision/main"],
        "the rest is in the cache"
    );
}

#[test]
fn a_commit_in_the_cache_asks_nobody() {
    let (server, _cache, mut options) = setup();
    options.revision = COMMIT.into();
    let folder = download("org/tiny", &options).unwrap();
    server.requests();
    assert_eq!(download("org/tiny", &options).unwrap(), folder);
    assert!(server.requests().is_empty());
}

#[test]
fn a_new_commit_brings_only_what_changed() {
    let (server, _cache, options) = setup();
    download("org/tiny", &options).unwrap();
    {
        let mut content = server.content.lock().unwrap();
        let mut files = content.commits[COMMIT].clone();
        files.insert("tokenizer_config.json".into(), b"{}".to_vec());
        content.commits.insert(OTHER.into(), files);
        content.branches.insert("main".into(), OTHER.into());
    }
    server.requests();
    let folder = download("org/tiny", &options).unwrap();
    assert!(folder.ends_with(OTHER));
    assert_eq!(
        fs::read(folder.join("tokenizer_config.json")).unwrap(),
        b"{}"
    );
    MaskedLm::load(Loader::new(&folder).device(device())).unwrap();
    let whole = server
        .requests()
        .into_iter()
        .filter(|r| r.contains("model.safetensors") && r.ends_with("bytes=0-"));
    assert_eq!(whole.count(), 0, "the weights are the same blob");
}

#[test]
fn offline_and_unreachable_use_the_cache_or_say_what_to_do() {
    let (server, _cache, mut options) = setup();
    let offline = HubOptions {
        offline: true,
        ..options.clone()
    };
    let error = download("org/tiny", &offline).unwrap_err();
    assert!(
        error.to_string().contains("HF_HUB_OFFLINE is set")
            && error.to_string().contains("offline"),
        "{error}"
    );
    assert!(server.requests().is_empty());
    let folder = download("org/tiny", &options).unwrap();
    server.requests();
    assert_eq!(download("org/tiny", &offline).unwrap(), folder);
    assert!(server.requests().is_empty());

    options.endpoint = closed();
    assert_eq!(download("org/tiny", &options).unwrap(), folder);
    let error = download("org/other", &options).unwrap_err();
    assert!(matches!(error, HubError::NotCached { .. }), "{error}");
    assert!(
        error.to_string().contains("could not be reached"),
        "{error}"
    );

    server.content.lock().unwrap().status = Some(503);
    options.endpoint = server.endpoint.clone();
    assert_eq!(download("org/tiny", &options).unwrap(), folder);

    // A snapshot without weights is refused.
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    assert!(matches!(
        download("org/tiny", &offline),
        Err(HubError::NotCached { .. })
    ));
}

#[test]
fn revisions_names_and_tokens() {
    let (server, _cache, mut options) = setup();
    server
        .content
        .lock()
        .unwrap()
        .branches
        .insert("pr/1".into(), COMMIT.into());
    options.revision = "pr/1".into();
    download("org/tiny", &options).unwrap();
    assert_eq!(
        fs::read_to_string(options.cache.join("models--org--tiny/refs/pr/1")).unwrap(),
        COMMIT
    );
    options.revision = "nothing".into();
    let error = download("org/tiny", &options).unwrap_err();
    assert!(matches!(error, HubError::NotFound { .. }), "{error}");
    assert!(error.to_string().contains("\"nothing\""), "{error}");
    options.revision = "main".into();
    for name in ["", "a/b/c", "../x", "a b", "org/"] {
        assert!(
            matches!(download(name, &options), Err(HubError::Name(_))),
            "{name}"
        );
    }

    server.content.lock().unwrap().token = Some("secret".into());
    let error = download("org/tiny", &options).unwrap_err().to_string();
    assert!(
        error.contains("without a token") && error.contains("HF_TOKEN"),
        "{error}"
    );
    options.token = Some("wrong".into());
    let error = download("org/tiny", &options).unwrap_err().to_string();
    assert!(error.contains("with this token"), "{error}");
    options.token = Some("secret".into());
    download("org/tiny", &options).unwrap();
    assert!(!format!("{options:?}").contains("secret"));
}

#[test]
fn a_broken_transfer_is_an_error_and_goes_on_where_it_stopped() {
    let (server, _cache, options) = setup();
    server.content.lock().unwrap().break_after = Some(1000);
    let error = download("org/tiny", &options).unwrap_err();
    assert!(
        matches!(
            error,
            HubError::Transfer { .. } | HubError::Incomplete { .. }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("model.safetensors"), "{error}");
    server.requests();
    let folder = download("org/tiny", &options).unwrap();
    assert_eq!(read_files(&folder), model_files());
    let requests = server.requests();
    assert!(
        requests.iter().any(|r| r.ends_with("bytes=1000-")),
        "{requests:?}"
    );
}

#[test]
fn a_transfer_that_stalls_is_given_up_and_continued() {
    let (server, _cache, mut options) = setup();
    options.timeout = std::time::Duration::from_millis(300);
    {
        let mut content = server.content.lock().unwrap();
        content.break_after = Some(1000);
        content.stall = std::time::Duration::from_secs(20);
    }
    let start = std::time::Instant::now();
    let error = download("org/tiny", &options).unwrap_err();
    assert!(matches!(error, HubError::Transfer { .. }), "{error}");
    assert!(start.elapsed().as_secs() < 15, "{:?}", start.elapsed());
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    // The system accepts connections, and no thread reads them.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (_server, _cache, mut options) = setup();
    options.endpoint = format!("http://{}", listener.local_addr().unwrap());
    options.timeout = std::time::Duration::from_millis(300);
    let start = std::time::Instant::now();
    let error = download("org/tiny", &options).unwrap_err();
    assert!(
        error.to_string().contains("could not be reached"),
        "{error}"
    );
    assert!(start.elapsed().as_secs() < 15, "{:?}", start.elapsed());
}

#[cfg(unix)]
#[test]
fn a_damaged_file_of_the_cache_is_named_and_downloaded_again_once_deleted() {
    let (server, _cache, options) = setup();
    let folder = download("org/tiny", &options).unwrap();
    let blob = fs::canonicalize(folder.join("model.safetensors")).unwrap();
    fs::write(&blob, "damaged").unwrap();
    let error = MaskedLm::load(Loader::new(&folder).device(device())).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains(&format!("delete {} from the cache", blob.display())),
        "{message}"
    );
    fs::remove_file(&blob).unwrap();
    server.requests();
    assert_eq!(download("org/tiny", &options).unwrap(), folder);
    MaskedLm::load(Loader::new(&folder).device(device())).unwrap();
}

#[test]
fn files_for_sentence_embeddings_come_along() {
    let (server, _cache, options) = setup();
    {
        let mut content = server.content.lock().unwrap();
        let files = content.commits.get_mut(COMMIT).unwrap();
        files.insert("modules.json".into(), b"[]".to_vec());
        files.insert("1_Pooling/config.json".into(), b"{}".to_vec());
        files.insert("onnx/model.onnx".into(), b"large".to_vec());
    }
    let folder = download("org/tiny", &options).unwrap();
    assert!(folder.join("modules.json").is_file());
    assert!(folder.join("1_Pooling/config.json").is_file());
    assert!(!folder.join("onnx").exists());
}

#[test]
fn sharded_weights_come_with_all_their_files_and_others_are_refused() {
    let (server, _cache, options) = setup();
    let edit = |change: &dyn Fn(&mut Files)| {
        let mut files = model_files();
        change(&mut files);
        let mut content = server.content.lock().unwrap();
        content.commits.insert(OTHER.into(), files);
        content.branches.insert("main".into(), OTHER.into());
    };
    edit(&|files| drop(files.remove("model.safetensors")));
    let error = download("org/tiny", &options).unwrap_err();
    assert!(
        error.to_string().contains("has no model.safetensors"),
        "{error}"
    );

    edit(&|files| {
        let weights = files.remove("model.safetensors").unwrap();
        files.insert("one.safetensors".into(), weights);
        let index = br#"{"weight_map": {"model.final_norm.weight": "one.safetensors"}}"#;
        files.insert("model.safetensors.index.json".into(), index.to_vec());
    });
    let folder = download("org/tiny", &options).unwrap();
    MaskedLm::load(Loader::new(&folder).device(device())).unwrap();

    edit(&|files| {
        files.remove("model.safetensors");
        let index = br#"{"weight_map": {"a": "../../../evil"}}"#;
        files.insert("model.safetensors.index.json".into(), index.to_vec());
    });
    fs::remove_dir_all(&options.cache).unwrap();
    assert!(matches!(
        download("org/tiny", &options),
        Err(HubError::Answer { .. })
    ));
}

#[test]
fn settings_are_those_of_python() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path().to_str().unwrap().to_string();
    let read = |pairs: &[(&str, &str)]| {
        let pairs: BTreeMap<String, String> = pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        HubOptions::from_variables(|name| pairs.get(name).cloned())
    };
    let with = |pairs: &[(&str, &str)]| read(pairs).unwrap();
    let defaults = with(&[("HOME", "/h")]);
    assert_eq!(defaults.endpoint, "https://huggingface.co");
    assert_eq!(defaults.cache, Path::new("/h/.cache/huggingface/hub"));
    assert_eq!(
        (defaults.revision.as_str(), defaults.offline, defaults.token),
        ("main", false, None)
    );
    assert_eq!(
        with(&[("XDG_CACHE_HOME", "/x")]).cache,
        Path::new("/x/huggingface/hub")
    );
    assert_eq!(
        with(&[("HF_HOME", "/a"), ("HOME", "/h")]).cache,
        Path::new("/a/hub")
    );
    assert_eq!(
        with(&[("HF_HOME", "/a"), ("HF_HUB_CACHE", "/b")]).cache,
        Path::new("/b")
    );
    // Without a home nothing is read from folders that others can write to.
    let homeless = HubOptions {
        offline: true,
        ..with(&[])
    };
    assert_eq!(homeless.cache, Path::new(""));
    let message = download("org/name", &homeless).unwrap_err().to_string();
    assert!(message.contains("HF_HOME"), "{message}");
    assert_eq!(with(&[("HF_ENDPOINT", "http://m")]).endpoint, "http://m");
    for yes in ["1", "true", "ON", "Yes"] {
        assert!(with(&[("HF_HUB_OFFLINE", yes)]).offline, "{yes}");
    }
    for no in ["0", "", "false", "no", "OFF"] {
        assert!(!with(&[("HF_HUB_OFFLINE", no)]).offline, "{no}");
    }
    let both = [("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")];
    assert!(!with(&both).offline && with(&both[1..]).offline);
    for (name, value) in [
        ("HF_HUB_OFFLINE", "y"),
        ("HF_HUB_OFFLINE", "2"),
        ("TRANSFORMERS_OFFLINE", "offline"),
        ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "ja"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "30 s"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "0"),
    ] {
        let message = read(&[(name, value)]).unwrap_err().to_string();
        let said = format!("{name} is {value:?}; set it to 1");
        assert!(message.contains(&said), "{message}");
    }
    for endpoint in [
        "huggingface.co",
        "ftp://m",
        "http://",
        "http://a b",
        "http://u:secret@m",
    ] {
        let message = read(&[("HF_ENDPOINT", endpoint)]).unwrap_err().to_string();
        assert!(
            message.contains("HF_ENDPOINT") && !message.contains("secret"),
            "{message}"
        );
    }
    for token in ["my secret", "secret\nx", "s\u{e9}cret"] {
        let message = read(&[("HF_TOKEN", token)]).unwrap_err().to_string();
        assert!(
            message.contains("HF_TOKEN") && !message.contains("cret\n") && !message.contains(token),
            "{message}"
        );
    }
    fs::write(Path::new(&home).join("token"), "stored\n").unwrap();
    assert_eq!(with(&[("HF_HOME", &home)]).token.as_deref(), Some("stored"));
    assert_eq!(
        with(&[("HF_HOME", &home), ("HF_TOKEN", " mine ")])
            .token
            .as_deref(),
        Some("mine")
    );
    assert_eq!(
        with(&[("HF_HOME", &home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).token,
        None
    );
}

#[test]
fn wanted_files_of_a_data_set_come_in_their_folders() {
    let names = [
        "README.md",
        "cola/train-0.parquet",
        "cola/test-0.parquet",
        "rte/train-0.parquet",
    ];
    let files: Files = names.map(|n| (n.to_string(), n.as_bytes().to_vec())).into();
    let server = Server::start(files);
    let cache = tempfile::tempdir().unwrap();
    let mut options = HubOptions {
        endpoint: server.endpoint.clone(),
        cache: cache.path().join("hub"),
        ..HubOptions::from_variables(|_| None).unwrap()
    };
    let cola = |file: &str| file.starts_with("cola/");
    let get = |options: &HubOptions, what: &dyn Fn(&str) -> bool| {
        download_dataset("org/tiny", options, "files of a task", what)
    };
    let folder = get(&options, &cola).unwrap();
    assert!(folder.ends_with(format!("datasets--org--tiny/snapshots/{COMMIT}")));
    assert_eq!(
        fs::read_to_string(folder.join("cola/train-0.parquet")).unwrap(),
        "cola/train-0.parquet"
    );
    assert!(folder.join("cola/test-0.parquet").is_file() && !folder.join("rte").exists());

    server.requests();
    assert_eq!(get(&options, &cola).unwrap(), folder);
    assert_eq!(
        server.requests(),
        ["/api/datasets/org/tiny/revision/main"],
        "the rest is in the cache"
    );
    let none = get(&options, &|file: &str| file.starts_with("qqp/")).unwrap_err();
    assert!(none.to_string().contains("no files of a task"), "{none}");

    options.offline = true;
    assert_eq!(get(&options, &cola).unwrap(), folder);
    let rte = get(&options, &|file: &str| file.starts_with("rte/"));
    assert!(matches!(rte, Err(HubError::NotCached { .. })));
}
