//! Names and amounts, each a type of its own.

use std::fmt;
use std::ops::{Add, AddAssign};
use std::str::FromStr;

use highwater::{Error, Result};
use serde::{Deserialize, Serialize};

/// An amount of money.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Sats(pub u64);

impl Sats {
    /// What is left after `other`; `None` where it is more than there is.
    pub fn checked_sub(self, other: Sats) -> Option<Sats> {
        self.0.checked_sub(other.0).map(Sats)
    }
}

impl Add for Sats {
    type Output = Sats;

    fn add(self, other: Sats) -> Sats {
        Sats(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Sats {
    fn add_assign(&mut self, other: Sats) {
        *self = *self + other;
    }
}

impl std::iter::Sum for Sats {
    fn sum<I: Iterator<Item = Sats>>(amounts: I) -> Sats {
        amounts.fold(Sats(0), Add::add)
    }
}

/// A channel, and the funding output that it stands on: 32 hex digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChannelId(String);

impl ChannelId {
    /// From its sixteen bytes.
    pub fn from_bytes(bytes: &[u8; 16]) -> ChannelId {
        ChannelId(hex::encode(bytes))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ChannelId {
    type Err = Error;

    fn from_str(text: &str) -> Result<ChannelId> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| Error::input(format!("`{text}` is not a channel: 32 hex digits")))?;
        Ok(ChannelId::from_bytes(&bytes))
    }
}

impl TryFrom<String> for ChannelId {
    type Error = Error;

    fn try_from(text: String) -> Result<ChannelId> {
        text.parse()
    }
}

impl From<ChannelId> for String {
    fn from(id: ChannelId) -> String {
        id.0
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which of the two parties of a channel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// It opened and funded the channel.
    Opener,
    /// It accepted it.
    Acceptor,
}

impl Side {
    /// The other party.
    pub fn other(self) -> Side {
        match self {
            Side::Opener => Side::Acceptor,
            Side::Acceptor => Side::Opener,
        }
    }
}

/// One thing of each party.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Both<T> {
    /// The opener's.
    pub opener: T,
    /// The acceptor's.
    pub acceptor: T,
}

impl<T> Both<T> {
    /// What belongs to `side`, and what to the other.
    pub fn of(side: Side, mine: T, theirs: T) -> Both<T> {
        match side {
            Side::Opener => Both { opener: mine, acceptor: theirs },
            Side::Acceptor => Both { opener: theirs, acceptor: mine },
        }
    }

    /// What belongs to `side`.
    pub fn at(&self, side: Side) -> &T {
        match side {
            Side::Opener => &self.opener,
            Side::Acceptor => &self.acceptor,
        }
    }

    /// What belongs to `side`, to be changed.
    pub fn at_mut(&mut self, side: Side) -> &mut T {
        match side {
            Side::Opener => &mut self.opener,
            Side::Acceptor => &mut self.acceptor,
        }
    }
}

macro_rules! bytes {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $length]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<$name> {
                let mut bytes = [0; $length];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| {
                    Error::input(format!("`{text}` is not made of {} hex digits", 2 * $length))
                })?;
                Ok($name(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

bytes!(
    /// A public key, compressed.
    PublicKey,
    33
);
bytes!(
    /// A signature, with its `s` low.
    Signature,
    64
);
bytes!(
    /// The hash of a payment's preimage.
    PaymentHash,
    32
);
bytes!(
    /// What proves a payment.
    Preimage,
    32
);
bytes!(
    /// The hash of a revocation secret. A commitment carries it; who knows the secret punishes it.
    RevocationHash,
    32
);
bytes!(
    /// What revokes a commitment once the peer has it.
    RevocationSecret,
    32
);

/// A node, by its identity key.
pub type PeerId = PublicKey;
