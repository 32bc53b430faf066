//! How far a search is.

use std::sync::Mutex;

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use releq::{Event, Stage};

use super::output::note;

/// One progress bar for each stage, on stderr. Where that is no terminal, a line for each tenth of a stage
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
}

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
        let (stage, (_, total)) = (event.stage(), event.progress());
        let bar = ProgressBar::new(total as u64).with_prefix(stage.to_string());
        let lines = !self.hidden && bar.is_hidden();
        if self.hidden {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        } else if lines {
            note(format_args!("{stage}: {total} to do"));
        }
        if let Ok(style) = ProgressStyle::with_template(
            "{prefix:>14} {bar:30} {pos:>4}/{len:<4} {elapsed:>4}, {eta:>4} left  {msg}",
        ) {
            bar.set_style(style);
        }
        Current { stage, bar, lines, tenths: 0 }
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
        // More long retrains are needed where a search's candidates fail.
        let (done, total) = event.progress();
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
        self.bar.set_message(event.to_string());
        let tenths = (10 * done).checked_div(total).unwrap_or(0);
        if self.lines && tenths > self.tenths {
            let left = HumanDuration(self.bar.eta());
            note(format_args!("{}: {done} of {total}, {left} left; {event}", self.stage));
        }
        self.tenths = tenths;
    }
}
