//! What the answer was compared with: other searches, uniform bitwidths, limits.

use std::collections::BTreeSet;

use releq::{
    Choice, FinalRow,
    core::{Bitwidth, Operands},
    hw::LimitConfig,
};

use super::answer::{Judge, capital, listed, loss};
use crate::plot::{
    AGENTS_OWN, RowKind, forbidden, last_step,
    number::{count, thousands},
    standard_error,
};

impl Judge<'_> {
    /// Who found the answer.
    pub(super) fn origin(&self, answer: &FinalRow, within: bool) -> String {
        let report = self.report;
        let same: Vec<String> = report
            .rows
            .iter()
            .filter(|row| row.bits == answer.bits && row.label != answer.label)
            .map(|row| row.label.clone())
            .collect();
        let quantized = || report.rows.iter().filter(|row| self.kind(row) != RowKind::Float);
        let distinct = |rows: &mut dyn Iterator<Item = &FinalRow>| {
            rows.map(|row| &row.bits).collect::<BTreeSet<_>>().len()
        };
        let step = last_step(report);
        let all = count(distinct(&mut quantized()), "assignment");
        let tolerance = self.tolerance();
        let best = if within {
            let good = distinct(&mut quantized().filter(|row| self.is_good(row)));
            format!(
                "Of {all} compared after the {step}, {good} stayed within {tolerance} of full precision on the \
                 validation images, and this is the cheapest that may be chosen, by {}.",
                self.facts.cost_name()
            )
        } else {
            format!(
                "Of {all} compared after the {step}, it is the most accurate on the validation images that may be \
                 chosen."
            )
        };
        let mut text = if answer.label == AGENTS_OWN {
            format!(
                "The answer, {}, was found by the agent's search ({}). {best}",
                Self::bits(answer),
                report.search.agent
            )
        } else {
            format!(
                "The answer is not the agent's, but {}: {}.{} {best}",
                answer.label,
                Self::bits(answer),
                self.agents_own(answer)
            )
        };
        if !same.is_empty() {
            let (names, verb) = (listed(&same), if same.len() == 1 { "is" } else { "are" });
            text.push_str(&format!(" {} {verb} the same assignment", capital(&names)));
            let rival = report
                .rows
                .iter()
                .any(|row| row.bits == answer.bits && self.kind(row) == RowKind::Rival);
            let agent = rival && answer.label == AGENTS_OWN;
            text.push_str(if agent { ", so the agent was no better than that." } else { "." });
        }
        text
    }

    /// What the agent's search would have given, where another row is the answer.
    fn agents_own(&self, answer: &FinalRow) -> String {
        let Some(own) = self.report.rows.iter().find(|row| row.label == AGENTS_OWN) else {
            let why = if self.report.search.evaluations == 0 {
                "The agent's search measured nothing"
            } else if self.report.cancelled {
                "The run was stopped before the agent's own best was retrained"
            } else {
                "The agent's search gave nothing that was retrained"
            };
            return format!(" {why}.");
        };
        if own.bits == answer.bits {
            return String::new();
        }
        format!(" The agent's own best, {}, {}.", Self::bits(own), self.beside(own, answer))
    }

    /// How a row compares with the answer.
    fn beside(&self, row: &FinalRow, answer: &FinalRow) -> String {
        if let Some(failure) = &row.failure {
            return format!("failed in the {} ({failure})", last_step(self.report));
        }
        let cost = match (row.quant_state, answer.quant_state) {
            (Some(cost), Some(of)) if of > 0.0 => {
                let more = 100.0 * (cost / of - 1.0);
                if more.abs() < 0.05 {
                    "costs the same".to_owned()
                } else if more > 0.0 {
                    format!("costs {more:.1} % more")
                } else {
                    format!("costs {:.1} % less", -more)
                }
            }
            (Some(cost), Some(_)) if cost > 0.0 => "costs more".to_owned(),
            _ => "has no cost to compare".to_owned(),
        };
        let limit = match row.over_limit {
            Some(over) => format!(", exceeds a limit {over:.2} times"),
            None => String::new(),
        };
        let forbidden =
            forbidden(self.report, &row.bits).map_or_else(String::new, |why| format!(", {why}"));
        let within = if self.is_good(row) { "within" } else { "not within" };
        format!(
            "{cost}{limit}{forbidden}, is {}, and was {within} the tolerance on the validation images",
            loss(row)
        )
    }

    pub(super) fn rivals(&self, answer: &FinalRow) -> Vec<String> {
        if self.report.comparisons.is_empty() {
            return vec!["It was not compared with other searches.".to_owned()];
        }
        let others = self.report.rows.iter().filter(|row| {
            let kind = self.kind(row);
            matches!(kind, RowKind::Rival | RowKind::Named) && row.bits != answer.bits
        });
        others
            .map(|row| {
                let with = match self.kind(row) {
                    RowKind::Rival => ", with at most as many evaluations,",
                    _ => "",
                };
                format!(
                    "{}{with} came to {}; it {}.",
                    capital(&row.label),
                    Self::bits(row),
                    self.beside(row, answer)
                )
            })
            .collect()
    }

    pub(super) fn uniform(&self, answer: &FinalRow) -> Option<String> {
        let all = || self.report.rows.iter().filter(|row| self.kind(row) == RowKind::Uniform);
        all().next()?;
        if self.kind(answer) == RowKind::Uniform {
            return Some(
                "A single bitwidth for all layers is as good as anything that was found."
                    .to_owned(),
            );
        }
        let uniform = || all().filter(|row| self.is_allowed(row));
        if uniform().next().is_none() {
            let reasons: BTreeSet<&str> =
                all().filter_map(|row| forbidden(self.report, &row.bits)).collect();
            let reasons: Vec<&str> = reasons.into_iter().collect();
            return Some(format!(
                "No uniform bitwidth may be chosen: each of those compared {}.",
                reasons.join(" or ")
            ));
        }
        let which = if all().all(|row| self.is_allowed(row)) { "" } else { " that may be chosen" };
        let good = uniform()
            .filter(|row| self.is_good(row) && row.over_limit.is_none())
            .filter_map(|row| Some((row, row.quant_state?)))
            .min_by(|a, b| a.1.total_cmp(&b.1));
        Some(match good {
            Some((row, _)) if row.bits == answer.bits => return None,
            Some((row, _)) => format!(
                "The cheapest uniform bitwidth{which} within the tolerance, {}, {}.",
                row.label,
                self.beside(row, answer)
            ),
            None if self.report.config.limits.is_empty() => {
                format!("No uniform bitwidth{which} is within the tolerance.")
            }
            None => format!("No uniform bitwidth{which} is within the tolerance and all limits."),
        })
    }

    /// Rows that are no dearer and no less accurate on the test images, which choose nothing.
    pub(super) fn on_test(&self, answer: &FinalRow) -> Option<String> {
        let cost = answer.quant_state?;
        let better = || {
            self.report.rows.iter().filter(|row| {
                row.bits != answer.bits
                    && row.failure.is_none()
                    && row.test_accuracy >= answer.test_accuracy
                    && row.quant_state.is_some_and(|other| other <= cost)
            })
        };
        let any = better().next().is_some();
        let better: Vec<String> = better()
            .filter(|row| row.over_limit.is_none() && self.is_allowed(row))
            .map(|row| row.label.clone())
            .collect();
        let error = 100.0 * standard_error(answer.test_accuracy, self.report.images[2]);
        let error = format!("One standard error of its test accuracy is {error:.2} points.");
        Some(if better.is_empty() {
            let which = if any { "may be chosen and " } else { "" };
            format!(
                "On the test images, nothing that {which}costs as little is as accurate. {error}"
            )
        } else {
            format!(
                "On the test images, which choose nothing, {} cost no more and were at least as accurate. {error}",
                listed(&better)
            )
        })
    }

    /// What is limited, how much of it the answer uses, and whether a limit decided.
    pub(super) fn limits(&self) -> Vec<String> {
        let report = self.report;
        let mut sentences = Vec::new();
        for limit in &report.config.limits {
            let used = match (limit, report.answer.as_ref()) {
                (Choice::Ours(limit), Some(answer)) => self.usage(limit, &answer.bits),
                _ => None,
            };
            let used = used.map_or_else(String::new, |share| {
                format!("; the answer uses {:.1} % of it", 100.0 * share)
            });
            sentences.push(format!("Limit: {limit}{used}."));
        }
        if report.config.limits.is_empty() {
            return sentences;
        }
        let answer = report.chosen_row();
        let settled = report.answer.as_ref().is_some_and(|answer| answer.within_tolerance);
        let cost = answer.and_then(|row| row.quant_state).filter(|_| settled);
        let excluded: Vec<&FinalRow> = report
            .rows
            .iter()
            .filter(|row| row.over_limit.is_some() && self.is_good(row))
            // What is no candidate under any limit, as full precision.
            .filter(|row| self.kind(row) != RowKind::Float && self.is_allowed(row))
            .filter(|row| match (cost, row.quant_state) {
                (Some(cost), Some(other)) => other < cost,
                (None, state) => state.is_some(),
                _ => false,
            })
            .collect();
        for row in &excluded {
            let exceeded: Vec<String> = report
                .config
                .limits
                .iter()
                .filter_map(|limit| match limit {
                    Choice::Ours(limit) if self.usage(limit, &row.bits)? > 1.0 => {
                        Some(limit.to_string())
                    }
                    _ => None,
                })
                .collect();
            let which = if exceeded.is_empty() { "a limit".to_owned() } else { listed(&exceeded) };
            sentences.push(format!(
                "{} would have been {} but for {which}.",
                capital(&row.label),
                if settled { "a cheaper answer" } else { "good enough" }
            ));
        }
        if excluded.is_empty() {
            sentences.push(
                "No limit decided: nothing that was retrained and exceeds one would have been the answer."
                    .to_owned(),
            );
        }
        sentences
    }

    /// Share of a limit that an assignment uses, where the network is known.
    fn usage(&self, limit: &LimitConfig, bits: &[Bitwidth]) -> Option<f64> {
        let operands = Operands::new(&self.facts.profiles, |_| true);
        let computing = operands.of(&self.facts.profiles);
        let limit = self.report.config.counted_limit(limit);
        let usage = limit.build().ok()?.usage(&computing, &operands.bits(bits)).ok()?;
        Some(usage.fraction()).filter(|share| share.is_finite())
    }

    pub(super) fn search(&self) -> Option<String> {
        let search = &self.report.search;
        if search.evaluations == 0 {
            return None;
        }
        let over = search.scored.iter().filter(|scored| scored.over_limit.is_some()).count();
        let given_up = search.scored.iter().filter(|scored| scored.stopped_after.is_some()).count();
        let mut asides = Vec::new();
        for (number, what) in [
            (search.failures, "failed"),
            (given_up, "were given up early"),
            (over, "exceeded a limit"),
        ] {
            if number > 0 {
                asides.push(format!("{} {what}", thousands(number as u64)));
            }
        }
        let asides = if asides.is_empty() {
            String::new()
        } else {
            format!(", of which {}", listed(&asides))
        };
        Some(format!(
            "The search measured {} in {}{asides}. It ended because: {}.",
            count(search.evaluations, "assignment"),
            count(search.episodes, "episode"),
            search.stop
        ))
    }
}
