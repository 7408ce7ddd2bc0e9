//! The command `shapes`: scores of shapes on GPUs, and a search for shapes.

use clap::Args;
use modernbert::config::shapes::{Gpu, Shape, ShapeSearch};
use modernbert_cli::text::human_count;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::process::ExitCode;

use super::print;

pub(crate) const SHAPES_HELP: &str = "\
The score of a shape is the share of a GPU's multiprocessors that the last wave of a GEMM keeps busy, averaged over the four matrices of a
layer and both orientations of blocks of 128 x 256, and over GPUs by weight (paper, appendix B). It says nothing about accuracy: deeper
shapes of equal size are slower and better.

  modernbert-train shapes base large 768x3072x12
      hidden size x intermediate size x layers, or the name of a preset; which constraints of the published shapes are broken
  modernbert-train shapes --parameters 130_000_000..150_000_000 --hidden 768 --gpus A100,H100,132
      the shapes with that number of encoder parameters that break no constraint, the best first; GPUs by name or by their number of
      multiprocessors";

#[derive(Args)]
pub(crate) struct Shapes {
    /// Scores these shapes: HIDDENxINTERMEDIATExLAYERS, or names of presets.
    #[arg(required_unless_present = "parameters")]
    shapes: Vec<String>,
    /// Searches for shapes with this number of encoder parameters: a number, or FROM..TO.
    #[arg(long, value_name = "RANGE", value_parser = range, conflicts_with = "shapes")]
    parameters: Option<RangeInclusive<u64>>,
    // The conflict is needed too: clap requires nothing that conflicts with what is given.
    /// Searches hidden sizes of this range.
    #[arg(
        long,
        value_name = "RANGE",
        value_parser = range,
        default_value = "256..2048",
        requires = "parameters",
        conflicts_with = "shapes"
    )]
    hidden: RangeInclusive<u64>,
    /// Searches numbers of layers of this range.
    #[arg(
        long,
        value_name = "RANGE",
        value_parser = range,
        default_value = "4..64",
        requires = "parameters",
        conflicts_with = "shapes"
    )]
    layers: RangeInclusive<u64>,
    /// Shows at most this number of the shapes found.
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 20,
        value_parser = clap::value_parser!(u64).range(1..),
        requires = "parameters",
        conflicts_with = "shapes"
    )]
    best: u64,
    /// Scores on these GPUs: names or numbers of multiprocessors, separated by commas. By default those of the authors' script.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    gpus: Vec<String>,
    /// Prints one JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

/// Reads `NUMBER` or `FROM..TO`, both inclusive.
fn range(text: &str) -> Result<RangeInclusive<u64>, std::num::ParseIntError> {
    let number = |part: &str| part.trim().replace('_', "").parse();
    match text.split_once("..") {
        Some((from, to)) => Ok(number(from)?..=number(to.trim_start_matches('='))?),
        None => {
            let one = number(text)?;
            Ok(one..=one)
        }
    }
}

impl Shapes {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        modernbert_cli::check_stdout()?;
        let gpus = match self.gpus[..] {
            [] => Gpu::known(),
            _ => self
                .gpus
                .iter()
                .map(|name| Gpu::parse(name))
                .collect::<Result<_, _>>()?,
        };
        let mut seen = HashSet::new();
        if let Some(gpu) = gpus.iter().find(|gpu| !seen.insert(&gpu.name)) {
            let name = &gpu.name;
            anyhow::bail!("--gpus has {name} twice, so that it would count twice; name it once");
        }
        let sizes = |range: &RangeInclusive<u64>| {
            let size = |end: &u64| usize::try_from(*end).unwrap_or(usize::MAX);
            size(range.start())..=size(range.end())
        };
        let (shapes, count) = match &self.parameters {
            None => {
                let shapes = self.shapes.iter().map(|text| Shape::parse(text));
                let shapes: Vec<Shape> = shapes.collect::<Result<_, _>>()?;
                let is_repeated = |at: &usize| shapes[..*at].contains(&shapes[*at]);
                if let Some(second) = (0..shapes.len()).find(is_repeated) {
                    let (text, shape) = (&self.shapes[second], shapes[second]);
                    anyhow::bail!("{text}: the shape {shape} is named twice; name it once");
                }
                let count = shapes.len();
                (shapes, count)
            }
            Some(parameters) => {
                let search = ShapeSearch {
                    parameters: parameters.clone(),
                    hidden: sizes(&self.hidden),
                    layers: sizes(&self.layers),
                };
                let found = search.run(&gpus)?;
                let count = found.len();
                let best = found
                    .into_iter()
                    .take(usize::try_from(self.best).unwrap_or(usize::MAX));
                (best.map(|(shape, _)| shape).collect(), count)
            }
        };
        if self.json {
            let rows: Vec<Value> = shapes.iter().map(|shape| row(shape, &gpus)).collect();
            print(&json!({ "shapes": rows, "found": count }).to_string());
            return Ok(ExitCode::SUCCESS);
        }
        for shape in &shapes {
            let broken = shape.broken_constraints();
            let verdict = match broken[..] {
                [] => String::new(),
                _ => format!("; {}", broken.join("; ")),
            };
            print(&format!(
                "{shape}: {} encoder parameters, score {:.4}{verdict}",
                human_count(shape.parameters()),
                shape.score(&gpus)
            ));
        }
        if self.parameters.is_some() {
            print(&format!("shapes: {count} found, {} shown", shapes.len()));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn row(shape: &Shape, gpus: &[Gpu]) -> Value {
    let utilization: Vec<Value> = gpus
        .iter()
        .map(|gpu| json!({ "gpu": gpu.name, "sms": gpu.sms, "weight": gpu.weight, "utilization": shape.utilization(gpu.sms) }))
        .collect();
    json!({
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "encoder_parameters": shape.parameters(),
        "score": shape.score(gpus),
        "broken_constraints": shape.broken_constraints(),
        "gpus": utilization,
    })
}
