//! Secrets as JSON, without copies of them that are left behind: buffers have their whole length from
//! the start, and are wiped.

use std::io::{self, Write};

use serde::{Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// `document` as JSON, with room for `spare` bytes after it.
pub(super) fn json<T: Serialize>(
    document: &T,
    indented: bool,
    spare: usize,
) -> Result<Zeroizing<Vec<u8>>> {
    let failed =
        |error| Error::bug("the content of a kit can't be written as JSON").with_source(error);
    let mut length = Length(0);
    write(document, indented, &mut length).map_err(failed)?;
    // A buffer that grew would leave copies of the secrets behind.
    let mut text = Zeroizing::new(Vec::with_capacity(length.0 + spare));
    write(document, indented, &mut *text).map_err(failed)?;
    Ok(text)
}

fn write<T: Serialize>(document: &T, indented: bool, to: impl Write) -> serde_json::Result<()> {
    match indented {
        true => serde_json::to_writer_pretty(to, document),
        false => serde_json::to_writer(to, document),
    }
}

/// Counts what is written.
struct Length(usize);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes as hexadecimal digits.
pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&Zeroizing::new(hex::encode(bytes)))
}

/// Bytes from hexadecimal digits.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Zeroizing<Vec<u8>>, D::Error> {
    struct Digits;

    impl de::Visitor<'_> for Digits {
        type Value = Zeroizing<Vec<u8>>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("hexadecimal digits")
        }

        fn visit_str<E: de::Error>(self, digits: &str) -> Result<Self::Value, E> {
            let mut bytes = Zeroizing::new(vec![0; digits.len() / 2]);
            hex::decode_to_slice(digits, &mut bytes)
                .map_err(|_| E::custom("these are no hexadecimal digits"))?;
            Ok(bytes)
        }
    }

    deserializer.deserialize_str(Digits)
}
