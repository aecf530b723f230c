//! A check of the model itself: each known fault breaks a rule.

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model};

use crate::{
    EXCHANGE, STRICT,
    rules::Rule,
    server::Reuse,
    setup::{Fault, Limits, Setup},
    state::System,
};

const SOME: Limits = Limits {
    refreshes: 4,
    crashes: 1,
    ..Limits::NONE
};
const LEASES_END: Limits = Limits {
    losses: 1,
    ended_leases: 1,
    ..SOME
};
const CANNOT_SAVE: Limits = Limits {
    failed_saves: 2,
    pages: 1,
    ..SOME
};
const LOST_WRITES: Limits = Limits {
    failovers: 1,
    pages: 1,
    failed_saves: 2,
    ..SOME
};
const BOTH: Limits = Limits {
    failed_saves: 2,
    ended_leases: 1,
    ..SOME
};
const BOTH_AND_LOSSES: Limits = Limits { losses: 2, ..BOTH };
const PAGES: Limits = Limits { pages: 1, ..SOME };
const LOGINS: Limits = Limits {
    losses: 1,
    logins: 1,
    ..SOME
};
const LATE_LOGINS: Limits = Limits {
    refreshes: 3,
    failed_saves: 3,
    ended_leases: 1,
    logins: 1,
    ..Limits::NONE
};
const DEAD_FAMILIES: Limits = Limits {
    ended_leases: 1,
    ended_families: 1,
    ..SOME
};
const PROCESS_LOGINS: Limits = Limits {
    failed_saves: 1,
    process_logins: 1,
    ..SOME
};
const DEAD_GRANTS: Limits = Limits {
    ended_logins: 1,
    ended_families: 1,
    ..SOME
};
const REVOCATIONS: Limits = Limits {
    revocations: 1,
    ..SOME
};

const fn strict(limits: Limits) -> Setup {
    Setup { limits, ..STRICT }
}

const fn exchange(limits: Limits) -> Setup {
    Setup { limits, ..EXCHANGE }
}

const fn lenient(limits: Limits) -> Setup {
    Setup {
        limits,
        reuse: Reuse::Lenient,
        ..STRICT
    }
}

/// Each fault, a rule that it breaks, and an exploration that finds it.
#[rustfmt::skip]
const FAULTS: [(Fault, Rule, Setup); 27] = [
    (Fault::NoMark, Rule::SpentToken, strict(LEASES_END)),
    (Fault::MarksLikeTheOneBefore, Rule::OneAtATime, strict(BOTH)),
    (Fault::SendsUnmarkedUnchecked, Rule::SpentToken, strict(BOTH)),
    (Fault::AdoptsWithoutComparing, Rule::SpentToken, strict(BOTH)),
    (Fault::ForgetsUnsaved, Rule::SpentToken, strict(CANNOT_SAVE)),
    (Fault::PublishesBeforeSaving, Rule::SavedBeforeUse, strict(SOME)),
    (Fault::SavesWithoutVersion, Rule::SpentToken, strict(LEASES_END)),
    (Fault::SendsAgainUnchecked, Rule::SpentToken, strict(BOTH_AND_LOSSES)),
    (Fault::ReleasesWhileUnsaved, Rule::SpentToken, strict(CANNOT_SAVE)),
    (Fault::ReleasesWhenOvertaken, Rule::SpentToken, strict(BOTH)),
    (Fault::KeepsNoSecondLease, Rule::SpentToken, strict(BOTH_AND_LOSSES)),
    (Fault::ForgetsFormerIdentities, Rule::LaterLoginStays, lenient(LOGINS)),
    (Fault::ComparesGenerationsOnly, Rule::LaterLoginStays, strict(LATE_LOGINS)),
    (Fault::LoginForgetsFormerIdentities, Rule::SpentToken, strict(PROCESS_LOGINS)),
    (Fault::ForgetsUnsavedLogin, Rule::SavedBeforeUse, strict(PROCESS_LOGINS)),
    (Fault::SavesInBackgroundOverAnything, Rule::LaterLoginStays, strict(LATE_LOGINS)),
    (Fault::ForgetsDeadCredentials, Rule::DeadNotSent, strict(LOGINS)),
    (Fault::ForgetsDeadLogins, Rule::DeadNotSent, strict(LOGINS)),
    (Fault::RevokesInMemoryOnly, Rule::RevokedNotSent, exchange(REVOCATIONS)),
    (Fault::BeginsAnewOnAnyPage, Rule::OneFamily, exchange(PAGES)),
    (Fault::BeginsAnewUnchecked, Rule::OneAtATime, exchange(DEAD_FAMILIES)),
    (Fault::EndsOnAnyPage, Rule::NotGivenUp, strict(PAGES)),
    (Fault::SendsEarlierAfterPage, Rule::SpentToken, strict(LOST_WRITES)),
    (Fault::SendsAfterMarkWithoutLease, Rule::OneAtATime, strict(LEASES_END)),
    (Fault::SendsAgainWithoutLease, Rule::OneAtATime, strict(LEASES_END)),
    (Fault::BeginsAnewWithoutLease, Rule::OneAtATime, exchange(DEAD_FAMILIES)),
    (Fault::SendsDeadGrant, Rule::DeadNotSent, exchange(DEAD_GRANTS)),
];

#[test]
fn each_known_fault_breaks_a_rule() {
    let mut unnoticed = Vec::new();
    for (fault, rule, setup) in FAULTS {
        let faulty = Setup {
            fault: Some(fault),
            ..setup
        };
        let rules = BTreeSet::from([rule.name()]);
        let checker = System::new(faulty, &[])
            .checker()
            .finish_when(HasDiscoveries::AnyOf(rules))
            .spawn_bfs()
            .join();
        let steps = checker
            .discovery(rule.name())
            .map(|path| path.into_actions().len());
        println!(
            "{fault:?}: {rule:?} after {steps:?} steps, {} states",
            checker.unique_state_count()
        );
        if steps.is_none() {
            let others: Vec<_> = checker.discoveries().into_keys().collect();
            unnoticed.push((fault, rule, others));
        }
    }
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
}
