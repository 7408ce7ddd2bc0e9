//! Prediction of a recipe's speed, memory, time and cost on several GPUs.
//!
//! A step of N ranks takes `⌈m / N⌉ t + (N > 1) (transfer + h)`: m micro-batches of a step, t seconds of one on one GPU, the transfer of
//! gradients and a constant h of host work. t follows from a measured speed, or from the share of the peak at which models of this width ran. A rank
//! sends and receives `2 (N - 1) / N` times the gradients in f32; the share between GPUs of one host passes at the link's bandwidth, the
//! rest at the network's. Bandwidth of NVLink and h are fitted to the measurements of docs/scaling.md.

use modernbert::config::ModernBertConfig;
use modernbert::ops::cross_entropy::LARGE_CHUNK;
use serde_json::{Value, json};
use std::path::Path;

use super::ToolError;
use super::inspect::{ASSUMPTIONS, config_of, recipe_at};
use crate::engine::peak_tflops;
use crate::pretrain::TrainingMemory;
use crate::recipe::Recipe;

/// The GPU that the measurements are of.
const GPU: &str = "NVIDIA H200";

/// Exchange of 599 MB in one piece between two H200 in the order of the tree: 3.3 ms (docs/scaling.md).
const NVLINK_BYTES_PER_SECOND: f64 = 181e9;

/// PCI Express 5.0 with 16 lanes at 80 % of its nominal 63 GB/s; not measured.
const PCIE_BYTES_PER_SECOND: f64 = 50e9;

/// Share of a network's nominal bandwidth; not measured.
const NETWORK_SHARE: f64 = 0.8;

/// Seconds that a step of two ranks takes beyond its micro-batches and the transfer: the mean of 7.8 ms (1024 tokens a sequence) and 9.9 ms
/// (8192 tokens), from the speeds on one and two H200 (docs/scaling.md).
const HOST_SECONDS: f64 = 8.8e-3;

/// Width of the residual stream and share of the peak of training in bf16 at 1024 tokens a sequence: the 32M shape (on an H100,
/// docs/pretraining.md), base (docs/scaling.md), large (docs/pretraining.md).
const MFU_BY_WIDTH: [(f64, f64); 3] = [(384.0, 0.243), (768.0, 0.38), (1024.0, 0.46)];

/// The link between the GPUs of one host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// NVLink through switches, as between H100 or H200.
    #[default]
    Nvlink,
    /// PCI Express.
    Pcie,
}

impl Link {
    fn bytes_per_second(self) -> f64 {
        match self {
            Self::Nvlink => NVLINK_BYTES_PER_SECOND,
            Self::Pcie => PCIE_BYTES_PER_SECOND,
        }
    }
}

/// The GPUs that a prediction is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cluster {
    /// Number of GPUs, each with a rank.
    pub world: u64,
    /// GPUs of a host.
    pub gpus_per_node: u64,
    /// Link between the GPUs of a host.
    pub link: Link,
    /// Network between hosts, in Gbit/s for each GPU.
    pub network_gbit: f64,
    /// Measured speed of one GPU in tokens per second, for recipes of one phase or for all phases alike.
    pub tokens_per_second: Option<f64>,
    /// Price of a GPU for an hour, in any currency.
    pub price: Option<f64>,
}

/// The prediction for a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepPrediction {
    /// Seconds of a step.
    pub seconds: f64,
    /// Seconds of it in which gradients are sent.
    pub transfer_seconds: f64,
    /// Tokens per second of all GPUs.
    pub tokens_per_second: f64,
    /// Speed over N times the speed of one GPU.
    pub efficiency: f64,
}

impl Cluster {
    /// Predicts a step of `micro_batches` micro-batches of `tokens` tokens for a model of `parameters`, at `speed` tokens per second on one GPU.
    pub fn step(
        &self,
        parameters: u64,
        micro_batches: u64,
        tokens: u64,
        speed: f64,
    ) -> StepPrediction {
        let world = self.world.max(1);
        let of_rank = micro_batches.max(1).div_ceil(world);
        let transfer_seconds = self.transfer_seconds(4.0 * parameters as f64);
        let mut seconds = of_rank as f64 * tokens as f64 / speed;
        if world > 1 {
            seconds += transfer_seconds + HOST_SECONDS;
        }
        let tokens_per_second = micro_batches.max(1) as f64 * tokens as f64 / seconds;
        StepPrediction {
            seconds,
            transfer_seconds,
            tokens_per_second,
            efficiency: tokens_per_second / (world as f64 * speed),
        }
    }

    /// Seconds in which each rank sends its shares of a vector of these bytes to all others, and the sums.
    fn transfer_seconds(&self, bytes: f64) -> f64 {
        let world = self.world.max(1) as f64;
        let local = world.min(self.gpus_per_node.max(1) as f64);
        let network = NETWORK_SHARE * self.network_gbit * 1e9 / 8.0;
        let share = 2.0 * bytes / world;
        share * (local - 1.0) / self.link.bytes_per_second() + share * (world - local) / network
    }

    /// The assumptions, for a person.
    fn assumptions(&self, is_measured: bool) -> Vec<String> {
        let mut all = vec![match is_measured {
            true => "speed of one GPU: as given".to_owned(),
            false => format!(
                "speed of one GPU: {GPU}, bf16, at the share of its peak measured at widths of 384 (on an H100), 768 and 1024 and sequences of 1024 tokens, linear in between, the nearest beyond"
            ),
        }];
        if self.world > 1 {
            let local = self.bandwidth_in_words();
            all.push(format!(
                "within a host: {local}; every GPU has this bandwidth to all others at once"
            ));
            all.push(format!(
                "host work of a step beyond its micro-batches: {:.1} ms, fitted to two H200; measured with two GPUs alone, assumed for more",
                1e3 * HOST_SECONDS
            ));
            all.push("gradients are sent after the backward pass, not during it".to_owned());
        }
        if self.world > self.gpus_per_node {
            all.push(format!(
                "between hosts: {} Gbit/s for each GPU, of which {:.0} % are reached; not measured",
                self.network_gbit,
                100.0 * NETWORK_SHARE
            ));
        }
        all.push("not included: evaluations, checkpoints, the smaller steps of a batch-size warmup, faults".to_owned());
        all
    }

    fn bandwidth_in_words(&self) -> String {
        let gigabytes = self.link.bytes_per_second() / 1e9;
        match self.link {
            Link::Nvlink => format!("NVLink at {gigabytes:.0} GB/s, measured between two H200"),
            Link::Pcie => format!("PCI Express at {gigabytes:.0} GB/s, not measured"),
        }
    }
}

/// The share of the peak at which a model of this width is assumed to train.
fn mfu(width: usize) -> f64 {
    let width = width as f64;
    let [first, .., last] = MFU_BY_WIDTH;
    if width <= first.0 {
        return first.1;
    }
    let pair = MFU_BY_WIDTH.windows(2).find(|pair| width <= pair[1].0);
    pair.map_or(last.1, |pair| {
        let x = (width - pair[0].0) / (pair[1].0 - pair[0].0);
        pair[0].1 + x * (pair[1].1 - pair[0].1)
    })
}

/// Tokens per second of one GPU by the FLOPs of a token.
fn speed(config: &ModernBertConfig, recipe: &Recipe) -> f64 {
    let length = recipe.data.sequence_length;
    let predicted = (recipe.mask.train * length as f64) as usize;
    let flops = config.train_flops(&[length], predicted) as f64 / length as f64;
    let peak = peak_tflops(GPU, recipe.precision()).unwrap_or(f64::NAN) * 1e12;
    mfu(config.hidden_size) * peak / flops
}

/// Predicts step time, efficiency, memory, hours and cost of each phase of a recipe on a cluster.
///
/// # Errors
/// A recipe that can't be read or is invalid.
pub fn predict(path: &Path, cluster: &Cluster) -> Result<Value, ToolError> {
    let (recipe, _) = recipe_at(path)?;
    let (recipe, _) = recipe.resolve_model()?;
    recipe.validate()?;
    let (mut phases, mut hours) = (Vec::new(), 0.0);
    for phase in recipe.phases()? {
        let one = &phase.recipe;
        let config = config_of(one)?;
        let parameters = config.mlm_parameters();
        let speed = cluster
            .tokens_per_second
            .unwrap_or_else(|| speed(&config, one));
        let micro_batches = one.batch.micro_batches as u64;
        let step = cluster.step(parameters, micro_batches, one.batch.tokens as u64, speed);
        let of_phase = one.run.total_tokens as f64 / step.tokens_per_second / 3600.0;
        hours += of_phase;
        // A sum over ranks takes the gradients a second time.
        let copies = if cluster.world > 1 { 4 } else { 0 };
        let memory = TrainingMemory::of(&config, one, LARGE_CHUNK).total();
        phases.push(json!({
            "phase": phase.name,
            "tokens": one.run.total_tokens,
            "tokens_per_step": one.tokens_per_step(),
            "micro_batches": micro_batches,
            "micro_batches_of_a_gpu": micro_batches.max(1).div_ceil(cluster.world.max(1)),
            "idle_gpus": cluster.world.saturating_sub(micro_batches),
            "tokens_per_second_of_one_gpu": speed.round() as u64,
            "tokens_per_second": step.tokens_per_second.round() as u64,
            "step_milliseconds": (1e5 * step.seconds).round() / 100.0,
            "transfer_milliseconds": match cluster.world {
                1 => Value::Null,
                _ => json!((1e5 * step.transfer_seconds).round() / 100.0),
            },
            "efficiency": (1e3 * step.efficiency).round() / 1e3,
            "memory_of_a_gpu_bytes": memory.saturating_add(parameters.saturating_mul(copies)),
            "hours": of_phase,
        }));
    }
    let gpu_hours = hours * cluster.world as f64;
    Ok(json!({
        "kind": "prediction",
        "gpus": cluster.world,
        "phases": phases,
        "hours": hours,
        "hours_of_gpus": gpu_hours,
        "cost": cluster.price.map(|price| (100.0 * gpu_hours * price).round() / 100.0),
        ASSUMPTIONS: cluster.assumptions(cluster.tokens_per_second.is_some()),
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn cluster(world: u64) -> Cluster {
        Cluster {
            world,
            gpus_per_node: 8,
            link: Link::Nvlink,
            network_gbit: 400.0,
            tokens_per_second: None,
            price: None,
        }
    }

    /// The efficiencies of docs/scaling.md, "Two GPUs, measured", within 0.01.
    #[test]
    fn two_gpus_are_predicted_within_a_hundredth_of_their_measured_efficiency() {
        let parameters = ModernBertConfig::base().mlm_parameters();
        for (one, two) in [(459_938.0, 853_631.0), (324_863.0, 609_952.0)] {
            let step = cluster(2).step(parameters, 2, 65_536, one);
            let measured = two / (2.0 * one);
            assert!(
                (step.efficiency - measured).abs() < 0.01,
                "{} and {measured}",
                step.efficiency
            );
            assert!((step.transfer_seconds - 3.3e-3).abs() < 1e-4, "{step:?}");
        }
    }

    /// The speeds of docs/pretraining.md within 5 %: base and large at 1024 tokens on an H200.
    #[test]
    fn the_speed_of_one_gpu_is_the_measured_one() {
        for (name, measured) in [("base", 459_938.0), ("large", 198_483.0)] {
            let text = format!(
                "model.preset = '{name}'\nrun = {{ total_tokens = 1_000_000_000, precision = 'bf16' }}\nbatch.tokens = 65_536\ndata.sequence_length = 1024\n"
            );
            let recipe = Recipe::from_str(&text, "r.toml").unwrap();
            let config = recipe.model.config(50_368).unwrap();
            let found = speed(&config, &recipe);
            assert!((found / measured - 1.0).abs() < 0.05, "{name}: {found}");
        }
        assert_eq!((mfu(64), mfu(576), mfu(4096)), (0.243, 0.3115, 0.46));
    }

    #[test]
    fn one_gpu_has_no_transfer_and_more_gpus_than_micro_batches_are_idle() {
        let parameters = ModernBertConfig::base().mlm_parameters();
        let step = |world, micro_batches| {
            cluster(world).step(parameters, micro_batches, 65_536, 400_000.0)
        };
        let one = step(1, 8);
        assert!(
            (one.efficiency - 1.0).abs() < 1e-12 && one.transfer_seconds == 0.0,
            "{one:?}"
        );
        assert!(step(8, 8).efficiency < step(8, 64).efficiency);
        assert!(step(16, 8).tokens_per_second < step(8, 8).tokens_per_second);
        // The part between hosts is slower.
        let hosts = Cluster {
            gpus_per_node: 4,
            ..cluster(8)
        };
        let inside = cluster(8).step(parameters, 8, 65_536, 400_000.0);
        assert!(hosts.step(parameters, 8, 65_536, 400_000.0).efficiency < inside.efficiency);
        let bytes = 4.0 * parameters as f64;
        assert!((inside.transfer_seconds - 1.75 * bytes / 181e9).abs() < 1e-12);
    }

    #[test]
    fn a_recipe_has_hours_and_a_cost() {
        let with_price = Cluster {
            price: Some(2.0),
            ..cluster(8)
        };
        let found = predict(Path::new("base"), &with_price).unwrap();
        let number = |key: &str| found[key].as_f64().unwrap();
        assert!((number("hours_of_gpus") - 8.0 * number("hours")).abs() < 1e-9);
        assert!((number("cost") - 2.0 * number("hours_of_gpus")).abs() < 0.01);
        // 1719 G tokens in the first phase; on eight H100 the authors took 194 hours.
        let first = found["phases"][0]["hours"].as_f64().unwrap();
        assert!((100.0..194.0).contains(&first), "{first}");
        let lines = super::super::lines(&found);
        assert_eq!(lines[0], "kind: prediction");
        assert!(
            lines.last().unwrap().starts_with("assumed: not included"),
            "{lines:?}"
        );
    }
}
