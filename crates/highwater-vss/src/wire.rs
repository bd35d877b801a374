//! What a put is made of, counted as it lies on the wire: two bytes there can be sixty-four in memory.

use bytes::Bytes;
use vss_api::types::KeyValue;
use vss_prost::Message as _;
use vss_prost::encoding::encode_varint;

use crate::limits::{ITEMS_MAX, KEY_MAX};

/// The field of `KeyValue` that is a value, the last of them by its number.
const VALUE: u64 = 3;
/// The field of `GetObjectResponse` that is the item.
const ANSWER: u64 = 2;
/// Bytes that an item is in memory while it is looked over, besides its value and its key: the message,
/// its place among the keys, its effect.
const ITEM_BYTES: usize = 512;
/// Bytes of the shortest item.
const ITEM_BYTES_MIN: usize = 2;
/// Bytes of the longest key: a character has four at most.
const KEY_BYTES_MAX: usize = KEY_MAX * 4;

/// The fields of `PutObjectRequest` that repeat: `transaction_items` and `delete_items`.
const ITEMS: [u64; 2] = [3, 4];
/// The field of `KeyValue` that is copied out of the message: `key`.
const KEY: u64 = 1;

/// A field's number, and its content where that has a length.
type Field<'a> = (u64, Option<&'a [u8]>);

/// Why a message is not looked at further.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// No protocol buffers, or more than there can be.
    Message,
    /// More items than a put takes.
    Items,
    /// A key longer than any.
    Key,
}

impl Malformed {
    pub(crate) fn text(&self) -> String {
        match self {
            Malformed::Message => "the request's body is not the message of this call".to_owned(),
            Malformed::Items => format!("more than {ITEMS_MAX} items; a put takes {ITEMS_MAX}"),
            Malformed::Key => format!("a key has more than {KEY_MAX} characters"),
        }
    }
}

/// Bytes of memory that a put of this length takes at most until it is done, if [`check`] finds nothing:
/// itself, a copy on its way to the database, and what it is decoded to.
pub(crate) fn put_bytes(length: usize) -> usize {
    let items = (length / ITEM_BYTES_MIN).min(ITEMS_MAX);
    let keys = (2 * length).min(2 * ITEMS_MAX * KEY_BYTES_MAX);
    length.saturating_mul(2).saturating_add(items * ITEM_BYTES + keys)
}

/// Finds what a put has too much of, before it is decoded; else how many items it has.
pub(crate) fn check(body: &[u8]) -> Result<usize, Malformed> {
    let mut items = 0;
    let mut rest = body;
    while let Some((field, content)) = next(&mut rest)? {
        let Some(content) = content.filter(|_| ITEMS.contains(&field)) else { continue };
        items += 1;
        if items > ITEMS_MAX {
            return Err(Malformed::Items);
        }
        check_item(content)?;
    }
    Ok(items)
}

fn check_item(mut item: &[u8]) -> Result<(), Malformed> {
    while let Some((field, content)) = next(&mut item)? {
        if content.is_some_and(|key| field == KEY && key.len() > KEY_BYTES_MAX) {
            return Err(Malformed::Key);
        }
    }
    Ok(())
}

/// The answer to a read but for the value's bytes, which stand last in it. `item` has none.
pub(crate) fn get_response(item: &KeyValue, value: usize) -> Bytes {
    let mut inner = item.encode_to_vec();
    if value > 0 {
        put_length(&mut inner, VALUE, value);
    }
    let mut answer = Vec::with_capacity(inner.len() + 16);
    put_length(&mut answer, ANSWER, inner.len() + value);
    answer.extend_from_slice(&inner);
    answer.into()
}

/// The head of a field that has a length.
fn put_length(message: &mut Vec<u8>, field: u64, length: usize) {
    encode_varint(field << 3 | 2, message);
    encode_varint(length as u64, message);
}

/// The next field: its number, and its content where that has a length. Groups are long out of use, and
/// no message of the protocol has one.
fn next<'a>(rest: &mut &'a [u8]) -> Result<Option<Field<'a>>, Malformed> {
    if rest.is_empty() {
        return Ok(None);
    }
    let tag = number(rest)?;
    let content = match tag & 7 {
        0 => {
            number(rest)?;
            None
        }
        1 => take(rest, 8).map(|_| None)?,
        2 => {
            let length = usize::try_from(number(rest)?).map_err(|_| Malformed::Message)?;
            Some(take(rest, length)?)
        }
        5 => take(rest, 4).map(|_| None)?,
        _ => return Err(Malformed::Message),
    };
    Ok(Some((tag >> 3, content)))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (taken, left) = rest.split_at_checked(length).ok_or(Malformed::Message)?;
    *rest = left;
    Ok(taken)
}

/// A varint: seven bits a byte, the lowest first.
fn number(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *take(rest, 1)?.first().ok_or(Malformed::Message)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(Malformed::Message)
}

#[cfg(test)]
mod tests {
    use vss_api::types::{GetObjectResponse, PutObjectRequest};

    use super::*;

    #[test]
    fn an_answer_in_two_pieces_is_the_answer() {
        for value in [0, 1, 200, 70_000] {
            let whole =
                KeyValue { key: "key".to_owned(), version: 7, value: vec![9; value].into() };
            let item = KeyValue { value: Bytes::new(), ..whole.clone() };
            let pieces = [&get_response(&item, value)[..], &whole.value].concat();
            let answer = GetObjectResponse { value: Some(whole) };
            assert_eq!(pieces, answer.encode_to_vec(), "{value}");
        }
    }

    fn put(items: usize, key: &str, value: usize) -> PutObjectRequest {
        let item = KeyValue { key: key.to_owned(), version: -1, value: vec![7; value].into() };
        PutObjectRequest {
            store_id: "store".to_owned(),
            transaction_items: vec![item.clone(); items / 2],
            delete_items: vec![item; items - items / 2],
            global_version: Some(3),
        }
    }

    #[test]
    fn a_put_takes_no_more_memory_than_is_reckoned_for_it() {
        use crate::{Effect, Plan};
        for (items, key, value) in [(1000, 1, 0), (1000, 600, 0), (1, 0, 0), (3, 20, 1 << 20)] {
            let request = put(items, &"k".repeat(key), value);
            let body = request.encode_to_vec();
            assert_eq!(check(&body), Ok(items));
            // A plan may be of as many effects as there are items, each with a key of its own.
            let plan = Plan::of(PutObjectRequest::default()).unwrap();
            assert!(plan.effects.is_empty());
            let item = size_of::<KeyValue>() + 2 * size_of::<Effect>() + 2 * key;
            let taken = 2 * body.len() + items * item;
            assert!(taken <= put_bytes(body.len()), "{items} {key} {value}: {taken}");
        }
    }

    #[test]
    fn what_is_too_much_is_told_before_anything_is_decoded() {
        assert!(check(&put(ITEMS_MAX, "k", 0).encode_to_vec()).is_ok());
        let many = check(&put(ITEMS_MAX + 1, "k", 0).encode_to_vec());
        assert_eq!(many, Err(Malformed::Items));
        // Two bytes are an item.
        assert_eq!(check(&[0x1a, 0].repeat(16 << 20)), Err(Malformed::Items));
        let long = check(&put(1, &"k".repeat(KEY_BYTES_MAX + 1), 0).encode_to_vec());
        assert_eq!(long, Err(Malformed::Key));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let whole = put(2, "key", 3).encode_to_vec();
        for length in 1..whole.len() {
            // A cut between two fields leaves a message.
            let cut = check(&whole[..length]);
            let decoded = PutObjectRequest::decode(&whole[..length]);
            assert_eq!(cut.is_ok(), decoded.is_ok(), "{length}");
        }
        assert_eq!(check(&[0x0b]), Err(Malformed::Message), "a group");
        assert_eq!(check(&[0xff; 11]), Err(Malformed::Message), "a number without an end");
    }
}
