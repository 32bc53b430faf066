//! Labels beside points, where they cover nothing.

use svg::node::element::Group;

use super::{
    Width,
    frame::Rect,
    marks::{Anchor, FONT, fitted, line, text, text_width},
};

/// A point with a name.
#[derive(Clone, Debug)]
pub(crate) struct Labelled {
    pub(crate) at: (f64, f64),
    pub(crate) name: String,
    /// Whether it stands out.
    pub(crate) strong: bool,
}

/// Pixels that a label takes at most where there is little room.
const NARROW: f64 = 190.0;

/// A label for all names of one point: where there is little room, the first and how many more there are.
pub(super) fn all_names(names: &[&str], between: &str, width: Width) -> String {
    let all = names.join(between);
    match names {
        [first, more @ ..] if width == Width::Narrow && !more.is_empty() => {
            let more = format!(" +{}", more.len());
            format!("{}{more}", fitted(first, NARROW - text_width(&more)))
        }
        _ if width == Width::Narrow => fitted(&all, NARROW),
        _ => all,
    }
}

/// Left, top, right and bottom.
type Box4 = [f64; 4];

fn overlap(a: Box4, b: Box4) -> f64 {
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    width * height
}

/// Places every name near its point, the first ones best, so that it covers as little as possible of `points`,
/// of the other names and of what lies outside of `rect`. Names that stand away have a line to their point.
pub(crate) fn place(labels: &[Labelled], points: &[(f64, f64)], rect: Rect) -> Group {
    const AROUND: f64 = 6.0;
    let marks: Vec<Box4> = points
        .iter()
        .chain(labels.iter().map(|label| &label.at))
        .map(|&(x, y)| [x - AROUND, y - AROUND, x + AROUND, y + AROUND])
        .collect();
    let mut taken: Vec<Box4> = Vec::new();
    let mut group = Group::new().set("class", "labels");
    for Labelled { at: (x, y), name, strong } in labels {
        let (width, height) = (text_width(name), FONT + 2.0);
        let mut best: Option<(f64, Box4, f64)> = None;
        // A strong label keeps clear of the ring around its point.
        let near = if *strong { 15.0 } else { 11.0 };
        for distance in [near, near + 11.0, near + 25.0, near + 41.0, near + 59.0] {
            for (across, down) in [
                (1.0, 0.0),
                (-1.0, 0.0),
                (0.7, -0.8),
                (0.7, 0.8),
                (-0.7, -0.8),
                (-0.7, 0.8),
                (0.0, -1.0),
                (0.0, 1.0),
            ] {
                let (anchor_x, anchor_y) = (x + across * distance, y + down * distance);
                let left = if across > 0.0 {
                    anchor_x
                } else if across < 0.0 {
                    anchor_x - width
                } else {
                    anchor_x - width / 2.0
                };
                let top = anchor_y - height / 2.0;
                let place = [left, top, left + width, top + height];
                let inside = [rect.left, rect.top - 4.0, rect.right, rect.bottom];
                let outside = width * height - overlap(place, inside);
                let covered: f64 = marks.iter().map(|&mark| overlap(place, mark)).sum();
                let crossed: f64 = taken.iter().map(|&other| overlap(place, other)).sum();
                let penalty = 8.0 * outside + covered + 4.0 * crossed + 0.6 * distance;
                if best.is_none_or(|(least, ..)| penalty < least) {
                    best = Some((penalty, place, distance));
                }
            }
        }
        let Some((_, place, distance)) = best else { continue };
        taken.push(place);
        if distance > near {
            let near_x = x.clamp(place[0], place[2]);
            let near_y = y.clamp(place[1] + 2.0, place[3] - 2.0);
            group = group.add(line((*x, *y), (near_x, near_y), "leader"));
        }
        let class = if *strong { "halo strong" } else { "halo" };
        group = group.add(text(place[0], place[3] - 3.5, Anchor::Start, class, name));
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_take_little_room_where_there_is_little() {
        let names = ["releq", "knapsack search", "uniform 2"];
        assert_eq!(all_names(&names, " = ", Width::Wide), "releq = knapsack search = uniform 2");
        assert_eq!(all_names(&names, " = ", Width::Narrow), "releq +2");
        assert_eq!(all_names(&names[1..2], " = ", Width::Narrow), "knapsack search");
        let long = "a name that is far too long for a telephone";
        let label = all_names(&[long, "releq"], " = ", Width::Narrow);
        assert!(label.ends_with(" +1") && text_width(&label) <= NARROW, "{label}");
    }

    #[test]
    fn labels_of_a_crowd_lie_apart_and_within() {
        let labels: Vec<Labelled> = (0..8)
            .map(|index| Labelled {
                at: (300.0 + f64::from(index), 100.0),
                name: format!("uniform {index}"),
                strong: false,
            })
            .collect();
        let rect = Rect { left: 40.0, top: 10.0, right: 600.0, bottom: 260.0 };
        let drawn = place(&labels, &[], rect).to_string();
        let document = roxmltree::Document::parse(&drawn).unwrap();
        let boxes: Vec<Box4> = document
            .descendants()
            .filter(|node| node.has_tag_name("text"))
            .map(|node| {
                let at = |name: &str| node.attribute(name).unwrap().parse::<f64>().unwrap();
                let right = at("x") + text_width(node.text().unwrap());
                [at("x"), at("y") - 10.0, right, at("y")]
            })
            .collect();
        assert_eq!(boxes.len(), labels.len());
        for (index, &a) in boxes.iter().enumerate() {
            assert!(a[0] >= rect.left && a[2] <= rect.right, "{a:?}");
            assert!(boxes[..index].iter().all(|&b| overlap(a, b) < 1.0), "{a:?} in {boxes:?}");
        }
    }
}
