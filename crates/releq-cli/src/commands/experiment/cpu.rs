//! `releq experiment cpu`: speed on the CPU, measured and by a model.

use std::{num::NonZeroUsize, process::ExitCode};

use anyhow::{Context, Result};
use releq::hw::{BitSerialCpu, CostKind, CpuKernels, Timing, uniform, weights_only};
use releq_kernels::Isa;
use serde::Serialize;
use serde_json::json;

use super::{
    assignments::{Assigned, AssignmentArgs, PUBLISHED, over_seeds},
    folder::FolderArgs,
    seeds::Spread,
    stripes::gain,
};
use crate::{
    commands::{
        bench::PAPER,
        timed::{RepeatsArg, Timed},
    },
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

/// Measure the speed on this CPU
///
/// Bit-serial kernels at the bits of the weights, over the same kernels at 8 bits, which is what the paper compares; and
/// the best kernels over int8 ones. Activations have 8 bits. Without a network, the paper's seven at the bitwidths that
/// it publishes. With a table, also what the agent finds in it. `releq bench` shows more of each network.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq experiment cpu
  releq experiment cpu lenet --assignment mine=2,2,3,2 --repeats 31
  releq experiment cpu lenet --table lenet.csv --seeds 5")]
pub(super) struct Args {
    #[command(flatten)]
    assignments: AssignmentArgs,
    #[command(flatten)]
    timing: RepeatsArg,
    #[command(flatten)]
    output: FolderArgs,
}

/// A measured ratio, and its ends by the quartiles of the two times.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Ratio {
    pub(super) median: f64,
    /// Of the least times, which other work on the machine changes least.
    pub(super) least: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Ratio {
    /// How many times as fast `fast` is.
    pub(super) fn of(slow: &Timing, fast: &Timing) -> Self {
        Self {
            median: slow.median_us / fast.median_us,
            least: slow.min_us / fast.min_us,
            low: slow.low_us / fast.high_us,
            high: slow.high_us / fast.low_us,
        }
    }

    /// For a bar with its whisker.
    pub(super) const fn bar(self) -> (f64, Option<[f64; 2]>) {
        (self.median, Some([self.low, self.high]))
    }

    /// As in `2.31x (2.25 to 2.38)`, and below it the ratio of the least times.
    pub(super) fn text(&self) -> String {
        let Self { median, low, high, least } = self;
        format!("{median:.2}x ({low:.2} to {high:.2})\nleast {least:.2}x")
    }
}

#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    assigned: Assigned,
    /// Bit-serial kernels over themselves at 8 bits, measured.
    bit_serial: Ratio,
    /// The same by the model of bit-serial kernels, where it covers the network.
    model: Option<f64>,
    /// The best kernels over int8 ones, measured.
    best_over_int8: Ratio,
    bit_serial_8_us: f64,
    bit_serial_us: f64,
    int8_us: f64,
    best_us: f64,
}

impl Args {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let networks = self.assignments.networks("cpu", &PAPER)?;
        let interrupt = Interrupt::new()?;
        let folder = self.output.open("cpu")?;
        let all = self.assignments.all(&networks, folder.path(), &interrupt);
        let Some(all) = all.inspect_err(|_| folder.abandon())? else {
            folder.abandon();
            note("stopped: there is nothing to show yet");
            return Ok(interrupt.exit_code().into());
        };
        let timed =
            Timed { isa: Isa::best(), threads: NonZeroUsize::MIN, repeats: self.timing.repeats };
        let mut rows = Vec::new();
        for assigned in all.all {
            if interrupt.cancel.is_cancelled() {
                folder.abandon();
                note("stopped: not all networks are timed");
                return Ok(interrupt.exit_code().into());
            }
            rows.push(row(assigned, timed)?);
        }
        let mean = |of: fn(&Row) -> f64| {
            let published = rows.iter().filter(|row| row.assigned.name == PUBLISHED);
            (networks.len() > 1).then(|| Spread::of(published.map(of))).flatten()
        };
        let means = mean(|row| row.bit_serial.least).zip(mean(|row| row.best_over_int8.least));
        let found = over_seeds(rows.iter().map(|row| (&row.assigned, Some(row.bit_serial.least))));

        let mut bars: Vec<Gains> = rows
            .iter()
            .map(|row| Gains {
                name: row.assigned.label(),
                detail: row.assigned.bits.to_string(),
                values: vec![
                    Some(row.bit_serial.bar()),
                    row.model.map(|gain| (gain, None)),
                    Some(row.best_over_int8.bar()),
                ],
                strong: false,
            })
            .collect();
        if let Some((bit_serial, best)) = &means {
            bars.push(Gains {
                name: "mean of the published".to_owned(),
                detail: format!("{} networks", networks.len()),
                values: vec![Some((bit_serial.mean, None)), None, Some((best.mean, None))],
                strong: true,
            });
        }
        let figure = gains(
            "Speed on the CPU",
            "8 bits",
            &["bit-serial kernels", "model of bit-serial kernels", "best kernels over int8"],
            &bars,
            "from the quartiles of the times",
        );
        let mut settings = all.settings;
        settings["repeats"] = self.timing.repeats.get().into();
        settings["isa"] = timed.isa.to_string().into();
        settings["threads"] = timed.threads.get().into();
        let text = folder.write(
            &[figure],
            vec![("cpu", table(&rows))],
            &settings,
            &json!({
                "assignments": rows,
                "mean_bit_serial": means.map(|(bit_serial, _)| bit_serial.mean),
                "mean_best_over_int8": means.map(|(_, best)| best.mean),
                "found_bit_serial": found,
            }),
        )?;
        print(if self.output.json { text } else { shown(&rows, means, found) })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn row(assigned: Assigned, timed: Timed) -> Result<Row> {
    let (eight, low) = (uniform(8, assigned.layers.len())?, weights_only(&assigned.bits));
    let variants = [
        (CpuKernels::BitSerial, eight.clone()),
        (CpuKernels::BitSerial, low.clone()),
        (CpuKernels::Int8, eight),
        (CpuKernels::Best, low),
    ];
    let timings = timed.run(&assigned.layers, &variants)?;
    let [bit_serial_8, bit_serial, int8, best] =
        timings.as_slice().first_chunk::<4>().context("a variant has no time")?;
    Ok(Row {
        bit_serial: Ratio::of(bit_serial_8, bit_serial),
        // Depthwise layers have no bit-serial kernel, and none in the model.
        model: gain(&CostKind::BitSerialCpu(BitSerialCpu::default()), &assigned.layers, &assigned)
            .ok(),
        best_over_int8: Ratio::of(int8, best),
        bit_serial_8_us: bit_serial_8.median_us,
        bit_serial_us: bit_serial.median_us,
        int8_us: int8.median_us,
        best_us: best.median_us,
        assigned,
    })
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new([
        "network",
        "assignment",
        "seeds",
        "bits",
        "bit_serial_8_us",
        "bit_serial_us",
        "bit_serial_gain",
        "bit_serial_gain_of_least",
        "model_gain",
        "int8_us",
        "best_us",
        "best_over_int8",
        "best_over_int8_of_least",
    ]);
    for row in rows {
        let Assigned { network, name, bits, seeds, .. } = &row.assigned;
        table.row([
            network.clone(),
            name.clone(),
            seeds.len().to_string(),
            bits.to_string(),
            number(row.bit_serial_8_us),
            number(row.bit_serial_us),
            number(row.bit_serial.median),
            number(row.bit_serial.least),
            number(row.model),
            number(row.int8_us),
            number(row.best_us),
            number(row.best_over_int8.median),
            number(row.best_over_int8.least),
        ]);
    }
    table
}

fn shown(rows: &[Row], means: Option<(Spread, Spread)>, found: Option<Spread>) -> String {
    let mut table = tables::framed(&["", "bit-serial", "model", "best over int8"]);
    for row in rows {
        table.add_row([
            row.assigned.label(),
            row.bit_serial.text(),
            row.model.map_or_else(|| "-".to_owned(), |gain| format!("{gain:.2}x")),
            row.best_over_int8.text(),
        ]);
    }
    let mut lines = vec![tables::text(&table)];
    if let Some((bit_serial, best)) = means {
        lines.push(format!(
            "mean of the published: bit-serial {:.2}x, best over int8 {:.2}x",
            bit_serial.mean, best.mean
        ));
    }
    if let Some(found) = found {
        lines.push(format!(
            "found, {} seeds: bit-serial {} (± standard deviation)",
            found.seeds,
            found.text(2)
        ));
    }
    lines.push(
        "over 8 bits, medians; in brackets: from the quartiles of the times; least: of the\n\
             least times, as means are; model: computed"
            .to_owned(),
    );
    lines.join("\n")
}
