//! A deterministic simulation of processes that share a session, in a network that fails.
//!
//! Everything but the crate itself is simulated: the processes, the network between them, the store, the authorization
//! server, the API, and time. A seed determines all of it, so each run can be repeated exactly.
//!
//! | File | Contents |
//! |---|---|
//! | `plan.rs` | what the seed decides beforehand: the settings, and which faults occur how often |
//! | `world.rs` | the state of the simulation behind one lock, and its log |
//! | `host.rs` | where a process runs: whether it is alive or suspended, and the points where it is stopped |
//! | `network.rs` | one request and its response, each of which may be lost, delayed or delivered twice |
//! | `store.rs`, `store_client.rs` | the store as a server, and the `TokenStore` that talks to it |
//! | `server.rs`, `transport.rs` | the authorization server, and the transport of token requests |
//! | `observed.rs` | what a cache asks of its source, and what it gets |
//! | `process.rs` | a process: a cache over a source, and tasks that send requests to the API |
//! | `chaos.rs` | what happens to processes and servers, and when |
//! | `run.rs` | one seed from beginning to end |
//! | `oracle.rs`, `sends.rs` | what must hold, and each exception |
//! | `coverage.rs` | how often each situation occurred |
//! | `trace.rs` | the crate's log events, for the log of one seed |

mod chaos;
mod coverage;
mod host;
mod network;
mod observed;
mod oracle;
mod plan;
mod process;
mod run;
mod sends;
mod server;
mod store;
mod store_client;
mod trace;
mod transport;
mod world;

pub use coverage::{Coverage, SITUATIONS};
pub use run::{Report, run, run_many};
