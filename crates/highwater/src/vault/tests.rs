//! What is stored, type by type: each reads the fixture that is kept for ever and writes it again;
//! what is unknown, newer or impossible is refused.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::codec::Effort;
use super::manifest::{ContentHash, EntryRecord, Leaf, Mark, PackRef, PartRecord, Runs};
use super::nodes::NodeRecord;
use super::pack::{
    FrameKind, PackIndex, PlainFrame, UnitId, end_bytes, open_frame, open_index, seal_frame,
    seal_index, unit_range,
};
use super::seal::{HEADER_BYTES, ObjectKey, ObjectKind, Purpose};
use super::shrink::Shrunk;
use super::*;
use crate::Kind;
use crate::ids::{Epoch, NodeName, Time, WriterId};
use crate::ids::{NodeUid, PackId, RelPath, RestoreId, Seq, SnapshotId, StoreId};
use crate::records::{
    Barrier, Consistency, EngineKind, EntryType, Identity, Metadata, ReplicaPoint, Units,
};
use crate::vault::shrink::{Acknowledged, Loss};

const MANIFEST: &str = include_str!("../../tests/fixtures/manifest.json");
const MANIFEST_REPLICA: &str = include_str!("../../tests/fixtures/manifest-replica.json");
const MANIFEST_SHRUNK: &str = include_str!("../../tests/fixtures/manifest-shrunk.json");
const INTENT: &str = include_str!("../../tests/fixtures/intent.json");
const NODE: &str = include_str!("../../tests/fixtures/node.json");
const NODE_ACKNOWLEDGED: &str = include_str!("../../tests/fixtures/node-acknowledged.json");
const PACK: &[u8] = include_bytes!("../../tests/fixtures/pack.bin");

fn time() -> Time {
    Time::from_nanos(1_790_000_000_123_456_789)
}

fn name() -> NodeName {
    "node".parse().unwrap()
}

fn entry(path: &[u8], kind: EntryType) -> EntryRecord {
    EntryRecord {
        path: RelPath::from_bytes(path).unwrap(),
        kind,
        meta: Metadata {
            mode: 0o640,
            uid: 1000,
            gid: 100,
            mtime_ns: -1,
            xattrs: vec![("user.a%25".to_owned(), "00ff".to_owned())],
        },
        size: 0,
        holes: Vec::new(),
        units: Units::Slices,
        identity: None,
        leaves: Vec::new(),
    }
}

/// A page file of two leaves.
fn database() -> EntryRecord {
    let leaf =
        |runs| Leaf { content: ContentHash::from_bytes([0xab; 32]), packs: vec![1, 0], runs };
    EntryRecord {
        size: (1 << 30) + 5,
        holes: vec![(4096, 8192)],
        units: Units::Pages { bytes: 4096 },
        identity: Some(Identity { size: 7, mtime_ns: 8, inode: 9, engine: "sqlite 1".into() }),
        leaves: vec![
            leaf(Runs::Inline("BAEAAgADAgYBAQs".to_owned())),
            leaf(Runs::Stored { pack: 1, unit: 3 }),
        ],
        ..entry(b"db", EntryType::File)
    }
}

/// One of everything that a manifest can say.
fn manifest() -> Manifest {
    let database = database();
    let link = EntryType::Symlink { target: "to/%FF".to_owned() };
    let others = vec![
        entry(b"device", EntryType::Device),
        entry(b"dir", EntryType::Dir),
        entry(b"dir/\xFF%\n", EntryType::File),
        entry(b"fifo", EntryType::Fifo),
        entry(b"link", link),
        entry(b"socket", EntryType::Socket),
    ];
    let part = |name: &str, engine, consistency, entries| PartRecord {
        name: name.to_owned(),
        engine,
        root: RelPath::root(),
        engine_version: Some("3".to_owned()),
        consistency,
        replica: None,
        entry_points: Vec::new(),
        entries,
        lists: Vec::new(),
    };
    let empty = [
        ("1", EngineKind::ROCKSDB, Consistency::Checkpoint),
        ("2", EngineKind::LEVELDB, Consistency::Offline),
        ("3", EngineKind::LMDB, Consistency::Offline),
        ("4", EngineKind::REDB, Consistency::Offline),
        ("5", EngineKind::BBOLT, Consistency::Offline),
        ("6", EngineKind::BADGER, Consistency::Offline),
    ];
    let mut parts = vec![part("db", EngineKind::SQLITE, Consistency::Sqlite, vec![database])];
    parts.extend(empty.map(|(name, engine, how)| part(name, engine, how, Vec::new())));
    parts.push(part("files", EngineKind::FILES, Consistency::Files, others));
    Manifest {
        version: 1,
        snapshot: SnapshotId::from_bytes([1; 16]),
        generation: 2,
        node: name(),
        uid: NodeUid::from_bytes([2; 16]),
        seq: Seq(3),
        epoch: Epoch(4),
        parent: Some(SnapshotId::from_bytes([5; 16])),
        time: time(),
        barrier: Barrier::Frozen,
        guarded: true,
        guard: None,
        program: "0.1.0".to_owned(),
        restore: Some(RestoreId::from_bytes([6; 16])),
        schema: Some(7),
        kinds: Vec::new(),
        together: Vec::new(),
        marks: [("height".to_owned(), Mark { value: u64::MAX, claimed: true })].into(),
        tags: [("why".to_owned(), "ü".to_owned())].into(),
        packs: [8, 9].map(|id| PackRef { id: PackId::from_bytes([id; 16]), size: 1000 }).into(),
        root: entry(b"", EntryType::Dir).meta,
        place: None,
        parts,
        bytes_read: 10,
        bytes_stored: 11,
        shrunk: Vec::new(),
    }
}

/// One whose database holds a replicated store.
fn replicated() -> Manifest {
    let mut manifest = manifest();
    manifest.parts.truncate(1);
    manifest.parts[0].replica = Some(ReplicaPoint {
        store: StoreId::from_bytes([7; 16]),
        epoch: 8,
        seq: u64::MAX,
        acknowledged: 9,
    });
    manifest
}

fn losses() -> Vec<Loss> {
    let (bytes_before, bytes, before) = (8192, 0, SnapshotId::from_bytes([5; 16]));
    let part = Some("db".to_owned());
    vec![
        Loss { part, how: Shrunk::Missing, bytes_before, bytes, before, excluded: true },
        Loss {
            part: None,
            how: Shrunk::Smaller,
            bytes_before: u64::MAX,
            bytes: 9,
            before,
            excluded: false,
        },
    ]
}

/// One that lacks what an earlier one has.
fn shrunk() -> Manifest {
    let mut manifest = Manifest { shrunk: losses(), ..manifest() };
    manifest.parts.truncate(1);
    manifest
}

fn acknowledged() -> NodeRecord {
    let (reason, by) = ("moved".to_owned(), "user@machine".to_owned());
    let snapshot = SnapshotId::from_bytes([1; 16]);
    let one = Acknowledged { snapshot, reason, by, time: time(), losses: losses() };
    NodeRecord { acknowledged: vec![one], ..record() }
}

fn intent() -> Intent {
    Intent {
        version: 1,
        snapshot: SnapshotId::from_bytes([1; 16]),
        node: name(),
        uid: NodeUid::from_bytes([2; 16]),
        parent: None,
        writer: WriterId::from_bytes([3; 16]),
        start: time(),
        boot: None,
        rewrite: false,
        import: None,
    }
}

fn record() -> NodeRecord {
    NodeRecord {
        version: 1,
        node: name(),
        uid: Some(NodeUid::from_bytes([2; 16])),
        number: 12,
        epoch: Epoch(3),
        writer: Some(WriterId::from_bytes([3; 16])),
        claimed_by: "user@machine".to_owned(),
        reason: Some("moved".to_owned()),
        since: time(),
        fence: [(1, Seq(4)), (2, Seq(9))].into(),
        pruned: None,
        newest: Some((SnapshotId::from_bytes([1; 16]), Seq(10))),
        marks: [("height".to_owned(), 5)].into(),
        guard: None,
        restored: vec![SnapshotId::from_bytes([1; 16])],
        failed: Vec::new(),
        acknowledged: Vec::new(),
    }
}

fn goes_both_ways<T>(value: &T, fixture: &str)
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    assert_eq!(serde_json::to_string_pretty(value).unwrap() + "\n", fixture);
    assert_eq!(serde_json::from_str::<T>(fixture).unwrap(), *value);
}

#[test]
fn documents_are_what_they_were() {
    goes_both_ways(&manifest(), MANIFEST);
    goes_both_ways(&replicated(), MANIFEST_REPLICA);
    goes_both_ways(&shrunk(), MANIFEST_SHRUNK);
    goes_both_ways(&acknowledged(), NODE_ACKNOWLEDGED);
    goes_both_ways(&intent(), INTENT);
    goes_both_ways(&record(), NODE);
    assert_eq!(manifest().fault(), None);
}

#[test]
fn every_object_of_a_document_refuses_a_field_that_it_does_not_know() {
    fn spoil(value: &Value, found: &mut Vec<Value>) {
        match value {
            // A tag alone (`slices`, `file`) takes no fields, and serde ignores what stands there.
            Value::Object(fields)
                if fields.keys().all(|name| name == "type" || name == "units") => {}
            Value::Object(fields) => {
                let mut spoilt = fields.clone();
                spoilt.insert("later".to_owned(), Value::Null);
                found.push(Value::Object(spoilt));
                for (name, inner) in fields {
                    let mut all = Vec::new();
                    spoil(inner, &mut all);
                    found.extend(all.into_iter().map(|inner| {
                        let mut fields = fields.clone();
                        fields.insert(name.clone(), inner);
                        Value::Object(fields)
                    }));
                }
            }
            Value::Array(values) => {
                for (at, inner) in values.iter().enumerate() {
                    let mut all = Vec::new();
                    spoil(inner, &mut all);
                    found.extend(all.into_iter().map(|inner| {
                        let mut values = values.clone();
                        values[at] = inner;
                        Value::Array(values)
                    }));
                }
            }
            _ => {}
        }
    }
    fn check<T: DeserializeOwned>(fixture: &str) -> usize {
        let mut spoilt = Vec::new();
        spoil(&serde_json::from_str(fixture).unwrap(), &mut spoilt);
        for value in &spoilt {
            assert!(serde_json::from_value::<T>(value.clone()).is_err(), "{value:#}");
        }
        spoilt.len()
    }
    assert!(check::<Manifest>(MANIFEST) > 20);
    assert!(check::<Manifest>(MANIFEST_REPLICA) > 10);
    assert!(check::<Manifest>(MANIFEST_SHRUNK) > 10);
    assert_eq!(check::<NodeRecord>(NODE_ACKNOWLEDGED), 6);
    assert_eq!(check::<Intent>(INTENT), 1);
    assert_eq!(check::<NodeRecord>(NODE), 3);
}

fn vault() -> (tempfile::TempDir, Vault) {
    let dir = tempfile::tempdir().unwrap();
    let location = Location::Local(dir.path().join("vault"));
    let secret = Secret::Key(Zeroizing::new([1; 32]));
    let vault = Vault::create_with(&location, &secret, &CreateOptions::default(), &Env::system())
        .unwrap()
        .vault;
    (dir, vault)
}

/// Puts a document under a name, sealed as it should be, whatever it says.
fn put(vault: &Vault, kind: ObjectKind, name: &str, document: &Value) {
    let object = sealed::seal(vault, kind, name, document).unwrap();
    vault.store().delete(name).unwrap();
    assert!(vault.store().put_new(name, object).unwrap());
}

fn with(fixture: &str, fields: Value) -> Value {
    let mut value: Value = serde_json::from_str(fixture).unwrap();
    let all = value.as_object_mut().unwrap();
    all.extend(fields.as_object().unwrap().clone());
    value
}

/// How the three documents are refused with some fields changed.
fn refusals(fields: &Value) -> Vec<Error> {
    let (_dir, vault) = vault();
    let snapshot = SnapshotName::of(&manifest());
    let named = "nodes/node/00000000000000000012";
    let announced = format!("intents/{}", intent().snapshot);
    put(&vault, ObjectKind::Manifest, &snapshot.object(), &with(MANIFEST, fields.clone()));
    put(&vault, ObjectKind::Node, named, &with(NODE, fields.clone()));
    put(&vault, ObjectKind::Intent, &announced, &with(INTENT, fields.clone()));
    vec![
        vault.manifest(&snapshot).map(drop).unwrap_err(),
        vault.open_node_record(named).map(drop).unwrap_err(),
        vault.open_intent(&announced).map(drop).unwrap_err(),
    ]
}

#[test]
fn a_newer_document_is_no_damage() {
    for fields in [json!({"version": 3}), json!({"version": 3, "later": [], "node": 7})] {
        for error in refusals(&fields) {
            assert_eq!(error.kind(), Kind::Input, "{error}");
            assert!(error.hint().unwrap().contains("use the version of highwater"), "{error}");
            assert!(error.entry().is_some());
        }
    }
}

#[test]
fn an_unknown_field_of_this_version_is_damage() {
    for fields in [json!({"later": 1}), json!({"version": 0}), json!({"node": "a/b"})] {
        for error in refusals(&fields) {
            assert_eq!(error.kind(), Kind::Corrupt, "{error}");
            assert!(error.entry().is_some());
        }
    }
}

/// Of a manifest that has the second version, and says where lists of its entries are.
#[test]
fn a_manifest_whose_lists_do_not_fit_is_damage() {
    let (_dir, vault) = vault();
    let list = |entries: u32, pack: u32| json!([{"content": "00".repeat(32), "entries": entries, "files": 1, "bytes": 0, "pack": pack, "unit": 0}]);
    let name = SnapshotName::of(&manifest());
    for (version, lists) in [(2, json!([])), (1, list(1, 0)), (2, list(1, 0)), (2, list(1, 7))] {
        let mut document = serde_json::to_value(manifest()).unwrap();
        document["version"] = json!(version);
        document["parts"][0]["lists"] = lists;
        put(&vault, ObjectKind::Manifest, &name.object(), &document);
        let error = vault.manifest(&name).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{version}: {error}");
        assert_eq!(error.entry(), Some(name.object().as_str()), "{error}");
    }
}

#[test]
fn a_manifest_that_could_not_be_restored_is_neither_read_nor_written() {
    let (_dir, vault) = vault();
    let spoilt = |spoil: &dyn Fn(&mut EntryRecord)| {
        let mut manifest = manifest();
        spoil(&mut manifest.parts[0].entries[0]);
        manifest
    };
    for mut manifest in [
        spoilt(&|entry| entry.units = Units::Pages { bytes: 0 }),
        spoilt(&|entry| entry.units = Units::Pages { bytes: 5000 }),
        spoilt(&|entry| entry.units = Units::Pages { bytes: 1 << 30 }),
        spoilt(&|entry| drop(entry.leaves.pop())),
        spoilt(&|entry| entry.size = u64::MAX),
        spoilt(&|entry| entry.kind = EntryType::Socket),
    ] {
        let name = SnapshotName::of(&manifest);
        assert_eq!(vault.put_manifest(&mut manifest).unwrap_err().kind(), Kind::Bug);
        let json = serde_json::to_value(&manifest).unwrap();
        put(&vault, ObjectKind::Manifest, &name.object(), &json);
        assert_eq!(vault.manifest(&name).unwrap_err().kind(), Kind::Corrupt);
    }
}

#[test]
fn a_manifest_whose_paths_lead_out_of_the_directory_is_damage() {
    let (_dir, vault) = vault();
    let name = SnapshotName::of(&manifest());
    for path in ["../a", "/etc/passwd", "a/../../b", "a//b", "./a", "a/%2e%2e/b", "a%00", "a%"] {
        let mut json = serde_json::to_value(manifest()).unwrap();
        json["parts"][7]["entries"][0]["path"] = json!(path);
        put(&vault, ObjectKind::Manifest, &name.object(), &json);
        let error = vault.manifest(&name).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{path}: {error}");
    }
}

#[test]
fn sizes_that_no_disk_has_are_added_up_all_the_same() {
    let mut manifest = manifest();
    for part in &mut manifest.parts {
        for _ in 0..2 {
            let mut dir = entry(b"dir", EntryType::Dir);
            dir.size = u64::MAX;
            part.entries.push(dir);
        }
    }
    assert_eq!(manifest.parts[0].bytes(), u64::MAX);
    assert_eq!(manifest.bytes_total(), u64::MAX);
}

fn keys() -> UnitKeys {
    UnitKeys { page: Zeroizing::new([1; 32]), slice: Zeroizing::new([2; 32]) }
}

#[test]
fn the_keys_of_units_are_wiped() {
    fn wiped(_: &impl zeroize::ZeroizeOnDrop) {}
    let UnitKeys { page, slice } = keys();
    wiped(&page);
    wiped(&slice);
}

/// The key of the pack in the fixture: it has a salt of its own, so it is never used again.
fn fixed_key() -> ObjectKey {
    let mut header = [9; HEADER_BYTES];
    header[..16].copy_from_slice(b"HWSEALED\x01\0\x01\0\0\0\0\0");
    let master = MasterKey::from_bytes([7; 32]);
    let vault = VaultId::from_bytes([1; 16]);
    ObjectKey::parse(&master, vault, ObjectKind::Pack, "packs/08/fixture", &header).unwrap()
}

/// Pages that shrink, a slice that does not, a short page, a map.
fn frames() -> Vec<PlainFrame> {
    let frame = |kind, unit: usize, bytes: Vec<u8>| PlainFrame {
        kind,
        ids: bytes.chunks(unit).map(|unit| keys().id(kind, unit)).collect(),
        bytes,
    };
    let mut noise = vec![0; 300];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    vec![
        frame(FrameKind::Pages, 4096, [[1; 4096], [2; 4096], [3; 4096]].concat()),
        frame(FrameKind::Slice, 300, noise),
        frame(FrameKind::Pages, 100, vec![5; 100]),
        frame(FrameKind::Map, 11, vec![4, 1, 0, 2, 0, 3, 2, 6, 1, 1, 11]),
    ]
}

fn write_pack(key: &ObjectKey) -> Vec<u8> {
    let mut pack = key.header().to_vec();
    let (mut records, mut ids) = (Vec::new(), Vec::new());
    for (number, frame) in frames().into_iter().enumerate() {
        let sealed = seal_frame(key, number as u64, &frame, Effort::Fast, Vec::new()).unwrap();
        pack.extend_from_slice(&sealed.bytes);
        records.push(sealed.record);
        ids.extend(frame.ids);
    }
    pack.extend_from_slice(&seal_index(key, records, ids).unwrap());
    pack
}

/// The units of a pack, verified; `None` where anything of it was changed.
fn read_pack(pack: &[u8]) -> Option<Vec<Vec<u8>>> {
    let key = fixed_key();
    if pack.get(..HEADER_BYTES)? != key.header() {
        return None;
    }
    let end = usize::try_from(end_bytes(pack)?).ok()?;
    let index: PackIndex =
        open_index(&key, &pack[pack.len().checked_sub(end)?..], pack.len() as u64)?;
    let mut units = Vec::new();
    for number in 0..index.frames() {
        let (record, range) = (index.frame(number), index.range(number));
        let mut stored = pack.get(range.start as usize..range.end as usize)?.to_vec();
        let mut plain = Vec::new();
        open_frame(&key, number as u64, record, &mut stored, &mut plain)?;
        for place in 0..usize::from(record.units) {
            let unit = &plain[unit_range(record, place)];
            let at = index.first_unit(number) + place as u32;
            assert_eq!(index.locate(at), Some((number, place)));
            assert_eq!(index.unit_id(at), Some(keys().id(record.kind, unit)));
            units.push(unit.to_vec());
        }
    }
    Some(units)
}

#[test]
fn a_pack_is_what_it_was() {
    let mut expected: Vec<Vec<u8>> = Vec::new();
    for frame in frames() {
        let unit = frame.bytes.len() / frame.ids.len();
        expected.extend(frame.bytes.chunks(unit).map(<[u8]>::to_vec));
    }
    assert_eq!(read_pack(&write_pack(&fixed_key())).unwrap(), expected);
    assert_eq!(read_pack(PACK).unwrap(), expected, "the fixture");
    for at in 0..PACK.len() {
        let mut bytes = PACK.to_vec();
        bytes[at] ^= 1 << (at % 8);
        assert!(read_pack(&bytes).is_none(), "byte {at}");
        assert!(read_pack(&PACK[..at]).is_none(), "cut at {at}");
    }
}

/// The index and trailer of a pack without frames, whatever the index says.
fn sealed_index(key: &ObjectKey, mut index: Vec<u8>, frames: u32) -> Vec<u8> {
    let mut trailer = (index.len() as u32 + 16).to_le_bytes().to_vec();
    trailer.extend_from_slice(&frames.to_le_bytes());
    key.seal(frames.into(), Purpose::Last, &trailer, &mut index).unwrap();
    [index, trailer].concat()
}

#[test]
fn an_index_that_is_sealed_and_wrong_is_refused() {
    let key = fixed_key();
    let open = |index: Vec<u8>, frames, stored: u64| {
        let end = sealed_index(&key, index, frames);
        let size = HEADER_BYTES as u64 + stored + end.len() as u64;
        open_index(&key, &end, size)
    };
    let record = |stored: u32, plain: u32, codec: u8, kind: u8, units: u16| {
        let mut bytes = [stored.to_le_bytes(), plain.to_le_bytes()].concat();
        bytes.extend_from_slice(&[codec, kind]);
        bytes.extend_from_slice(&units.to_le_bytes());
        bytes
    };
    let id = UnitId([3; 32]);
    let one = |record: Vec<u8>| [record, id.0[..16].to_vec()].concat();
    assert!(open(Vec::new(), 0, 0).is_some());
    assert!(open(one(record(20, 4096, 0, 0, 1)), 1, 20).is_some());
    assert!(open(one(record(20, 4096, 0, 0, 1)), 1, 21).is_none(), "a byte of nobody's");
    for wrong in [
        record(20, 4096, 0, 0, 0),
        record(20, 0, 0, 0, 1),
        record(20, (16 << 20) + 1, 0, 0, 1),
        record(20, 4096, 2, 0, 1),
        record(20, 4096, 0, 3, 1),
        record(20, 4096, 0, 1, 1),
        record(20, 4096, 0, 0, 2),
        record(20, 4097, 0, 0, 2),
    ] {
        assert!(open(one(wrong.clone()), 1, 20).is_none(), "{wrong:?}");
    }
    let many = record(20, 65_535, 0, 1, 65_535).repeat(10_000);
    assert!(open(many, 10_000, 200_000).is_none(), "20 GiB of ids that are not there");
}
