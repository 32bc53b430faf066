//! The bitwidth of each layer, and what the layer weighs.

use svg::node::element::Group;

use super::{
    Drawing, Facts, Figure, Width,
    marks::{Anchor, bar, fitted, line, text, tip},
    number::{short, thousands},
    table::{Table, number},
};

const ROW: f64 = 21.0;
const HEAD: f64 = 24.0;

/// A column of shares beside the bitwidths.
struct Shares {
    title: String,
    shares: Vec<f64>,
    tips: Vec<String>,
}

pub(super) fn figure(facts: &Facts<'_>) -> Option<Figure> {
    let layers = &facts.report.layers;
    if layers.is_empty() {
        return None;
    }
    let mut columns = vec![
        counts("weights", layers.iter().map(|layer| layer.weights)),
        counts("MACs", layers.iter().map(|layer| layer.macs)),
    ];
    if let Some((name, shares)) = facts.cost_shares() {
        let tips = shares.iter().map(|share| format!("{} of {name}", percent(*share))).collect();
        columns.push(Shares { title: name, shares, tips });
    }
    let of_cost = columns.get(2).map(|column| format!(" and of the cost by {}", column.title));

    let mut header = vec!["layer", "bits", "fixed", "weights", "macs", "weight_std"];
    let titles: Vec<String> = columns.iter().map(|c| format!("share of {}", c.title)).collect();
    header.extend(titles.iter().map(String::as_str));
    let mut table = Table::new(&header);
    for (index, layer) in layers.iter().enumerate() {
        let fixed = [
            layer.name.clone(),
            layer.bits.map_or_else(String::new, |bits| bits.to_string()),
            facts.is_fixed(&layer.name).to_string(),
            layer.weights.to_string(),
            layer.macs.to_string(),
            number(layer.weight_std),
        ];
        table.row(fixed.into_iter().chain(columns.iter().map(|c| number(c.shares[index]))));
    }

    let mean = facts.report.chosen.as_ref().map(|bits| facts.mean_bits(bits));
    let description = match mean {
        Some(mean) => {
            let whose = match facts.report.answer {
                Some(_) => "",
                None => " There is no answer; these are the best so far.",
            };
            let shares = match &of_cost {
                Some(of_cost) => format!(
                    "share of all weights, of all multiply-accumulates (MACs){of_cost}"
                ),
                None => "share of all weights and of all multiply-accumulates (MACs)".to_owned(),
            };
            let with_weights = facts.layers_with_weights();
            let read = match with_weights < layers.len() {
                true => " and of the activations that they read,",
                false => "",
            };
            format!(
                "Bitwidth of the weights of each of {with_weights} layers, {mean:.2} on average,{read} and beside it \
                 the layer's {shares}.{whose}"
            )
        }
        None => "The layers with their shares of all weights and of all multiply-accumulates (MACs); no \
                 bitwidths were found."
            .to_owned(),
    };
    Some(Figure::new("bits", "Bits per layer", description, table, |width| {
        draw(facts, &columns, width)
    }))
}

fn counts(title: &str, counts: impl Iterator<Item = u64> + Clone) -> Shares {
    let total = counts.clone().map(u128::from).sum::<u128>().max(1) as f64;
    Shares {
        title: title.to_owned(),
        shares: counts.clone().map(|count| count as f64 / total).collect(),
        tips: counts
            .map(|count| format!("{} {title}, {}", thousands(count), percent(count as f64 / total)))
            .collect(),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn draw(facts: &Facts<'_>, columns: &[Shares], width: Width) -> Drawing {
    let layers = &facts.report.layers;
    let names = width.pick(190.0, 122.0);
    let column = width.pick(118.0, 46.0);
    let gap = width.pick(16.0, 8.0);
    let bits_end = width.px() - columns.len() as f64 * (column + gap);
    // Room for the number behind the longest bar.
    let bits_width = bits_end - names - width.pick(70.0, 24.0);
    let integer = |layer: &releq::LayerRow| layer.bits.and_then(releq::core::Bitwidth::integer);
    let most = f64::from(layers.iter().filter_map(integer).max().unwrap_or(8).max(8));

    let bottom = HEAD + ROW * layers.len() as f64;
    let mut group = Group::new();
    group = group.add(text(names - 8.0, 12.0, Anchor::End, "quiet", "bits"));
    for bits in [2.0, 4.0, 8.0, 16.0, 24.0, 32.0] {
        if bits <= most {
            let x = names + bits / most * bits_width;
            group = group.add(line((x, HEAD - 4.0), (x, bottom), "grid"));
            group = group.add(text(x, 12.0, Anchor::Middle, "quiet", &short(bits)));
        }
    }
    for (index, layer) in layers.iter().enumerate() {
        let top = HEAD + ROW * index as f64;
        let baseline = top + 14.0;
        let name = fitted(&layer.name, names - 10.0);
        group = group.add(Group::new().add(tip(&layer.name)).add(text(
            names - 8.0,
            baseline,
            Anchor::End,
            "",
            &name,
        )));
        let fixed = facts.is_fixed(&layer.name);
        let Some(bits) = layer.bits else { continue };
        let length = bits.integer().map_or(most, f64::from) / most * bits_width;
        let class = if bits.is_float() || fixed { "hollow ink0" } else { "fill0" };
        let told = format!("{}: {bits} bits{}", layer.name, if fixed { ", fixed" } else { "" });
        group = group.add(bar(names, top + 3.0, length, ROW - 6.0, class).add(tip(&told)));
        let label = match (fixed, width) {
            (true, Width::Wide) => format!("{bits}, fixed"),
            _ => bits.to_string(),
        };
        group = group.add(text(names + length + 5.0, baseline, Anchor::Start, "strong", &label));
    }
    group = group.add(line((names, HEAD - 4.0), (names, bottom), "rule"));
    for (index, Shares { title, shares, tips }) in columns.iter().enumerate() {
        let left = bits_end + gap + index as f64 * (column + gap);
        let title = fitted(title, column + gap);
        group = group.add(text(left, 12.0, Anchor::Start, "quiet", &title));
        let room = column - width.pick(46.0, 0.0);
        let largest = shares.iter().copied().fold(0.0, f64::max).max(1e-12);
        for (row, (share, told)) in shares.iter().zip(tips).enumerate() {
            let top = HEAD + ROW * row as f64;
            let length = share / largest * room;
            let class = format!("fill{}", index + 1);
            group = group.add(bar(left, top + 5.0, length, ROW - 10.0, &class).add(tip(told)));
            if width == Width::Wide {
                let label = percent(*share);
                group = group.add(text(
                    left + length + 4.0,
                    top + 14.0,
                    Anchor::Start,
                    "quiet",
                    &label,
                ));
            }
        }
        group = group.add(line((left, HEAD - 4.0), (left, bottom), "rule"));
    }
    Drawing::new(width, bottom + 6.0, group)
}
