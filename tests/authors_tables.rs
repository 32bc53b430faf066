//! The accuracies that the ReLeQ authors measured, replayed; needs `RELEQ_DATA_DIR`.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may fail loudly")]

use releq::{
    AgentKind, AgentShape, Budget, Problem, Scored, Search, SearchLayer,
    agent::{Exhaustive, PpoConfig},
    core::LayerProfile,
    evaluate::{OnMiss, Table},
    hw::CostKind,
    pareto_frontier,
    zoo::lenet,
};
use releq_test_support::data_dir;

fn table(name: &str, full_precision: f64) -> Option<Table> {
    let path = data_dir()?.join("releq-accuracy-tables").join(name);
    Some(Table::read(path, OnMiss::Error).unwrap().with_full_precision(full_precision).unwrap())
}

fn search(profiles: Vec<LayerProfile>, table: &Table, cost: CostKind) -> Problem {
    let layer = |profile| SearchLayer { profile, weight_std: 0.0, fixed: None };
    Problem::builder()
        .layers(profiles.into_iter().map(layer).collect())
        .actions(table.bitwidths())
        .cost(cost.build().unwrap())
        .build()
        .unwrap()
}

fn score_all(search: &Problem, table: &Table) -> Vec<Scored> {
    table.iter().map(|(bits, _)| search.score(bits, table).unwrap()).collect()
}

fn frontier(scored: &[Scored]) -> Vec<String> {
    pareto_frontier(scored)
        .iter()
        .map(|p| format!("{:.4} {:.3} {}", p.quant_state, 100.0 * p.accuracy, p.bits))
        .collect()
}

fn optimum(scored: &[Scored]) -> &Scored {
    scored.iter().max_by(|a, b| a.reward.total_cmp(&b.reward)).unwrap()
}

#[test]
fn lenet_by_mean_bits_has_the_published_solution_as_its_optimum() {
    let Some(table) = table("lenet.csv", 0.998) else { return };
    let scored = score_all(&search(lenet().profiles(), &table, CostKind::MeanBits), &table);
    assert_eq!(scored.len(), 625);
    let best = optimum(&scored);
    assert_eq!(best.bits.to_string(), "2-2-3-2");
    assert!((best.reward - 0.218_364).abs() < 5e-7, "{}", best.reward);
    assert_eq!(
        frontier(&scored),
        [
            "0.2500 11.433 2-2-2-2",
            "0.2812 93.917 2-2-3-2",
            "0.3125 98.650 2-2-3-3",
            "0.3438 98.917 2-3-4-2",
            "0.3750 99.400 2-3-3-4",
            "0.4062 99.583 2-3-4-4",
            "0.4688 99.633 3-4-5-3",
            "0.5000 99.683 2-5-4-5",
            "0.5625 99.800 2-5-8-3",
            "0.7500 99.850 3-8-8-5",
        ]
    );
}

#[test]
fn lenet_by_cost_prefers_few_bits_where_the_weights_are() {
    let Some(table) = table("lenet.csv", 0.998) else { return };
    let scored = score_all(
        &search(lenet().profiles(), &table, CostKind::CostWeighted(Default::default())),
        &table,
    );
    let best = optimum(&scored);
    assert_eq!(best.bits.to_string(), "3-2-2-4");
    assert!((best.reward - 0.238_611).abs() < 5e-7, "{}", best.reward);
    assert_eq!(
        frontier(&scored),
        [
            "0.2500 11.433 2-2-2-2",
            "0.2522 95.200 3-2-2-3",
            "0.2536 98.417 3-2-2-4",
            "0.2550 98.867 3-2-2-5",
            "0.2637 99.067 4-3-2-3",
            "0.2697 99.200 8-3-2-5",
            "0.2751 99.450 5-4-2-3",
            "0.2872 99.517 5-5-2-4",
            "0.3680 99.567 4-2-3-5",
            "0.3885 99.583 3-4-3-5",
            "0.3993 99.600 5-5-3-4",
            "0.3999 99.650 4-5-3-5",
            "0.4305 99.733 4-8-3-4",
            "0.5482 99.800 4-8-4-8",
            "0.9656 99.833 5-5-8-8",
            "0.9918 99.850 3-8-8-5",
        ]
    );
}

/// Equal linear layers: the mean-bits form looks at nothing but their number.
fn alike(layers: usize) -> Vec<LayerProfile> {
    (0..layers).map(|index| LayerProfile::linear(format!("layer{index}"), 500, 10)).collect()
}

#[test]
fn svhn_and_vgg11_by_mean_bits_have_their_known_optima() {
    for (name, full_precision, layers, bits, reward) in [
        ("svhn.csv", 0.97, 8, "3-4-4-4-4-4-4-3", 0.137_136),
        ("vgg11.csv", 0.96, 7, "4-5-5-5-5-5-5", 0.084_447),
    ] {
        let Some(table) = table(name, full_precision) else { return };
        let search = search(alike(layers), &table, CostKind::MeanBits);
        let scored = score_all(&search, &table);
        let best = optimum(&scored);
        assert_eq!(best.bits.to_string(), bits, "{name}");
        assert!((best.reward - reward).abs() < 5e-7, "{name}: {}", best.reward);
    }
}

#[test]
fn exhaustive_search_agrees_with_the_table() {
    let Some(table) = table("lenet.csv", 0.998) else { return };
    let search = search(lenet().profiles(), &table, CostKind::MeanBits);
    let mut agent = Exhaustive::new(search.action_count(), search.episode_len(), 50);
    let outcome = Search::new(&search, &mut agent, &table, Budget::default()).run().unwrap();
    assert_eq!(outcome.evaluations, 625);
    assert_eq!(outcome.best.unwrap().bits.to_string(), "2-2-3-2");
}

#[test]
fn the_agent_comes_near_the_optimum_of_lenet() {
    let Some(table) = table("lenet.csv", 0.998) else { return };
    let search = search(lenet().profiles(), &table, CostKind::MeanBits);
    let budget = Budget { episodes: Some(2000), ..Budget::default() };
    let mut agent =
        PpoConfig::default().init(search.observation_len(), search.action_count(), 1).unwrap();
    let outcome = Search::new(&search, &mut agent, &table, budget).run().unwrap();
    let greedy = outcome.greedy.unwrap();
    assert!(greedy.reward >= 0.95 * 0.218_364, "{} {}", greedy.bits, greedy.reward);
}

/// The first seed alone; `docs/reproduction.md` has ten.
#[test]
fn the_default_agent_comes_near_the_optimum_of_every_table_with_few_measurements() {
    for (name, full_precision, profiles, optimum, most) in [
        ("lenet.csv", 0.998, lenet().profiles(), 0.218_364, 30),
        ("svhn.csv", 0.97, alike(8), 0.137_136, 45),
        ("vgg11.csv", 0.96, alike(7), 0.084_447, 30),
    ] {
        let Some(folder) = data_dir() else { return };
        let path = folder.join("releq-accuracy-tables").join(name);
        let table = Table::read(path, OnMiss::Nearest).unwrap();
        let table = table.with_full_precision(full_precision).unwrap();
        let search = search(profiles, &table, CostKind::MeanBits);
        let kind = AgentKind::default();
        let mut agent = kind.build(&AgentShape::new(&search, 1)).unwrap();
        let budget = Budget { evaluations: Some(most), ..Budget::default() };
        let found = Search::new(&search, agent.as_mut(), &table, budget).planning(kind.planning());
        let found = found.run().unwrap();
        for scored in [found.best.unwrap(), found.greedy.unwrap()] {
            assert!(scored.reward >= 0.99 * optimum, "{name}: {} {}", scored.bits, scored.reward);
        }
    }
}
