//! The common mistakes, and that the compiler's messages tell what they are.
//!
//! No file in `tests/compile_fail` may compile, and each of its lines `//~ …` at the end must stand in what the compiler
//! says, white space aside. Whole messages are not compared: they change with every compiler.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// What the cases need beside this crate and tower.
const DEPENDENCIES: [&str; 4] = ["bytes", "http", "http-body", "http-body-util"];

#[test]
fn mistakes_are_told_in_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cases = cases(&root.join("tests/compile_fail"));
    assert!(!cases.is_empty());
    let told = check(&package(root, &cases));
    let wrong: Vec<_> = cases
        .iter()
        .filter_map(|(name, path)| {
            let told = told.get(name).map_or("", String::as_str);
            let what = judge(&fs::read_to_string(path).unwrap(), told)?;
            Some(format!("{name}: {what}\n{told}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong with what the compiler told of a case.
fn judge(case: &str, told: &str) -> Option<String> {
    if told.is_empty() {
        return Some(String::from("it compiles"));
    }
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let expected: Vec<_> = case
        .lines()
        .filter_map(|line| line.strip_prefix("//~"))
        .map(words)
        .collect();
    if expected.is_empty() {
        return Some(String::from("it says nothing of what is to be told"));
    }
    let told = words(told);
    let missing = expected.into_iter().find(|line| !told.contains(line));
    missing.map(|line| format!("it is not told that {line}"))
}

fn cases(folder: &Path) -> Vec<(String, PathBuf)> {
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    let mut cases: Vec<_> = files
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap();
            (name.to_owned(), path)
        })
        .collect();
    cases.sort();
    cases
}

/// A package with a binary for each case, on the same versions of everything.
fn package(root: &Path, cases: &[(String, PathBuf)]) -> PathBuf {
    let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compile_fail");
    fs::create_dir_all(&package).unwrap();
    let ours = [format!(
        "tower-bearer = {{ path = '{}', default-features = false }}",
        root.display()
    )];
    let others = DEPENDENCIES.map(|name| format!("{name} = '*'"));
    let binaries = cases
        .iter()
        .map(|(name, path)| format!("[[bin]]\nname = '{name}'\npath = '{}'", path.display()));
    let manifest: Vec<_> = [String::from(PACKAGE)]
        .into_iter()
        .chain(ours)
        .chain(others)
        .chain(binaries)
        .collect();
    fs::write(package.join("Cargo.toml"), manifest.join("\n")).unwrap();
    // If there is none, cargo finds versions by itself.
    fs::copy(root.join("Cargo.lock"), package.join("Cargo.lock")).ok();
    package
}

/// With a workspace of its own, and all that it depends on to follow.
const PACKAGE: &str = "[package]
name = 'cases'
edition = '2024'
autobins = false

[workspace]

[dependencies]
tower = { version = '*', features = ['full'] }";

/// What the compiler has to say about each binary that it does not compile.
fn check(package: &Path) -> HashMap<String, String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "check",
            "--bins",
            "--keep-going",
            "--message-format=json",
            "--offline",
        ])
        .current_dir(package)
        .env("CARGO_TARGET_DIR", package.join("target"))
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    let mut messages = HashMap::<_, String>::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let message = &line["message"];
        if line["reason"] == "compiler-message" && message["level"] == "error" {
            let name = line["target"]["name"].as_str().unwrap().to_owned();
            let told = messages.entry(name).or_default();
            *told += message["rendered"].as_str().unwrap();
        }
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        !messages.is_empty(),
        "cargo could not check the cases:\n{errors}"
    );
    messages
}
