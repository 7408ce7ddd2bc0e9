//! Arguments of the commands that train on several ranks, and the connection by these arguments.

use anyhow::{Context, bail};
use burn_nccl::COMPILED;
use clap::{Args, ValueEnum};
use modernbert::device::NamedDevice;
use modernbert_train::engine::{GradientSum, Host, Nccl, SumOrder, Transport};
use ranks::{ConnectOptions, Ranks, World};
use std::sync::Arc;
use std::time::Duration;

/// Transport of gradients between ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum TransportChoice {
    /// NCCL between CUDA devices where it is compiled in, host memory otherwise.
    Auto,
    /// Host memory and TCP, through rank 0.
    Host,
    /// NCCL, between CUDA devices.
    Nccl,
}

/// An order of summation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum SumOrderArg {
    /// A fixed binary tree: the same bits for any number of ranks.
    Tree,
    /// The library's all-reduce: the bits depend on the number of ranks, and with NCCL on its version and the links between GPUs.
    Library,
}

#[derive(Args)]
pub(super) struct RankArgs {
    /// Trains with this many processes of this machine, the ranks: they share the micro-batches of a step, and the result has the same bits
    /// for any number. The output of rank N is appended to FOLDER-ranks/rank-N.log. Under torchrun, srun or mpirun leave it out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) nproc: Option<u16>,
    /// Sends gradients between ranks this way; auto by default.
    #[arg(long, value_name = "WAY")]
    gradients: Option<TransportChoice>,
    /// Sums gradients over ranks in this order; tree by default.
    #[arg(long, value_name = "ORDER")]
    sum_order: Option<SumOrderArg>,
    /// Ends the run when a rank has not answered for this many seconds, 600 by default; a step, an evaluation and a checkpoint must fit in. Ranks wait
    /// as long for each other at the start, 120 seconds by default.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    rank_timeout: Option<u64>,
}

impl RankArgs {
    /// Refuses arguments about several ranks in a process that is neither one of `--nproc` nor of a launcher.
    fn check_several(&self) -> anyhow::Result<()> {
        let given = [
            ("--gradients", self.gradients.is_some()),
            ("--sum-order", self.sum_order.is_some()),
            ("--rank-timeout", self.rank_timeout.is_some()),
        ];
        let given = given.iter().find(|(_, is_given)| *is_given);
        match given.filter(|_| self.nproc.is_none() && !World::is_launched()) {
            Some((name, _)) => bail!(
                "{name} has no effect in a single process; give --nproc or start the ranks with a launcher, or leave it out"
            ),
            None => Ok(()),
        }
    }

    /// Connects to the other ranks of `world`.
    pub(super) fn connect(
        &self,
        world: &World,
        device: &NamedDevice,
    ) -> anyhow::Result<(Arc<Ranks>, GradientSum)> {
        self.check_several()?;
        let on_gpu = device.name.starts_with("cuda");
        let nccl = match self.gradients.unwrap_or(TransportChoice::Auto) {
            TransportChoice::Auto => on_gpu && COMPILED,
            TransportChoice::Host => false,
            TransportChoice::Nccl if !COMPILED => {
                bail!(
                    "--gradients nccl: this program was built without NCCL; rebuild it with `--features nccl`"
                )
            }
            TransportChoice::Nccl if !on_gpu => bail!(
                "--gradients nccl needs CUDA devices, and the device is {}; use --gradients host",
                device.name
            ),
            TransportChoice::Nccl => true,
        };
        let defaults = ConnectOptions::default();
        let timeout = self.rank_timeout.map(Duration::from_secs);
        let options = ConnectOptions {
            start: timeout.unwrap_or(defaults.start),
            silence: timeout.unwrap_or(defaults.silence),
        };
        let ranks = Arc::new(Ranks::connect(world, &terms(&device.name, nccl), &options)?);
        let order = match self.sum_order.unwrap_or(SumOrderArg::Tree) {
            SumOrderArg::Tree => SumOrder::Tree,
            SumOrderArg::Library => SumOrder::Library,
        };
        let transport: Arc<dyn Transport> = match nccl && ranks.is_several() {
            false => Arc::new(Host),
            true => {
                let connected = Nccl::connect(&ranks, &device.device);
                let connected = connected.inspect_err(|error| ranks.leave(&error.to_string()));
                Arc::new(connected.context("--gradients host does without NCCL")?)
            }
        };
        Ok((ranks, GradientSum::new(transport, order)))
    }
}

/// The terms on which all ranks must agree: the program, the command and the kind of device. All other settings follow from these and
/// from the run's folder.
fn terms(device: &str, nccl: bool) -> Vec<ranks::Term> {
    let command: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let kind = device.split(':').next().unwrap_or(device);
    let way = if nccl { "NCCL" } else { "host memory" };
    let terms = [
        (
            "the version of the program",
            env!("CARGO_PKG_VERSION").to_string(),
        ),
        ("the command", command.join(" ")),
        ("the kind of device", kind.to_string()),
        ("the way of gradients", way.to_string()),
    ];
    terms
        .map(|(name, value)| (name.to_string(), value))
        .to_vec()
}
