//! The options that say how a table of measured accuracies is read, and the problem that it poses.

use std::path::Path;

use anyhow::{Context, Result, bail};
use releq::{
    Problem, SearchLayer,
    core::{LayerProfile, Network},
    evaluate::{OnMiss, Table},
    hw::CostKind,
    zoo::preset,
};

use super::{ProblemArgs, UsageError, costs, options, usage};

/// How a table of measured accuracies is read.
#[derive(clap::Args, Clone, Debug)]
pub struct TableArgs {
    /// What to do if the table lacks an assignment: `error`, or `nearest` to use the nearest entry, including its
    /// bitwidths
    #[arg(long, value_name = "ACTION", default_value = "error")]
    pub on_miss: OnMiss,
    /// Full-precision accuracy in percent [default: the best accuracy in the table]
    #[arg(
        long,
        value_name = "PERCENT",
        value_parser = options::percent,
        allow_hyphen_values = true
    )]
    pub full_precision: Option<f64>,
}

impl TableArgs {
    /// Reads the table.
    ///
    /// # Errors
    /// If the file is no table, or the full-precision accuracy does not fit it.
    pub fn read(&self, path: &Path) -> Result<Table> {
        let table = Table::read(path, self.on_miss)?;
        match self.full_precision {
            Some(percent) => {
                usage(table.with_full_precision(percent / 100.0).context("--full-precision"))
            }
            None => Ok(table),
        }
    }

    /// The problem that a table and the options pose. Without a network all layers look alike to the agent. A table of
    /// those layers of a network that its preset searches is taken as that: costs are of these layers alone.
    ///
    /// # Errors
    /// [`UsageError`] for costs that need a network where none is named, and for bitwidths that the table lacks; if
    /// the network has another number of layers.
    pub fn problem(
        &self,
        table: &Table,
        network: Option<&Network>,
        options: &ProblemArgs,
    ) -> Result<Problem> {
        let layers: Vec<LayerProfile> = match network {
            Some(network) => layers_of(table, network)?,
            None => {
                let costs = costs::terms(&options.cost).map(|term| &term.cost);
                let limits = options.limit.iter().map(|limit| &limit.cost);
                for (option, cost) in
                    costs.map(|cost| ("--cost", cost)).chain(limits.map(|cost| ("--limit", cost)))
                {
                    if *cost != CostKind::MeanBits {
                        return Err(UsageError(format!(
                            "{option} {cost} depends on the shapes of the layers; name their network, as in \
                             `releq replay lenet`"
                        ))
                        .into());
                    }
                }
                let unknown = |index| LayerProfile::linear(format!("layer{index}"), 1, 1);
                (1..=table.layers()).map(unknown).collect()
            }
        };
        let known = table.bitwidths();
        let actions = options.actions();
        if let Some(actions) = &actions
            && self.on_miss == OnMiss::Error
            && let Some(missing) = actions.iter().find(|bits| !known.contains(bits))
        {
            let known: Vec<String> = known.iter().map(ToString::to_string).collect();
            return Err(UsageError(format!(
                "--bits {missing}: the table has {} bits only; --on-miss nearest takes the nearest entries",
                known.join(", ")
            ))
            .into());
        }
        let search_layer = |profile: &LayerProfile| SearchLayer {
            profile: profile.clone(),
            weight_std: 0.0,
            fixed: None,
        };
        let reward = options.reward_on_table(actions.as_deref().unwrap_or(&known));
        let builder = Problem::builder()
            .layers(layers.iter().map(search_layer).collect())
            .actions(known)
            .reward(reward.build());
        Ok(options.problem(builder, &layers)?.build()?)
    }
}

/// The layers of `network` that the table has: all of them, or those that its preset searches.
fn layers_of(table: &Table, network: &Network) -> Result<Vec<LayerProfile>> {
    let (layers, expected) = (network.profiles(), table.layers());
    if layers.len() == expected {
        return Ok(layers);
    }
    let name = network.name();
    let searched = preset(name).and_then(|preset| layers.get(preset.searched).map(<[_]>::to_vec));
    if let Some(searched) = searched.filter(|searched| searched.len() == expected) {
        return Ok(searched);
    }
    bail!(
        "`{name}` has {} quantizable layers, the table {expected}; without the network, the layers of the table count \
         alike",
        layers.len()
    )
}
