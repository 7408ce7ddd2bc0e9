//! `modernbert-retrieval train`.

mod args;
mod presets;

pub(crate) use args::TrainArgs;

use std::collections::HashSet;
use std::path::Path;

use modernbert::Loader;
use modernbert::checkpoint::{ModelSource, read_config};
use modernbert::model::Precision;
use modernbert::output::OutputCheck;
use modernbert::sentences::SentenceSettings;
use modernbert::tokenizer::Tokenizer;
use modernbert_cli::text::{counted, human_seconds, shown};
use modernbert_cli::{INTERRUPTED, describe, say};
use modernbert_retrieval::train::{
    Embedder, EvalSet, TextOptions, TrainError, TrainRows, Training, VectorKind, kind_of_folder,
};
use modernbert_train::engine::{Progress, device_peak, stop_on_signals};
use modernbert_train::saving::{check_written, is_resumable, put_model, remove_checkpoints};

pub(crate) fn run(args: &TrainArgs) -> anyhow::Result<()> {
    let precision: Precision = args.dtype.parse().map_err(anyhow::Error::msg)?;
    let device = args.device.select_for_training()?;
    say(&describe(&device, precision.name()));
    check_out(args)?;
    let saving = args.saving()?;

    let folder = Loader::from(&args.model).folder()?;
    let config = read_config(&folder)?;
    let tokenizer = Tokenizer::from_folder(&folder)?;
    let positions = config.max_position_embeddings;
    let of_folder = kind_of_folder(&folder, positions)?;
    let has_files = of_folder.is_some();
    let kind = args.kind(of_folder, &tokenizer, positions)?;
    if let VectorKind::Single {
        query_prompt,
        document_prompt,
        ..
    } = &kind
    {
        let settings = SentenceSettings::read(&folder)?;
        settings.check_prompt(query_prompt)?;
        settings.check_prompt(document_prompt)?;
    }
    let loss = args.loss(kind.is_per_token())?;
    let options = args.options(loss, config.hidden_size)?;
    let texts = TextOptions::new(tokenizer.clone(), kind.clone(), positions)?;
    say(&describe_kind(&kind, has_files));

    let rows = TrainRows::read(&args.train)?;
    rows.check(&options.loss)?;
    say(&format!(
        "{} of a query and {}, {}",
        counted(rows.rows.len() as u64, "row", "rows"),
        counted(rows.ways() as u64, "document", "documents"),
        counted(rows.texts.len() as u64, "text", "texts"),
    ));
    let sets = evaluation_sets(args, &rows, &texts)?;

    let loader = Loader::new(&folder)
        .device(&device.device)
        .precision(precision);
    let (model, is_new) = Embedder::load(loader, &kind, args.seed())?;
    if is_new {
        say("the projection of tokens is new");
    }
    let similarity = options.loss.similarity.into();
    let mut training = Training::new(rows, sets, options);
    if args.lines {
        training.progress = Progress::Lines;
    }
    training.peak_flops = device_peak(&device, precision);
    training.saving = Some(saving);
    stop_on_signals(&training.interrupter)?;
    let trained = training.run(model, &texts)?;
    if trained.truncated > 0 {
        say(&format!(
            "{} truncated",
            counted(trained.truncated as u64, "text was", "texts were")
        ));
    }
    say(&format!(
        "{} of {}, {:.0} tokens per second, {}",
        trained.steps,
        counted(trained.planned_steps, "step", "steps"),
        trained.tokens as f64 / trained.seconds.max(1e-9),
        human_seconds(trained.seconds)
    ));
    if let Some(best) = &trained.best {
        let sets: Vec<String> = best
            .sets
            .iter()
            .map(|(name, score)| format!("{name} {score:.4}"))
            .collect();
        say(&format!(
            "best at step {}: nDCG@10 {:.4} ({})",
            best.step,
            best.mean,
            sets.join(", ")
        ));
    }
    if let Some(checkpoint) = &trained.interrupted {
        let how = match checkpoint {
            Some(place) => format!(
                ", saved in {}; go on with the same command and --resume",
                shown(place)
            ),
            None => String::new(),
        };
        say(&format!("interrupted at step {}{how}", trained.steps));
        std::process::exit(INTERRUPTED.into());
    }
    let saves = |place: &Path| -> Result<(), TrainError> {
        let length = tokenizer.clone().with_max_length(positions);
        trained
            .model
            .save(place, &config, &length, &kind, similarity)
    };
    put_model(&args.out, |place| -> anyhow::Result<()> {
        Ok(saves(place)?)
    })?;
    say(&format!("model in {}", shown(&args.out)));
    if args.saving.save_every.is_none() {
        for warning in remove_checkpoints(&args.out)? {
            say(&format!("warning: {warning}"));
        }
    }
    Ok(())
}

fn check_out(args: &TrainArgs) -> anyhow::Result<()> {
    let bytes = match ModelSource::parse(&args.model) {
        ModelSource::Folder(folder) => {
            read_config(&folder).map_or(0, |config| config.mlm_parameters().saturating_mul(4))
        }
        ModelSource::Hub(_) => 0,
    };
    OutputCheck::folder(&args.out)
        .inputs([Path::new(&args.model)])
        .inputs(&args.train)
        .inputs(&args.eval)
        .needs(bytes)
        .resumes(args.saving.resume, is_resumable)
        .check()?;
    if args.saving.resume {
        check_written(&args.out)?;
    }
    Ok(())
}

fn describe_kind(kind: &VectorKind, has_files: bool) -> String {
    let why = if has_files {
        ""
    } else {
        " (the model's folder does not say how it makes vectors)"
    };
    match kind {
        VectorKind::Single {
            pooling,
            normalize,
            max_length,
            ..
        } => format!(
            "one vector per text: {} pooling, {}, {max_length} tokens at most{why}",
            pooling.name(),
            if *normalize {
                "normalized"
            } else {
                "not normalized"
            },
        ),
        VectorKind::PerToken(settings) => format!(
            "a vector per token: queries of {} tokens after {:?}, documents of {} after {:?}{why}",
            settings.query_length,
            settings.query_prefix,
            settings.document_length,
            settings.document_prefix,
        ),
    }
}

/// Reads the data sets, and says how many of their queries are trained on.
fn evaluation_sets(
    args: &TrainArgs,
    rows: &TrainRows,
    texts: &TextOptions,
) -> anyhow::Result<Vec<EvalSet>> {
    let trained: HashSet<&str> = rows
        .rows
        .iter()
        .map(|row| rows.texts[row.query as usize].as_str())
        .collect();
    args.set.check("--eval", &args.eval)?;
    let mut sets = Vec::new();
    for folder in &args.eval {
        for set in args.set.open(folder)? {
            let known = set
                .queries
                .iter()
                .filter(|q| trained.contains(q.text.as_str()));
            let known = known.count();
            if known > 0 {
                say(&format!(
                    "{}: {} in the training rows too: the score is not one of held-out data",
                    set.name,
                    counted(known as u64, "query is", "queries are"),
                ));
            }
            let set = EvalSet::new(set, texts)?;
            say(&format!(
                "evaluation on {}: {}",
                set.name,
                counted(set.texts() as u64, "text", "texts")
            ));
            sets.push(set);
        }
    }
    Ok(sets)
}
