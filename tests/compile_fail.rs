//! Common mistakes do not compile, and the compiler's messages say what is wrong.
//!
//! No file in `tests/compile_fail` may compile, and the compiler's errors must contain each of the lines `//~ …` at its
//! end, white space aside. Whole messages are not compared: they change with every compiler. The README's section "If it
//! does not compile" names the mistakes and their cures.

use std::{
    collections::HashMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// What the cases need besides this crate, in the versions of the workspace.
const DEPENDENCIES: &str = "
tower = { version = '*', features = ['util'] }
tokio = { version = '*', features = ['rt'] }
bytes = '*'
http = '*'
http-body = '*'
http-body-util = '*'
hyper-util = { version = '*', features = ['client-legacy', 'http1', 'tokio'] }
reqwest = { version = '*', default-features = false }
";

#[test]
fn the_compiler_explains_common_mistakes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cases = cases(&root.join("tests/compile_fail"));
    assert!(!cases.is_empty());
    let errors = check(&package(root, &cases));
    let problems: Vec<_> = cases
        .iter()
        .filter_map(|(name, path)| {
            let errors = errors.get(name).map_or("", String::as_str);
            let problem = compare(&fs::read_to_string(path).unwrap(), errors)?;
            Some(format!("{name}: {problem}\n{errors}"))
        })
        .collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// What is wrong with the compiler's errors about a case.
fn compare(case: &str, errors: &str) -> Option<String> {
    if errors.is_empty() {
        return Some(String::from("it compiles"));
    }
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let expected: Vec<_> = case
        .lines()
        .filter_map(|line| line.strip_prefix("//~"))
        .map(words)
        .collect();
    if expected.is_empty() {
        return Some(String::from("it has no line that begins with `//~`"));
    }
    let errors = words(errors);
    let missing = expected.into_iter().find(|line| !errors.contains(line));
    missing.map(|line| format!("the errors do not contain: {line}"))
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

/// Writes a package with a binary for each case, and returns its folder.
fn package(root: &Path, cases: &[(String, PathBuf)]) -> PathBuf {
    let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compile_fail");
    fs::create_dir_all(&package).unwrap();
    let mut manifest = format!(
        "[package]\nname = 'cases'\nedition = '2024'\nautobins = false\n[workspace]\n[dependencies]\n\
         tower-bearer = {{ path = '{}', default-features = false }}{DEPENDENCIES}",
        root.display()
    );
    for (name, path) in cases {
        write!(
            manifest,
            "[[bin]]\nname = '{name}'\npath = '{}'\n",
            path.display()
        )
        .unwrap();
    }
    fs::write(package.join("Cargo.toml"), manifest).unwrap();
    // Without this file cargo would choose versions by itself.
    fs::copy(root.join("Cargo.lock"), package.join("Cargo.lock")).ok();
    package
}

/// The compiler's errors about each binary.
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
            let errors = messages.entry(name).or_default();
            *errors += message["rendered"].as_str().unwrap();
        }
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        !messages.is_empty(),
        "cargo could not check the cases:\n{stderr}"
    );
    messages
}
