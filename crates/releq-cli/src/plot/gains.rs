//! How many times cheaper or faster: bars beside each other, with a line where nothing is gained.

use svg::node::element::Group;

use super::{
    Drawing, Figure, Width,
    marks::{Anchor, Key, bar, fitted, legend, line, text, text_width, tip},
    number::times,
    table::{Table, number},
};

/// The gains of one thing, such as an assignment of a network.
#[derive(Clone, Debug)]
pub(crate) struct Gains {
    /// What it is.
    pub(crate) name: String,
    /// More of it, for whoever points at it.
    pub(crate) detail: String,
    /// A gain for each series, and the distance from it to either side that is likely.
    pub(crate) values: Vec<Option<(f64, Option<[f64; 2]>)>>,
    /// Whether it stands out, as a mean does.
    pub(crate) strong: bool,
}

const BAR: f64 = 13.0;
const GAP: f64 = 9.0;

/// The figure; `spread` says what the whiskers are.
pub(crate) fn gains(
    title: &str,
    over: &str,
    series: &[&str],
    rows: &[Gains],
    spread: &str,
) -> Figure {
    let mut table = Table::new(["name", "detail", "series", "gain", "low", "high"]);
    for row in rows {
        for (series, value) in series.iter().zip(&row.values) {
            let Some((gain, band)) = value else { continue };
            table.row([
                row.name.clone(),
                row.detail.clone(),
                (*series).to_owned(),
                number(*gain),
                number(band.map(|[low, _]| low)),
                number(band.map(|[_, high]| high)),
            ]);
        }
    }
    let mut description = format!(
        "How many times better than {over}; longer is better, and the dashed line is {over}."
    );
    if rows.iter().flat_map(|row| &row.values).flatten().any(|(_, band)| band.is_some()) {
        description.push_str(&format!(" Whiskers: {spread}."));
    }
    Figure::new("gains", title, description, table, |width| draw(over, series, rows, width))
}

fn draw(over: &str, series: &[&str], rows: &[Gains], width: Width) -> Drawing {
    let classes: Vec<String> = (0..series.len()).map(|index| format!("fill{index}")).collect();
    let mut entries: Vec<(Key, &str, &str)> = series
        .iter()
        .zip(&classes)
        .map(|(name, class)| (Key::Patch, class.as_str(), *name))
        .collect();
    entries.push((Key::Line, "dashed ink4", over));
    let (legend, top) = legend(&entries, 0.0, 0.0, width.px());
    let longest = rows.iter().map(|row| text_width(&row.name)).fold(40.0, f64::max);
    let zero = longest.min(0.4 * width.px()) + 10.0;
    let values = || rows.iter().flat_map(|row| &row.values).flatten();
    let ends = values().map(|&(gain, band)| band.map_or(gain, |[_, high]| high.max(gain)));
    let most = ends.filter(|end| end.is_finite()).fold(1.0, f64::max);
    let room = width.px() - zero - 58.0;
    let at = |gain: f64| zero + room * (gain / most).clamp(0.0, 1.0);

    let mut group = Group::new().add(legend);
    let mut y = top + 14.0;
    let begin = y;
    let mut bars = Group::new();
    for row in rows {
        let tall = BAR * series.len() as f64;
        let class = if row.strong { "strong" } else { "" };
        let name = fitted(&row.name, zero - 10.0);
        let label = text(zero - 8.0, y + tall / 2.0 + 4.0, Anchor::End, class, &name);
        bars = bars.add(Group::new().add(tip(&row.detail)).add(label));
        for (index, value) in row.values.iter().enumerate() {
            let Some((gain, band)) = *value else { continue };
            let top = y + BAR * index as f64;
            let told = format!("{}, {}: {}", row.name, series[index], times(gain));
            let mut mark = Group::new().add(tip(&told)).add(bar(
                zero,
                top + 1.0,
                at(gain) - zero,
                BAR - 2.0,
                &classes[index],
            ));
            let mut end = at(gain);
            if let Some([low, high]) = band {
                let middle = top + BAR / 2.0;
                mark = mark.add(line((at(low), middle), (at(high), middle), "whisker rule"));
                end = end.max(at(high));
            }
            bars = bars.add(mark.add(text(
                end + 6.0,
                top + BAR - 2.5,
                Anchor::Start,
                &format!("halo {class}"),
                &times(gain),
            )));
        }
        y += tall + GAP;
    }
    group = group
        .add(line((at(1.0), begin - 6.0), (at(1.0), y), "dashed ink4"))
        .add(bars)
        .add(line((zero, begin - 6.0), (zero, y), "rule"));
    Drawing::new(width, y + 6.0, group)
}
