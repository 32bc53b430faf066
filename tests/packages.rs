//! What every package of the workspace must say of itself before it can be published.
#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Features that add nothing public and are too much for the machines that build the hosted documentation.
const HEAVY: [&str; 3] = ["ndarray", "wgpu", "cuda"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn folder(package: &Value) -> PathBuf {
    Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap().to_path_buf()
}

/// The packages under `crates/` are published, the others are not.
fn published() -> Vec<Value> {
    let crates = root().join("crates");
    let (published, others): (Vec<_>, Vec<_>) =
        packages().into_iter().partition(|package| folder(package).starts_with(&crates));
    assert!(!published.is_empty());
    for package in &published {
        assert!(package["publish"].is_null(), "{} cannot be published", package["name"]);
    }
    for package in &others {
        assert_eq!(package["publish"], Value::Array(Vec::new()), "{}", package["name"]);
    }
    published
}

#[test]
fn metadata_is_complete() {
    for package in published() {
        let name = package["name"].as_str().unwrap();
        for field in ["description", "documentation", "repository", "readme", "rust_version"] {
            assert!(package[field].is_string(), "{name} has no {field}");
        }
        assert_eq!(package["license"], "MIT OR Apache-2.0", "{name}");
        assert!(!strings(&package["categories"]).is_empty(), "{name} has no categories");

        // The limits of crates.io, which Cargo itself does not check.
        let keywords = strings(&package["keywords"]);
        assert!((1..=5).contains(&keywords.len()), "{name}: {keywords:?}");
        for keyword in keywords {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_+".contains(c);
            assert!(keyword.len() <= 20 && keyword.chars().all(allowed), "{name}: {keyword}");
        }
    }
}

#[test]
fn licences_are_those_of_the_workspace() {
    for package in published() {
        for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
            let path = folder(&package).join(licence);
            let text = std::fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let original = std::fs::read_to_string(root().join(licence)).unwrap();
            assert_eq!(text, original, "{}", path.display());
        }
    }
}

#[test]
fn hosted_documentation_shows_all_features() {
    for package in published() {
        let docs = &package["metadata"]["docs"]["rs"];
        if docs["all-features"] == true {
            continue;
        }
        let shown: BTreeSet<_> = strings(&docs["features"]).into_iter().collect();
        let hidden = package["features"].as_object().unwrap().keys().find(|feature| {
            let feature = feature.as_str();
            feature != "default" && !HEAVY.contains(&feature) && !shown.contains(feature)
        });
        assert_eq!(hidden, None, "{}: `package.metadata.docs.rs` leaves it out", package["name"]);
    }
}

/// The example of a library is the first of its README, and runs as a documentation test.
#[test]
fn every_library_has_an_example_that_runs() {
    for package in published() {
        let library = package["targets"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|target| strings(&target["kind"]).contains(&"lib"));
        let Some(library) = library else { continue };
        let name = &package["name"];
        assert_eq!(library["doctest"], true, "{name}");
        let source = std::fs::read_to_string(library["src_path"].as_str().unwrap()).unwrap();
        assert!(source.contains(r#"include_str!("../README.md")"#), "{name}");
        let readme = std::fs::read_to_string(folder(&package).join("README.md")).unwrap();
        assert!(readme.lines().any(|line| line == "```rust"), "{name}: no example that runs");
    }
}

/// The packages that a package consists of, itself included.
fn with_dependencies<'p>(name: &'p str, packages: &'p [Value], found: &mut BTreeSet<&'p str>) {
    let Some(package) = packages.iter().find(|package| package["name"] == name) else { return };
    if !found.insert(name) {
        return;
    }
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        if dependency["kind"].is_null() {
            with_dependencies(dependency["name"].as_str().unwrap(), packages, found);
        }
    }
}

/// Profiles of a dependency do not count, so whoever depends on a crate has to be told which lines to copy.
#[test]
fn readmes_say_which_profiles_to_copy() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let tuned = |name: &str| manifest.contains(&format!("[profile.dev.package.{name}]"));
    let packages = published();
    let mut told = 0;
    for package in &packages {
        let name = package["name"].as_str().unwrap();
        let mut all = BTreeSet::new();
        with_dependencies(name, &packages, &mut all);
        let expected: Vec<&str> = all.into_iter().filter(|name| tuned(name)).collect();
        if expected.is_empty() {
            continue;
        }
        told += 1;
        for readme in [folder(package).join("README.md"), root().join("README.md")] {
            let text = std::fs::read_to_string(&readme).unwrap();
            assert!(text.contains("\"*\" = { opt-level = 3 }"), "{}", readme.display());
            for tuned in &expected {
                let line =
                    format!("{tuned} = {{ debug-assertions = false, overflow-checks = false }}");
                assert!(text.contains(&line), "{} lacks `{line}`", readme.display());
            }
        }
    }
    assert!(told >= 5, "only {told} packages have lines to copy");
}
