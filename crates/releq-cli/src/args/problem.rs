//! The options that say what a search may choose and what it is to make cheap.

use anyhow::{Result, bail};
use releq::{
    Choice, ExperimentConfig, ProblemBuilder,
    core::{Bitwidth, BitwidthAssignment, LayerProfile, Network, Operands, UnknownName},
    hw::LimitConfig,
    reward::{Exchange, RewardKind},
};

use super::{
    Files, UsageError,
    costs::{self, Costs},
    options, usage,
};

/// What a search may choose and what it makes cheap: the same options for searches that retrain and for replays.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "What is searched")]
pub struct ProblemArgs {
    /// Bitwidths to choose from; 32 is full precision [default: 2,3,4,5,6,7,8, or those of the table]
    #[arg(
        long,
        value_name = "BITS",
        num_args = 1..,
        value_parser = options::choices,
        allow_negative_numbers = true
    )]
    pub bits: Vec<BitwidthAssignment>,
    /// Cost to minimize, one of `releq list costs`. Several with weights, as in stripes-energy=2,size=1, are added up,
    /// each in shares of what it is at 8 bits [default: mean-bits]
    #[arg(long, value_name = "COSTS", value_parser = costs::parse)]
    pub cost: Vec<Costs>,
    /// Most that an answer may cost, as in size=80kB, stripes=2.5M or, of the cost at 8 bits, stripes-energy=50% or
    /// 0.5x; may be given several times
    #[arg(long, value_name = "COST=MOST")]
    pub limit: Vec<LimitConfig>,
    /// Bitwidth of a layer that is not searched, as in conv1=8 or conv1=float; may be given several times
    #[arg(long, value_name = "LAYER=BITS", value_parser = keep)]
    pub keep: Vec<Keep>,
    /// Reward, one of `releq list rewards`, with its constants as in shaped:threshold=0.8 [default: accuracy
    /// exchanged for cost at a rate that follows from --max-loss; on tables without --max-loss shaped, the paper's]
    #[arg(long, value_parser = options::reward)]
    pub reward: Option<RewardKind>,
    /// Acceptable loss of accuracy, in percentage points [default of searches: 0.3]
    #[arg(
        long,
        value_name = "POINTS",
        value_parser = options::points,
        allow_hyphen_values = true
    )]
    pub max_loss: Option<f64>,
}

/// A layer that keeps its bitwidth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Name of the layer.
    pub layer: String,
    /// Its bitwidth.
    pub bits: Bitwidth,
}

fn keep(text: &str) -> Result<Keep, String> {
    let expected = || "expected a layer and its bitwidth, as in conv1=8 or conv1=float".to_owned();
    let (layer, bits) = text.rsplit_once('=').ok_or_else(expected)?;
    let bits: Bitwidth = bits.trim().parse().map_err(|error| format!("{error}; {}", expected()))?;
    let layer = layer.trim();
    if layer.is_empty() {
        return Err(expected());
    }
    Ok(Keep { layer: layer.to_owned(), bits })
}

impl ProblemArgs {
    /// Adds the files that costs and limits are read from.
    #[must_use]
    pub fn reads(&self, mut files: Files) -> Files {
        for path in costs::files(&self.cost) {
            files = files.reads("--cost", Some(path));
        }
        for path in self.limit.iter().filter_map(|limit| costs::file(&limit.cost)) {
            files = files.reads("--limit", Some(path));
        }
        files
    }

    /// The bitwidths to choose from, if any are given.
    #[must_use]
    pub fn actions(&self) -> Option<Vec<Bitwidth>> {
        options::join_bits(&self.bits).map(Vec::from)
    }

    /// The share of images that `--max-loss` stands for.
    #[must_use]
    pub fn tolerance(&self) -> Option<f64> {
        self.max_loss.map(|points| points / 100.0)
    }

    /// The reward on a table of measurements with these bitwidths to choose from. Without a loss to keep to, it is that of
    /// the paper, in which results on tables are told.
    #[must_use]
    pub fn reward_on_table(&self, actions: &[Bitwidth]) -> RewardKind {
        match (&self.reward, self.tolerance()) {
            (Some(reward), _) => reward.clone(),
            (None, Some(tolerance)) => {
                let highest = actions.iter().map(|bits| bits.get()).max().unwrap_or(8);
                RewardKind::Exchange(Exchange::for_tolerance(tolerance, highest))
            }
            (None, None) => RewardKind::default(),
        }
    }

    /// Puts the options over the settings of a search on `network`.
    ///
    /// # Errors
    /// [`UsageError`] for a layer that the network lacks or that is named twice, bitwidths that the quantizer does not take,
    /// and costs that do not add up.
    pub fn configure(&self, config: &mut ExperimentConfig, network: &Network) -> Result<()> {
        let layers = network.profiles();
        self.check_layers(&layers)?;
        let Choice::Ours(quantizer) = config.quantizer else {
            bail!("--bits and --keep need one of the quantizers of --quantizer");
        };
        if let Some(bits) = usage(options::weight_bits("--bits", &self.bits, quantizer))? {
            config.actions = bits.into();
        }
        for Keep { layer, bits } in &self.keep {
            let only = BitwidthAssignment::uniform(*bits, 1)?;
            usage(options::weight_bits("--keep", &[only], quantizer))?;
            config.fixed_layers.retain(|(fixed, _)| fixed != layer);
            config.fixed_layers.push((layer.clone(), bits.float_at_32()));
        }
        let computing = Operands::new(&layers, |_| true).of(&layers);
        if let Some(cost) = costs::sum(&self.cost, &computing)? {
            config.cost = cost.into();
        }
        if !self.limit.is_empty() {
            config.limits = self.limit.iter().cloned().map(Choice::Ours).collect();
        }
        if let Some(reward) = &self.reward {
            config.reward = Some(reward.clone().into());
        }
        config.tolerance = self.tolerance().unwrap_or(config.tolerance);
        Ok(())
    }

    /// Puts the options but for the reward over a problem with these layers. The loss of accuracy is no part of it, and 32
    /// bits are what they are, as in a table of measurements.
    ///
    /// # Errors
    /// As [`configure`](Self::configure).
    pub fn problem(
        &self,
        mut builder: ProblemBuilder,
        layers: &[LayerProfile],
    ) -> Result<ProblemBuilder> {
        self.check_layers(layers)?;
        if let Some(actions) = self.actions() {
            builder = builder.actions(actions);
        }
        for Keep { layer, bits } in &self.keep {
            builder = builder.fix_layer(layer, *bits);
        }
        if let Some(cost) = costs::sum(&self.cost, layers)? {
            builder = builder.cost(cost.build()?);
        }
        for limit in &self.limit {
            builder = builder.limit(limit.build()?);
        }
        Ok(builder)
    }

    fn check_layers(&self, layers: &[LayerProfile]) -> Result<()> {
        for (index, Keep { layer, .. }) in self.keep.iter().enumerate() {
            let names = || layers.iter().map(|layer| layer.name.as_str());
            if !names().any(|name| name == layer) {
                let unknown = UnknownName::new("layer", layer, names());
                return Err(UsageError(format!("--keep: {unknown}")).into());
            }
            if self.keep[..index].iter().any(|other| other.layer == *layer) {
                return Err(UsageError(format!("--keep names layer `{layer}` twice")).into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use clap::Parser;
    use releq::{Problem, zoo::lenet};

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        problem: ProblemArgs,
    }

    fn parsed(arguments: &[&str]) -> Result<ProblemArgs, clap::Error> {
        let command = Command::try_parse_from(["test"].iter().chain(arguments))?;
        Ok(command.problem)
    }

    #[test]
    fn options_are_put_over_settings_and_problems_alike() {
        let problem = parsed(&[
            "--bits=2,4,32",
            "--cost=stripes=2,size",
            "--limit=size=80kB",
            "--limit=stripes=50%",
            "--keep=conv1=float",
            "--keep=fc2=8",
            "--reward=5*shaped:threshold=0.8",
            "--max-loss=0.5",
        ])
        .unwrap();
        let mut config = ExperimentConfig::lenet(1);
        config.fixed_layers = vec![("conv1".into(), Bitwidth::EIGHT)];
        problem.configure(&mut config, &lenet()).unwrap();
        let fixed: Vec<_> =
            config.fixed_layers.iter().map(|(name, bits)| format!("{name}={bits}")).collect();
        assert_eq!(fixed, ["conv1=float", "fc2=8"]);
        assert_eq!(config.actions.last(), Some(&Bitwidth::FLOAT));
        assert_eq!(config.tolerance, 0.005);
        assert_eq!(config.reward().to_string(), "5*shaped:threshold=0.8");
        let limits: Vec<_> = config.limits.iter().map(ToString::to_string).collect();
        assert_eq!(limits, ["size<=80kB", "stripes<=0.5x"]);
        assert!(config.cost.to_string().starts_with("weighted-sum["), "{}", config.cost);

        let layers = lenet().profiles();
        let without_floats = parsed(&["--bits=2,4", "--keep=fc2=8", "--limit=size=150kB"]).unwrap();
        let builder = Problem::builder().network(&lenet(), None);
        let problem = without_floats.problem(builder, &layers).unwrap().build().unwrap();
        let summary = problem.summary();
        assert_eq!(summary.layers[3].fixed, Some(Bitwidth::EIGHT));
        assert_eq!((summary.actions.len(), summary.limits), (2, vec!["size<=150kB".to_owned()]));
    }

    #[test]
    fn mistakes_are_named_with_the_option_and_what_was_expected() {
        for (arguments, expected) in [
            (&["--keep", "conv1"][..], "expected a layer and its bitwidth, as in conv1=8"),
            (&["--keep", "conv1=33"], "as in conv1=8 or conv1=float"),
            (&["--keep", "=3"], "expected a layer"),
            (&["--limit", "size"], "expected a cost model and its limit"),
            (&["--limit", "sise=60kB"], "did you mean `size`?"),
            (&["--cost", "stripe"], "did you mean `stripes`?"),
            (&["--cost", "stripes=x"], "`x` is not a weight"),
            (&["--reward", "shape"], "did you mean `shaped`?"),
            (&["--max-loss", "-1"], "percentage points from 0 to 100"),
            (&["--bits", "0"], "write a list as 8,4,4,8"),
        ] {
            let message = parsed(arguments).unwrap_err().to_string();
            assert!(message.contains(expected), "{arguments:?}: {message}");
            assert!(message.contains(arguments[0]), "{arguments:?}: {message}");
        }
        for (arguments, expected) in [
            (&["--keep", "conv=8"][..], "--keep: unknown layer `conv`: did you mean `conv"),
            (&["--keep", "fc1=8", "--keep", "fc1=4"], "--keep names layer `fc1` twice"),
            (&["--bits", "2,16"], "--bits 16: quantizer `wrpn-scaled` takes 1 to 8 bits"),
            (&["--keep", "fc1=16"], "--keep 16: quantizer `wrpn-scaled` takes 1 to 8 bits"),
        ] {
            let problem = parsed(arguments).unwrap();
            let error = problem.configure(&mut ExperimentConfig::lenet(1), &lenet()).unwrap_err();
            assert!(error.is::<UsageError>(), "{error:#}");
            assert!(error.to_string().starts_with(expected), "{arguments:?}: {error}");
        }
    }
}
