//! How far a search is.

use std::{collections::HashMap, sync::Mutex};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use releq::{Event, Stage, core::BitwidthAssignment};

use super::output::note;

/// One progress bar for each stage, on stderr, which moves within each retrain. Where that is no terminal, a line for each tenth of a stage
/// tells how far the run is.
pub(crate) struct Bars {
    hidden: bool,
    current: Mutex<Option<Current>>,
}

struct Current {
    stage: Stage,
    bar: ProgressBar,
    /// Whether lines stand for the bar.
    lines: bool,
    tenths: usize,
    /// What is done, and what there is to do.
    progress: (usize, usize),
    /// Shares of the retrains that are under way.
    under_way: HashMap<BitwidthAssignment, f64>,
}

/// The bar's parts of a retrain.
const PARTS: usize = 100;

impl Bars {
    pub(crate) fn new(hidden: bool) -> Self {
        Self { hidden, current: Mutex::new(None) }
    }

    pub(crate) fn show(&self, event: &Event) {
        let Ok(mut current) = self.current.lock() else { return };
        if current.as_ref().is_none_or(|current| current.stage != event.stage()) {
            if let Some(last) = current.take() {
                last.bar.finish();
            }
            *current = Some(self.start(event));
        }
        if let Some(current) = current.as_mut() {
            current.show(event);
        }
    }

    fn start(&self, event: &Event) -> Current {
        let (stage, progress) = (event.stage(), event.progress());
        let bar = ProgressBar::new(0);
        let lines = !self.hidden && bar.is_hidden();
        if self.hidden {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        } else if lines {
            match progress.1 {
                0 => note(format_args!("{stage}")),
                total => note(format_args!("{stage}: {total} to do")),
            }
        }
        if let Ok(style) = ProgressStyle::with_template(
            "{prefix:>24} {bar:20} {elapsed:>4}, {eta:>4} left  {wide_msg}",
        ) {
            bar.set_style(style);
        }
        let under_way = HashMap::new();
        Current { stage, bar, lines, tenths: 0, progress: (0, 0), under_way }
    }

    pub(crate) fn finish(&self) {
        if let Ok(mut current) = self.current.lock()
            && let Some(last) = current.take()
        {
            last.bar.finish();
        }
    }
}

impl Current {
    fn show(&mut self, event: &Event) {
        match event {
            Event::RetrainStep { bits, step, steps, .. } => {
                let share = *step as f64 / (*steps).max(1) as f64;
                self.under_way.insert(bits.clone(), share);
            }
            Event::Retrained { bits: Some(bits), .. } => {
                self.under_way.remove(bits);
            }
            // A batch of episodes has ended, and so have its retrains.
            _ => self.under_way.clear(),
        }
        let news = event.to_string();
        if !matches!(event, Event::RetrainStep { .. }) {
            let first = self.progress == (0, 0);
            // More long retrains are needed where a search's candidates fail.
            self.progress = event.progress();
            self.bar.set_message(news.clone());
            if first {
                // What an earlier life of the run has done took no time in this one.
                self.bar.set_position((self.progress.0 * PARTS) as u64);
                self.bar.reset_eta();
            }
        }
        let (done, total) = self.progress;
        let under_way: f64 = self.under_way.values().sum();
        let parts = (done * PARTS) as f64 + under_way * PARTS as f64;
        self.bar.set_length((total * PARTS) as u64);
        self.bar.set_position((parts as u64).min((total * PARTS) as u64));
        let counts = if total == 0 { String::new() } else { format!(" {done}/{total}") };
        self.bar.set_prefix(format!("{}{counts}", self.stage));
        let tenths = (10 * done).checked_div(total).unwrap_or(0);
        if self.lines && tenths > self.tenths {
            // Where all is done that was to do, more may be found to be needed.
            let left = match done < total {
                true => format!(", {} left", HumanDuration(self.bar.eta())),
                false => String::new(),
            };
            note(format_args!("{}: {done} of {total}{left}; {news}", self.stage));
        }
        self.tenths = tenths;
    }
}
