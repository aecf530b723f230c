//! What a response says about the token of its request.
//!
//! | File | Contents |
//! |---|---|
//! | `parser.rs` | the `WWW-Authenticate` parser |
//! | `received.rs` | [`Challenge`]: what the API asks for |
//! | `classify.rs` | what counts as a rejection |
//! | `step_up.rs` | [`StepUp`]: what an API may ask for |
//! | `wanted.rs` | what it has asked for beyond what a token has |

mod classify;
mod parser;
mod received;
mod step_up;
mod wanted;

pub use self::{
    classify::{ClassifyRejection, ResponseHead, StandardRejections, Verdict},
    received::Challenge,
    step_up::StepUp,
};
pub(crate) use self::{
    classify::{has_only_other_schemes, is_grpc, is_unauthenticated},
    wanted::Wanted,
};
