//! The example that replaces every piece of the path, run small.

#[allow(unreachable_pub, reason = "the file is an example of its own, too")]
#[path = "../examples/swap_everything.rs"]
mod example;

#[test]
fn every_piece_is_replaced_alone_and_together()
-> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let reports = example::swap_everything(example::Size::SMALL)?;
    assert_eq!(reports[0].0, "nothing");
    assert_eq!(reports[reports.len() - 1].0, "everything");
    for (what, report) in &reports {
        assert!(report.search.error.is_none() && !report.cancelled, "{what}");
        assert!(report.chosen_row().is_some(), "{what}");
        // What was replaced shows in the configuration.
        let config = serde_json::to_string(&report.config)?;
        assert_eq!(config.contains("\"own\":\"climber\""), what == "agent" || what == "everything");
    }
    Ok(())
}
