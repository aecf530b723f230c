//! The common mistakes, and that the compiler's messages tell what they are.
//!
//! Each file in `tests/compile_fail` must not compile, and each of its lines `//~ …` at the end must stand in what the
//! compiler says, white space aside. Whole messages are not compared: they change with every compiler.

use std::{
    collections::HashMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// What the cases need beside this crate.
const DEPENDENCIES: [&str; 5] = ["bytes", "http", "http-body", "http-body-util", "tower"];

#[test]
fn mistakes_are_told_in_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cases = cases(&root.join("tests/compile_fail"));
    assert!(!cases.is_empty());
    let messages = check(&package(root, &cases));

    let mut wrong = String::new();
    for (name, path) in &cases {
        let told = messages.get(name).map_or("", String::as_str);
        if told.is_empty() {
            wrong += &format!("{name} compiles\n");
            continue;
        }
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let case = fs::read_to_string(path).unwrap();
        let expected: Vec<_> = case.lines().filter_map(|l| l.strip_prefix("//~")).collect();
        let missing = |line: &&&str| !words(told).contains(&words(line));
        for line in expected.iter().filter(missing) {
            wrong += &format!("{name} is not told that:{line}\n");
        }
        if expected.is_empty() {
            wrong += &format!("{name} says nothing of what is to be told\n");
        }
        if wrong.contains(&format!("{name} ")) {
            wrong += told;
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn cases(folder: &Path) -> Vec<(String, PathBuf)> {
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    let mut cases: Vec<_> = files
        .map(|path| {
            (
                path.file_stem().unwrap().to_string_lossy().into_owned(),
                path,
            )
        })
        .collect();
    cases.sort();
    cases
}

/// A package with a binary for each case, on the same versions of everything.
fn package(root: &Path, cases: &[(String, PathBuf)]) -> PathBuf {
    let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compile_fail");
    fs::create_dir_all(&package).unwrap();
    let mut manifest = format!(
        "[package]\nname = \"cases\"\nversion = \"0.0.0\"\nedition = \"2024\"\nautobins = false\n\n[workspace]\n\n\
         [dependencies]\ntower-bearer = {{ path = {root:?}, default-features = false }}\n"
    );
    let locked = fs::read_to_string(root.join("Cargo.lock")).ok();
    for name in DEPENDENCIES {
        let features = if name == "tower" {
            "features = [\"full\"], "
        } else {
            ""
        };
        manifest += &format!("{name} = {{ {features}version = \"*\" }}\n");
    }
    for (name, path) in cases {
        manifest += &format!("\n[[bin]]\nname = \"{name}\"\npath = {path:?}\n");
    }
    fs::write(package.join("Cargo.toml"), manifest).unwrap();
    if let Some(locked) = locked {
        fs::write(package.join("Cargo.lock"), locked).unwrap();
    }
    package
}

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
