//! What commands print, where, and what they exit with.

use std::{fs, process::Stdio};

use serde_json::Value;

use crate::support::{command, text};

fn json(line: &str, dir: &std::path::Path) -> Value {
    let output = command(line, dir).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "releq {line}\n{said}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{line}: {error}\n{said}"))
}

#[test]
fn every_command_prints_one_json_object() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();

    let train = "train lenet --data DATA --output DIR/w --epochs 0.1 --batch-size 32 --json";
    let trained = json(train, dir);
    assert_eq!((&trained["steps"], &trained["total"]), (&2.into(), &64.into()));
    assert!(trained["bits"].is_null() && dir.join("w").is_file());
    let retrained = json(&format!("{train} --weights WEIGHTS --bits 2,4,4,32"), dir);
    assert_eq!(retrained["quantizer"], "wrpn-scaled-per-channel");
    assert_eq!(retrained["bits"][3], Value::from("float"));

    let evaluate = "evaluate lenet --data DATA --weights WEIGHTS --json";
    let evaluated = json(evaluate, dir);
    assert_eq!(evaluated["total"], 64);
    let quick = json(&format!("{evaluate} --images 20 --bits 8 --split train"), dir);
    assert_eq!((&quick["total"], &quick["mean_bits"]), (&20.into(), &8.0.into()));
    let option = json("evaluate --network lenet --data DATA --weights WEIGHTS --json", dir);
    assert_eq!(option["correct"], evaluated["correct"]);

    let costs =
        json("cost lenet --cost stripes,size --bits 2,2,3,2 --csv DIR/costs.csv --json", dir);
    assert_eq!(costs["models"][0]["total"]["cost"], 2335.0);
    let csv = fs::read_to_string(dir.join("costs.csv")).unwrap();
    assert!(csv.starts_with("layer,model,metric,value\n"), "{csv}");
    assert!(csv.contains("total,stripes,cycles,2335\n"), "{csv}");
    let sum = json("cost lenet --bits 8 --cost stripes=2,size=1 --json", dir);
    assert_eq!(sum["models"][2]["model"], "weighted-sum");
    assert!((sum["models"][2]["total"]["cost"].as_f64().unwrap() - 3.0).abs() < 1e-9);

    let quantized = json("quantize --bits 2,8 --count 1000 --json", dir);
    assert_eq!(quantized["rows"].as_array().unwrap().len(), 2);
    let timed = json("bench lenet --repeats 1 --json", dir);
    assert_eq!(timed["networks"][0]["network"], "lenet");
    assert_eq!(json("bench lenet --explain --json", dir)["lenet"].as_array().unwrap().len(), 4);
    let listed = json("list --json", dir);
    for kind in ["networks", "data", "quantizers", "rewards", "costs", "agents", "backends"] {
        assert!(listed[kind].as_array().is_some_and(|names| names.len() > 3), "{kind}");
    }
    assert_eq!(json("list networks --json", dir)["networks"][0]["name"], "lenet");
}

#[test]
fn a_replay_follows_its_limits_layers_and_costs() {
    let folder = tempfile::tempdir().unwrap();
    let replay = |more: &str| {
        json(&format!("replay lenet --table TABLE --episodes 400 --json {more}"), folder.path())
    };
    let bits = |found: &Value, key: &str| -> Vec<u64> {
        found[key].as_array().unwrap().iter().map(|bits| bits.as_u64().unwrap()).collect()
    };
    let free = replay("--agent exhaustive");
    assert_eq!(free["best_seen_bits"], free["optimal_bits"]);
    assert_eq!(free["evaluations"], 81);
    assert!(free["cheapest_within_max_loss"].is_null());

    let kept = replay("--agent exhaustive --keep fc1=4 --keep conv1=3");
    assert_eq!(kept["evaluations"], 9);
    assert_eq!((bits(&kept, "best_seen_bits")[0], bits(&kept, "best_seen_bits")[2]), (3, 4));

    // Everything is in fc1, of 400,000 weights.
    let small = replay("--agent exhaustive --limit size=130kB");
    assert_eq!(bits(&small, "best_seen_bits")[2], 2);
    assert_eq!(small["limits"][0], "size<=130kB");
    let share = replay("--agent exhaustive --limit size=30%");
    assert_eq!(share["best_seen_bits"], small["best_seen_bits"]);

    let lossy = replay("--agent exhaustive --max-loss 100");
    assert_eq!(bits(&lossy["cheapest_within_max_loss"], "bits"), [2, 2, 2, 2]);
    let lossless = replay("--agent exhaustive --max-loss 0");
    assert_eq!(bits(&lossless["cheapest_seen_within_max_loss"], "bits"), [4, 4, 4, 4]);
    // A loss to keep to steers the search; without one, the reward is the paper's.
    assert_eq!(free["reward"], "shaped");
    let strict = replay("--agent exhaustive --max-loss 2");
    let rate = strict["reward"].as_str().unwrap().strip_prefix("exchange:rate=").unwrap();
    assert!(rate.parse::<f64>().unwrap() > 1.0, "{rate}");
    assert!(replay("--max-loss 2 --reward division")["reward"] == "division");

    let few = replay("--agent random --evaluations 10 --bits 2,4");
    assert!(few["evaluations"] == 10 && few["greedy_bits"].is_null());
    let curve = few["curve"].as_array().unwrap();
    assert_eq!(curve.last().unwrap()[0], 10);
    assert_eq!(curve.last().unwrap()[1], few["best_seen_reward"]);
    let rewards: Vec<f64> = curve.iter().map(|point| point[1].as_f64().unwrap()).collect();
    assert!(rewards.is_sorted(), "{rewards:?}");

    let other = replay("--cost stripes-energy=2,size=1 --reward division --agent greedy");
    assert_eq!(
        (&other["cost"], &other["reward"]),
        (&"stripes-energy=2,size=1".into(), &"division".into())
    );
    let ppo = replay("");
    assert_eq!(ppo["cost"], "mean-bits");
    assert!(ppo["greedy_bits"].is_array());
}

/// A table of measured times is a cost and a limit of a search.
#[test]
fn times_that_were_measured_limit_a_search() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let measured = "cost lenet --bits 2 --cpu-table DIR/cpu.json --cpu-bits 3,4 --json";
    let costs = json(measured, dir);
    let models = costs["models"].as_array().unwrap();
    assert_eq!(models.last().unwrap()["model"], "cpu-latency");
    let table = fs::read(dir.join("cpu.json")).unwrap();
    // The second time nothing is measured, and nothing written.
    json(measured, dir);
    assert_eq!(fs::read(dir.join("cpu.json")).unwrap(), table);

    let replay = "replay lenet --table TABLE --agent exhaustive --json";
    let fast = json(&format!("{replay} --cost cpu-latency:DIR/cpu.json"), dir);
    assert_eq!(fast["evaluations"], 81);
    let both = "--cost cpu-latency:DIR/cpu.json=1,size=1 --limit cpu-latency:DIR/cpu.json=1s";
    let output = command(&format!("{replay} {both}"), dir).output().unwrap();
    assert!(
        text(&output).contains("`s` is not its unit: expected `x` or `%`"),
        "{}",
        text(&output)
    );
    let both = "--cost cpu-latency:DIR/cpu.json=1,size=1 --limit cpu-latency:DIR/cpu.json=500%";
    assert_eq!(json(&format!("{replay} {both}"), dir)["evaluations"], 81);
    let output = command(&format!("{replay} --cost cpu-latency"), dir).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("such as cpu-latency:lenet.json"), "{}", text(&output));
    let missing = "--limit cpu-latency:DIR/none.json=0.8x";
    let output = command(&format!("{replay} {missing}"), dir).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("none.json"), "{}", text(&output));
}

/// Results for a person fit 80 columns and have no colours where standard output is no terminal.
#[test]
fn tables_fit_80_columns() {
    let folder = tempfile::tempdir().unwrap();
    for line in [
        "list",
        "cost lenet",
        "cost resnet20",
        "quantize",
        "replay lenet --table TABLE --episodes 50 --max-loss 1",
        "evaluate lenet --data DATA --weights WEIGHTS",
        "bench lenet --repeats 1",
        "bench resnet20 --explain",
    ] {
        for no_color in [false, true] {
            let mut command = command(line, folder.path());
            if no_color {
                command.env("NO_COLOR", "1");
            }
            let output = command.output().unwrap();
            let said = text(&output);
            assert!(output.status.success(), "releq {line}\n{said}");
            let result = String::from_utf8(output.stdout).unwrap();
            assert!(!result.contains('\x1b'), "releq {line}\n{result}");
            for line in result.lines() {
                // A processor's name is as long as it is.
                let machine = line.contains("Processor") || line.contains("CPU");
                assert!(line.chars().count() <= 80 || machine, "{line}");
            }
        }
    }
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    for line in ["list", "--help", "cost lenet", "completions bash", "quantize --json"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = command(line, folder.path());
        let output = command.stdout(Stdio::from(writer)).output().unwrap();
        assert!(output.status.success(), "releq {line}\n{}", text(&output));
    }
}

#[test]
fn json_does_not_silence_standard_error() {
    let folder = tempfile::tempdir().unwrap();
    let line = "train lenet --data DATA --output DIR/w --epochs 0.1 --json";
    let output = command(line, folder.path()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("data: ") && said.contains("steps of 64 images"), "{said}");
}

#[test]
fn completions_know_every_command() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = command(&format!("completions {shell}"), folder.path()).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        for expected in ["replay", "max-loss", "quantizer"] {
            assert!(script.contains(expected), "{shell} lacks {expected}");
        }
    }
}

/// A schedule that is printed is read again, in either format, and unchanged by it.
#[test]
fn a_printed_schedule_is_a_valid_one() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let print = "train lenet --print-schedule";
    let output = command(&format!("{print} --epochs 3"), dir).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    fs::write(dir.join("schedule.json"), &output.stdout).unwrap();
    let again = command(&format!("{print} --schedule DIR/schedule.json"), dir).output().unwrap();
    assert_eq!(output.stdout, again.stdout);
    assert!(String::from_utf8(again.stdout).unwrap().contains("3.0"));
}
