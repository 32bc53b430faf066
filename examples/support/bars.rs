//! How far a search is.

use std::sync::Mutex;

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use releq::{Progress, Stage};

/// One progress bar for each stage, on stderr. Where that is no terminal, a line for each tenth of a stage
/// tells how far the run is.
pub(crate) struct Bars {
    hidden: bool,
    current: Mutex<Option<Current>>,
}

struct Current {
    stage: Stage,
    name: &'static str,
    bar: ProgressBar,
    /// Whether lines stand for the bar.
    lines: bool,
    tenths: usize,
}

impl Bars {
    pub(crate) fn new(hidden: bool) -> Self {
        Self { hidden, current: Mutex::new(None) }
    }

    pub(crate) fn show(&self, news: &Progress) {
        let Ok(mut current) = self.current.lock() else { return };
        if current.as_ref().is_none_or(|current| current.stage != news.stage) {
            if let Some(last) = current.take() {
                last.bar.finish();
            }
            *current = Some(self.start(news));
        }
        if let Some(current) = current.as_mut() {
            current.show(news);
        }
    }

    fn start(&self, news: &Progress) -> Current {
        let name = match news.stage {
            Stage::Pretrain => "full precision",
            Stage::Search => "search",
            Stage::Comparison => "comparison",
            Stage::Final => "long retrain",
        };
        let bar = ProgressBar::new(news.total as u64).with_prefix(name);
        let lines = !self.hidden && bar.is_hidden();
        if self.hidden {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        } else if lines {
            eprintln!("{name}: {} to do", news.total);
        }
        if let Ok(style) = ProgressStyle::with_template(
            "{prefix:>14} {bar:30} {pos:>4}/{len:<4} {elapsed:>4}, {eta:>4} left  {msg}",
        ) {
            bar.set_style(style);
        }
        Current { stage: news.stage, name, bar, lines, tenths: 0 }
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
    fn show(&mut self, news: &Progress) {
        // The long retrains become more as a search's candidates fail.
        self.bar.set_length(news.total as u64);
        self.bar.set_position(news.done as u64);
        self.bar.set_message(news.message.clone());
        let tenths = (10 * news.done).checked_div(news.total).unwrap_or(0);
        if self.lines && tenths > self.tenths {
            let left = HumanDuration(self.bar.eta());
            eprintln!(
                "{}: {} of {}, {left} left; {}",
                self.name, news.done, news.total, news.message
            );
        }
        self.tenths = tenths;
    }
}
