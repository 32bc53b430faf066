//! What a run came to, in sentences: the answer and what must be known of it.

use releq::{FinalRow, Reference, Report, RoundedAccuracy, StopReason, core::LayerKind};

use crate::plot::{
    Facts, RowKind, first_step, forbidden, last_step,
    number::{amount, count, percent, short, thousands, times},
};

/// The sentences on top of a report.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// The answer in a sentence or two.
    pub(super) headline: String,
    /// Whether there is no answer, or one that is not good enough.
    pub(super) bad: bool,
    /// What must be known before anything else: stops and failures.
    pub(super) warnings: Vec<String>,
    /// What it was compared with.
    pub(super) compared: Vec<String>,
}

/// Rows, the reference and the tolerance of a report, as far as sentences need them.
pub(super) struct Judge<'a> {
    pub(super) facts: &'a Facts<'a>,
    pub(super) report: &'a Report,
}

pub(super) fn verdict(facts: &Facts<'_>) -> Verdict {
    let judge = Judge { facts, report: facts.report };
    let mut verdict = Verdict { warnings: judge.warnings(), ..Verdict::default() };
    match (judge.report.answer.as_ref(), judge.report.chosen_row()) {
        (Some(answer), Some(row)) => {
            verdict.bad = !answer.within_tolerance;
            verdict.headline = judge.headline(row, answer.within_tolerance);
            verdict.compared.extend(judge.rounded());
            verdict.compared.push(judge.origin(row, answer.within_tolerance));
            verdict.compared.extend(judge.rivals(row));
            verdict.compared.extend(judge.uniform(row));
            verdict.compared.extend(judge.on_test(row));
        }
        _ => {
            verdict.bad = true;
            verdict.headline = judge.no_answer();
        }
    }
    verdict.compared.extend(judge.limits());
    verdict.compared.extend(judge.search());
    verdict
}

/// `0.20 ± 0.31 points below full precision`.
pub(super) fn loss(row: &FinalRow) -> String {
    let points = row.loss_points;
    let error = row.loss_standard_error.filter(|error| *error >= 0.005);
    let error = error.map(|error| format!(" ± {error:.2}")).unwrap_or_default();
    let way = if points > 0.0 { "below" } else { "above" };
    match (points.abs() < 0.005, error.as_str()) {
        (true, "") => "exactly as accurate as full precision".to_owned(),
        (true, error) => format!("0{error} points away from full precision"),
        (false, error) => format!("{:.2}{error} points {way} full precision", points.abs()),
    }
}

/// `one`, `one and two`, `one, two and three`.
pub(super) fn listed(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// `2.75 bits on average`, of those layers that have any.
pub(super) fn average(row: &FinalRow) -> String {
    format!("{:.2} {}", row.mean_bits, of_which(row))
}

/// `bits on average`, and of which layers where some are in full precision.
pub(super) fn of_which(row: &FinalRow) -> String {
    let float = row.bits.iter().filter(|bits| bits.is_float()).count();
    if float == 0 || float == row.bits.len() {
        return "bits on average".to_owned();
    }
    format!("bits on average of the {} that are quantized", count(row.bits.len() - float, "layer"))
}

pub(super) fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

impl Judge<'_> {
    pub(super) fn tolerance(&self) -> String {
        format!("{} points", short(100.0 * self.report.config.tolerance))
    }

    fn images(&self, of: usize, kind: &str) -> String {
        format!("{} {kind} images", thousands(self.report.images[of] as u64))
    }

    /// Full precision, as losses are measured against it; before the long retrain if there was none.
    fn reference(&self) -> (f64, f64) {
        match self.report.reference {
            Some(Reference { validation_accuracy, test_accuracy, .. }) => {
                (validation_accuracy, test_accuracy)
            }
            None => (self.report.full_precision_validation, self.report.full_precision_test),
        }
    }

    pub(super) fn is_good(&self, row: &FinalRow) -> bool {
        let floor = self.reference().0 - self.report.config.tolerance;
        row.failure.is_none() && row.validation_accuracy.total_cmp(&floor).is_ge()
    }

    /// Whether it could be the answer, but for limits.
    pub(super) fn is_allowed(&self, row: &FinalRow) -> bool {
        forbidden(self.report, &row.bits).is_none()
    }

    pub(super) fn kind(&self, row: &FinalRow) -> RowKind {
        self.facts.row_kind(row)
    }

    /// Bits, where they are few enough to read, and their mean.
    pub(super) fn bits(row: &FinalRow) -> String {
        if row.bits.len() <= 8 { format!("{} ({})", row.bits, average(row)) } else { average(row) }
    }

    /// `61 kB instead of 1.07 MB in full precision and 433 kB at 8 bits`, or the saving by another model.
    fn size(&self, row: &FinalRow) -> Option<String> {
        if let Some(size) = row.cost("size") {
            let eight = amount(size.at_eight_bits, &size.unit);
            let float = self.report.rows.iter().find(|row| self.kind(row) == RowKind::Float);
            let float = float.and_then(|row| row.cost("size"));
            let instead = match float {
                Some(float) => {
                    let float = amount(float.cost, &float.unit);
                    format!("{float} in full precision and {eight} at 8 bits")
                }
                None => format!("{eight} at 8 bits"),
            };
            return Some(format!("{} instead of {instead}", amount(size.cost, &size.unit)));
        }
        let cost = row.costs.first()?;
        let saving = cost.saving();
        let saving = (!saving.is_nan()).then(|| times(saving))?;
        Some(format!("{saving} cheaper than 8 bits by {}", cost.model))
    }

    fn headline(&self, row: &FinalRow, within: bool) -> String {
        let size = self.size(row).map_or_else(String::new, |size| format!(", {size}"));
        let test = self.images(2, "test");
        let measured = format!("{}, {} on {test}{size}", average(row), loss(row));
        if within {
            return format!("{measured}.");
        }
        let left_out = |row: &FinalRow| {
            self.is_good(row)
                && self.kind(row) != RowKind::Float
                && (row.over_limit.is_some() || !self.is_allowed(row))
        };
        let which = if self.report.rows.iter().any(left_out) {
            "no assignment that may be chosen"
        } else {
            "no assignment"
        };
        format!(
            "Nothing was good enough: {which} stayed within {} of full precision on {}. The nearest has {measured}.",
            self.tolerance(),
            self.images(1, "validation"),
        )
    }

    /// What rounded activations cost.
    fn rounded(&self) -> Option<String> {
        let RoundedAccuracy { weights_only, with_activations, .. } = self.report.rounded?;
        let points = 100.0 * (weights_only - with_activations);
        let change = match points {
            points if points.abs() < 0.005 => "which changes nothing".to_owned(),
            points if points > 0.0 => format!("{points:.2} points less"),
            points => format!("{:.2} points more", -points),
        };
        let searched = self.facts.profiles.iter().any(|layer| layer.kind == LayerKind::Activations);
        let bits = match searched {
            true => "all activations rounded, to the bits that were found or to 8,",
            false => "activations of 8 bits as well,",
        };
        Some(format!(
            "With {bits} as integer kernels need them, its weights come to {} of the test images: {change}.",
            percent(with_activations)
        ))
    }

    fn no_answer(&self) -> String {
        let search = &self.report.search;
        if search.scored.is_empty() {
            return "There is no answer: nothing was measured.".to_owned();
        }
        let seen = self.report.chosen.as_ref().map_or_else(String::new, |bits| {
            let known = search.scored.iter().find(|scored| scored.bits == *bits);
            let accuracy = known.map_or_else(String::new, |scored| {
                let (state, step) = (percent(scored.acc_state), first_step(self.report));
                match self.facts.search_reference() {
                    Some(_) => format!(", at {state} of full-precision accuracy after a {step}"),
                    None => format!(
                        ", at {} on the search's validation images after a {step}; by how far its outputs are from those \
                         in full precision, that is estimated as {state} of full-precision accuracy",
                        percent(scored.accuracy)
                    ),
                }
            });
            format!(
                " The best that the search had seen has {:.2} bits on average{accuracy}.",
                self.facts.mean_bits(bits)
            )
        });
        format!(
            "There is no answer: no {} of an assignment that may be chosen came to its end.{seen}",
            last_step(self.report)
        )
    }

    fn warnings(&self) -> Vec<String> {
        let report = self.report;
        let mut warnings = Vec::new();
        if report.unlabelled {
            warnings.push(
                "Accuracy unknown: the images have no labels. What stands as accuracy is agreement, the share of \
                 images in which the network sees the class that it sees in full precision."
                    .to_owned(),
            );
        }
        if report.cancelled || report.search.stop == StopReason::Cancelled {
            warnings.push(
                "The run was stopped before its end. What follows is what it had measured until then."
                    .to_owned(),
            );
        }
        if !report.other_machines.is_empty() {
            let kinds: Vec<String> = report.other_machines.iter().cloned().collect();
            let machine = &report.machine;
            warnings.push(format!(
                "Machines of another kind had a part in it: {}. Their answers may differ from those of {} {} in the last \
                 bits, so that a search by one kind alone may choose otherwise.",
                listed(&kinds),
                machine.architecture,
                machine.isa,
            ));
        }
        if let Some(error) = &report.search.error {
            warnings.push(format!("The search failed: {error}"));
        }
        for outcome in &report.comparisons {
            if let Some(error) = &outcome.error {
                warnings
                    .push(format!("The comparison with {} search failed: {error}", outcome.agent));
            }
        }
        if let Some(error) = &report.error {
            warnings.push(format!("Not all of the run came to its end: {error}"));
        }
        let failed = report.rows.iter().filter(|row| row.failure.is_some()).count();
        if failed > 0 {
            let rows = count(failed, last_step(report));
            warnings.push(format!("{rows} failed, as by a loss that became NaN; see the table."));
        }
        let float = report.rows.iter().find(|row| self.kind(row) == RowKind::Float);
        if let Some(reference) = report.reference.filter(|reference| !reference.retrained)
            && report.config.correction.is_none()
            && let Some(float) = float
        {
            let what = match float.failure {
                Some(_) => "The long retrain of full precision failed",
                None => "The long retrain made full precision worse on the validation images",
            };
            warnings.push(format!(
                "{what}. Losses are against the {} before it.",
                percent(reference.test_accuracy)
            ));
        }
        warnings
    }
}
