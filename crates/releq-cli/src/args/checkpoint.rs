//! Networks by name, and the weights that fit them.

use std::path::Path;

use anyhow::{Result, bail};
use releq::{
    core::{BitwidthAssignment, Network, Weights},
    format::{Checkpoint, CheckpointError, NameMap},
    zoo,
};

use super::{UsageError, WeightsArgs, options};
use crate::terminal::output::note;

/// The weights in the checkpoint `path`, found as the options say, and the network that they fit: the one asked for,
/// or a variant of it (a ResNet-20 with other shortcuts). Which it is, where the weights were found and what was
/// ignored is printed.
///
/// # Errors
/// If the file cannot be read or fits neither; the message names the networks of the zoo that it fits.
pub fn open(path: &Path, args: &WeightsArgs, network: Network) -> Result<(Network, Weights)> {
    let WeightsArgs { key, ignore, .. } = args;
    let names = |network: &Network| {
        let names = NameMap::of(network.name());
        let names = match key {
            Some(key) => names.key(key),
            None => names,
        };
        ignore.iter().fold(names, NameMap::ignore)
    };
    if let Some(layer) =
        ignore.iter().find(|&layer| network.nodes().iter().any(|node| node.name == *layer))
    {
        let name = network.name();
        return Err(UsageError(format!(
            "--ignore {layer}: `{name}` has this layer and needs its weights; only what the network lacks is passed over"
        ))
        .into());
    }
    let checkpoint = Checkpoint::open(path)?;
    let error = match checkpoint.check(&network, &names(&network)) {
        Ok(found) => {
            note(format_args!("{}: {found}", path.display()));
            for layer in ignore.iter().filter(|layer| !found.has_ignored(layer)) {
                note(format_args!(
                    "--ignore {layer}: there is no such layer in {}",
                    path.display()
                ));
            }
            let state = checkpoint.state(&network, &names(&network))?;
            return Ok((network, state));
        }
        // Checkpoints say nothing of the ranges of activations, but for those of runs. A search finds them.
        Err(CheckpointError::Mismatch { .. }) if network.rounds_activations() => {
            let (plain, mut weights) = open(path, args, network.without_fake_quantize()?)?;
            let network = plain.with_fake_quantize()?;
            weights.add_ranges(&network);
            return Ok((network, weights));
        }
        Err(CheckpointError::Mismatch { .. }) if network.has_channel_groups() => {
            let (whole, weights) = open(path, args, network.without_channel_groups()?)?;
            if whole.name() != network.name() {
                bail!("{} is of `{}`: name that network", path.display(), whole.name());
            }
            let weights = weights.into_channel_groups(&network);
            weights.check(&network)?;
            return Ok((network, weights));
        }
        Err(error @ CheckpointError::Mismatch { .. }) => error,
        Err(error) => return Err(error.into()),
    };
    let zoo = zoo::NAMES.into_iter().filter_map(|name| zoo::by_name(name).ok());
    let fits = zoo.filter(|other| checkpoint.check(other, &names(other)).is_ok());
    let fits: Vec<Network> = fits.collect();
    match fits.as_slice() {
        [] => Err(error.into()),
        [other] if other.name().starts_with(&format!("{}_", network.name())) => {
            let found = checkpoint.check(other, &names(other))?;
            note(format_args!("the checkpoint is one of `{}`, which is used", other.name()));
            note(format_args!("{}: {found}", path.display()));
            Ok((other.clone(), checkpoint.state(other, &names(other))?))
        }
        fits => {
            let fits: Vec<_> = fits.iter().map(Network::name).collect();
            bail!("{error}\nit fits --network {}", fits.join(" or "))
        }
    }
}

/// One bitwidth for every layer of `network`, from as many or from one.
///
/// # Errors
/// If there are neither; the message names the option and lists the layers.
pub fn per_layer(
    option: &str,
    bits: &BitwidthAssignment,
    network: &Network,
) -> Result<BitwidthAssignment> {
    let layers = network.profiles();
    options::per_layer(option, bits, layers.iter().map(|layer| layer.name.as_str()))
}
