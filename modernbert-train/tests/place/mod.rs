//! Code shared by the tests of the program: a folder with a corpus and a recipe, and runs of the program in this folder.
#![allow(dead_code)] // each test file uses its share

pub(crate) mod phases;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::TempDir;
use tiny_models::programs;
pub(crate) use tiny_models::programs::assert_case_refused as assert_refused;

pub(crate) const WEIGHTS: &str = "model.safetensors";

/// A folder of its own for each test, with a corpus and a recipe for it.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        write_corpus(&place.path("corpus"));
        place.write("recipe.toml", recipe(&place.path("corpus")));
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// `run recipe.toml --out OUT --device flex` and more.
    pub(crate) fn run(&self, out: &str, more: &[&str]) -> Output {
        let (recipe, out) = (self.path("recipe.toml"), self.path(out));
        let mut arguments = vec!["run", text(&recipe), "--out", text(&out)];
        if !more.contains(&"--device") {
            arguments.extend(["--device", "flex"]);
        }
        arguments.extend(more);
        program(&arguments)
    }

    /// Runs with `more`, which must be refused; see [`assert_refused`].
    pub(crate) fn refuses(&self, what: &str, more: &[&str], said: &[&str]) {
        let output = self.run("refused", more);
        assert_refused(what, &output, said);
        assert!(!self.path("refused").join(WEIGHTS).exists(), "{what}");
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(crate) fn program(arguments: &[&str]) -> Output {
    program_with(arguments, &[])
}

/// As [`program`], with these variables in the environment.
pub(crate) fn program_with(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    programs::run(env!("CARGO_BIN_EXE_modernbert-train"), arguments, variables)
}

pub(crate) fn assert_success(output: &Output) -> String {
    programs::stdout(output).to_owned()
}

/// Forty documents of fifteen sentences each, from few words, so that their frequencies can be learned in a few steps.
pub(crate) fn write_corpus(folder: &Path) {
    const WHO: [&str; 6] = ["cat", "dog", "teacher", "sailor", "child", "neighbour"];
    const DOES: [&str; 5] = ["sees", "follows", "paints", "remembers", "carries"];
    const WHAT: [&str; 6] = ["house", "river", "lantern", "garden", "letter", "mountain"];
    fs::create_dir_all(folder).unwrap();
    let mut state = 1u64;
    let mut pick = |count: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % count
    };
    for document in 0..40 {
        let mut content = String::new();
        for _ in 0..15 {
            let (who, does, what) = (WHO[pick(6)], DOES[pick(5)], WHAT[pick(6)]);
            writeln!(
                content,
                "The {who} {does} the {what} and the {}.",
                WHAT[pick(6)]
            )
            .unwrap();
        }
        fs::write(folder.join(format!("{document:02}.txt")), content).unwrap();
    }
}

pub(crate) fn recipe(corpus: &Path) -> String {
    format!(
        r#"
[model]
hidden_size = 32
intermediate_size = 48
num_hidden_layers = 4
num_attention_heads = 2
local_attention = 16
max_position_embeddings = 64
initializer_range = 0.08

[data]
corpus = {corpus:?}
tokenizer_vocab = 384
eval_bytes = 4000
sequence_length = 64

[batch]
tokens = 256

[optimizer]
learning_rate = 1e-2

[run]
total_tokens = 6000
eval_every_tokens = 3000
eval_tokens = 1024
log_every_steps = 4
"#,
        corpus = text(corpus)
    )
}
