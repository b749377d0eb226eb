//! What a caller may be allowed to do.

use std::{fmt, str::FromStr};

/// Something that a caller may be allowed to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Permission {
    /// Get a token.
    GetAccessToken,
    /// Be given each new token.
    WatchAccessToken,
    /// Have callbacks and token responses verified.
    VerifySign,
    /// Have an arbitrary message verified, which can be used to test guesses, and so is a permission of its own.
    VerifySignMessage,
    /// Ask whether the broker is healthy.
    Health,
    /// Ask which methods there are.
    Reflection,
    /// See the broker's state.
    AdminGetStatus,
    /// Have the broker read its configuration and credentials again.
    AdminReload,
    /// Stop the handing out of tokens.
    AdminLockdown,
    /// Let tokens be handed out again.
    AdminUnlock,
}

impl Permission {
    /// All there are.
    pub const ALL: [Self; 10] = [
        Self::GetAccessToken,
        Self::WatchAccessToken,
        Self::VerifySign,
        Self::VerifySignMessage,
        Self::Health,
        Self::Reflection,
        Self::AdminGetStatus,
        Self::AdminReload,
        Self::AdminLockdown,
        Self::AdminUnlock,
    ];

    /// The word for it in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GetAccessToken => "GetAccessToken",
            Self::WatchAccessToken => "WatchAccessToken",
            Self::VerifySign => "VerifySign",
            Self::VerifySignMessage => "VerifySign:message",
            Self::Health => "Health",
            Self::Reflection => "Reflection",
            Self::AdminGetStatus => "Admin:GetStatus",
            Self::AdminReload => "Admin:Reload",
            Self::AdminLockdown => "Admin:Lockdown",
            Self::AdminUnlock => "Admin:Unlock",
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is no permission. It isn't repeated: it may be a secret in the wrong place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no such permission; there are {}", known_words())]
pub struct UnknownPermission;

fn known_words() -> String {
    Permissions::words().collect::<Vec<_>>().join(", ")
}

impl FromStr for Permission {
    type Err = UnknownPermission;

    fn from_str(word: &str) -> Result<Self, UnknownPermission> {
        Self::ALL.into_iter().find(|permission| permission.as_str() == word).ok_or(UnknownPermission)
    }
}

/// A set of permissions.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions(u16);

impl Permissions {
    /// The word for all of `Admin:…`, those of later versions included.
    const ADMIN: &'static str = "Admin";

    /// The words that a configuration may use.
    pub fn words() -> impl Iterator<Item = &'static str> {
        Permission::ALL.into_iter().map(Permission::as_str).chain([Self::ADMIN])
    }

    /// What one word of a configuration stands for.
    pub fn of_word(word: &str) -> Result<Self, UnknownPermission> {
        if word == Self::ADMIN {
            let admin = |permission: &Permission| permission.as_str().starts_with("Admin:");
            return Ok(Permission::ALL.into_iter().filter(admin).collect());
        }
        word.parse().map(|permission: Permission| [permission].into_iter().collect())
    }

    /// Whether any of `Admin:…` is in the set.
    pub fn of_operator(self) -> bool {
        self.iter().any(|permission| permission.as_str().starts_with("Admin:"))
    }

    /// Those of either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `permission` is in the set.
    pub const fn contains(self, permission: Permission) -> bool {
        self.0 & permission.bit() != 0
    }

    /// Its members, in the order of [`Permission::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.into_iter().filter(move |permission| self.contains(*permission))
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(permissions.into_iter().fold(0, |bits, permission| bits | permission.bit()))
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
