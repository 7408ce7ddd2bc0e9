#![allow(clippy::unwrap_used)]

use super::*;
use crate::recipe::{OptimizerKind, Recipe};
use std::collections::BTreeMap;
use std::path::Path;

/// A grid in a folder of its own.
fn grid(text: &str) -> Result<Grid, SweepError> {
    Grid::parse(text, "grid.toml", Path::new(""))
}

/// The recipe `cpu-tiny` with a second row.
const TWO: &str = "\
base = 'cpu-tiny'
seeds = [3, 5]

[[list]]
name = 'gelu'

[[list]]
name = 'silu'
model.hidden_activation = 'silu'
";

fn runs(text: &str) -> Result<Vec<PlannedRun>, SweepError> {
    grid(text)?.runs(&Overrides::default())
}

fn runs_with(text: &str, settings: &[&str]) -> Result<Vec<PlannedRun>, SweepError> {
    let settings = settings.iter().map(|text| (*text).to_owned()).collect();
    let overrides = Overrides {
        settings,
        ..Overrides::default()
    };
    grid(text)?.runs(&overrides)
}

#[test]
fn a_product_has_every_combination_in_the_order_of_the_file() {
    let text = "\
base = 'cpu-tiny'
seeds = 2
[settings]
phase.pretrain.run.total_tokens = 100_000
run.eval_tokens = 8192
[grid]
model.hidden_activation = ['silu', 'gelu']
model.flexbert.normalization = ['layernorm', 'rmsnorm']
optimizer.learning_rate = [1e-3]
";
    let found = runs(text).unwrap();
    let names: Vec<&str> = found.iter().map(|run| run.name.as_str()).collect();
    let row = |activation: &str, norm: &str, seed: u64| {
        format!(
            "hidden_activation={activation},normalization={norm},learning_rate=0.001-seed{seed}"
        )
    };
    let mut expected = Vec::new();
    for seed in [1, 2] {
        for activation in ["silu", "gelu"] {
            for norm in ["layernorm", "rmsnorm"] {
                expected.push(row(activation, norm, seed));
            }
        }
    }
    assert_eq!(names, expected);
    let last = &found[7];
    assert_eq!((last.seed, last.row, last.recipe.run.seed), (2, 3, 2));
    assert_eq!(last.recipe.optimizer.learning_rate, 1e-3);
    assert_eq!(last.recipe.run.eval_tokens, 8192);
    assert_eq!(last.tokens().unwrap(), 100_000 + 60_000 + 100_000);
    let config = last.recipe.model.config(2048).unwrap();
    let kind = config.spec().layers[0].norm.kind;
    assert_eq!(kind, modernbert::config::flexbert::NormKind::Rmsnorm);
    // The rest is the base.
    let base = crate::recipe::builtin("cpu-tiny").unwrap().unwrap();
    assert_eq!(last.recipe.data, base.data);
}

#[test]
fn keys_with_the_same_last_part_are_named_in_full() {
    let text = "\
base = 'cpu-tiny'
seeds = 1
[grid]
phase.extend.optimizer.learning_rate = [1e-3, 2e-3]
phase.decay.optimizer.learning_rate = [1e-3]
";
    let found = runs(text).unwrap();
    assert_eq!(
        found[1].name,
        "phase.extend.optimizer.learning_rate=0.002,phase.decay.optimizer.learning_rate=0.001-seed1"
    );
    let phases = found[1].recipe.phases().unwrap();
    let rates: Vec<f64> = phases
        .iter()
        .map(|phase| phase.recipe.optimizer.learning_rate)
        .collect();
    assert_eq!(rates, [3e-3, 2e-3, 1e-3]);
}

#[test]
fn a_list_names_its_rows_and_a_setting_can_be_removed() {
    let text = "\
base = 'cpu-tiny'
seeds = [7]
settings = { optimizer.max_grad_norm = 0.5, optimizer.kind = 'adamw' }
list = [
  { name = 'clipped' },
  { name = 'free', optimizer = { max_grad_norm = 'unset' } },
  { name = 'windows', model.flexbert.sliding_windows = [0, 64, 0, 64], model.local_attention = 'unset' },
]
";
    let found = runs(text).unwrap();
    let norms: Vec<Option<f64>> = found
        .iter()
        .map(|run| run.recipe.optimizer.max_grad_norm)
        .collect();
    assert_eq!(norms, [Some(0.5), None, Some(0.5)]);
    assert!(
        found
            .iter()
            .all(|run| run.recipe.optimizer.kind == OptimizerKind::AdamW)
    );
    let windows = &found[2].recipe.model.flexbert.sliding_windows;
    assert_eq!(windows.as_deref(), Some(&[0, 64, 0, 64][..]));
    assert_eq!(found[2].name, "windows-seed7");
}

#[test]
fn the_base_is_a_path_relative_to_the_grid_and_its_references_follow_the_rows() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "recipes/own.toml",
        "model.preset = '17m'\ndata.corpus = '../texts'\nrun.total_tokens = 1_000_000\noptimizer.max_lr = '${optimizer.learning_rate}'\n",
    );
    write(
        "grids/g.toml",
        "base = '../recipes/own.toml'\nseeds = 1\ngrid.optimizer.learning_rate = [1e-3, 2e-3]\nsettings.data.eval_corpus = 'held-out'\n",
    );
    let grid = Grid::read(&folder.path().join("grids/g.toml")).unwrap();
    let found = grid.runs(&Overrides::default()).unwrap();
    assert_eq!(found[1].recipe.optimizer.max_lr, Some(2e-3));
    let text = found[1].recipe.to_toml().unwrap();
    let path = |name: &str| format!("{}", folder.path().join(name).display());
    assert!(text.contains(&path("grids/../recipes/../texts")), "{text}");
    assert!(text.contains(&path("grids/held-out")), "{text}");
}

#[test]
fn refusals_name_file_and_line() {
    let head = "base = 'cpu-tiny'\nseeds = 2\n";
    for (text, place, said) in [
        ("seed = 3".to_owned(), "grid.toml:1", "the nearest is seeds"),
        (
            "model.hidden_size = 3".to_owned(),
            "grid.toml:1",
            "below [settings]",
        ),
        (
            "wings = 3".to_owned(),
            "grid.toml:1",
            "a grid has base, seeds",
        ),
        ("base = ".to_owned(), "grid.toml:1", ""),
        (
            "seeds = 2\n[[list]]\nname = 'a'".to_owned(),
            "grid.toml",
            "base is missing",
        ),
        ("base = 3".to_owned(), "grid.toml:1", "base is no text"),
        (
            "seeds = 1\nbase = 'nothing'\n[[list]]\nname = 'a'".to_owned(),
            "grid.toml:2",
            "cpu-tiny",
        ),
        (head.to_owned(), "grid.toml", "there are no rows"),
        (format!("{head}[grid]\n"), "grid.toml:3", "no settings"),
        (
            format!("{head}grid = 3\n"),
            "grid.toml:3",
            "grid is no table",
        ),
        (format!("{head}list = 3\n"), "grid.toml:3", "list of tables"),
        (
            format!("{head}list = [3]\n"),
            "grid.toml:3",
            "a table with a name",
        ),
        (
            format!("{head}[[list]]\nmask.eval = 0.1\n"),
            "grid.toml:3",
            "has no name",
        ),
        (
            format!("{head}[grid]\nmask.eval = [0.1]\n[[list]]\nname = 'a'\n"),
            "grid.toml:5",
            "one of the two",
        ),
        (
            format!("{head}[grid]\nmodel.hiden_size = [64]\n"),
            "grid.toml:4",
            "the nearest is model.hidden_size",
        ),
        (
            format!("{head}[[list]]\nname = 'a'\nphase.decay.optimizer.lerning_rate = 1\n"),
            "grid.toml:5",
            "optimizer.learning_rate",
        ),
        (
            format!("{head}[grid]\nmask.eval = 0.1\n"),
            "grid.toml:4",
            "move it below [settings]",
        ),
        (
            format!("{head}[grid]\nmask.eval = []\n"),
            "grid.toml:4",
            "no values",
        ),
        (
            format!("{head}[grid]\nmask.eval = [0.1, 0.1]\n"),
            "grid.toml:4",
            "two rows have the name",
        ),
        (
            format!("{head}[[list]]\nname = 'a'\n[[list]]\nname = 'A'\n"),
            "grid.toml:6",
            "two rows have the name",
        ),
        (
            format!("{head}[[list]]\nname = '../a'\n"),
            "grid.toml:4",
            "use letters",
        ),
        (
            format!("{head}[[list]]\nname = ''\n"),
            "grid.toml:4",
            "use letters",
        ),
        (
            format!("{head}[settings]\nrun.seed = 3\n[[list]]\nname = 'a'\n"),
            "grid.toml:4",
            "the seeds of the grid decide run.seed",
        ),
        // Values that no recipe has, by the line of the grid.
        (
            format!("{head}[grid]\nmodel.hidden_size = [128, 'wide']\n"),
            "grid.toml:4",
            "model.hidden_size = \"wide\"",
        ),
        (
            format!("{head}[grid]\nmask.train = [0.3, 2.0]\n"),
            "grid.toml:4",
            "mask.train is 2",
        ),
        (
            format!("{head}[[list]]\nname = 'a'\nphase.nowhere.mask.train = 0.2\n"),
            "grid.toml:5",
            "the phases are: pretrain",
        ),
        (
            format!("{head}[[list]]\nname = 'a'\nphase.decay.run.precision = 'bf16'\n"),
            "grid.toml:5",
            "the same in every phase",
        ),
        (
            format!("{head}[[list]]\nname = 'a'\ndata.sequence_length = 64\n"),
            "grid.toml:5",
            "phases set it themselves",
        ),
        (
            format!("{head}[[list]]\nname = 'a'\noptimizer.spike_window = 7\n"),
            "grid.toml:5",
            "optimizer.skip_spikes",
        ),
        (
            format!("{head}[[list]]\nname = 'a'\nmodel.flexbert.bert_layer = 'parallel_prenorm'\n"),
            "recipes/cpu-tiny.toml:5",
            "(row a, grid.toml:4)",
        ),
        (
            format!("{head}[[list]]\nname = 'a'\n[[list]]\nname = 'b'\nmask.eval = 0.15\n"),
            "grid.toml:6",
            "the rows a and b have the same recipe",
        ),
    ] {
        let message = runs(&text).unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("{place}: ")),
            "{text}: {message}"
        );
        assert!(message.contains(said), "{text}: {message}");
    }
    for seeds in ["0", "-1", "'x'", "[]", "[1, 1]", "[-1]", "[1.5]", "20_000"] {
        let text = format!("base = 'cpu-tiny'\nseeds = {seeds}\n[[list]]\nname = 'a'\n");
        let message = runs(&text).unwrap_err().to_string();
        assert!(message.starts_with("grid.toml:2: "), "{seeds}: {message}");
    }
    let values = (1..200)
        .map(|i| i.to_string())
        .collect::<Vec<_>>()
        .join(", ");
    let huge = format!("{head}[grid]\nbatch.tokens = [{values}]\nrun.eval_tokens = [{values}]\n");
    let message = runs(&huge).unwrap_err().to_string();
    assert!(message.contains("more than 10000 rows"), "{message}");
}

#[test]
fn overrides_count_for_all_runs_and_not_for_what_rows_decide() {
    let found = runs_with(TWO, &["run.eval_tokens=4096"]).unwrap();
    assert!(found.iter().all(|run| run.recipe.run.eval_tokens == 4096));
    for (set, said) in [
        ("run.seed=3", "the seeds of the grid decide run.seed"),
        ("model.hidden_activation=gelu", "grid.toml:9"),
        ("mask.train=2", "--set mask.train=2: "),
        ("mask.tran=2", "the nearest is mask.train"),
    ] {
        let message = runs_with(TWO, &[set]).unwrap_err().to_string();
        assert!(message.contains(said), "{set}: {message}");
    }
}

#[test]
fn the_grids_in_the_folder_are_good() {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/sweeps")).unwrap()
    {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let builtin = Grid::read(Path::new(&name)).unwrap();
        assert_eq!(
            builtin.text,
            std::fs::read_to_string(&path).unwrap(),
            "{name}"
        );
        let runs = builtin.runs(&Overrides::default()).unwrap();
        assert_eq!(builtin.seeds, [1, 2, 3], "{name}");
        assert_eq!(runs.len(), 3 * builtin.rows.len(), "{name}");
        assert!(builtin.rows.len() > 1, "{name}");
        // The runs of a grid see the same tokens.
        let tokens: Vec<u64> = runs.iter().map(|run| run.tokens().unwrap()).collect();
        assert!(tokens.iter().all(|count| *count == tokens[0]), "{name}");
        names.push(name);
    }
    names.sort();
    assert_eq!(names, builtin_grid_names().collect::<Vec<_>>());
    let parameters = |grid: &str| -> Vec<u64> {
        let runs = Grid::read(Path::new(grid)).unwrap();
        let runs = runs.runs(&Overrides::default()).unwrap();
        let of = |recipe: &Recipe| recipe.model.config(16_384).unwrap().mlm_parameters();
        runs.iter().take(3).map(|run| of(&run.recipe)).collect()
    };
    // Gated and plain MLPs have as many parameters.
    let sizes = parameters("activations");
    assert!(sizes.iter().all(|size| *size == sizes[0]), "{sizes:?}");
}

#[test]
fn a_folder_takes_one_grid_and_more_rows_and_seeds_of_it() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("sweep");
    let open = |text: &str| {
        let grid = grid(text).unwrap();
        let runs = grid.runs(&Overrides::default()).unwrap();
        SweepDir::open(&out, &grid, &runs).map(|(_, new)| new)
    };
    assert_eq!(open(TWO).unwrap(), NewRuns::default());
    let again = open(TWO).unwrap();
    assert!(again.continued && again.names.is_empty());
    let more = TWO.replace("[3, 5]", "[3, 5, 6]")
        + "[[list]]\nname = 'relu'\nmodel.hidden_activation = 'relu'\n";
    let names = open(&more).unwrap().names;
    assert_eq!(
        names,
        [
            "relu-seed3",
            "relu-seed5",
            "gelu-seed6",
            "silu-seed6",
            "relu-seed6"
        ]
    );
    let message = open(TWO).unwrap_err().to_string();
    assert!(
        message.contains("another grid") && message.contains("its run gelu-seed6"),
        "{message}"
    );
    let other = more.replace("seeds =", "settings.mask.train = 0.2\nseeds =");
    let message = open(&other).unwrap_err().to_string();
    assert!(
        message.contains("mask.train was 0.3, and is 0.2"),
        "{message}"
    );
    // A second process.
    let grid = grid(&more).unwrap();
    let runs = grid.runs(&Overrides::default()).unwrap();
    let (dir, _) = SweepDir::open(&out, &grid, &runs).unwrap();
    let message = open(&more).unwrap_err().to_string();
    assert!(message.contains("another process works"), "{message}");
    // The recipe of a run that was changed.
    let run = dir.run("silu-seed3");
    drop(dir);
    std::fs::create_dir_all(&run).unwrap();
    let recipe = std::fs::read_to_string(out.join("recipes/silu-seed3.toml")).unwrap();
    std::fs::write(
        run.join("recipe.toml"),
        recipe.replace("eval = 0.15", "eval = 0.25"),
    )
    .unwrap();
    let message = open(&more).unwrap_err().to_string();
    assert!(
        message.contains("mask.eval was 0.25, and is 0.15"),
        "{message}"
    );

    let foreign = place.path().join("foreign");
    std::fs::create_dir_all(&foreign).unwrap();
    std::fs::write(foreign.join("thesis.txt"), "x").unwrap();
    let message = SweepDir::open(&foreign, &grid, &runs)
        .err()
        .unwrap()
        .to_string();
    assert!(
        message.contains("holds no sweep, but thesis.txt"),
        "{message}"
    );
    assert!(!foreign.join("lock").exists());
    let message = SweepDir::read(&foreign).err().unwrap().to_string();
    assert!(message.contains("no sweep in it"), "{message}");
}

/// A row with these losses, by seed from 1; `None` for a run that failed.
fn row(name: &str, losses: &[Option<f64>]) -> ReportRow {
    let seed = |(i, loss): (usize, &Option<f64>)| SeedResult {
        seed: i as u64 + 1,
        run: format!("{name}-seed{}", i + 1),
        status: if loss.is_some() { "finished" } else { "failed" },
        reason: loss.is_none().then(|| "loss | NaN\nat step 3".to_owned()),
        done: loss.is_none().then_some(0.25),
        loss: *loss,
        steps: Some(10),
        tokens: Some(1000),
        tokens_per_second: Some(12_000.0),
        memory_mib: Some(100.0 + i as f64),
        parameters: Some(840_000),
        curve: Vec::new(),
    };
    let seeds = losses.iter().enumerate().map(seed).collect();
    ReportRow::new(name.to_owned(), BTreeMap::new(), seeds)
}

#[test]
fn rows_are_compared_within_a_seed() {
    let all = |losses: &[f64]| losses.iter().map(|loss| Some(*loss)).collect::<Vec<_>>();
    let report = Report::compared(
        "g.toml".to_owned(),
        vec![
            row("a", &all(&[4.0, 5.0, 6.0])),
            row("b", &all(&[5.0, 7.0, 9.0])),
            row("c", &[Some(3.0), None, Some(5.5)]),
            row("d", &[None, None, None]),
            row("e", &[Some(4.5), None, None]),
            row("f", &all(&[4.0, 5.0, 6.0])),
        ],
    );
    // Differences 1, 2, 3: mean 2, deviation 1, t = 2√3, p = 1 - t / √(2 + t²) = 1 - √(12 / 14).
    let b = &report.rows[1];
    let difference = b.difference.unwrap();
    assert_eq!(
        (difference.mean, difference.deviation, difference.count),
        (2.0, Some(1.0), 3)
    );
    let p = 1.0 - (12.0_f64 / 14.0).sqrt();
    assert!((b.test.unwrap().p - p).abs() < 1e-12, "{:?} {p}", b.test);
    assert_eq!(
        b.loss.unwrap(),
        Spread {
            mean: 7.0,
            deviation: Some(2.0),
            count: 3
        }
    );
    // Differences -1 and -0.5 of seeds 1 and 3: t = -3, p = 1 - 2 atan(3) / π.
    let c = &report.rows[2];
    let test = c.test.unwrap();
    assert!((test.t + 3.0).abs() < 1e-12 && c.difference.unwrap().count == 2);
    let p = 1.0 - 2.0 * 3f64.atan() / std::f64::consts::PI;
    assert!((test.p - p).abs() < 1e-12);
    assert_eq!(
        (report.rows[3].loss, report.rows[3].difference),
        (None, None)
    );
    assert_eq!(report.rows[4].test, None);
    // No deviation: the test is undefined.
    assert_eq!(report.rows[5].test, None);

    let text = report.markdown();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("difference from `a`"), "{text}");
    assert_eq!(
        lines[3],
        "| `b` | 7.0000 ± 2.0000 | +2.0000 ± 1.0000 | 0.074 | 3 | 12.0k | 102 MiB | 840.0k | 3 |"
    );
    assert!(
        lines[4].contains("| -0.7500 ± 0.3536 | 0.20 | 2 |")
            && lines[4].contains("2 of 3; seed 2 failed: loss \\| NaN at step 3 |"),
        "{text}"
    );
    assert!(
        lines[5].starts_with("| `d` | – | – | – | 0 | – |"),
        "{text}"
    );
    assert!(
        lines[6].contains("| 4.5000 ± undefined | +0.5000 ± undefined | undefined | 1 |"),
        "{text}"
    );
    assert!(
        lines[7].contains("| +0.0000 ± 0.0000 | undefined | 3 |"),
        "{text}"
    );
    assert_eq!((report.count("finished"), report.count("failed")), (12, 6));
}

#[test]
fn probabilities_have_two_digits() {
    for (p, text) in [
        (0.5, "0.50"),
        (0.049, "0.049"),
        (0.0123, "0.012"),
        (0.005, "0.0050"),
        (0.00036, "0.00036"),
        (1e-9, "< 0.0001"),
    ] {
        let shown = super::table::probability(p);
        assert_eq!(shown, text);
    }
}
