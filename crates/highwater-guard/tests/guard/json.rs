//! The JSON that is kept: files that every later version reads and writes byte for byte.

use std::fmt::Debug;
use std::fs;
use std::path::Path;

use highwater_guard::{
    Basis, Evidence, FundingSpent, HeightEvidence, HeightVerdict, HeightWitness, Ours, Policy,
    Reason, Release, Verdict, Witness,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{ours, report, witness};

const REASONS: [Reason; 13] = [
    Reason::RevocationLost,
    Reason::SignatureLost,
    Reason::WitnessAhead,
    Reason::MovedElsewhere,
    Reason::BackupAhead,
    Reason::ChannelLacking,
    Reason::NumbersImpossible,
    Reason::PeerForgot,
    Reason::WitnessForgot,
    Reason::WitnessNeeded,
    Reason::SignaturesUnknown,
    Reason::SpendUnconfirmed,
    Reason::NothingHeard,
];

/// A variant that is added stops this from compiling until it is listed, and has its line in the
/// files.
fn place(reason: Reason) -> usize {
    match reason {
        Reason::RevocationLost => 0,
        Reason::SignatureLost => 1,
        Reason::WitnessAhead => 2,
        Reason::MovedElsewhere => 3,
        Reason::BackupAhead => 4,
        Reason::ChannelLacking => 5,
        Reason::NumbersImpossible => 6,
        Reason::PeerForgot => 7,
        Reason::WitnessForgot => 8,
        Reason::WitnessNeeded => 9,
        Reason::SignaturesUnknown => 10,
        Reason::SpendUnconfirmed => 11,
        Reason::NothingHeard => 12,
    }
}

/// The file says what the values are, and the values write the file.
fn kept<T>(name: &str, values: Vec<T>)
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let stored = fs::read_to_string(&path).unwrap();
    let read: Vec<T> = serde_json::from_str(&stored).unwrap();
    assert_eq!(read, values, "{name}");
    let lines: Vec<String> =
        values.iter().map(|value| serde_json::to_string(value).unwrap()).collect();
    assert_eq!(format!("[\n{}\n]\n", lines.join(",\n")), stored, "{name}");
}

/// No object of this kind may have a field that is not known.
fn refuses_an_unknown_field<T: Serialize + DeserializeOwned + Debug>(value: &T) {
    let mut object = serde_json::to_value(value).unwrap();
    object.as_object_mut().unwrap().insert("surplus".into(), Value::from(1));
    let refused = serde_json::from_value::<T>(object).unwrap_err().to_string();
    assert!(refused.contains("unknown field `surplus`"), "{refused}");
}

fn evidence() -> Evidence {
    Evidence {
        chain: Some(FundingSpent::Confirmed),
        backup: Some(Ours { closing: true, epoch: 2, ..ours(6, 5, 5) }),
        witness: Some(Witness { closing: true, epoch: 3, ..witness(6, 5, 5) }),
        report: Some(report(5, 6)),
        policy: Policy::Peer,
    }
}

#[test]
fn every_reason_is_listed_once() {
    for (index, reason) in REASONS.into_iter().enumerate() {
        assert_eq!(place(reason), index);
    }
}

#[test]
fn every_verdict_is_read_and_written_as_it_was() {
    let bases = [Basis::Witness, Basis::Peer];
    let mut verdicts = vec![Verdict::Closed];
    verdicts.extend(REASONS.map(Verdict::Blocked));
    verdicts.extend(bases.map(Verdict::Clear));
    verdicts.extend(REASONS.map(Verdict::Wait));
    kept("verdicts.json", verdicts);
    let mut heights: Vec<HeightVerdict> = bases.map(HeightVerdict::Clear).to_vec();
    heights.extend(REASONS.map(HeightVerdict::Wait));
    kept("height-verdicts.json", heights);
}

#[test]
fn all_numbers_are_read_and_written_as_they_were() {
    let unknown = Ours { signed: None, closing: true, epoch: 7, ..ours(0, 5, 5) };
    kept("ours.json", vec![ours(6, 5, 5), unknown, ours(u64::MAX, u64::MAX, u64::MAX)]);
    kept("reports.json", vec![report(5, 6), report(0, 0)]);
    let other =
        Witness { closing: true, continuous: false, owned: false, epoch: 7, ..witness(6, 5, 5) };
    kept("witnesses.json", vec![witness(6, 5, 5), other]);
}

#[test]
fn all_evidence_is_read_and_written_as_it_was_and_what_is_absent_is_null() {
    let unconfirmed = Evidence {
        chain: Some(FundingSpent::Unconfirmed),
        policy: Policy::Witness,
        ..Evidence::default()
    };
    kept("evidence.json", vec![Evidence::default(), unconfirmed, evidence()]);
    let none = serde_json::to_value(Evidence::default()).unwrap();
    for field in ["chain", "backup", "witness", "report"] {
        assert_eq!(none[field], Value::Null, "{field}");
    }
}

#[test]
fn heights_and_releases_are_read_and_written_as_they_were() {
    let witness = HeightWitness { height: 50, continuous: true, owned: true };
    let told = HeightEvidence { backup: Some(41), witness: Some(witness), seen: Some(49) };
    kept("height-evidence.json", vec![HeightEvidence::default(), told]);
    kept("releases.json", vec![Release::new("the peer's operator agrees", "ops").unwrap()]);
}

#[test]
fn what_is_left_out_is_absent_and_the_policy_has_to_be_said() {
    let read: Evidence = serde_json::from_str(r#"{"policy":"witness"}"#).unwrap();
    assert_eq!(read, Evidence::default());
    assert!(serde_json::from_str::<Evidence>("{}").is_err(), "whose word clears is no default");
    let numbers = r#"{"signed":6,"revoked":5,"received":5,"closing":false}"#;
    assert_eq!(serde_json::from_str::<Ours>(numbers).unwrap(), ours(6, 5, 5));
    for field in ["revoked", "received", "closing"] {
        let mut object = serde_json::to_value(ours(6, 5, 5)).unwrap();
        object.as_object_mut().unwrap().remove(field);
        assert!(serde_json::from_value::<Ours>(object).is_err(), "{field} was made up");
    }
}

#[test]
fn unknown_fields_and_words_are_refused() {
    refuses_an_unknown_field(&ours(6, 5, 5));
    refuses_an_unknown_field(&report(5, 6));
    refuses_an_unknown_field(&witness(6, 5, 5));
    refuses_an_unknown_field(&evidence());
    refuses_an_unknown_field(&HeightWitness { height: 1, continuous: true, owned: true });
    refuses_an_unknown_field(&HeightEvidence::default());
    refuses_an_unknown_field(&Release::new("agreed", "ops").unwrap());
    assert!(serde_json::from_str::<Policy>("\"nobody\"").is_err());
    assert!(serde_json::from_str::<Verdict>(r#"{"blocked":"by_accident"}"#).is_err());
    assert!(serde_json::from_str::<FundingSpent>("\"perhaps\"").is_err());
}
