//! The assignments that an experiment on hardware compares: published ones, the user's, and those that the agent finds.

use std::path::Path;

use anyhow::Result;
use releq::{
    AgentKind,
    agent::PpoConfig,
    core::{BitwidthAssignment, LayerProfile, Network},
    evaluate::{Evaluation, Evaluator},
    zoo,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    seeds::Spread,
    source::{SourceArgs, Variant},
};
use crate::{
    args::{UsageError, checkpoint, options, usage},
    terminal::interrupt::Interrupt,
};

/// Options of experiments on hardware.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct AssignmentArgs {
    /// Assignment to show besides, with a name, as in mine=8,4,4,8; may be given several times
    #[arg(long, value_name = "NAME=BITS", value_parser = assignment)]
    assignment: Vec<(String, BitwidthAssignment)>,
    #[command(flatten)]
    pub(super) source: SourceArgs,
}

fn assignment(text: &str) -> Result<(String, BitwidthAssignment), String> {
    let expected = || "expected a name and bitwidths, as in mine=8,4,4,8".to_owned();
    let (name, bits) = text.split_once('=').ok_or_else(expected)?;
    let name = name.trim();
    if name.is_empty() || name == PUBLISHED || name == FOUND {
        return Err(format!("{}; `{PUBLISHED}` and `{FOUND}` are taken", expected()));
    }
    Ok((name.to_owned(), options::bits(bits)?))
}

/// Name of what the paper publishes.
pub(super) const PUBLISHED: &str = "published";

/// Name of what the agent finds.
pub(super) const FOUND: &str = "found";

/// An assignment of a network.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Assigned {
    pub(super) network: String,
    #[serde(skip)]
    pub(super) layers: Vec<LayerProfile>,
    pub(super) name: String,
    pub(super) bits: BitwidthAssignment,
    /// The seeds with which the agent found it.
    pub(super) seeds: Vec<u64>,
    /// Accuracy in the table, where it has one.
    pub(super) accuracy_percent: Option<f64>,
}

impl Assigned {
    /// Network, name and seeds in a few words.
    pub(super) fn label(&self) -> String {
        match self.seeds.len() {
            0 => format!("{}, {}", self.network, self.name),
            1 => format!("{}, {} by 1 seed", self.network, self.name),
            count => format!("{}, {} by {count} seeds", self.network, self.name),
        }
    }
}

/// Everything to compare, and what it follows from.
pub(super) struct Assignments {
    pub(super) all: Vec<Assigned>,
    pub(super) settings: Value,
}

impl AssignmentArgs {
    /// The network that is named, or those of these names, for the experiment of this name.
    ///
    /// # Errors
    /// If assignments are given for several networks, or a table.
    pub(super) fn networks(&self, experiment: &str, otherwise: &[&str]) -> Result<Vec<Network>> {
        if let Some(network) = self.source.network()? {
            return Ok(vec![network]);
        }
        if !self.assignment.is_empty() || self.source.is_named() {
            let reason = format!(
                "name the network of the assignments, as in `releq experiment {experiment} lenet`"
            );
            return Err(UsageError(reason).into());
        }
        Ok(otherwise.iter().map(|name| zoo::by_name(name)).collect::<Result<_, _>>()?)
    }

    /// The assignments of `networks`; `None` after a signal.
    ///
    /// # Errors
    /// If an assignment does not fit its network, or a search fails.
    pub(super) fn all(
        &self,
        networks: &[Network],
        folder: &Path,
        interrupt: &Interrupt,
    ) -> Result<Option<Assignments>> {
        let mut all = Vec::new();
        for network in networks {
            let named = |name: &str, bits: BitwidthAssignment| Assigned {
                network: network.name().to_owned(),
                layers: network.profiles(),
                name: name.to_owned(),
                bits,
                seeds: Vec::new(),
                accuracy_percent: None,
            };
            all.extend(zoo::published_bits(network.name()).map(|bits| named(PUBLISHED, bits)));
            for (name, bits) in &self.assignment {
                let bits = usage(checkpoint::per_layer("--assignment", bits, network))?;
                all.push(named(name, bits));
            }
        }
        let mut settings = json!({
            "networks": networks.iter().map(Network::name).collect::<Vec<_>>(),
            "assignments": self.assignment.iter().map(|(name, bits)| format!("{name}={bits}")).collect::<Vec<_>>(),
        });
        if let (true, [network]) = (self.source.is_named(), networks) {
            let source = self.source.open()?;
            let agent = self.source.agent(AgentKind::Ppo(PpoConfig::default()))?;
            settings["search"] = source.settings.clone();
            settings["agent"] = serde_json::to_value(&agent)?;
            let reward = source.reward();
            let variant = Variant { name: "search".to_owned(), agent, reward };
            let Some(searched) = source.run(vec![variant], folder, interrupt)? else {
                return Ok(None);
            };
            for (seed, outcome) in searched.iter().flat_map(|searched| &searched.outcomes) {
                let Some(greedy) = &outcome.greedy else { continue };
                let same = |other: &&mut Assigned| other.name == FOUND && other.bits == greedy.bits;
                match all.iter_mut().find(same) {
                    Some(found) => found.seeds.push(*seed),
                    None => all.push(Assigned {
                        network: network.name().to_owned(),
                        layers: network.profiles(),
                        name: FOUND.to_owned(),
                        bits: greedy.bits.clone(),
                        seeds: vec![*seed],
                        accuracy_percent: None,
                    }),
                }
            }
            if let Some(table) = source.table() {
                for assigned in &mut all {
                    assigned.accuracy_percent = accuracy_percent(table, &assigned.bits);
                }
            }
        }
        Ok(Some(Assignments { all, settings }))
    }

    /// The accuracy of an assignment in the table, if there is one that has it.
    ///
    /// # Errors
    /// If the table cannot be read.
    pub(super) fn accuracy_percent(&self, bits: &BitwidthAssignment) -> Result<Option<f64>> {
        if self.source.table.is_none() {
            return Ok(None);
        }
        Ok(self.source.open()?.table().and_then(|table| accuracy_percent(table, bits)))
    }
}

fn accuracy_percent(table: &impl Evaluator, bits: &BitwidthAssignment) -> Option<f64> {
    match table.evaluate(bits) {
        Ok(Evaluation::Measured(measured)) if measured.answered_by.is_none() => {
            Some(100.0 * measured.accuracy)
        }
        _ => None,
    }
}

/// The spread over the seeds of what the agent found.
pub(super) fn over_seeds<'a>(
    all: impl Iterator<Item = (&'a Assigned, Option<f64>)>,
) -> Option<Spread> {
    Spread::of(
        all.filter_map(|(assigned, value)| Some(vec![value?; assigned.seeds.len()])).flatten(),
    )
}
