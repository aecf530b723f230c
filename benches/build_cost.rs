//! What the crate adds to the build of a program that uses it, for each set of features.
//!
//! `cargo bench -p benches --bench build_cost [-- OPTIONS]` makes such a program in a temporary folder and counts the crates
//! that it depends on, this one included: those for this machine, without tests, and beside them those that only build
//! scripts need. Versions are chosen as for a new program that says which Rust it needs: the newest for that Rust, or without
//! a network the newest that are here. The column "Rust" is the newest Rust that one of the crates asks for.
//!
//! - `--build` also builds it from scratch for each set, without optimization, and measures the CPU time of all processes
//!   that takes. Only on Linux.
//! - `--check` fails if there are more crates than the bound of a set allows, or if one of them needs a newer Rust than the
//!   documentation of the set says.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct FeatureSet {
    name: &'static str,
    /// How the program depends on this crate, beside the path.
    dependency: &'static str,
    /// The most crates that `--check` allows.
    bound: usize,
    /// The newest Rust that `--check` allows.
    rust: RustVersion,
}

/// The numbers of a version of Rust.
type RustVersion = (u32, u32);

/// What `Cargo.toml` says.
const RUST: RustVersion = (1, 89);

/// What `sqlx` needs.
const RUST_FOR_SQL: RustVersion = (1, 94);

const ALL: &str = r#"features = ["testing", "file-store", "redis-store", "postgres-store", "sqlite-store", "encrypted-store", "sessions", "jwt", "reqwest-middleware", "metrics", "login"]"#;

const SETS: [FeatureSet; 13] = [
    FeatureSet {
        name: "no default features",
        dependency: "default-features = false",
        bound: 55,
        rust: RUST,
    },
    FeatureSet {
        name: "default",
        dependency: "features = []",
        bound: 109,
        rust: RUST,
    },
    FeatureSet {
        name: "testing",
        dependency: r#"features = ["testing"]"#,
        bound: 109,
        rust: RUST,
    },
    FeatureSet {
        name: "file-store",
        dependency: r#"features = ["file-store"]"#,
        bound: 111,
        rust: RUST,
    },
    FeatureSet {
        name: "encrypted-store",
        dependency: r#"features = ["encrypted-store"]"#,
        bound: 109,
        rust: RUST,
    },
    FeatureSet {
        name: "sessions",
        dependency: r#"features = ["sessions"]"#,
        bound: 110,
        rust: RUST,
    },
    FeatureSet {
        name: "reqwest-middleware",
        dependency: r#"features = ["reqwest-middleware"]"#,
        bound: 114,
        rust: RUST,
    },
    FeatureSet {
        name: "metrics",
        dependency: r#"features = ["metrics"]"#,
        bound: 111,
        rust: RUST,
    },
    FeatureSet {
        name: "login",
        dependency: r#"features = ["login"]"#,
        bound: 111,
        rust: RUST,
    },
    FeatureSet {
        name: "redis-store",
        dependency: r#"features = ["redis-store"]"#,
        bound: 119,
        rust: RUST,
    },
    FeatureSet {
        name: "postgres-store",
        dependency: r#"features = ["postgres-store"]"#,
        bound: 162,
        rust: RUST_FOR_SQL,
    },
    FeatureSet {
        name: "sqlite-store",
        dependency: r#"features = ["sqlite-store"]"#,
        bound: 147,
        rust: RUST_FOR_SQL,
    },
    FeatureSet {
        name: "all",
        dependency: ALL,
        bound: 184,
        rust: RUST_FOR_SQL,
    },
];

/// Uses the crate, so that it is linked.
const MAIN: &str = r#"
use tower_bearer::{Token, TokenCache, source_fn};

fn main() {
    let cache = TokenCache::new(source_fn(|_| async { Token::new("abc") }));
    println!("hello, {cache:?}");
}
"#;

fn main() -> Result<ExitCode> {
    let args: Vec<String> = env::args().skip(1).collect();
    let has = |option: &str| args.iter().any(|arg| arg == option);
    let known = ["--build", "--check", "--bench"];
    if let Some(unknown) = args.iter().find(|arg| !known.contains(&&***arg)) {
        return Err(format!("unknown option {unknown}").into());
    }

    let program = Program::new()?;
    let (mut has_too_many, mut needs_newer_rust) = (false, false);
    println!(
        "{:20} {:>7} {:>7} {:>14} {:>6} {:>12} {:>10}",
        "features", "crates", "bound", "build scripts", "Rust", "CPU seconds", "seconds"
    );
    for set in &SETS {
        program.depend_as(set.dependency)?;
        let crates = program.crates("normal")?.len();
        let all = program.crates("normal,build")?;
        let (rust, needed_by) = program.newest_rust(&all)?;
        let times = if has("--build") {
            program.build()?
        } else {
            String::new()
        };
        println!(
            "{:20} {crates:>7} {:>7} {:>14} {:>6} {times}",
            set.name,
            set.bound,
            all.len() - crates,
            format!("{}.{}", rust.0, rust.1),
        );
        has_too_many |= crates > set.bound;
        if rust > set.rust {
            needs_newer_rust = true;
            eprintln!(
                "{needed_by} needs a newer Rust than the features {:?} are documented for.",
                set.name
            );
        }
    }
    if has("--check") && needs_newer_rust {
        return Ok(ExitCode::FAILURE);
    }
    if has("--check") && has_too_many {
        eprintln!(
            "More crates than the bound allows. `cargo tree -e normal` shows what brings them. If all are needed, raise \
             the bound in `benches/build_cost.rs`."
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// What `cargo metadata` prints, as far as it is needed.
#[derive(serde::Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(serde::Deserialize)]
struct Package {
    name: String,
    version: String,
    rust_version: Option<String>,
}

/// The program in its folder, which is removed when this is dropped.
struct Program {
    folder: PathBuf,
    /// The versions of all dependencies with all features. Cargo removes what a set of features does not need.
    lock: Vec<u8>,
}

impl Program {
    fn new() -> Result<Self> {
        let folder = env::temp_dir().join(format!("build-cost-{}", std::process::id()));
        fs::create_dir_all(folder.join("src"))?;
        let mut program = Self {
            folder,
            lock: Vec::new(),
        };
        fs::write(program.folder.join("src/main.rs"), MAIN)?;
        program.depend_as(ALL)?;
        let lock = |offline: &[&str]| program.cargo("generate-lockfile").args(offline).output();
        let online = lock(&[])?;
        if !online.status.success() {
            let offline = lock(&["--offline"])?;
            if !offline.status.success() {
                let text = String::from_utf8_lossy(&online.stderr).into_owned();
                return Err(format!("cargo generate-lockfile failed:\n{text}").into());
            }
            println!("Without a network: the versions are those that were downloaded earlier.");
        }
        program.lock = fs::read(program.lock_file())?;
        Ok(program)
    }

    fn lock_file(&self) -> PathBuf {
        self.folder.join("Cargo.lock")
    }

    fn depend_as(&self, dependency: &str) -> Result<()> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let path = path.display().to_string();
        let manifest = format!(
            "[package]\nname = \"hello\"\nedition = \"2024\"\nrust-version = \"{}.{}\"\n\n[workspace]\n\n\
             [dependencies]\ntower-bearer = {{ path = {path:?}, {dependency} }}\n",
            RUST.0, RUST.1
        );
        fs::write(self.folder.join("Cargo.toml"), manifest)?;
        if !self.lock.is_empty() {
            fs::write(self.lock_file(), &self.lock)?;
        }
        Ok(())
    }

    fn cargo(&self, command: &str) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .arg(command)
            .current_dir(&self.folder)
            .env("CARGO_TARGET_DIR", self.folder.join("target"));
        cargo
    }

    /// The crates that it depends on, each as `name vVERSION`, and a path or the like after it.
    fn crates(&self, edges: &str) -> Result<BTreeSet<String>> {
        let output = self
            .cargo("tree")
            .args(["--prefix", "none", "--format", "{p}", "--edges", edges])
            .stderr(Stdio::inherit())
            .output()?;
        if !output.status.success() {
            return Err(format!("cargo tree: {}", output.status).into());
        }
        let text = String::from_utf8(output.stdout)?;
        // A crate whose dependencies stand further up is marked with an asterisk.
        let crates = text.lines().map(|line| line.trim_end_matches(" (*)"));
        let is_dependency = |line: &&str| !line.is_empty() && !line.starts_with("hello v");
        Ok(crates.filter(is_dependency).map(String::from).collect())
    }

    /// The newest Rust that one of `crates` asks for, and which one that is.
    fn newest_rust(&self, crates: &BTreeSet<String>) -> Result<(RustVersion, String)> {
        let output = self
            .cargo("metadata")
            .args(["--format-version", "1"])
            .stderr(Stdio::inherit())
            .output()?;
        if !output.status.success() {
            return Err(format!("cargo metadata: {}", output.status).into());
        }
        let metadata: Metadata = serde_json::from_slice(&output.stdout)?;
        let rust_of: BTreeMap<String, RustVersion> = metadata
            .packages
            .into_iter()
            .filter_map(|package| {
                let rust_version = package.rust_version?;
                let mut numbers = rust_version.split('.').map(str::parse);
                let version = (numbers.next()?.ok()?, numbers.next()?.ok()?);
                Some((format!("{} v{}", package.name, package.version), version))
            })
            .collect();
        let asked = crates.iter().filter_map(|line| {
            let name = line.split(' ').take(2).collect::<Vec<_>>().join(" ");
            Some((*rust_of.get(&name)?, name))
        });
        asked
            .max()
            .ok_or_else(|| "no crate says which Rust it needs".into())
    }

    /// Builds everything from scratch. Returns CPU seconds and seconds, as columns of the table.
    fn build(&self) -> Result<String> {
        let target = self.folder.join("target");
        if target.exists() {
            fs::remove_dir_all(&target)?;
        }
        // Otherwise downloads would be measured.
        let fetched = self.cargo("fetch").arg("--quiet").status()?;
        let (start, before) = (Instant::now(), children_cpu_seconds());
        let built = self.cargo("build").arg("--quiet").status()?;
        let (seconds, after) = (start.elapsed().as_secs_f64(), children_cpu_seconds());
        if !fetched.success() || !built.success() {
            return Err("the program does not build".into());
        }
        let cpu = match (before, after) {
            (Some(before), Some(after)) => format!("{:.1}", after - before),
            _ => String::from("unknown"),
        };
        Ok(format!("{cpu:>12} {seconds:>10.1}"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// The CPU time of all child processes that have ended, with their children.
fn children_cpu_seconds() -> Option<f64> {
    /// Linux counts in these for programs, on all machines that matter here.
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may contain anything. After it, `cutime` and `cstime` are the fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(13);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_A_SECOND)
}
