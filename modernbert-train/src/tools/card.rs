//! The model card of a model that a run made.

use modernbert::card::ModelCard;
use modernbert::checkpoint::CONFIG_FILE;
use modernbert::config::ModernBertConfig;
use modernbert::output::OutputError;
use modernbert_cli::text::human_count;
use std::path::Path;

use super::ToolError;
use crate::recipe::{CorpusSource, Recipe};
use crate::run_dir::recipe_of_run;
use crate::snapshot::{RunState, read_state};
use crate::tokenize::{INDEX_FILE, Index};

/// Writes the card of `checkpoint`, a checkpoint of `run`, into the folder `into`, which has the model's config and will be called `out`.
/// `averaged`: the number of checkpoints whose mean the model is.
pub(super) fn write_card(
    checkpoint: &Path,
    run: &Path,
    averaged: usize,
    into: &Path,
    out: &Path,
) -> Result<(), ToolError> {
    let config = ModernBertConfig::from_file(into.join(CONFIG_FILE))?;
    // A run whose recipe is lost still has a model; the card then states that the recipe is unknown.
    let recipe = recipe_of_run(run).ok();
    let state: RunState = read_state(checkpoint)?;
    let card = ModelCard {
        training: recipe
            .as_ref()
            .map_or_else(String::new, |recipe| training(recipe, &state, averaged)),
        data: recipe.as_ref().map_or_else(String::new, data),
        results: results(&state, averaged),
        ..ModelCard::named_after(out)
    };
    card.write(&config, into).map_err(OutputError::write(out))?;
    Ok(())
}

fn training(recipe: &Recipe, state: &RunState, averaged: usize) -> String {
    let begun = match (&recipe.model.from, &recipe.model.tile_from) {
        (Some(model), _) => format!(
            "Continued from `{}` with a fresh optimizer",
            name(Path::new(model))
        ),
        (None, Some(model)) => {
            format!("Initialized from the smaller model `{}`", name(model))
        }
        (None, None) => "Trained from random weights".to_string(),
    };
    let mean = match averaged {
        0 | 1 => String::new(),
        count => format!(
            " The weights are the mean of {count} checkpoints; these are the counts of the first."
        ),
    };
    let phase = match state.phase_name.as_str() {
        "" => String::new(),
        phase => format!(", in the phase `{phase}`"),
    };
    format!(
        "{begun}, by masked language modeling with {:.0} % of the tokens predicted: {} tokens in {} steps{phase}, sequences of up to {} \
         tokens, seed {}, matrix multiplications in {}.{mean}",
        100.0 * recipe.mask.train,
        human_count(state.tokens),
        state.step,
        recipe.data.sequence_length,
        recipe.run.seed,
        recipe.run.precision.name()
    )
}

/// The sources with their licenses, where they are recorded. Names alone: paths of this machine mean nothing elsewhere.
fn data(recipe: &Recipe) -> String {
    let CorpusSource::Paths(paths) = &recipe.data.corpus else {
        return "Rust sources: the packages that cargo had unpacked on the machine. Each package has its own license.".into();
    };
    let mut lines = Vec::new();
    for path in paths {
        let index = modernbert::read::text(&path.join(INDEX_FILE)).ok();
        match index.and_then(|text| Index::parse(&text).ok()) {
            Some(index) => lines.extend(index.sources.iter().map(|source| {
                format!(
                    "- `{}`: {} of the tokens, license: {}",
                    source.name, source.proportion, source.licence
                )
            })),
            None => lines.push(format!("- `{}`: license not recorded", name(path))),
        }
    }
    lines.join("\n")
}

fn results(state: &RunState, averaged: usize) -> String {
    if averaged > 1 {
        return String::new();
    }
    let Some(loss) = state.own_eval_loss() else {
        return String::new();
    };
    let accuracy = state.eval_accuracy.filter(|value| value.is_finite());
    let accuracy = accuracy.map_or(String::new(), |value| {
        format!(", {:.1} % of them predicted right", 100.0 * value)
    });
    format!("Masked tokens of held-out text: loss {loss:.4}{accuracy}.")
}

fn name(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy());
    name.map_or_else(|| path.display().to_string(), String::from)
}
