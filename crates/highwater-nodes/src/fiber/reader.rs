//! Bytes as bincode 1.3 writes them with its defaults: whole numbers of fixed width, the lowest byte first;
//! a variant as 4 bytes; whether an optional value is there as one; a length or a count as 8.
//!
//! Nothing is allocated for a length that is only claimed, and every step of a list takes bytes, so that
//! what a hostile hand wrote ends with its bytes.

/// Where reading ended, and what was expected there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReadFault {
    pub(super) at: usize,
    pub(super) expected: &'static str,
}

pub(super) type Read<T = ()> = Result<T, ReadFault>;

/// A value, read from its first byte to its last.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    pub(super) fn fault<T>(&self, expected: &'static str) -> Read<T> {
        Err(ReadFault { at: self.at, expected })
    }

    /// That nothing is left.
    pub(super) fn end(&self) -> Read {
        if self.is_empty() { Ok(()) } else { self.fault("the end of the value") }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Bytes of a known number.
    pub(super) fn take(&mut self, count: usize) -> Read<&'a [u8]> {
        let end = self.at.checked_add(count);
        match end.and_then(|end| self.bytes.get(self.at..end)) {
            Some(bytes) => {
                self.at += count;
                Ok(bytes)
            }
            None => self.fault("more bytes"),
        }
    }

    pub(super) fn skip(&mut self, count: usize) -> Read {
        self.take(count).map(drop)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        match self.take(N)?.try_into() {
            Ok(bytes) => Ok(bytes),
            Err(_) => self.fault("more bytes"),
        }
    }

    pub(super) fn u8(&mut self) -> Read<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Read<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Read<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn bool(&mut self) -> Read<bool> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => self.fault("a byte before this one that is 0 or 1"),
        }
    }

    /// A variant of so many.
    pub(super) fn variant(&mut self, count: u32) -> Read<u32> {
        match self.u32()? {
            variant if variant < count => Ok(variant),
            _ => self.fault("a known variant before this byte"),
        }
    }

    /// A value that need not be there; tells whether it is.
    pub(super) fn option(&mut self, value: impl FnOnce(&mut Self) -> Read) -> Read<bool> {
        let there = self.bool()?;
        if there {
            value(self)?;
        }
        Ok(there)
    }

    /// As many values as are counted before them. Each takes at least one byte.
    pub(super) fn list(&mut self, mut value: impl FnMut(&mut Self) -> Read) -> Read {
        for _ in 0..self.u64()? {
            let before = self.at;
            value(self)?;
            if self.at == before {
                return self.fault("a value that takes bytes");
            }
        }
        Ok(())
    }

    /// Bytes whose number stands before them.
    pub(super) fn bytes(&mut self) -> Read<&'a [u8]> {
        match usize::try_from(self.u64()?) {
            Ok(count) => self.take(count),
            Err(_) => self.fault("a length before this byte that is possible"),
        }
    }

    /// The same where there can only be so many.
    pub(super) fn bytes_of(&mut self, count: usize) -> Read<&'a [u8]> {
        let bytes = self.bytes()?;
        if bytes.len() == count {
            Ok(bytes)
        } else {
            self.fault("another length of what ends here")
        }
    }

    /// A text of `0x` and hexadecimal digits, without the `0x`.
    pub(super) fn hex(&mut self) -> Read<&'a [u8]> {
        match self.bytes()?.strip_prefix(b"0x") {
            Some(digits) if digits.len() % 2 == 0 && digits.iter().all(u8::is_ascii_hexdigit) => {
                Ok(digits)
            }
            _ => self.fault("hexadecimal digits after 0x before this byte"),
        }
    }

    /// The same of 32 bytes.
    pub(super) fn hash(&mut self) -> Read<[u8; 32]> {
        let digits = self.hex()?;
        let mut hash = [0; 32];
        match hex::decode_to_slice(digits, &mut hash) {
            Ok(()) => Ok(hash),
            Err(_) => self.fault("a hash of 32 bytes before this byte"),
        }
    }
}
