//! Where the searches of an experiment get their accuracies: from a table, or live.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use releq::{
    AgentKind, AgentShape, Budget, Cancel, Choice, Event, Experiment, ExperimentConfig,
    NetworkConfig, Problem, RunFolder, Scored, Search, SearchOutcome,
    core::{Bitwidth, Network, parallel},
    evaluate::{Cached, Evaluator, Table},
    reward::RewardKind,
    zoo,
};
use serde_json::{Value, json};

use super::seeds::{self, Seeds};
use crate::{
    args::{
        AgentArg, Files, NetworkArgs, ProblemArgs, TableArgs, UsageError, costs, options, settings,
    },
    terminal::{
        bars::{Bars, left_key},
        interrupt::Interrupt,
        output::note,
    },
};

/// Episodes of a replay.
const EPISODES: usize = 2000;

/// Options of experiments that search.
///
/// The group is last, since its heading is that of what follows it.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct SourceArgs {
    /// CSV file with the columns `bits` and `accuracy_percent`, or `accuracy` from 0 to 1, that is searched
    #[arg(long, value_name = "FILE")]
    pub(super) table: Option<PathBuf>,
    /// Network whose layers the agent observes and that costs other than mean-bits need
    #[command(flatten)]
    network: NetworkArgs,
    /// Settings of live searches instead of a table, such as `releq search --print-config` prints, or the config.json
    /// of a run. Each search is a run of its own in the folder of the results, and goes on from there
    #[arg(long, value_name = "FILE", conflicts_with = "table")]
    config: Option<PathBuf>,
    /// Seeds of the repetitions: a number, as 5 for the seeds 1 to 5, or a list such as 3,8,21
    #[arg(
        long,
        value_name = "SEEDS",
        default_value = "5",
        value_parser = seeds::parse,
        allow_negative_numbers = true
    )]
    pub(super) seeds: Seeds,
    /// Number of episodes of each search [default: 2000, or those of --config]
    #[arg(
        long,
        value_name = "N",
        value_parser = options::count,
        allow_negative_numbers = true
    )]
    episodes: Option<NonZeroUsize>,
    /// Maximum number of assignments that each search measures [default: no limit, or that of --config]
    #[arg(
        long,
        value_name = "N",
        value_parser = options::whole::<usize>,
        allow_negative_numbers = true
    )]
    evaluations: Option<usize>,
    /// Agent: one of `releq list agents`, or a .json or .toml file with its settings [default: ppo-paper]
    #[arg(long, value_name = "AGENT|FILE")]
    agent: Option<AgentArg>,
    #[command(flatten)]
    read: TableArgs,
    /// Number of searches of a table that run in parallel; does not affect the result [default: all cores]
    #[arg(
        long,
        value_name = "N",
        value_parser = options::threads,
        allow_negative_numbers = true
    )]
    threads: Option<NonZeroUsize>,
    #[command(flatten)]
    pub(super) problem: ProblemArgs,
}

/// A search that an experiment runs with every seed.
#[derive(Clone, Debug)]
pub(super) struct Variant {
    pub(super) name: String,
    pub(super) agent: AgentKind,
    pub(super) reward: RewardKind,
}

/// The searches of a variant, in the order of the seeds.
pub(super) struct Searched {
    pub(super) variant: Variant,
    pub(super) outcomes: Vec<(u64, SearchOutcome)>,
    /// The entry of highest reward in the table.
    pub(super) optimum: Option<Scored>,
}

/// Where accuracies come from, with everything checked that can be.
pub(super) struct Source {
    answers: Answers,
    seeds: Seeds,
    budget: Budget,
    threads: usize,
    /// Everything that the answers depend on, but for the variants.
    pub(super) settings: Value,
}

enum Answers {
    Table {
        table: Table,
        problem: Box<ProblemArgs>,
        read: TableArgs,
        network: Option<Box<Network>>,
    },
    Live(Box<ExperimentConfig>),
}

impl SourceArgs {
    /// The agent that is named, else `otherwise`.
    ///
    /// # Errors
    /// If it is in a file that is no agent.
    pub(super) fn agent(&self, otherwise: AgentKind) -> Result<AgentKind> {
        self.agent.as_ref().map_or(Ok(otherwise), AgentArg::load)
    }

    /// The network that is named.
    ///
    /// # Errors
    /// If its file cannot be read.
    pub(super) fn network(&self) -> Result<Option<Network>> {
        self.network.layers()
    }

    /// Whether there is anything to search.
    pub(super) const fn is_named(&self) -> bool {
        self.table.is_some() || self.config.is_some()
    }

    /// Reads the table or the settings.
    ///
    /// # Errors
    /// For whatever is wrong with them, or with the options.
    pub(super) fn open(&self) -> Result<Source> {
        let files = Files::new()
            .reads("--table", self.table.as_ref())
            .reads("--config", self.config.as_ref())
            .reads("--agent", self.agent.as_ref().and_then(AgentArg::file));
        self.problem.reads(files).check()?;
        let threads = parallel::threads(self.threads.map_or(0, NonZeroUsize::get));
        let seeds = self.seeds.clone();
        if let Some(path) = &self.table {
            let table = self.read.read(path)?;
            // Whatever is wrong with the problem shows now.
            let network = self.network()?;
            self.read.problem(&table, network.as_ref(), &self.problem)?;
            let episodes = self.episodes.map_or(EPISODES, NonZeroUsize::get);
            let budget = Budget {
                episodes: Some(episodes),
                evaluations: self.evaluations,
                ..Budget::default()
            };
            let actions = self.problem.actions().unwrap_or_else(|| table.bitwidths());
            let settings = json!({
                "table": path,
                "table_entries": table.len(),
                "table_sum_of_accuracies": table.iter().map(|(_, accuracy)| accuracy).sum::<f64>(),
                "network": network.as_ref().map(Network::name),
                "full_precision_percent": 100.0 * table.full_precision(),
                "on_miss": self.read.on_miss.to_string(),
                "seeds": seeds,
                "episodes": episodes,
                "evaluations": self.evaluations,
                "bits": actions,
                "cost": self.cost(),
                "limit": self.problem.limit.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "keep": self.problem.keep.iter().map(|keep| format!("{}={}", keep.layer, keep.bits)).collect::<Vec<_>>(),
                "reward": self.problem.reward_on_table(&actions),
            });
            let answers = Answers::Table {
                table,
                problem: Box::new(self.problem.clone()),
                read: self.read.clone(),
                network: network.map(Box::new),
            };
            return Ok(Source { answers, seeds, budget, threads, settings });
        }
        let Some(path) = &self.config else {
            let reason = "name a table of accuracies with --table, or settings of live searches with --config";
            return Err(UsageError(reason.to_owned()).into());
        };
        let mut config = self.live(path)?;
        let budget = Budget {
            episodes: self.episodes.map(NonZeroUsize::get).or(config.budget.episodes),
            evaluations: self.evaluations.or(config.budget.evaluations),
            ..config.budget
        };
        // What a run is compared with are the other variants.
        (config.budget, config.compare) = (budget, false);
        config.check()?;
        let settings = json!({ "seeds": seeds, "config": config });
        Ok(Source { answers: Answers::Live(Box::new(config)), seeds, budget, threads, settings })
    }

    /// The costs that are made cheap, as they are given.
    fn cost(&self) -> String {
        let term = |term: &costs::CostTerm| match term.weight {
            Some(weight) => format!("{}={weight}", term.cost),
            None => term.cost.to_string(),
        };
        let terms: Vec<String> = costs::terms(&self.problem.cost).map(term).collect();
        if terms.is_empty() { "mean-bits".to_owned() } else { terms.join(",") }
    }

    /// The settings of live searches.
    fn live(&self, path: &Path) -> Result<ExperimentConfig> {
        let given = settings::read(path)?;
        let network = match (self.network()?, given.get("network")) {
            (Some(network), _) => network,
            (None, Some(named)) => {
                let named: NetworkConfig =
                    serde_json::from_value(named.clone()).context("--config")?;
                named.build()?
            }
            (None, None) => zoo::lenet(),
        };
        let mut config = settings::put_over(&settings::preset(&network, 1), &given, path)?;
        self.problem.configure(&mut config, &network)?;
        config.network = Some(NetworkConfig::from(&network));
        config.threads = self
            .threads
            .or_else(|| std::thread::available_parallelism().ok())
            .unwrap_or(config.threads);
        if !matches!(config.data, Some(Choice::Ours(_))) {
            let reason = "--config: `data` names no images; `releq search --print-config` prints settings with them";
            return Err(UsageError(reason.to_owned()).into());
        }
        Ok(config)
    }
}

impl Source {
    /// The reward of a search.
    pub(super) fn reward(&self) -> RewardKind {
        match &self.answers {
            Answers::Table { problem, .. } => problem.reward_on_table(&self.actions()),
            Answers::Live(config) => match config.reward() {
                Choice::Ours(reward) => reward,
                Choice::Own(_) => RewardKind::default(),
            },
        }
    }

    /// The bitwidths to choose from, ascending.
    pub(super) fn actions(&self) -> Vec<Bitwidth> {
        let mut actions = match &self.answers {
            Answers::Table { table, problem, .. } => {
                problem.actions().unwrap_or_else(|| table.bitwidths())
            }
            Answers::Live(config) => config.all_actions(),
        };
        actions.sort_unstable();
        actions.dedup();
        actions
    }

    /// Names of the layers that are searched.
    ///
    /// # Errors
    /// If there is no such problem.
    pub(super) fn layers(&self) -> Result<Vec<String>> {
        match &self.answers {
            Answers::Table { problem, .. } => {
                let kept = |name: &str| problem.keep.iter().any(|keep| keep.layer == name);
                let built = self
                    .table_problem(&RewardKind::default())?
                    .context("a table poses a problem")?;
                let names = built.layers().iter().map(|layer| layer.profile.name.clone());
                Ok(names.filter(|name| !kept(name)).collect())
            }
            Answers::Live(config) => {
                let network =
                    config.network.as_ref().context("settings name a network")?.build()?;
                let fixed = |name: &str| config.fixed_layers.iter().any(|(layer, _)| layer == name);
                let names = network.profiles().into_iter().map(|layer| layer.name);
                Ok(names.filter(|name| !fixed(name)).collect())
            }
        }
    }

    /// The table that is searched, if one is.
    pub(super) fn table(&self) -> Option<&Table> {
        match &self.answers {
            Answers::Table { table, .. } => Some(table),
            Answers::Live(_) => None,
        }
    }

    /// The problem that the table poses under a reward; `None` of a live search.
    ///
    /// # Errors
    /// If the options do not fit the table.
    pub(super) fn table_problem(&self, reward: &RewardKind) -> Result<Option<Problem>> {
        let Answers::Table { table, problem, read, network } = &self.answers else {
            return Ok(None);
        };
        let mut problem = problem.clone();
        problem.reward = Some(reward.clone());
        read.problem(table, network.as_deref(), &problem).map(Some)
    }

    /// Every entry of the table that the problem admits, with its score.
    ///
    /// # Errors
    /// If one cannot be scored.
    pub(super) fn scored(&self, problem: &Problem) -> Result<Vec<Scored>> {
        let Some(table) = self.table() else { return Ok(Vec::new()) };
        let admitted = table.iter().filter(|(bits, _)| problem.admits(bits));
        Ok(admitted.map(|(bits, _)| problem.score(bits, table)).collect::<Result<_, _>>()?)
    }

    /// Runs all variants with all seeds; live ones in folders below `folder`. `None` after a signal.
    ///
    /// # Errors
    /// If a search fails.
    pub(super) fn run(
        &self,
        variants: Vec<Variant>,
        folder: &Path,
        interrupt: &Interrupt,
    ) -> Result<Option<Vec<Searched>>> {
        let searched = match &self.answers {
            Answers::Table { table, .. } => self.replay(variants, table, &interrupt.cancel)?,
            Answers::Live(config) => self.search(variants, config, folder, &interrupt.cancel)?,
        };
        Ok(searched.filter(|_| !interrupt.cancel.is_cancelled()))
    }

    fn replay(
        &self,
        variants: Vec<Variant>,
        table: &Table,
        cancel: &Cancel,
    ) -> Result<Option<Vec<Searched>>> {
        let mut problems = Vec::new();
        for variant in &variants {
            let problem =
                self.table_problem(&variant.reward)?.context("a table poses a problem")?;
            let optimum = best(&self.scored(&problem)?)?;
            problems.push((problem, optimum));
        }
        let runs: Vec<_> = variants
            .iter()
            .zip(&problems)
            .flat_map(|(variant, (problem, _))| {
                self.seeds.0.iter().map(move |&seed| (variant, problem, seed))
            })
            .collect();
        let bar = ProgressBar::new(runs.len() as u64);
        let style = ProgressStyle::with_template("{elapsed} {bar:20} {pos}/{len} searches{left}")?;
        bar.set_style(style.with_key("left", left_key));
        let outcomes =
            parallel::try_map(runs.into_iter(), self.threads, |(variant, problem, seed)| {
                let evaluator = Cached::new(table);
                let mut agent = variant.agent.build(&AgentShape::new(problem, seed))?;
                let search = Search::new(problem, agent.as_mut(), &evaluator, self.budget)
                    .planning(variant.agent.planning());
                let outcome = search.cancel(cancel).run()?;
                if let Some(error) = &outcome.error {
                    bail!("{}, seed {seed}: {error}", variant.name);
                }
                bar.inc(1);
                Ok::<_, anyhow::Error>((seed, outcome))
            })?;
        bar.finish_and_clear();
        let mut outcomes = outcomes.into_iter();
        let searched = variants.into_iter().zip(problems).map(|(variant, (_, optimum))| {
            let outcomes = outcomes.by_ref().take(self.seeds.0.len()).collect();
            Searched { variant, outcomes, optimum: Some(optimum) }
        });
        Ok(Some(searched.collect()))
    }

    fn search(
        &self,
        variants: Vec<Variant>,
        config: &ExperimentConfig,
        folder: &Path,
        cancel: &Cancel,
    ) -> Result<Option<Vec<Searched>>> {
        let mut all = Vec::new();
        for variant in variants {
            let mut outcomes = Vec::new();
            for &seed in &self.seeds.0 {
                let run = folder.join("runs").join(format!("{}-seed-{seed}", plain(&variant.name)));
                note(format_args!("{}, seed {seed}: {}", variant.name, run.display()));
                let mut config = config.clone();
                config.seed = seed;
                config.agent = variant.agent.clone().into();
                config.reward = Some(variant.reward.clone().into());
                std::fs::create_dir_all(folder.join("runs"))
                    .with_context(|| folder.display().to_string())?;
                let run = RunFolder::open(&run)?;
                let bars = Bars::new(false);
                let on_event = |event: &Event| bars.show(event);
                let report = Experiment::from_config(config)?.run_in(&run, cancel, &on_event);
                bars.finish();
                let report = match report {
                    Err(releq::ReleqError::Cancelled) => return Ok(None),
                    other => other?,
                };
                if cancel.is_cancelled() {
                    return Ok(None);
                }
                if let Some(error) = report.failed() {
                    bail!("{}, seed {seed}: {error}", variant.name);
                }
                outcomes.push((seed, report.search));
            }
            all.push(Searched { variant, outcomes, optimum: None });
        }
        Ok(Some(all))
    }
}

/// A name for a folder: names of rewards have characters that some systems refuse.
fn plain(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-.".contains(c) { c } else { '_' })
        .collect()
}

/// The candidate of highest reward, the first of equals.
///
/// # Errors
/// If there is none.
fn best(scored: &[Scored]) -> Result<Scored> {
    scored
        .iter()
        .filter(|scored| scored.is_candidate())
        .min_by(|a, b| b.reward.total_cmp(&a.reward))
        .cloned()
        .context("no entry of the table is within the limits and has the bitwidths asked for")
}
