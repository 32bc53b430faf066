//! `releq experiment stripes`: speed and energy on the Stripes accelerator.

use std::process::ExitCode;

use anyhow::Result;
use releq::{
    core::LayerProfile,
    hw::{CostKind, Stripes, speedup, uniform, weights_only},
};
use serde::Serialize;
use serde_json::json;

use super::{
    assignments::{Assigned, AssignmentArgs, PUBLISHED, over_seeds},
    folder::FolderArgs,
    seeds::{self, Spread},
};
use crate::{
    commands::bench::PAPER,
    plot::{
        gains::{Gains, gains},
        table::{Table, number},
    },
    terminal::{
        interrupt::Interrupt,
        output::{note, print},
        tables,
    },
};

/// Compute speed and energy on the Stripes accelerator
///
/// Cycles and energy over those of 8 bits in every layer, by a model of the accelerator; nothing is measured. Without a
/// network, the paper's seven at the bitwidths that it publishes. With a table, also what the agent finds in it.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq experiment stripes
  releq experiment stripes lenet --assignment mine=2,2,3,2
  releq experiment stripes lenet --table lenet.csv --seeds 5")]
pub(super) struct Args {
    #[command(flatten)]
    assignments: AssignmentArgs,
    #[command(flatten)]
    output: FolderArgs,
}

/// The gains of an assignment.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    assigned: Assigned,
    mean_bits: f64,
    /// Cycles at 8 bits over those of the assignment.
    speedup: f64,
    /// Energy at 8 bits over that of the assignment.
    energy_reduction: f64,
    /// Speedup if time were proportional to the bits of the weights.
    ideal_speedup: f64,
}

impl Args {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let networks = self.assignments.networks("stripes", &PAPER)?;
        let interrupt = Interrupt::new()?;
        let folder = self.output.open("stripes")?;
        let all = self.assignments.all(&networks, folder.path(), &interrupt);
        let Some(all) = all.inspect_err(|_| folder.abandon())? else {
            folder.abandon();
            note("stopped: there is nothing to show yet");
            return Ok(interrupt.exit_code().into());
        };
        let rows = all.all.into_iter().map(row).collect::<Result<Vec<Row>>>()?;
        let published = || rows.iter().filter(|row| row.assigned.name == PUBLISHED);
        let means = (networks.len() > 1)
            .then(|| {
                let mean = |of: fn(&Row) -> f64| Spread::of(published().map(of));
                mean(|row| row.speedup).zip(mean(|row| row.energy_reduction))
            })
            .flatten();
        let found =
            |of: fn(&Row) -> f64| over_seeds(rows.iter().map(|row| (&row.assigned, Some(of(row)))));
        let found = found(|row| row.speedup).zip(found(|row| row.energy_reduction));

        let mut bars: Vec<Gains> = rows.iter().map(Row::bars).collect();
        if let Some((speed, energy)) = &means {
            bars.push(Gains {
                name: "mean of the published".to_owned(),
                detail: format!("{} networks", networks.len()),
                values: vec![Some((speed.mean, None)), Some((energy.mean, None))],
                strong: true,
            });
        }
        let figure = gains(
            "Speed and energy on Stripes",
            "8 bits",
            &["speedup", "energy reduction"],
            &bars,
            "",
        );
        let text = folder.write(
            &[figure],
            vec![("stripes", table(&rows))],
            &all.settings,
            &json!({
                "assignments": rows,
                "mean_speedup": means.map(|(speed, _)| speed.mean),
                "mean_energy_reduction": means.map(|(_, energy)| energy.mean),
                "found_speedup": found.map(|(speed, _)| speed),
                "found_energy_reduction": found.map(|(_, energy)| energy),
            }),
        )?;
        print(if self.output.json { text } else { shown(&rows, means, found) })?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Row {
    fn bars(&self) -> Gains {
        Gains {
            name: self.assigned.label(),
            detail: self.assigned.bits.to_string(),
            values: vec![Some((self.speedup, None)), Some((self.energy_reduction, None))],
            strong: false,
        }
    }
}

fn row(assigned: Assigned) -> Result<Row> {
    let gain = |kind: &CostKind| gain(kind, &assigned.layers, &assigned);
    Ok(Row {
        mean_bits: assigned.bits.mean(),
        speedup: gain(&CostKind::Stripes(Stripes::default()))?,
        energy_reduction: gain(&CostKind::StripesEnergy(Stripes::default()))?,
        ideal_speedup: gain(&CostKind::Stripes(Stripes::proportional()))?,
        assigned,
    })
}

/// How many times cheaper an assignment is than 8 bits in every layer.
///
/// # Errors
/// If the model does not cover a layer.
pub(super) fn gain(kind: &CostKind, layers: &[LayerProfile], assigned: &Assigned) -> Result<f64> {
    let eight = uniform(8, layers.len())?;
    Ok(speedup(&*kind.build()?, layers, &weights_only(&assigned.bits), &eight)?)
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new([
        "network",
        "assignment",
        "seeds",
        "bits",
        "mean_bits",
        "accuracy_percent",
        "speedup",
        "energy_reduction",
        "ideal_speedup",
    ]);
    for row in rows {
        let Assigned { network, name, bits, seeds, accuracy_percent, .. } = &row.assigned;
        table.row([
            network.clone(),
            name.clone(),
            seeds.len().to_string(),
            bits.to_string(),
            number(row.mean_bits),
            number(*accuracy_percent),
            number(row.speedup),
            number(row.energy_reduction),
            number(row.ideal_speedup),
        ]);
    }
    table
}

fn shown(rows: &[Row], means: Option<(Spread, Spread)>, found: Option<(Spread, Spread)>) -> String {
    let mut table = tables::framed(&["", "mean bits", "speedup", "energy", "ideal"]);
    for row in rows {
        table.add_row([
            row.assigned.label(),
            format!("{:.2}", row.mean_bits),
            format!("{:.2}x", row.speedup),
            format!("{:.2}x", row.energy_reduction),
            format!("{:.2}x", row.ideal_speedup),
        ]);
    }
    let mut lines = vec![tables::text(&table)];
    if let Some((speed, energy)) = means {
        lines.push(format!(
            "mean of the published: {:.2}x as fast, {:.2}x less energy",
            speed.mean, energy.mean
        ));
    }
    if let Some((speed, energy)) = &found {
        lines.push(format!(
            "found, {} seeds: {} as fast, {} less energy (± standard deviation)",
            speed.seeds,
            seeds::text(Some(speed), 2),
            seeds::text(Some(energy), 2)
        ));
    }
    lines.push("all over 8 bits; ideal: time proportional to the bits of the weights".to_owned());
    lines.join("\n")
}
