//! A model of how processes share a session, explored exhaustively within limits. `tests/README.md` says what it shows.
//!
//! Each test is one exploration. With `--nocapture` it prints how many states there are.

mod actions;
mod events;
mod faults;
mod goes_on;
mod login;
mod outcome;
mod process;
mod revoke;
mod rules;
mod run;
mod server;
mod session;
mod setup;
mod state;
mod step;
mod store;
mod unsaved;

use stateright::{Checker, Model};

use crate::{
    events::Event,
    server::Reuse,
    setup::{Limits, Setup},
    state::System,
};

/// Two processes, a strict server, and a configured refresh token.
const STRICT: Setup = Setup {
    processes: 2,
    reuse: Reuse::Strict,
    grant_can_repeat: false,
    limits: Limits::NONE,
    fault: None,
};

/// The same with an exchange token.
const EXCHANGE: Setup = Setup {
    grant_can_repeat: true,
    ..STRICT
};

/// Explores all states, and fails if a rule is broken in one, or if an event does not happen in any.
fn explore(name: &str, setup: Setup, events: &'static [Event]) {
    let checker = System::new(setup, events).checker();
    let (states, depth) = if setup.processes > 2 {
        // Only this search knows that processes are alike.
        let checker = checker.symmetry().spawn_dfs().join();
        checker.assert_properties();
        (checker.unique_state_count(), checker.max_depth())
    } else {
        let checker = checker.spawn_bfs().join();
        checker.assert_properties();
        (checker.unique_state_count(), checker.max_depth())
    };
    println!("{name}: {states} states, {depth} steps");
}

/// One test for each exploration.
macro_rules! explorations {
    ($($(#[$attribute:meta])* $name:ident: $setup:expr, { $($limit:ident: $count:literal),* }, [$($event:ident),*];)*) => {$(
        $(#[$attribute])*
        #[test]
        fn $name() {
            let limits = Limits { $($limit: $count,)* ..Limits::NONE };
            explore(stringify!($name), Setup { limits, ..$setup }, &[$(Event::$event),*]);
        }
    )*};
}

explorations! {
    processes_die_and_answers_are_lost:
        STRICT, { refreshes: 4, crashes: 2, losses: 1, late_requests: 1 },
        [Adopted, AnswerLost, LateRequest, DeadRecorded, NotSent, GoesOn];
    a_server_with_a_grace_period:
        Setup { reuse: Reuse::Grace, ..STRICT },
        { refreshes: 3, crashes: 1, losses: 1, late_requests: 1, pages: 1, expiries: 1, grace_ends: 1 },
        [AnswerLost, AcceptedAgain, RotationHidden, LateRequest, GoesOn];
    a_server_that_rejects_a_spent_token:
        Setup { reuse: Reuse::Rejects, ..STRICT },
        { refreshes: 4, crashes: 1, losses: 1, late_requests: 1, failed_saves: 1, imports: 1 },
        [AnswerLost, DeadRecorded, SavedInBackground, GoesOn];
    a_lenient_server:
        Setup { reuse: Reuse::Lenient, ..EXCHANGE },
        { refreshes: 4, crashes: 1, losses: 1, pages: 1, failed_saves: 1, logins: 1 },
        [AcceptedAgain, BegunAnew, SavedInBackground, LoginReplacesSession, GoesOn];
    pages_of_a_gateway_hide_rotations:
        STRICT, { refreshes: 4, crashes: 1, losses: 1, pages: 2, failed_saves: 1, expiries: 1 },
        [RotationHidden, AnswerLost, SentWithoutMark, SavedInBackground, GoesOn];
    the_store_cannot_save:
        STRICT, { refreshes: 4, crashes: 1, losses: 1, failed_saves: 3 },
        [SentWithoutMark, SavedInBackground, Adopted, GoesOn];
    leases_end_before_their_holders:
        STRICT, { refreshes: 4, crashes: 1, losses: 1, ended_leases: 1 },
        [FencedMark, FencedSave, NoLeaseAfterMark, NoLeaseToSendAgain, NotSentAgain, SavedInBackground, GoesOn];
    leases_end_and_the_store_cannot_save:
        STRICT, { refreshes: 4, crashes: 1, pages: 1, failed_saves: 1, ended_leases: 1 },
        [FencedMark, FencedSave, SentWithoutMark, SavedInBackground, NotSavedInBackground, GoesOn];
    another_session_is_found_after_a_rejection:
        STRICT, { refreshes: 3, ended_leases: 1, expiries: 1 },
        [SecondCredential, FencedSave, GoesOn];
    people_log_in_again:
        STRICT, { refreshes: 4, crashes: 1, losses: 1, failed_saves: 1, logins: 1, ended_families: 1 },
        [LoginReplacesSession, DeadRecorded, NotSent, SavedInBackground, GoesOn];
    people_log_in_again_while_leases_end:
        STRICT, { refreshes: 3, ended_leases: 1, failed_saves: 1, logins: 1, imports: 1 },
        [LoginReplacesSession, FencedMark, FencedSave, GoesOn];
    running_processes_are_given_logins:
        STRICT, { refreshes: 3, crashes: 1, losses: 1, failed_saves: 1, process_logins: 1 },
        [LoginTaken, LoginUnsaved, SavedInBackground, LoginReplacesSession, Adopted, GoesOn];
    running_processes_are_given_logins_while_leases_end:
        STRICT, { refreshes: 2, failed_saves: 1, ended_leases: 1, process_logins: 2 },
        [LoginTaken, LoginUnsaved, FencedLogin, NotSavedInBackground, GoesOn];
    running_processes_are_given_logins_after_revocations:
        EXCHANGE, { refreshes: 3, failed_saves: 1, process_logins: 1, revocations: 1, ended_families: 1 },
        [LoginTaken, LoginPassesRevocation, RevocationSaved, BegunAnew, GoesOn];
    logins_are_imported_into_the_store:
        STRICT, { refreshes: 4, crashes: 1, losses: 1, imports: 1, logins: 1, ended_families: 1 },
        [LoginReplacesSession, Adopted, DeadRecorded, GoesOn];
    sessions_are_revoked:
        STRICT, { refreshes: 3, crashes: 1, losses: 1, failed_saves: 1, logins: 1, revocations: 1 },
        [RevocationSaved, LoginPassesRevocation, NotSent, SavedInBackground, GoesOn];
    sessions_of_an_exchange_token_are_revoked:
        EXCHANGE, { refreshes: 3, crashes: 1, losses: 1, failed_saves: 1, logins: 1, revocations: 1 },
        [RevocationSaved, LoginPassesRevocation, NotSent, GoesOn];
    an_exchange_token_begins_sessions_anew:
        EXCHANGE, { refreshes: 4, crashes: 1, losses: 1, pages: 1, logins: 1, ended_families: 1 },
        [BegunAnew, LoginReplacesSession, RotationHidden, GoesOn];
    an_exchange_token_begins_sessions_anew_while_leases_end:
        EXCHANGE, { refreshes: 4, crashes: 1, ended_leases: 1, ended_families: 1, ended_logins: 1 },
        [BegunAnew, NoLeaseToBeginAnew, FencedMark, FencedSave, GoesOn];
    the_store_loses_its_last_write:
        STRICT, { refreshes: 4, crashes: 1, losses: 1, failovers: 1, logins: 1 },
        [LostWrite, LoginReplacesSession, GoesOn];
    three_processes_die_and_answers_are_lost:
        Setup { processes: 3, ..STRICT }, { refreshes: 4, crashes: 1, losses: 1, logins: 1 },
        [Adopted, AnswerLost, DeadRecorded, LoginReplacesSession, GoesOn];
    three_processes_whose_leases_end:
        Setup { processes: 3, ..STRICT }, { refreshes: 3, crashes: 1, ended_leases: 1, failed_saves: 1 },
        [FencedMark, FencedSave, SentWithoutMark, SavedInBackground, GoesOn];
    three_processes_with_an_exchange_token:
        Setup { processes: 3, ..EXCHANGE }, { refreshes: 3, crashes: 1, losses: 1, revocations: 1, ended_families: 1 },
        [BegunAnew, RevocationSaved, NotSent, GoesOn];
    #[ignore = "takes minutes"]
    more_processes_die:
        STRICT,
        { refreshes: 4, crashes: 2, losses: 1, late_requests: 1, failed_saves: 1, logins: 1 },
        [Adopted, AnswerLost, LateRequest, SavedInBackground, LoginReplacesSession, GoesOn];
    #[ignore = "takes minutes"]
    more_logins_in_running_processes:
        STRICT, { refreshes: 3, failed_saves: 1, ended_leases: 1, process_logins: 1, logins: 1 },
        [LoginTaken, LoginUnsaved, FencedLogin, SavedInBackground, LoginReplacesSession, Adopted, GoesOn];
    #[ignore = "takes minutes"]
    more_revocations:
        STRICT, { refreshes: 4, crashes: 1, losses: 1, failed_saves: 1, logins: 1, revocations: 1 },
        [RevocationSaved, LoginPassesRevocation, NotSent, SavedInBackground, GoesOn];
    #[ignore = "takes minutes"]
    more_leases_end:
        STRICT, { refreshes: 3, crashes: 1, losses: 1, failed_saves: 1, ended_leases: 2, revocations: 1 },
        [FencedMark, FencedSave, NotSentAgain, SentWithoutMark, SavedInBackground, NotSavedInBackground, GoesOn];
    #[ignore = "takes minutes"]
    more_with_a_grace_period_while_leases_end:
        Setup { reuse: Reuse::Grace, ..STRICT },
        { refreshes: 4, crashes: 1, losses: 1, pages: 1, ended_leases: 1, expiries: 1, grace_ends: 1 },
        [AnswerLost, AcceptedAgain, RotationHidden, FencedMark, FencedSave, GoesOn];
    #[ignore = "takes minutes"]
    more_with_three_processes:
        Setup { processes: 3, ..STRICT },
        { refreshes: 3, crashes: 1, losses: 1, failed_saves: 1, ended_leases: 1, logins: 1 },
        [Adopted, FencedMark, FencedSave, SentWithoutMark, SavedInBackground, LoginReplacesSession, GoesOn];
}
