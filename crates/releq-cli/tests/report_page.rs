//! The page of a report: whole, readable as XML, escaped, equal for equal reports, and true to the data.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod sample;

use std::{collections::BTreeSet, fs, path::Path};

use releq::{Report, zoo};
use releq_cli::page::{Named, PageError, TrainingStep, figures, html, write};
use roxmltree::{Document, Node};
use sample::{chain, report, value};
use serde_json::{Value, json};

fn run(report: Report) -> Named {
    Named::new("a run", report)
}

fn parsed(value: Value) -> Report {
    serde_json::from_value(value).unwrap()
}

/// Every SVG element of a page.
fn drawings(page: &str) -> Vec<&str> {
    let parts = page.split("<svg ").skip(1);
    let drawings = parts.map(|part| &part[..part.find("</svg>").unwrap()]);
    drawings
        .map(|drawing| &page[offset(page, drawing) - 5..offset(page, drawing) + drawing.len() + 6])
        .collect()
}

fn offset(page: &str, part: &str) -> usize {
    part.as_ptr() as usize - page.as_ptr() as usize
}

/// Whether the text of an attribute has the name of a number that is none, as a word.
fn is_no_number(text: &str) -> bool {
    let words = text.split(|c: char| !c.is_ascii_alphabetic());
    words.into_iter().any(|word| ["NaN", "inf", "Infinity"].contains(&word))
}

/// Reads a drawing as XML and checks what must hold of every one.
fn check_drawing(drawing: &str) {
    let document = Document::parse(drawing).unwrap_or_else(|error| panic!("{error}: {drawing}"));
    let root = document.root_element();
    assert_eq!(root.attribute("role"), Some("img"));
    let box_of = root.attribute("viewBox").unwrap();
    let [left, top, width, height] =
        *box_of.split(' ').map(|n| n.parse::<f64>().unwrap()).collect::<Vec<_>>()
    else {
        panic!("{box_of}");
    };
    assert!(width > 0.0 && height > 0.0, "{box_of}");
    for node in document.descendants().filter(Node::is_element) {
        for attribute in node.attributes() {
            let (name, text) = (attribute.name(), attribute.value());
            assert!(!is_no_number(text), "{name}=\"{text}\"");
            // Nothing is drawn outside; texts may hang over by a few pixels.
            let at = || text.parse::<f64>().unwrap();
            match name {
                "x" | "x1" | "x2" => {
                    assert!((left - 1.0..=left + width + 1.0).contains(&at()), "{name}={text}");
                }
                "y" | "y1" | "y2" => {
                    assert!((top - 1.0..=top + height + 1.0).contains(&at()), "{name}={text}");
                }
                "width" | "height" => assert!(at() >= 0.0, "{name}={text}"),
                _ => {}
            }
        }
    }
}

/// Checks everything that must hold of every page, and gives it.
fn check(runs: &[Named]) -> String {
    let page = html(runs).unwrap();
    assert_eq!(page, html(runs).unwrap(), "equal reports give equal bytes");
    for drawing in drawings(&page) {
        check_drawing(drawing);
    }
    for figure in runs.iter().flat_map(figures) {
        let drawing = figure.svg();
        check_drawing(&drawing);
        let document = Document::parse(&drawing).unwrap();
        assert!(document.descendants().any(|node| node.has_tag_name("style")));
        let title = |node: Node<'_, '_>| node.text().map(str::trim) == Some(&figure.title);
        assert!(document.descendants().any(title), "{}", figure.name);
        let mut rows = csv::ReaderBuilder::new().from_reader(figure.csv.as_bytes());
        let columns = rows.headers().unwrap().len();
        let records: Vec<_> = rows.records().map(Result::unwrap).collect();
        assert!(!records.is_empty(), "{}", figure.name);
        assert!(records.iter().all(|record| record.len() == columns), "{}", figure.name);
        assert!(records.iter().flatten().all(|cell| !is_no_number(cell)), "{}", figure.name);
    }
    let values = |name: &str| -> Vec<String> {
        let marker = format!(" {name}=\"");
        let found =
            page.split(&marker).skip(1).map(|rest| rest[..rest.find('"').unwrap()].to_owned());
        found.collect()
    };
    let ids = values("id");
    let distinct: BTreeSet<&String> = ids.iter().collect();
    assert_eq!(ids.len(), distinct.len(), "every id is there once");
    for reference in values("aria-labelledby").iter().chain(&values("aria-describedby")) {
        assert!(distinct.contains(reference), "{reference}");
    }
    let outside = page.replace("http://www.w3.org/2000/svg", "");
    for forbidden in ["http:", "https:", "@import", "url(", " src=", "<link", "<img", "<iframe"] {
        assert!(!outside.contains(forbidden), "{forbidden}");
    }
    assert!(page.len() < 2 << 20, "{} bytes", page.len());
    page
}

/// The text of all tooltips of the figure with this name.
fn tips(run: &Named, name: &str) -> Vec<String> {
    let figures = figures(run);
    let figure = figures.iter().find(|figure| figure.name == name).unwrap();
    let drawing = figure.svg();
    let document = Document::parse(&drawing).unwrap();
    let titles = document.descendants().filter(|node| node.has_tag_name("title"));
    titles.map(|node| node.text().unwrap_or_default().to_owned()).collect()
}

#[test]
fn every_number_of_a_report_is_on_its_page() {
    let report = report(&zoo::lenet(), 60, 3);
    let mut run = run(report.clone());
    run.training = (1..=40)
        .map(|step| TrainingStep { step, loss: 2.3 / step as f64, learning_rate: 0.03 })
        .collect();
    let page = check(std::slice::from_ref(&run));
    let names: Vec<&str> = figures(&run).iter().map(|figure| figure.name).collect();
    assert_eq!(
        names,
        [
            "bits",
            "accuracy-against-cost",
            "measured",
            "search",
            "action-probabilities",
            "sensitivity",
            "costs",
            "learning",
            "training"
        ]
    );
    let measured = tips(&run, "measured");
    for outcome in [&report.search].into_iter().chain(&report.comparisons) {
        for scored in &outcome.scored {
            let accuracy = format!("{:.2} %", 100.0 * scored.accuracy);
            let told =
                |tip: &&String| tip.contains(&scored.bits.to_string()) && tip.contains(&accuracy);
            assert!(measured.iter().any(|tip| told(&tip)), "{} at {accuracy}", scored.bits);
        }
    }
    let finals = tips(&run, "accuracy-against-cost");
    for row in &report.rows {
        let told = format!("{:.2} %", 100.0 * row.test_accuracy);
        assert!(finals.iter().any(|tip| tip.contains(&told)), "{}", row.label);
        assert!(page.contains(&format!(">{}</td>", row.label)), "{}", row.label);
    }
    for layer in &report.layers {
        let told = format!("{}: {} bits", layer.name, layer.bits.unwrap());
        assert!(tips(&run, "bits").contains(&told), "{told}");
    }
    // A settings file could be cut out of the page.
    let config = report.config.to_json().unwrap().replace('"', "&#34;");
    assert!(page.contains(&config));
}

#[test]
fn numbers_of_figures_are_complete_as_csv() {
    let report = report(&chain(30), 2000, 1);
    let run = run(report.clone());
    let rows = |name: &str| {
        let figures = figures(&run);
        let figure = figures.iter().find(|figure| figure.name == name).unwrap();
        csv::Reader::from_reader(figure.csv.as_bytes()).records().count()
    };
    let scored = |outcome: &releq::SearchOutcome| outcome.scored.len();
    let all = scored(&report.search) + report.comparisons.iter().map(scored).sum::<usize>();
    assert_eq!(rows("measured"), all);
    assert_eq!(rows("bits"), 30);
    assert_eq!(rows("accuracy-against-cost"), report.rows.len());
    assert_eq!(rows("learning"), report.search.history.len());
    assert_eq!(rows("action-probabilities"), 30 * report.search.history.len());
    check(&[run]);
}

#[test]
fn names_from_outside_are_text() {
    let mean = "</svg><script>alert(\"1\" & '2')</script>{{ title }}";
    let long = "a_layer_with_a_name_of_sixty_characters/and.more.of.them.to.come";
    let mut value = value(&zoo::lenet(), 20, 3);
    value["layers"][0]["name"] = json!(mean);
    value["layers"][1]["name"] = json!(long);
    value["layers"][2]["name"] = json!("畳み込み層 ñ\u{301} 🧪 \u{202e}rtl");
    value["layers"][3]["name"] = json!("");
    value["data"] = json!(mean);
    value["rows"][0]["label"] = json!(mean);
    value["rows"][1]["failure"] = json!(mean);
    value["rows"][1]["costs"][0]["model"] = json!(mean);
    value["rows"][1]["costs"][0]["unit"] = json!("\"<unit>\"");
    value["search"]["agent"] = json!(mean);
    value["search"]["scored"][0]["failure"] = json!(mean);
    value["error"] = json!(mean);
    let mut run = Named::new(mean, parsed(value));
    run.command = format!("releq search --config '{mean}'");
    let page = check(&[run.clone(), run]);
    assert!(!page.contains("<script>alert"));
    assert_eq!(page.matches("<script>").count(), 1, "our own");
    assert!(page.contains(long) && page.contains("畳み込み層"));
}

/// A change of a report, with its name.
type Oddity = (&'static str, fn(&mut Value));

/// Changes that make a report thin or strange.
fn oddities() -> Vec<Oddity> {
    vec![
        ("no search", |r| {
            for search in ["/search", "/comparisons/0", "/comparisons/1"] {
                let search = r.pointer_mut(search).unwrap();
                search["scored"] = json!([]);
                search["history"] = json!([]);
                search["best"] = json!(null);
                for count in ["evaluations", "episodes"] {
                    search[count] = json!(0);
                }
            }
        }),
        ("no rows", |r| {
            r["rows"] = json!([]);
            for key in ["answer", "reference"] {
                r.as_object_mut().unwrap().remove(key);
            }
            r["cancelled"] = json!(true);
        }),
        ("nothing", |r| {
            for key in ["rows", "layers", "comparisons"] {
                r[key] = json!([]);
            }
            r["search"]["scored"] = json!([]);
            r["search"]["history"] = json!([]);
            r["search"]["evaluations"] = json!(0);
            for key in ["answer", "chosen"] {
                r[key] = json!(null);
            }
            r["times"] = json!({});
        }),
        ("equal accuracies", |r| {
            for search in ["/search", "/comparisons/0"] {
                for scored in r.pointer_mut(search).unwrap()["scored"].as_array_mut().unwrap() {
                    scored["accuracy"] = json!(0.75);
                    scored["standard_error"] = json!(null);
                }
            }
            for row in r["rows"].as_array_mut().unwrap() {
                row["test_accuracy"] = json!(0.75);
                row["quant_state"] = json!(0.5);
            }
        }),
        ("perfect", |r| {
            for row in r["rows"].as_array_mut().unwrap() {
                row["test_accuracy"] = json!(1.0);
            }
            r["images"] = json!([0, 0, 0]);
        }),
        ("everything failed", |r| {
            for row in r["rows"].as_array_mut().unwrap() {
                row["failure"] = json!("the loss diverged");
                row["test_accuracy"] = json!(0.0);
                row["validation_accuracy"] = json!(0.0);
            }
            for scored in r["search"]["scored"].as_array_mut().unwrap() {
                scored["failure"] = json!("the loss diverged");
                for key in ["accuracy", "acc_state"] {
                    scored[key] = json!(0.0);
                }
            }
            r["answer"] = json!(null);
        }),
        ("free", |r| {
            for row in r["rows"].as_array_mut().unwrap() {
                for (index, cost) in row["costs"].as_array_mut().unwrap().iter_mut().enumerate() {
                    cost["cost"] = json!(0.0);
                    if index == 1 {
                        cost["at_eight_bits"] = json!(0.0);
                    }
                }
                row["quant_state"] = json!(0.0);
            }
        }),
        ("no cost", |r| {
            for row in r["rows"].as_array_mut().unwrap() {
                row["costs"] = json!([]);
                row["quant_state"] = json!(null);
            }
        }),
        ("over limits", |r| {
            r["config"]["limits"] = json!(["size<=1kB", "stripes<=0.1x"]);
            for row in r["rows"].as_array_mut().unwrap() {
                row["over_limit"] = json!(3.5);
            }
            for scored in r["search"]["scored"].as_array_mut().unwrap() {
                scored["over_limit"] = json!(2.0);
            }
            r["answer"] = json!(null);
        }),
        ("own pieces", |r| {
            r["config"]["network"] = json!(null);
            r["config"]["data"] = json!({"own": "given"});
            r["config"]["cost"] = json!({"own": "board"});
            r["config"]["report_costs"] = json!([{"own": "board"}]);
            r["config"]["agent"] = json!({"own": "climber"});
        }),
        ("other actions", |r| {
            for batch in r["search"]["history"].as_array_mut().unwrap() {
                batch["action_probabilities"] = json!([[0.25, 0.5, 0.25], [0.0, 0.0, 0.0]]);
            }
        }),
        ("ragged probabilities", |r| {
            for (index, batch) in
                r["search"]["history"].as_array_mut().unwrap().iter_mut().enumerate()
            {
                batch["action_probabilities"] =
                    if index % 2 == 0 { json!([[1.0], [0.5, 0.5], []]) } else { json!([]) };
            }
        }),
        ("layers of other lengths", |r| {
            r["layers"].as_array_mut().unwrap().pop();
            r["config"]["fixed_layers"] = json!([["conv1", 8], ["no such layer", 4]]);
        }),
        ("float and wide bits", |r| {
            r["layers"][0]["bits"] = json!("float");
            r["layers"][1]["bits"] = json!(32);
            r["layers"][2]["bits"] = json!(null);
        }),
        ("failed pieces", |r| {
            r["search"]["stop"] = json!("failed");
            r["search"]["error"] = json!("agent `rogue`: it panicked");
            r["comparisons"][0]["error"] = json!("evaluator: no");
            r["error"] = json!("trainer: out of memory");
            r["reference"]["retrained"] = json!(false);
        }),
    ]
}

#[test]
fn thin_and_strange_reports_have_a_page() {
    for (what, change) in oddities() {
        let mut value = value(&zoo::lenet(), 24, 3);
        change(&mut value);
        let report = serde_json::from_value::<Report>(value);
        let report = report.unwrap_or_else(|error| panic!("{what}: {error}"));
        let page = check(&[run(report)]);
        assert!(page.contains("<h1>a run</h1>"), "{what}");
    }
    check(&[run(report(&chain(1), 5, 1))]);
    check(&[run(report(&chain(100), 16, 1))]);
    assert!(matches!(html(&[]), Err(PageError::Empty)));
}

/// What a page says at its top.
fn says(value: Value) -> String {
    check(&[run(parsed(value))])
}

#[test]
fn full_precision_is_drawn_beside_accuracies_alone() {
    // The line and its entry in the legend; other figures have full precision too.
    let drawn = |value: Value| says(value).matches("full precision, 9").count();
    let mut value = value(&zoo::lenet(), 24, 3);
    let beside_ratios = drawn(value.clone());
    // Where State_Accuracy is an estimate, no accuracy is what it is relative to.
    for scored in value["search"]["scored"].as_array_mut().unwrap() {
        let state = scored["acc_state"].as_f64().unwrap();
        scored["acc_state"] = json!(state * state);
    }
    assert!(drawn(value) < beside_ratios);
}

#[test]
fn the_sentences_tell_wins_and_losses() {
    let base = || {
        let mut value = value(&zoo::lenet(), 24, 3);
        // The agent's row against uniform 4 and random search, all within the tolerance or not as set below.
        for row in value["rows"].as_array_mut().unwrap() {
            row["validation_accuracy"] = json!(0.80);
            row["test_accuracy"] = json!(0.80);
        }
        value["rows"][0]["validation_accuracy"] = json!(0.9131);
        value["rows"][0]["test_accuracy"] = json!(0.9112);
        value["rows"][0]["loss_points"] = json!(0.20);
        value
    };
    let has = |value: Value, expected: &[&str]| {
        let page = says(value);
        for expected in expected {
            assert!(page.contains(expected), "the page lacks `{expected}`");
        }
    };
    has(
        base(),
        &[
            "0.20 ± 0.31 points below full precision on 10,000 test images",
            "kB at 8 bits.",
            "was found by the agent&#39;s search (ppo)",
            "Random search, with at most as many evaluations, came to",
            "No uniform bitwidth is within the tolerance",
            "nothing that costs as little is as accurate",
            "its weights come to 87.19 % of the test images: 0.12 points less.",
            "The search measured 24 assignments in 24 episodes. It ended because: evaluation budget used up.",
        ],
    );

    let mut same = base();
    same["rows"][1]["bits"] = same["rows"][0]["bits"].clone();
    has(same, &["Random search is the same assignment, so the agent was no better than that."]);

    let mut uniform = base();
    uniform["rows"][7]["validation_accuracy"] = json!(0.9131);
    uniform["answer"] = json!({
        "label": "uniform 3",
        "bits": uniform["rows"][7]["bits"],
        "within_tolerance": true,
    });
    has(
        uniform,
        &[
            "The answer is not the agent&#39;s, but uniform 3: 3-3-3-3",
            "The agent&#39;s own best,",
            "A single bitwidth for all layers is as good as anything that was found.",
        ],
    );

    let mut bad = base();
    bad["answer"]["within_tolerance"] = json!(false);
    has(
        bad.clone(),
        &[
            "Nothing was good enough: no assignment stayed within 0.3 points of full precision",
            "class=\"answer bad\"",
        ],
    );

    bad["rows"][8]["validation_accuracy"] = json!(0.9131);
    bad["rows"][8]["over_limit"] = json!(1.5);
    has(bad, &["no assignment that may be chosen stayed within 0.3 points of full precision"]);

    let mut lucky = base();
    lucky["rows"][8]["test_accuracy"] = json!(0.9120);
    has(lucky, &["On the test images, which choose nothing, uniform 2 cost no more"]);

    let mut limited = base();
    limited["config"]["limits"] = json!(["size<=60kB", "stripes<=0.9x"]);
    limited["rows"][8]["over_limit"] = json!(1.5);
    limited["rows"][8]["validation_accuracy"] = json!(0.9131);
    has(
        limited,
        &[
            "Limit: size&#60;=60kB; the answer uses",
            "Uniform 2 would have been a cheaper answer but for",
        ],
    );
    // A layer that is kept in float forbids most rows, with or without a limit.
    let mut kept = base();
    kept["config"]["fixed_layers"] = json!([["conv1", "float"]]);
    kept["config"]["limits"] = json!(["size<=60kB"]);
    kept["rows"][0]["bits"] = json!(["float", 2, 3, 2]);
    kept["answer"]["bits"] = kept["rows"][0]["bits"].clone();
    for row in [7, 8] {
        kept["rows"][row]["validation_accuracy"] = json!(0.9131);
        kept["rows"][row]["test_accuracy"] = json!(0.9131);
    }
    kept["rows"][8]["over_limit"] = json!(1.5);
    let page = says(kept.clone());
    for wrong in ["but for", "The cheapest uniform bitwidth"] {
        assert!(!page.contains(wrong), "{wrong}");
    }
    has(
        kept,
        &[
            "No limit decided",
            "No uniform bitwidth may be chosen: each of those compared has other bits in a fixed layer.",
            "Random search, with at most as many evaluations, came to",
        ],
    );

    let mut free = base();
    free["config"]["limits"] = json!(["size<=900kB"]);
    has(free, &["No limit decided"]);

    let mut stopped = base();
    stopped["cancelled"] = json!(true);
    stopped["rows"] = json!([]);
    stopped["answer"] = json!(null);
    stopped["chosen"] = stopped["search"]["scored"][0]["bits"].clone();
    has(
        stopped.clone(),
        &[
            "The run was stopped before its end",
            "There is no answer",
            " of full-precision accuracy after a short retrain",
            "these are the best so far",
        ],
    );
    let page = says(stopped.clone());
    for wrong in ["The ring marks the answer", "the figure above", "The bold row"] {
        assert!(!page.contains(wrong), "{wrong}");
    }
    // What follows from divergences is no accuracy that anybody counted.
    for scored in stopped["search"]["scored"].as_array_mut().unwrap() {
        let state = scored["acc_state"].as_f64().unwrap();
        scored["acc_state"] = json!(state * state);
    }
    has(
        stopped,
        &[
            " on the search&#39;s validation images after a short retrain; by how far",
            "There is no answer; the ring marks the best so far.",
            "The searches rank by State_Accuracy, which is here an estimate",
        ],
    );

    let mut failed = base();
    failed["search"]["error"] = json!("agent `rogue`: it panicked");
    failed["comparisons"] = json!([]);
    has(
        failed,
        &[
            "The search failed: agent `rogue`: it panicked",
            "It was not compared with other searches.",
        ],
    );
}

#[test]
fn runs_of_different_networks_stand_beside_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let runs = [
        Named::new("LeNet, first", report(&zoo::lenet(), 40, 1)),
        Named::new("LeNet, second", report(&zoo::lenet(), 40, 2)),
        Named::new("../weird\\name:", report(&chain(12), 80, 2)),
        Named::new(
            "",
            parsed({
                let mut value = value(&zoo::lenet(), 8, 3);
                value["answer"] = json!(null);
                value["search"]["scored"] = json!([]);
                value
            }),
        ),
    ];
    check(&runs);
    let page = html(&runs[..2]).unwrap();
    assert!(
        page.contains("Bits layer by layer") && page.contains("The searches beside each other")
    );
    assert!(!html(&runs).unwrap().contains("Bits layer by layer"), "other layers");

    write(folder.path(), &runs).unwrap();
    let page = fs::read_to_string(folder.path().join("report.html")).unwrap();
    check_links(folder.path(), &page);
    let mut inside: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    inside.sort();
    assert_eq!(inside, ["plots", "report.html", "tables"]);
}

/// Every link to a file leads to one, and every file has a link.
fn check_links(folder: &Path, page: &str) {
    let links = page.split(" href=\"").skip(1).map(|rest| &rest[..rest.find('"').unwrap()]);
    let files: BTreeSet<&str> = links.filter(|link| !link.starts_with('#')).collect();
    assert!(!files.is_empty());
    for file in &files {
        assert!(folder.join(file).is_file(), "{file}");
    }
    let mut found = 0;
    let mut open = vec![folder.join("plots"), folder.join("tables")];
    while let Some(inside) = open.pop() {
        for entry in fs::read_dir(inside).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found += 1;
            }
        }
    }
    assert_eq!(found, files.len());
}

#[test]
fn a_run_is_written_whole_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let runs = [run(report(&zoo::lenet(), 20, 1))];
    write(folder.path(), &runs).unwrap();
    let page = fs::read(folder.path().join("report.html")).unwrap();
    write(folder.path(), &runs).unwrap();
    assert_eq!(fs::read(folder.path().join("report.html")).unwrap(), page);
    check_links(folder.path(), &String::from_utf8(page).unwrap());
    for file in ["plots/bits.svg", "tables/bits.csv", "tables/finals.csv"] {
        assert!(folder.path().join(file).is_file(), "{file}");
    }
    fs::remove_dir_all(folder.path().join("plots")).unwrap();
    fs::write(folder.path().join("plots"), "in the way").unwrap();
    let error = write(folder.path(), &runs).unwrap_err().to_string();
    assert!(error.contains("plots"), "{error}");
}
