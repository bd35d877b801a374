//! Which keys are replicated, and how.

/// How a key's writes are replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The server first: a write returns once the server has it, and is seen here from then on.
    RemoteFirst,
    /// Here first: a write returns once it is durable here, and is sent as soon as can be.
    LocalFirst,
    /// Never sent, and no part of what the replica proves.
    LocalOnly,
}

/// Classes of keys by their prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    rules: Vec<(Vec<u8>, Class)>,
    otherwise: Class,
}

impl Classes {
    /// All keys of one class.
    pub fn all(class: Class) -> Classes {
        Classes { rules: Vec::new(), otherwise: class }
    }

    /// Keys that begin with `prefix` are of this class. The longest prefix that fits counts.
    #[must_use]
    pub fn with(mut self, prefix: impl Into<Vec<u8>>, class: Class) -> Classes {
        self.rules.push((prefix.into(), class));
        self.rules.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        self
    }

    /// The class of a key.
    pub fn of(&self, key: &[u8]) -> Class {
        let rule = self.rules.iter().find(|(prefix, _)| key.starts_with(prefix));
        rule.map_or(self.otherwise, |(_, class)| *class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_counts() {
        let classes = Classes::all(Class::LocalFirst)
            .with("m", Class::LocalOnly)
            .with("monitors/", Class::RemoteFirst);
        assert_eq!(classes.of(b"monitors/1"), Class::RemoteFirst);
        assert_eq!(classes.of(b"monitor"), Class::LocalOnly);
        assert_eq!(classes.of(b"x"), Class::LocalFirst);
    }
}
