//! `modernbert-glue report`.

use anyhow::Context;
use clap::Args;
use modernbert::atomic::write_atomically;
use modernbert::output::{OutputCheck, named_twice};
use modernbert_cli::plot::is_own_picture;
use modernbert_cli::text::shown;
use modernbert_glue::report::{JobView, PICTURES, distinguish, is_own_page, markdown, pictures};
use modernbert_glue::task::paper::ModelSize;
use std::path::PathBuf;

use super::common::{make_folder, print};

#[derive(Args)]
pub(crate) struct ReportArgs {
    /// Reports these runs.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Compares each of them with this run.
    #[arg(long, value_name = "RUN")]
    against: Option<PathBuf>,
    /// Writes glue.md and the plots to this folder; the first run's by default.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Draws the paper's large model as the line to compare with instead of the base one.
    #[arg(long)]
    large: bool,
}

pub(crate) fn run(args: &ReportArgs) -> anyhow::Result<()> {
    let all: Vec<&PathBuf> = args.runs.iter().chain(&args.against).collect();
    if let Some(run) = named_twice(&all) {
        anyhow::bail!("{}: this run is named twice; name it once", run.display());
    }
    let mut views = Vec::new();
    for folder in args.runs.iter().chain(&args.against) {
        views.push(JobView::open(folder)?);
    }
    distinguish(&mut views);
    let against = args.against.as_ref().and_then(|_| views.pop());
    let out = args.out.as_ref().unwrap_or(&args.runs[0]);
    if !out.is_dir() {
        OutputCheck::folder(out).check()?;
        make_folder(out)?;
    }
    let path = out.join("glue.md");
    // A report replaces only an older report.
    OutputCheck::file(&path).replaces(is_own_page).check()?;
    for name in PICTURES {
        let path = out.join(name);
        OutputCheck::file(&path).replaces(is_own_picture).check()?;
    }
    let page = markdown(&views, against.as_ref());
    print(&page);
    write_atomically(&path, page.as_bytes())
        .with_context(|| format!("{}: can't be written", path.display()))?;
    let all: Vec<&JobView> = views.iter().chain(&against).collect();
    let size = if args.large {
        ModelSize::Large
    } else {
        ModelSize::Base
    };
    let mut files = vec![path];
    files.extend(pictures(out, &all, size)?);
    let files: Vec<String> = files.iter().map(shown).collect();
    print(&format!("report: {}", files.join(" ")));
    Ok(())
}
