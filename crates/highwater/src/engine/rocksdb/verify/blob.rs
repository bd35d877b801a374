//! A blob file of RocksDB: header, records, footer, verified as they pass
//! (`db/blob/blob_log_format.h` of RocksDB).

use std::fs::File;

use super::checksum::mask;
use super::footer::u32_at;
use super::{VerifyFault, damaged, read_at};

const HEADER_BYTES: u64 = 30;
const RECORD_HEADER_BYTES: u64 = 32;
const FOOTER_BYTES: u64 = 32;
const MAGIC: u32 = 2_395_959;
const VERSION: u32 = 1;

/// A blob file on its way.
pub(super) struct Blob {
    size: u64,
    at: u64,
    state: BlobState,
    /// What is collected of a header or the footer.
    part: Vec<u8>,
    count: u64,
}

enum BlobState {
    Header,
    /// The header of a record.
    Record,
    /// Key and value of a record: bytes left, CRC so far, CRC that is stored.
    Blob {
        left: u64,
        crc: u32,
        stored: u32,
        begin: u64,
    },
    Footer,
    End,
}

impl Blob {
    /// Looks at the header of the file.
    pub(super) fn open(file: &File, size: u64) -> Result<Blob, VerifyFault> {
        if size < HEADER_BYTES + FOOTER_BYTES {
            return damaged("it is cut");
        }
        let header = read_at(file, 0, 8)?;
        if u32_at(&header, 0) != MAGIC {
            return damaged("it does not begin as a blob file");
        }
        if u32_at(&header, 4) != VERSION {
            return Err(VerifyFault::Unknown("because its format is newer than this program"));
        }
        let (state, part) = (BlobState::Header, Vec::new());
        Ok(Blob { size, at: 0, state, part, count: 0 })
    }

    /// Blobs that have passed.
    #[cfg(all(test, feature = "rocksdb"))]
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn pass(&mut self, mut bytes: &[u8]) -> Result<(), VerifyFault> {
        while !bytes.is_empty() {
            let taken = match &mut self.state {
                BlobState::Blob { left, crc, .. } => {
                    let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *crc = crc32c::crc32c_append(*crc, &bytes[..taken]);
                    *left -= taken as u64;
                    taken
                }
                state => {
                    let wanted = match state {
                        BlobState::Header => HEADER_BYTES,
                        BlobState::Record => RECORD_HEADER_BYTES,
                        BlobState::Footer => FOOTER_BYTES,
                        BlobState::Blob { .. } | BlobState::End => {
                            return damaged("something follows its end");
                        }
                    };
                    let taken = bytes.len().min(wanted as usize - self.part.len());
                    self.part.extend_from_slice(&bytes[..taken]);
                    if self.part.len() < wanted as usize {
                        self.at += taken as u64;
                        return Ok(());
                    }
                    taken
                }
            };
            self.at += taken as u64;
            bytes = &bytes[taken..];
            self.advance()?;
        }
        Ok(())
    }

    pub(super) fn end(&self) -> Result<(), VerifyFault> {
        if matches!(self.state, BlobState::End) { Ok(()) } else { damaged("it was cut") }
    }

    /// Goes on where a part is complete.
    fn advance(&mut self) -> Result<(), VerifyFault> {
        match self.state {
            BlobState::Header => self.state = self.behind(),
            BlobState::Record => self.record()?,
            BlobState::Blob { left: 0, crc, stored, begin } => {
                if mask(crc) != stored {
                    return damaged(format!(
                        "the checksum of its blob at byte {begin} does not fit"
                    ));
                }
                self.count += 1;
                self.state = self.behind();
            }
            BlobState::Blob { .. } => return Ok(()),
            BlobState::Footer => {
                let covered = FOOTER_BYTES as usize - 4;
                let sound = u32_at(&self.part, 0) == MAGIC
                    && mask(crc32c::crc32c(&self.part[..covered])) == u32_at(&self.part, covered)
                    && u64_at(&self.part, 4) == self.count;
                if !sound {
                    return damaged("its footer was changed");
                }
                self.state = BlobState::End;
            }
            BlobState::End => return damaged("something follows its end"),
        }
        self.part.clear();
        Ok(())
    }

    /// What follows a record: the footer is always the end of the file.
    fn behind(&self) -> BlobState {
        if self.size - self.at <= FOOTER_BYTES { BlobState::Footer } else { BlobState::Record }
    }

    fn record(&mut self) -> Result<(), VerifyFault> {
        let part = &self.part;
        let begin = self.at - RECORD_HEADER_BYTES;
        let wrong = || damaged(format!("the header of its record at byte {begin} was changed"));
        if mask(crc32c::crc32c(&part[..24])) != u32_at(part, 24) {
            return wrong();
        }
        let left = u64_at(part, 0).checked_add(u64_at(part, 8));
        let Some(left) =
            left.filter(|left| *left <= (self.size - self.at).saturating_sub(FOOTER_BYTES))
        else {
            return wrong();
        };
        self.state = BlobState::Blob { left, crc: 0, stored: u32_at(part, 28), begin };
        if left == 0 { self.advance() } else { Ok(()) }
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
