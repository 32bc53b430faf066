//! `releq experiment admm`: assignments beside that of another method, such as ADMM.

use std::{num::NonZeroUsize, process::ExitCode};

use anyhow::{Context, Result};
use releq::{
    core::{BitwidthAssignment, Network},
    hw::{BitSerialCpu, CostKind, CpuKernels, ModelSize, Stripes, speedup, weights_only},
};
use releq_kernels::Isa;
use serde::Serialize;
use serde_json::json;

use super::{
    assignments::{Assigned, AssignmentArgs, over_seeds},
    cpu::Ratio,
    folder::FolderArgs,
    seeds::Spread,
};
use crate::{
    args::{UsageError, checkpoint, options, usage},
    commands::timed::{RepeatsArg, Timed},
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

/// Compare assignments with those of ADMM
///
/// ADMM quantization (Ye et al., arXiv 1811.01907) chooses bitwidths by hand. The published bitwidths, yours, and with a
/// table those that the agent finds are compared with its on the models of Stripes and of bit-serial kernels, and on the
/// kernels of this CPU.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq experiment admm
  releq experiment admm lenet --admm-bits 5,3,2,3 --table lenet.csv
  releq experiment admm alexnet --assignment mine=8,4,4,4,4,4,4,8 --repeats 31

The default bitwidths of ADMM are recalled from the paper and not verified against
its text; experiment.json says so.")]
pub(super) struct Args {
    /// Bitwidths of ADMM, one per layer or one for all [default: for lenet 5,3,2,3 and for alexnet 8,5,5,5,5,3,3,8]
    #[arg(
        long,
        value_name = "BITS",
        num_args = 1..,
        value_parser = options::bits,
        allow_negative_numbers = true
    )]
    admm_bits: Vec<BitwidthAssignment>,
    #[command(flatten)]
    assignments: AssignmentArgs,
    #[command(flatten)]
    timing: RepeatsArg,
    #[command(flatten)]
    output: FolderArgs,
}

/// Bitwidths that the paper compares with, from memory.
const RECALLED: [(&str, &str); 2] = [("lenet", "5-3-2-3"), ("alexnet", "8-5-5-5-5-3-3-8")];

/// How many times better an assignment is than that of ADMM.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    assigned: Assigned,
    admm_bits: BitwidthAssignment,
    admm_accuracy_percent: Option<f64>,
    stripes_speedup: f64,
    stripes_energy: f64,
    size: f64,
    bit_serial_model: f64,
    /// Measured.
    bit_serial: Ratio,
    best_kernels: Ratio,
}

impl Args {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let networks = self.assignments.networks("admm", &RECALLED.map(|(name, _)| name))?;
        if networks.len() > 1 && !self.admm_bits.is_empty() {
            let reason = "--admm-bits: name their network, as in `releq experiment admm lenet`";
            return Err(UsageError(reason.to_owned()).into());
        }
        let admm = networks.iter().map(|network| self.admm(network)).collect::<Result<Vec<_>>>()?;
        let interrupt = Interrupt::new()?;
        let folder = self.output.open("admm")?;
        let all = self.assignments.all(&networks, folder.path(), &interrupt);
        let Some(all) = all.inspect_err(|_| folder.abandon())? else {
            folder.abandon();
            note("stopped: there is nothing to compare yet");
            return Ok(interrupt.exit_code().into());
        };
        let timed =
            Timed { isa: Isa::best(), threads: NonZeroUsize::MIN, repeats: self.timing.repeats };
        let mut rows = Vec::new();
        for (network, admm) in networks.iter().zip(&admm) {
            let of_network: Vec<Assigned> =
                all.all.iter().filter(|a| a.network == network.name()).cloned().collect();
            rows.extend(self.rows(of_network, admm, timed)?);
        }
        let found =
            |of: fn(&Row) -> f64| over_seeds(rows.iter().map(|row| (&row.assigned, Some(of(row)))));
        let found = found(|row| row.stripes_speedup).zip(found(|row| row.bit_serial.least));

        let bars: Vec<Gains> = rows
            .iter()
            .map(|row| Gains {
                name: row.assigned.label(),
                detail: format!("{} against {}", row.assigned.bits, row.admm_bits),
                values: vec![
                    Some((row.stripes_speedup, None)),
                    Some((row.stripes_energy, None)),
                    Some((row.bit_serial_model, None)),
                    Some(row.bit_serial.bar()),
                    Some(row.best_kernels.bar()),
                ],
                strong: false,
            })
            .collect();
        let figure = gains(
            "Assignments beside ADMM's",
            "ADMM's bits",
            &[
                "Stripes, speed",
                "Stripes, energy",
                "model of bit-serial kernels",
                "bit-serial kernels",
                "best kernels",
            ],
            &bars,
            "from the quartiles of the times",
        );
        let mut settings = all.settings;
        settings["admm_bits"] = json!(admm);
        settings["admm_bits_from"] = if self.admm_bits.is_empty() {
            "memory of the paper, not verified"
        } else {
            "--admm-bits"
        }
        .into();
        settings["repeats"] = self.timing.repeats.get().into();
        settings["isa"] = timed.isa.to_string().into();
        let text = folder.write(
            &[figure],
            vec![("admm", table(&rows))],
            &settings,
            &json!({
                "assignments": rows,
                "found_stripes_speedup": found.map(|(stripes, _)| stripes),
                "found_bit_serial": found.map(|(_, kernels)| kernels),
            }),
        )?;
        print(if self.output.json { text } else { shown(&rows, found) })?;
        Ok(ExitCode::SUCCESS)
    }

    /// The bitwidths of ADMM for a network.
    fn admm(&self, network: &Network) -> Result<BitwidthAssignment> {
        if let Some(bits) = options::join_bits(&self.admm_bits) {
            return usage(checkpoint::per_layer("--admm-bits", &bits, network));
        }
        match RECALLED.iter().find(|(name, _)| *name == network.name()) {
            Some((_, bits)) => Ok(bits.parse()?),
            None => {
                let name = network.name();
                Err(UsageError(format!(
                    "no bitwidths of ADMM are known for {name}; give --admm-bits"
                ))
                .into())
            }
        }
    }

    fn rows(
        &self,
        assigned: Vec<Assigned>,
        admm: &BitwidthAssignment,
        timed: Timed,
    ) -> Result<Vec<Row>> {
        let Some(layers) = assigned.first().map(|first| first.layers.clone()) else {
            return Ok(Vec::new());
        };
        let all: Vec<_> = [admm]
            .into_iter()
            .chain(assigned.iter().map(|assigned| &assigned.bits))
            .map(|bits| weights_only(bits))
            .collect();
        let variants: Vec<_> = all
            .iter()
            .flat_map(|bits| {
                [(CpuKernels::BitSerial, bits.clone()), (CpuKernels::Best, bits.clone())]
            })
            .collect();
        let timings = timed.run(&layers, &variants)?;
        let (rival, others) = timings.split_first_chunk::<2>().context("ADMM has no time")?;
        let admm_accuracy_percent = self.assignments.accuracy_percent(admm)?;
        assigned
            .into_iter()
            .zip(&all[1..])
            .zip(others.chunks_exact(2))
            .map(|((assigned, bits), times)| {
                let gain = |kind: CostKind| -> Result<f64> {
                    Ok(speedup(&*kind.build()?, &layers, bits, &all[0])?)
                };
                Ok(Row {
                    assigned,
                    admm_bits: admm.clone(),
                    admm_accuracy_percent,
                    stripes_speedup: gain(CostKind::Stripes(Stripes::default()))?,
                    stripes_energy: gain(CostKind::StripesEnergy(Stripes::default()))?,
                    size: gain(CostKind::Size(ModelSize::default()))?,
                    bit_serial_model: gain(CostKind::BitSerialCpu(BitSerialCpu::default()))?,
                    bit_serial: Ratio::of(&rival[0], &times[0]),
                    best_kernels: Ratio::of(&rival[1], &times[1]),
                })
            })
            .collect()
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new([
        "network",
        "assignment",
        "seeds",
        "bits",
        "admm_bits",
        "accuracy_percent",
        "admm_accuracy_percent",
        "stripes_speedup",
        "stripes_energy",
        "size",
        "bit_serial_model",
        "bit_serial_kernels",
        "bit_serial_kernels_of_least",
        "best_kernels",
        "best_kernels_of_least",
    ]);
    for row in rows {
        let Assigned { network, name, bits, seeds, accuracy_percent, .. } = &row.assigned;
        table.row([
            network.clone(),
            name.clone(),
            seeds.len().to_string(),
            bits.to_string(),
            row.admm_bits.to_string(),
            number(*accuracy_percent),
            number(row.admm_accuracy_percent),
            number(row.stripes_speedup),
            number(row.stripes_energy),
            number(row.size),
            number(row.bit_serial_model),
            number(row.bit_serial.median),
            number(row.bit_serial.least),
            number(row.best_kernels.median),
            number(row.best_kernels.least),
        ]);
    }
    table
}

fn shown(rows: &[Row], found: Option<(Spread, Spread)>) -> String {
    let mut table = tables::framed(&[
        "against ADMM",
        "bits",
        "Stripes speed",
        "energy",
        "serial model",
        "serial kernels",
        "best kernels",
    ]);
    for row in rows {
        let times = |gain: f64| format!("{gain:.2}x");
        table.add_row([
            row.assigned.label(),
            format!("{}\n{}", row.assigned.bits, row.admm_bits),
            times(row.stripes_speedup),
            times(row.stripes_energy),
            times(row.bit_serial_model),
            times(row.bit_serial.least),
            times(row.best_kernels.least),
        ]);
    }
    let mut lines = vec![tables::text(&table)];
    if let Some((stripes, kernels)) = found {
        lines.push(format!(
            "found, {} seeds: Stripes {}, bit-serial kernels {} (± standard deviation)",
            stripes.seeds,
            stripes.text(2),
            kernels.text(2)
        ));
    }
    lines.push(
        "how many times faster or smaller than ADMM's bits, which stand below; kernels: of\n\
         the least times"
            .to_owned(),
    );
    lines.join("\n")
}
