//! `user[:group]` as USER, `-u` and exec take it. One parser for all of them: a number is a number
//! only where the whole text is one, so `1abc` is a name and `4294967296` an error, never root.

use std::str::FromStr;

/// A user or group: a number, or a name to be looked up in the container's own files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameOrId {
    /// A uid or gid.
    Id(u32),
    /// A name in /etc/passwd or /etc/group.
    Name(String),
}

/// A parsed `user[:group]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSpec {
    /// None means the default, root.
    pub user: Option<NameOrId>,
    /// None means the user's own group from passwd.
    pub group: Option<NameOrId>,
}

/// Why a text is no `user[:group]`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid user {text:?}: {reason}")]
pub struct UserSpecError {
    text: String,
    reason: &'static str,
}

/// The largest id: 2^31-1, as docker; ids above are signed on the way through some tools.
const MAX_ID: u64 = i32::MAX as u64;

impl FromStr for UserSpec {
    type Err = UserSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |reason| UserSpecError { text: text.chars().take(200).collect(), reason };
        let part = |part: &str| -> Result<Option<NameOrId>, UserSpecError> {
            if part.is_empty() {
                return Ok(None);
            }
            if part.bytes().all(|b| b.is_ascii_digit()) {
                return match part.parse::<u64>() {
                    Ok(n) if n <= MAX_ID => Ok(u32::try_from(n).ok().map(NameOrId::Id)),
                    _ => Err(error("ids must be in range 0-2147483647")),
                };
            }
            if part.bytes().any(|b| b == b':' || b == b'\n' || b == 0) {
                return Err(error("expected USER, UID, USER:GROUP or UID:GID"));
            }
            Ok(Some(NameOrId::Name(part.to_owned())))
        };
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        Ok(UserSpec { user: part(user)?, group: part(group)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_never_rounded_to_root() {
        assert_eq!("1".parse(), Ok(UserSpec { user: Some(NameOrId::Id(1)), group: None }));
        assert_eq!("0:5".parse(), Ok(UserSpec { user: Some(NameOrId::Id(0)), group: Some(NameOrId::Id(5)) }));
        assert_eq!("1a".parse(), Ok(UserSpec { user: Some(NameOrId::Name("1a".into())), group: None }));
        assert_eq!("".parse(), Ok(UserSpec { user: None, group: None }));
        for bad in ["4294967296", "2147483648", "99999999999999999999999", "a:b:c"] {
            assert!(bad.parse::<UserSpec>().is_err(), "{bad}");
        }
    }
}
