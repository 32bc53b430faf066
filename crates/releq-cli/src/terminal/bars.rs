//! How far a search is.

use std::{
    collections::HashMap,
    fmt,
    sync::Mutex,
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use releq::{Event, Stage, core::BitwidthAssignment};

use super::{interrupt::is_stopping, output::note};

/// One progress bar for each stage, on stderr, which moves within each retrain. Where that is no terminal, a line for each tenth of a stage
/// tells how far the run is.
pub(crate) struct Bars {
    hidden: bool,
    current: Mutex<Option<Current>>,
}

struct Current {
    stage: Stage,
    /// Name of the agent, where one search of several goes on.
    rival: Option<String>,
    bar: ProgressBar,
    /// Whether lines stand for the bar.
    lines: bool,
    tenths: usize,
    /// What is done, and what there is to do.
    progress: (usize, usize),
    /// Shares of the retrains that are under way.
    under_way: HashMap<BitwidthAssignment, f64>,
    /// When this life of the run began to work on the stage, and what was done by then.
    began: Option<(Instant, f64)>,
    /// Whether it has retrained in it: what an earlier life has done is read without retrains.
    retrains: bool,
    /// What there was to tell last.
    news: String,
}

/// The bar's parts of a retrain.
const PARTS: usize = 100;

impl Bars {
    pub(crate) fn new(hidden: bool) -> Self {
        Self { hidden, current: Mutex::new(None) }
    }

    pub(crate) fn show(&self, event: &Event) {
        let Ok(mut current) = self.current.lock() else { return };
        if current.as_ref().is_none_or(|current| !current.goes_on_with(event)) {
            // A stage that begins after a signal does nothing.
            if is_stopping() {
                return;
            }
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
        let (stage, progress, rival) = (event.stage(), event.progress(), rival(event));
        let name = name(stage, rival.as_deref());
        let bar = ProgressBar::new(0);
        let lines = !self.hidden && bar.is_hidden();
        if self.hidden {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        } else if lines {
            match progress.1 {
                0 => note(format_args!("{name}")),
                total => note(format_args!("{name}: {total} to do")),
            }
        }
        if let Ok(style) =
            ProgressStyle::with_template("{prefix:>26} {bar:20} {elapsed:>4}, {wide_msg}")
        {
            bar.set_style(style);
        }
        let under_way = HashMap::new();
        Current {
            stage,
            rival,
            bar,
            lines,
            tenths: 0,
            progress: (0, 0),
            under_way,
            began: None,
            retrains: false,
            news: String::new(),
        }
    }

    pub(crate) fn finish(&self) {
        if let Ok(mut current) = self.current.lock()
            && let Some(last) = current.take()
        {
            last.bar.finish();
        }
    }
}

/// The agent of an event of one of the searches that the agent's own is compared with.
fn rival(event: &Event) -> Option<String> {
    let agent = event.agent().filter(|_| event.stage() == Stage::Comparison);
    agent.map(str::to_owned)
}

/// What a bar is called: a stage, or one of the searches that the agent's is compared with.
fn name(stage: Stage, rival: Option<&str>) -> String {
    rival.map_or_else(|| stage.to_string(), |agent| format!("{agent} search"))
}

/// A line for a bar that cannot move.
fn line(name: &str, (done, total): (usize, usize), left: Option<Duration>, news: &str) -> String {
    let mut line = format!("{name}: {done} of {total}");
    // Where all is done that was to do, more may be found to be needed.
    if let Some(left) = left.filter(|_| done < total) {
        line.push_str(&format!(", {} left", HumanDuration(left)));
    }
    if !news.is_empty() {
        line.push_str(&format!("; {news}"));
    }
    line
}

impl Current {
    /// Whether the event is from what the bar stands for.
    fn goes_on_with(&self, event: &Event) -> bool {
        let other = rival(event);
        self.stage == event.stage()
            && (other.is_none() || self.rival.is_none() || other == self.rival)
    }

    fn show(&mut self, event: &Event) {
        if self.rival.is_none() {
            self.rival = rival(event);
        }
        let name = name(self.stage, self.rival.as_deref());
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
            // More long retrains are needed where a search's candidates fail.
            self.progress = event.progress();
        }
        let (done, total) = self.progress;
        let now = done as f64 + self.under_way.values().sum::<f64>();
        // What an earlier life of the run has done took no time in this one.
        let is_first_retrain = matches!(event, Event::RetrainStep { .. })
            && !std::mem::replace(&mut self.retrains, true);
        if is_first_retrain {
            self.began = Some((Instant::now(), done as f64));
        }
        let &mut (began, first) = self.began.get_or_insert_with(|| (Instant::now(), now));
        let left = left(began.elapsed(), now - first, total as f64 - now);
        self.bar.set_length((total * PARTS) as u64);
        self.bar.set_position(((now * PARTS as f64) as u64).min((total * PARTS) as u64));
        let counts = if total == 0 { String::new() } else { format!(" {done}/{total}") };
        self.bar.set_prefix(format!("{name}{counts}"));
        if !matches!(event, Event::RetrainStep { .. }) {
            self.news.clone_from(&news);
        }
        self.bar.set_message(match left {
            Some(left) => {
                format!("{:>4} left  {}", format!("{:#}", HumanDuration(left)), self.news)
            }
            None => self.news.clone(),
        });
        let tenths = (10 * done).checked_div(total).unwrap_or(0);
        if self.lines && tenths > self.tenths {
            note(line(&name, (done, total), left, &news));
        }
        self.tenths = tenths;
    }
}

/// How long the rest of a stage takes if it goes on as it went: `worked` for what is `done`. Over all of it, since retrains that
/// take minutes end several at a time, between which nothing seems to move.
fn left(worked: Duration, done: f64, rest: f64) -> Option<Duration> {
    (done > 0.0)
        .then(|| worked.as_secs_f64() * rest.max(0.0) / done)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

/// [`left`] as a key of the templates of other bars of long parts, in place of indicatif's `{eta}`, which follows the last seconds.
pub(crate) fn left_key(state: &ProgressState, to: &mut dyn fmt::Write) {
    let rest = state.len().unwrap_or(0).saturating_sub(state.pos());
    if let Some(left) = left(state.elapsed(), state.pos() as f64, rest as f64) {
        let _ = write!(to, ", {:#} left", HumanDuration(left));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use super::*;

    #[test]
    fn a_line_says_what_there_is_to_say() {
        let minutes = Some(Duration::from_secs(120));
        let rival = name(Stage::Comparison, Some("evolution"));
        assert_eq!(line(&rival, (3, 8), minutes, ""), "evolution search: 3 of 8, 2 minutes left");
        let finals = name(Stage::Final, None);
        assert_eq!(line(&finals, (8, 8), minutes, "2-2 at 97 %"), "finals: 8 of 8; 2-2 at 97 %");
        assert_eq!(line(&finals, (3, 8), None, ""), "finals: 3 of 8");
    }

    #[test]
    fn each_search_of_a_comparison_has_a_bar_of_its_own() {
        let begun = |stage, agent: &str| {
            let (agent, budget) = (agent.to_owned(), releq::Budget::default());
            Event::SearchBegun { stage, agent, budget }
        };
        let bars = Bars::new(true);
        let current = bars.start(&begun(Stage::Comparison, "random"));
        let bits = "2-2".parse().unwrap();
        let step = Event::RetrainStep { stage: Stage::Comparison, bits, step: 1, steps: 2 };
        for (event, goes_on) in [
            (begun(Stage::Comparison, "random"), true),
            (step, true),
            (begun(Stage::Comparison, "evolution"), false),
            (begun(Stage::Search, "random"), false),
        ] {
            assert_eq!(current.goes_on_with(&event), goes_on, "{event:?}");
        }
    }

    #[test]
    fn what_is_left_takes_as_long_as_what_is_done_did() {
        let minute = Duration::from_secs(60);
        assert_eq!(left(minute, 10.0, 30.0), Some(3 * minute));
        assert_eq!(left(minute, 40.0, 0.0), Some(Duration::ZERO));
        // Where more long retrains are made than were foreseen.
        assert_eq!(left(minute, 41.0, -1.0), Some(Duration::ZERO));
        assert_eq!(left(minute, 0.0, 30.0), None);
        assert_eq!(left(minute, f64::MIN_POSITIVE, 30.0), None);
    }
}
