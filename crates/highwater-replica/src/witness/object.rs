//! A witness on the server: one object, whose newest state is the newest record.
//!
//! Each start gives the object a name of its own: one put inserts it and deletes the one before, at the
//! version that was read. From then on it replaces versions under that name alone. So whoever was taken
//! over fails at its next put, also on a server that was wiped and counts the same versions again.

use std::fmt;
use std::sync::Arc;

use highwater::env::Env;
use highwater::ids::PutId;
use highwater::{Error, Result};
use parking_lot::Mutex;

use super::super::keys::{EPOCH_BYTES, ReplicaKeys};
use super::super::remote::{Item, Put, Remote, RemotePut, list_all};

/// Names of objects begin with it.
const PREFIX: &str = "witness.";
/// There from the first put on, put with version 0, so that two first starts can't both win.
const ROOT: &str = "witness.root";
/// The object can be replaced so often between finding and reading it.
const READ_TRIES_MAX: usize = 16;
/// One name's key seals so many states; then the start takes another name. A random nonce is not met
/// again among so few.
const VERSION_MAX: i64 = if cfg!(test) { 64 } else { 1 << 28 };
/// Bytes of a put's id.
const PUT_BYTES: usize = 16;

/// A witness's object, as one start sees it.
pub(super) struct WitnessObject {
    remote: Arc<dyn Remote>,
    keys: ReplicaKeys,
    env: Env,
    own: Mutex<Own>,
    /// The name under which this start put last: where it is there, it is the newest.
    name: Mutex<Option<String>>,
}

/// What this start has put.
#[derive(Default)]
struct Own {
    /// The last put that is known to have landed.
    at: Option<Place>,
    /// The put behind it, of which nobody knows.
    doubt: Option<Found>,
}

/// A state of the object, and where it is.
#[derive(Clone, PartialEq, Eq)]
struct Place {
    name: String,
    /// The version that the server gives it.
    version: i64,
    /// The record's.
    number: u64,
    /// The put that wrote it.
    put: PutId,
}

/// A state of the object, and the record in it.
struct Found {
    place: Place,
    document: Vec<u8>,
}

impl WitnessObject {
    pub(super) fn new(remote: Arc<dyn Remote>, keys: ReplicaKeys, env: &Env) -> WitnessObject {
        let (own, name) = (Mutex::default(), Mutex::default());
        WitnessObject { remote, keys, env: env.clone(), own, name }
    }

    /// The newest record: its number and its document.
    ///
    /// # Errors
    /// Denied where these keys don't open it; corrupt where it is not alone, was lost, or is not what was
    /// put; unavailable where the server can't be asked.
    pub(super) fn newest(&self) -> Result<Option<(u64, Vec<u8>)>> {
        let name = self.name.lock().clone();
        if let Some(name) = name
            && let Some((version, sealed)) = self.remote.get(&name)?
        {
            let found = self.open(&name, version, &sealed)?;
            return Ok(Some((found.place.number, found.document)));
        }
        Ok(self.find()?.map(|found| (found.place.number, found.document)))
    }

    /// Puts record `number`, durable when it returns. `false` where it is not the one behind the newest,
    /// or where the newest is not the one that this start put last.
    ///
    /// # Errors
    /// As [`WitnessObject::newest`]. After an error it may be there all the same; whoever puts it again
    /// learns that.
    pub(super) fn put_new(&self, number: u64, document: &[u8]) -> Result<bool> {
        let mut own = self.own.lock();
        let follows = |place: &Place| place.number.checked_add(1) == Some(number);
        let steady = own.doubt.is_none() && own.at.as_ref().is_some_and(follows);
        let newest = if steady { own.at.clone() } else { self.find()?.map(|found| found.place) };
        let mut again = None;
        if let Some(doubt) = own.doubt.take() {
            let is_this = doubt.place.number == number && doubt.document == document;
            if newest.as_ref().is_some_and(|newest| newest.put == doubt.place.put) {
                own.at = Some(doubt.place);
                if is_this {
                    return Ok(true);
                }
            } else if is_this {
                again = Some(doubt.place);
            }
        }
        if !newest.as_ref().map_or(number == 1, follows) {
            return Ok(false);
        }
        // An equal number proves nothing on a server that has begun anew.
        if own.at.as_ref().is_some_and(|at| follows(at) && newest.as_ref() != Some(at)) {
            return Ok(false);
        }
        let next = match again {
            Some(place) => place,
            None => self.behind(own.at.as_ref().filter(|at| follows(at)), number)?,
        };
        self.place(&mut own, newest, next, document)
    }

    /// Where the next state goes: under the same name where the one before it is this start's.
    fn behind(&self, at: Option<&Place>, number: u64) -> Result<Place> {
        let put = PutId::random(&self.env)?;
        Ok(match at {
            Some(at) if at.version < VERSION_MAX => {
                Place { name: at.name.clone(), version: at.version + 1, number, put }
            }
            _ => {
                let name = format!("{PREFIX}{}", hex::encode(self.env.random::<EPOCH_BYTES>()?));
                Place { name, version: 1, number, put }
            }
        })
    }

    /// Puts `next` in the place of `newest`, the object first: two who do so meet at one row.
    fn place(
        &self,
        own: &mut Own,
        newest: Option<Place>,
        next: Place,
        document: &[u8],
    ) -> Result<bool> {
        let value = self.seal(&next, document)?;
        let (name, put) = (next.name.clone(), next.put);
        let mut request = RemotePut::default();
        match newest {
            Some(newest) if newest.name == name => {
                request.items.push(Item { key: name.clone(), version: newest.version, value });
            }
            Some(newest) => {
                request.items.push(Item { key: name.clone(), version: 0, value });
                request.deletes.push((newest.name, newest.version));
            }
            None => {
                let root = self.keys.seal_document(ROOT, b"{}")?;
                request.items.push(Item { key: name.clone(), version: 0, value });
                request.items.push(Item { key: ROOT.to_owned(), version: 0, value: root });
            }
        }
        own.doubt = Some(Found { place: next, document: document.to_vec() });
        *self.name.lock() = Some(name);
        // A conflict can be with this very put, whose answer was lost on its way.
        let landed = match self.remote.put(&request)? {
            Put::Landed => true,
            Put::Conflict => self.find()?.is_some_and(|found| found.place.put == put),
        };
        let doubt = own.doubt.take();
        if landed {
            own.at = doubt.map(|doubt| doubt.place);
        }
        Ok(landed)
    }

    /// The one object, wherever it is; none where there never was one.
    fn find(&self) -> Result<Option<Found>> {
        for _ in 0..READ_TRIES_MAX {
            let mut names = list_all(&*self.remote, PREFIX)?;
            let listed = names.len();
            names.retain(|(name, _)| name != ROOT);
            match names.as_slice() {
                [] if listed == 0 => return Ok(None),
                [] => {
                    return Err(Error::corrupt("the server has lost the witness").with_remedy(
                        "put back what the server has lost, or begin another one in another store",
                    ));
                }
                // Missing, others have replaced it since the list.
                [(name, _)] => {
                    if let Some((version, sealed)) = self.remote.get(name)? {
                        return self.open(name, version, &sealed).map(Some);
                    }
                }
                several => {
                    let several = several.len();
                    return Err(Error::corrupt(format!("the server has {several} witnesses"))
                        .with_remedy("somebody writes who does not keep the rules"));
                }
            }
        }
        Err(Error::unavailable("the witness changes faster than it can be read"))
    }

    /// Number, version and put stand before the record: none of them is the server's to give.
    fn seal(&self, place: &Place, document: &[u8]) -> Result<Vec<u8>> {
        let (number, version) = (place.number.to_le_bytes(), place.version.to_le_bytes());
        let plain =
            [number.as_slice(), &version, place.put.as_bytes().as_slice(), document].concat();
        self.keys.seal_witness(&id_of(&place.name)?, &place.name, &plain)
    }

    fn open(&self, name: &str, version: i64, sealed: &[u8]) -> Result<Found> {
        let malformed = || Error::corrupt("the witness is malformed").with_entry(name);
        let plain = self.keys.open_witness(&id_of(name)?, name, sealed)?;
        let (number, rest) = plain.split_first_chunk::<8>().ok_or_else(malformed)?;
        let (given, rest) = rest.split_first_chunk::<8>().ok_or_else(malformed)?;
        let (put, document) = rest.split_first_chunk::<PUT_BYTES>().ok_or_else(malformed)?;
        let given = i64::from_le_bytes(*given);
        if given != version {
            return Err(Error::corrupt(format!(
                "the server gives the witness version {version}, its owner gave it {given}"
            ))
            .with_entry(name));
        }
        let (number, put) = (u64::from_le_bytes(*number), PutId::from_bytes(*put));
        let place = Place { name: name.to_owned(), version, number, put };
        Ok(Found { place, document: document.to_vec() })
    }
}

impl fmt::Debug for WitnessObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WitnessObject({})", self.keys.store())
    }
}

/// The start that an object is named after.
fn id_of(name: &str) -> Result<[u8; EPOCH_BYTES]> {
    let mut id = [0; EPOCH_BYTES];
    hex::decode_to_slice(name.strip_prefix(PREFIX).unwrap_or_default(), &mut id)
        .map_err(|_| Error::corrupt("a witness has a name that no start gave").with_entry(name))?;
    Ok(id)
}
