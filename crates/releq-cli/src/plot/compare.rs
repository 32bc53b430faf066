//! Several runs in one figure.

use releq::Report;
use svg::node::element::Group;

use super::{
    Drawing, Figure,
    frame::{BELOW_TITLED, Rect},
    marks::{Key, legend},
    panel::{Look, Panel, Series},
    progress::best_series,
    table::{Table, number},
};

/// The highest reward so far over the evaluations of each run; `None` if no run has measured anything.
pub(crate) fn compare(runs: &[(&str, &Report)]) -> Option<Figure> {
    if runs.iter().all(|(_, report)| report.search.scored.is_empty()) {
        return None;
    }
    let mut table = Table::new(["run", "evaluations", "best_reward", "acc_state", "quant_state"]);
    let series: Vec<Series> = runs
        .iter()
        .enumerate()
        .map(|(index, (name, report))| Series {
            name: (*name).to_owned(),
            colour: index % 6,
            look: Look::Steps,
            points: best_series(&report.search, |scored| scored.reward),
        })
        .collect();
    for (name, report) in runs {
        let best = super::progress::best_so_far(&report.search.scored);
        for (index, best) in best.into_iter().enumerate() {
            let Some(best) = best else { continue };
            table.row([
                (*name).to_owned(),
                (index + 1).to_string(),
                number(best.reward),
                number(best.acc_state),
                number(best.quant_state),
            ]);
        }
    }
    let description = "Highest reward so far, within all limits, over the evaluations of each run's search. Runs \
                       with other rewards, costs or bitwidths to choose from have other scales.";
    let panel = Panel {
        title: "reward, best so far".to_owned(),
        x_title: "evaluations".to_owned(),
        series,
        from_zero: false,
        log: false,
    };
    Some(Figure::new("runs", "The searches beside each other", description, table, |width| {
        let classes: Vec<String> =
            panel.series.iter().map(|series| format!("line ink{}", series.colour)).collect();
        let entries: Vec<(Key, &str, &str)> = classes
            .iter()
            .zip(&panel.series)
            .map(|(class, series)| (Key::Line, class.as_str(), series.name.as_str()))
            .collect();
        let (legend, height) = legend(&entries, 0.0, 0.0, width.px());
        let top = height + 26.0;
        let bottom = top + width.pick(260.0, 220.0);
        let rect = Rect { left: 46.0, top, right: width.px() - 12.0, bottom };
        let longest = panel.x_extent().map_or(1.0, |(_, to)| to);
        let group = Group::new().add(legend).add(panel.draw(rect, (0.0, longest)));
        Drawing::new(width, bottom + BELOW_TITLED, group)
    }))
}
