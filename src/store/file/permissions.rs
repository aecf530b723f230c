//! Who may use the files of a session.

use std::{fs::File, path::Path};

use super::session_files::io_error;
use crate::error::{TokenError, TokenErrorKind};

/// Who may use a session's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Access {
    #[default]
    Owner,
    Group,
}

impl Access {
    /// The permissions of new files.
    pub(super) fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Group => 0o660,
        }
    }
}

/// Checks that only this user, or its group if that is allowed, can use the file, and returns its length.
#[cfg_attr(
    not(unix),
    expect(unused_variables, reason = "permissions are not checked")
)]
pub(super) fn check(file: &File, path: &Path, access: Access) -> Result<usize, TokenError> {
    let reject = |problem: String| {
        let message = format!("{} {problem}; it is left as it is", path.display());
        Err(TokenError::new(TokenErrorKind::Store, message))
    };
    let found = file
        .metadata()
        .map_err(|error| io_error("examining", path, error))?;
    if !found.is_file() {
        return reject("is not a regular file: give the store another path".into());
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;

        let problem = owner_problem(found.uid(), found.gid(), access)
            .or_else(|| mode_problem(found.mode() & 0o777, path, access));
        if let Some(problem) = problem {
            return reject(problem);
        }
    }
    Ok(usize::try_from(found.len()).unwrap_or(usize::MAX))
}

#[cfg(unix)]
fn owner_problem(owner: u32, group: u32, access: Access) -> Option<String> {
    let user = rustix::process::geteuid().as_raw();
    if owner == user {
        return None;
    }
    match access {
        Access::Group if is_own_group(group) => None,
        Access::Group => Some(format!(
            "belongs to user {owner} and group {group}, and this process runs as user {user} and is not in that group: \
             add it to the group (`fsGroup` in Kubernetes), or give the file to {user} with chown"
        )),
        Access::Owner => Some(format!(
            "belongs to user {owner}, and this process runs as user {user}: \
             run it as {owner}, or give the file to {user} with chown"
        )),
    }
}

#[cfg(unix)]
fn mode_problem(mode: u32, path: &Path, access: Access) -> Option<String> {
    let forbidden = match access {
        Access::Owner => 0o077,
        Access::Group => 0o007,
    };
    if mode & forbidden == 0 {
        return None;
    }
    let who = if mode & 0o007 != 0 {
        "other users"
    } else {
        "its group"
    };
    let or = match access {
        Access::Owner => ", or allow access to its group with `FileStore::allow_group_access`",
        Access::Group => "",
    };
    Some(format!(
        "can be used by {who} (its mode is {mode:03o}): run `chmod {:03o} {}`{or}; log in again if they may have read the \
         session",
        access.mode(),
        path.display()
    ))
}

/// Whether this process is in the group.
#[cfg(unix)]
fn is_own_group(group: u32) -> bool {
    let groups = rustix::process::getgroups().unwrap_or_default();
    let mut own = groups.into_iter().chain([rustix::process::getegid()]);
    own.any(|own| own.as_raw() == group)
}
