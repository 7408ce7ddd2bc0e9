//! Functions of the crates in cargo's registry, and pairs of a doc comment and its function.
//!
//! | item | contents |
//! |---|---|
//! | [`functions_of`] | functions of one file, by the parser of the crate `syn` |
//! | [`first_paragraph`] | a doc comment as a query |
//! | [`Functions::read`] | functions of many crates, without repeated ones |
//! | [`Functions::pairs`] | pairs to train on, and those of held-out crates |

mod docs;
mod parse;

pub use docs::first_paragraph;
pub use parse::{FileFunctions, FoundFunction, ParseFailure, functions_of};

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use modernbert_train::corpus::RegistryCrate;
use modernbert_train::formats::read_text;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// Fewest words of a doc comment that is a query.
const LEAST_WORDS: usize = 3;
/// Folders and files of a crate that are not its library or program.
const NOT_SOURCES: [&str; 6] = ["tests", "test", "benches", "examples", "testdata", "target"];
/// Stack of a thread that parses, in bytes: parsing nested expressions takes more than a thread has by default.
const STACK: usize = 64 << 20;

/// Sizes of the collection.
#[derive(Clone, Debug, PartialEq)]
pub struct FunctionOptions {
    /// Files of at least this many bytes are left out: they are mostly generated.
    pub max_file_bytes: u64,
    /// Bytes of source of a crate, at most.
    pub max_crate_bytes: u64,
    /// Functions of a crate, at most; documented ones first.
    pub functions_per_crate: usize,
    /// Pairs of a crate, at most.
    pub pairs_per_crate: usize,
    /// Share of the crates that are held out.
    pub held_out: f64,
}

impl Default for FunctionOptions {
    fn default() -> Self {
        Self {
            max_file_bytes: 200_000,
            max_crate_bytes: 2_000_000,
            functions_per_crate: 400,
            pairs_per_crate: 150,
            held_out: 0.05,
        }
    }
}

/// A function of a crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// `crate::module::Type::name`, and `#2`, `#3`, … where a crate has the path several times.
    pub path: String,
    /// Name of the crate.
    pub crate_name: String,
    /// File, below the registry: `crate-1.0.0/src/lib.rs`.
    pub file: String,
    /// Line of its name, from 1.
    pub line: usize,
    /// First paragraph of its doc comment; can be empty.
    pub doc: String,
    /// Signature and body.
    pub code: String,
}

/// Counts of what was read and left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Crates with a function.
    pub crates: usize,
    /// Files that were parsed.
    pub files: usize,
    /// Files that are generated.
    pub generated: usize,
    /// Files that the parser refused, or that are not text.
    pub unparsed: usize,
    /// Macros and their calls, whose functions are not found.
    pub macros: usize,
    /// Functions equal to another one.
    pub repeated: usize,
    /// Crates that were not read because `progress` ended the reading.
    pub unread: usize,
}

/// Functions of many crates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Functions {
    /// Crate by crate, in the order of the crates; in each, documented ones first.
    pub functions: Vec<Function>,
    /// What was read.
    pub counts: Counts,
}

/// Pairs of a doc comment and its function, as indices into [`Functions::functions`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs {
    /// To train on.
    pub train: Vec<usize>,
    /// Of held-out crates.
    pub held_out: Vec<usize>,
    /// Documented functions whose doc comment another function has too.
    pub repeated: usize,
    /// Names of the crates that are held out, with pairs or without.
    pub held_out_crates: BTreeSet<String>,
}

impl Functions {
    /// Reads the sources of crates in parallel. `progress` gets the number of crates read so far, from any thread, and returns false to leave the
    /// other crates out. Without that, the result does not depend on the threads.
    ///
    /// # Errors
    /// A system that gives no threads.
    pub fn read(
        crates: &[RegistryCrate],
        options: &FunctionOptions,
        progress: impl Fn(usize) -> bool + Sync,
    ) -> Result<Self, rayon::ThreadPoolBuildError> {
        let pool = rayon::ThreadPoolBuilder::new().stack_size(STACK).build()?;
        let (done, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
        let found: Vec<(Vec<Function>, Counts)> = pool.install(|| {
            let read = crates.par_iter().map(|one| {
                if ended.load(Ordering::Relaxed) {
                    let unread = Counts {
                        unread: 1,
                        ..Counts::default()
                    };
                    return (Vec::new(), unread);
                }
                let found = of_crate(one, options);
                if !progress(1 + done.fetch_add(1, Ordering::Relaxed)) {
                    ended.store(true, Ordering::Relaxed);
                }
                found
            });
            read.collect()
        });
        let mut all = Self::default();
        let mut seen: HashSet<[u8; 32]> = HashSet::new();
        for (functions, counts) in found {
            let before = all.functions.len();
            for function in functions {
                if seen.insert(Sha256::digest(&function.code).into()) {
                    all.functions.push(function);
                } else {
                    all.counts.repeated += 1;
                }
            }
            all.counts.crates += usize::from(all.functions.len() > before);
            all.counts.files += counts.files;
            all.counts.generated += counts.generated;
            all.counts.unparsed += counts.unparsed;
            all.counts.macros += counts.macros;
            all.counts.unread += counts.unread;
        }
        Ok(all)
    }

    /// Number of functions with a doc comment.
    pub fn documented(&self) -> usize {
        let documented = self.functions.iter().filter(|one| !one.doc.is_empty());
        documented.count()
    }

    /// Chooses the pairs of `crates`, which the functions are from: those with a doc comment of at least three words that no other function has.
    pub fn pairs(&self, crates: &[RegistryCrate], options: &FunctionOptions) -> Pairs {
        let names = crates.iter().map(|one| one.name.as_str());
        let held_out_crates = held_out(names, options.held_out);
        let mut uses: HashMap<String, usize> = HashMap::new();
        for function in &self.functions {
            *uses.entry(key(&function.doc)).or_default() += 1;
        }
        let mut pairs = Pairs {
            held_out_crates,
            ..Pairs::default()
        };
        let mut of_crate: HashMap<&str, usize> = HashMap::new();
        for (index, function) in self.functions.iter().enumerate() {
            if function.doc.split_whitespace().count() < LEAST_WORDS {
                continue;
            }
            if uses[&key(&function.doc)] > 1 {
                pairs.repeated += 1;
                continue;
            }
            let count = of_crate.entry(&function.crate_name).or_default();
            if *count == options.pairs_per_crate {
                continue;
            }
            *count += 1;
            if pairs.held_out_crates.contains(&function.crate_name) {
                pairs.held_out.push(index);
            } else {
                pairs.train.push(index);
            }
        }
        pairs
    }
}

/// A doc comment without differences of case and punctuation.
fn key(doc: &str) -> String {
    let words = doc.split(|c: char| !c.is_alphanumeric());
    let words: Vec<String> = words
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    words.join(" ")
}

/// The crates that are held out: those whose name has a hash in the lowest `share` of all hashes, so that a crate stays on its side when others come
/// or go. The one with the lowest hash where there is no such crate, and none of fewer than two.
pub fn held_out<'a>(names: impl IntoIterator<Item = &'a str>, share: f64) -> BTreeSet<String> {
    let hash = |name: &str| {
        let digest = Sha256::new_with_prefix(b"held out\0")
            .chain_update(name)
            .finalize();
        let first: [u8; 8] = std::array::from_fn(|byte| digest[byte]);
        u64::from_be_bytes(first)
    };
    let hashed: BTreeSet<(u64, &str)> = names.into_iter().map(|name| (hash(name), name)).collect();
    if hashed.len() < 2 {
        return BTreeSet::new();
    }
    let below = |hash: u64| (hash as f64) < share * u64::MAX as f64;
    let chosen = hashed.iter().enumerate();
    let chosen = chosen.filter(|(rank, (hash, _))| *rank == 0 || below(*hash));
    chosen.map(|(_, (_, name))| (*name).to_string()).collect()
}

fn of_crate(one: &RegistryCrate, options: &FunctionOptions) -> (Vec<Function>, Counts) {
    let mut counts = Counts::default();
    let mut functions = Vec::new();
    let mut tests: Vec<String> = Vec::new();
    let mut left = options.max_crate_bytes;
    let mut files: Vec<_> = one.rust_files();
    files.retain(|(file, _)| is_source(file));
    // Chosen by hash, so that a large crate is not represented by the beginning of the alphabet.
    files.sort_by_cached_key(|(file, _)| <[u8; 32]>::from(Sha256::digest(file)));
    for (file, path) in files {
        let length = path.metadata().map_or(0, |metadata| metadata.len());
        if length >= options.max_file_bytes || length > left {
            continue;
        }
        left -= length;
        let Ok(text) = read_text(&path) else {
            counts.unparsed += 1;
            continue;
        };
        let found = match functions_of(&text) {
            Ok(found) => found,
            Err(ParseFailure::Generated) => {
                counts.generated += 1;
                continue;
            }
            Err(ParseFailure::Syntax(_)) => {
                counts.unparsed += 1;
                continue;
            }
        };
        counts.files += 1;
        counts.macros += found.macros;
        let module = module_of(&one.name, &file);
        tests.extend(
            found
                .test_modules
                .iter()
                .map(|path| format!("{module}::{path}::")),
        );
        functions.extend(found.functions.into_iter().map(|found| Function {
            path: format!("{module}::{}", found.path),
            crate_name: one.name.clone(),
            file: format!("{}-{}/{file}", one.name, one.version),
            line: found.line,
            doc: found.doc,
            code: found.code,
        }));
    }
    functions.retain(|one| !tests.iter().any(|test| one.path.starts_with(test)));
    functions.sort_by_key(|one| one.doc.split_whitespace().count() < LEAST_WORDS);
    functions.truncate(options.functions_per_crate);
    let mut uses: HashMap<String, usize> = HashMap::new();
    for function in &mut functions {
        let uses = uses.entry(function.path.clone()).or_default();
        *uses += 1;
        if *uses > 1 {
            function.path = format!("{}#{uses}", function.path);
        }
    }
    (functions, counts)
}

/// True for files of the library or program, by their path in the crate.
fn is_source(file: &str) -> bool {
    let parts: Vec<&str> = file.split('/').collect();
    let (name, folders) = match parts.split_last() {
        Some((name, folders)) => (*name, folders),
        None => return false,
    };
    let is_test = matches!(name, "tests.rs" | "test.rs" | "build.rs");
    !is_test && !folders.iter().any(|folder| NOT_SOURCES.contains(folder))
}

/// Path of the module that a file is: `src/a/b.rs` of the crate `x-y` is `x_y::a::b`.
fn module_of(crate_name: &str, file: &str) -> String {
    let file = file.strip_prefix("src/").unwrap_or(file);
    let file = file.strip_suffix(".rs").unwrap_or(file);
    let mut parts: Vec<&str> = file.split('/').collect();
    let is_own = parts.len() == 1 && matches!(parts[0], "lib" | "main");
    if is_own || (parts.len() > 1 && parts.last() == Some(&"mod")) {
        parts.pop();
    }
    let mut path = crate_name.replace('-', "_");
    for part in parts {
        path.push_str("::");
        path.push_str(part);
    }
    path
}
