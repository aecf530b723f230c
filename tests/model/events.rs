//! What must happen in some states.

/// What the exploration must come across, so that the rules say something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Adopted,
    AnswerLost,
    AcceptedAgain,
    NotSentAgain,
    NoLeaseToSendAgain,
    NoLeaseToBeginAnew,
    NoLeaseAfterMark,
    FencedMark,
    FencedSave,
    SentWithoutMark,
    SavedInBackground,
    NotSavedInBackground,
    SecondCredential,
    BegunAnew,
    RotationHidden,
    DeadRecorded,
    NotSent,
    RevocationSaved,
    LoginTaken,
    LoginUnsaved,
    FencedLogin,
    LoginPassesRevocation,
    LoginReplacesSession,
    LateRequest,
    LostWrite,
    GoesOn,
}

impl Event {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Adopted => "a stored token is adopted",
            Self::AnswerLost => "the answer to a rotation is lost",
            Self::AcceptedAgain => "a refresh token that was sent again is accepted",
            Self::NotSentAgain => {
                "a refresh token is not sent again because another process has saved"
            }
            Self::NoLeaseToSendAgain => {
                "a refresh token is not sent again because the lease has ended"
            }
            Self::NoLeaseToBeginAnew => {
                "the grant does not begin the session anew because the lease has ended"
            }
            Self::NoLeaseAfterMark => "nothing is sent after a mark because the lease has ended",
            Self::FencedMark => "a mark finds that another process has saved",
            Self::FencedSave => "a save finds that another process has saved",
            Self::SentWithoutMark => "a request is sent although its mark could not be saved",
            Self::SavedInBackground => "a session is saved in the background",
            Self::NotSavedInBackground => {
                "a session in the background is older than the stored one"
            }
            Self::SecondCredential => "after a rejection the store has another credential",
            Self::BegunAnew => "the grant begins the session anew",
            Self::RotationHidden => "a page of a gateway hides a rotation",
            Self::DeadRecorded => "the store says that a credential is dead",
            Self::NotSent => "a process sends nothing because the session has ended",
            Self::RevocationSaved => "a revocation is saved",
            Self::LoginTaken => "a running process takes a login",
            Self::LoginUnsaved => "a login that cannot be saved goes on from memory",
            Self::FencedLogin => "a login finds that another process has saved",
            Self::LoginPassesRevocation => "a new login passes a revocation",
            Self::LoginReplacesSession => "a new login replaces a session",
            Self::LateRequest => "a request arrives after its sender has died or given up",
            Self::LostWrite => "the store loses a write",
            Self::GoesOn => "a session that can live goes on",
        }
    }
}
