//! How far a search is.

use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use releq::{Progress, Stage};

/// One progress bar for each stage, on stderr; hidden where nobody watches.
pub(crate) struct Bars {
    hidden: bool,
    current: Mutex<Option<(Stage, ProgressBar)>>,
}

impl Bars {
    pub(crate) fn new(hidden: bool) -> Self {
        Self { hidden, current: Mutex::new(None) }
    }

    pub(crate) fn show(&self, news: &Progress) {
        let Ok(mut current) = self.current.lock() else { return };
        if current.as_ref().is_none_or(|(stage, _)| *stage != news.stage) {
            if let Some((_, bar)) = current.take() {
                bar.finish();
            }
            let name = match news.stage {
                Stage::Pretrain => "full precision",
                Stage::Search => "search",
                Stage::Comparison => "comparison",
                Stage::Final => "long retrain",
            };
            let bar = ProgressBar::new(news.total as u64).with_prefix(name);
            if self.hidden {
                bar.set_draw_target(ProgressDrawTarget::hidden());
            } else if bar.is_hidden() {
                // Nobody watches a terminal; a log still tells how far the run is.
                eprintln!("{name}: {} to do", news.total);
            }
            if let Ok(style) = ProgressStyle::with_template(
                "{prefix:>14} {bar:30} {pos:>4}/{len:<4} {elapsed:>4}, {eta:>4} left  {msg}",
            ) {
                bar.set_style(style);
            }
            *current = Some((news.stage, bar));
        }
        if let Some((_, bar)) = current.as_ref() {
            bar.set_position(news.done as u64);
            bar.set_message(news.message.clone());
        }
    }

    pub(crate) fn finish(&self) {
        if let Ok(mut current) = self.current.lock()
            && let Some((_, bar)) = current.take()
        {
            bar.finish();
        }
    }
}
