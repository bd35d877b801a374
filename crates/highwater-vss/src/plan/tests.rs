use super::*;

fn put(
    items: &[(&str, i64)],
    global: Option<i64>,
    deletes: &[(&str, i64)],
) -> Result<Plan, PutFault> {
    let item = |(key, version): &(&str, i64)| KeyValue {
        key: (*key).to_owned(),
        version: *version,
        value: Bytes::from_static(b"v"),
    };
    Plan::of(PutObjectRequest {
        store_id: "s".to_owned(),
        global_version: global,
        transaction_items: items.iter().map(item).collect(),
        delete_items: deletes.iter().map(item).collect(),
    })
}

/// Key, what it expects, the version that is left.
fn shape(plan: &Plan) -> Vec<(&str, Expect, Option<i64>)> {
    let of = |effect: &Effect| match &effect.then {
        Then::Put { version, .. } => Some(*version),
        Then::Delete => None,
    };
    plan.effects.iter().map(|effect| (effect.key.as_str(), effect.expect, of(effect))).collect()
}

#[test]
fn each_version_says_what_must_be_there() {
    let plan = put(&[("c", -1), ("b", 0), ("a", 7)], None, &[("e", -1), ("d", 3)]).unwrap();
    assert_eq!(
        shape(&plan),
        [
            ("a", Expect::Version(7), Some(8)),
            ("b", Expect::Absent, Some(1)),
            ("c", Expect::Any, Some(1)),
            ("d", Expect::Version(3), None),
            ("e", Expect::Present, None),
        ]
    );
    assert_eq!(plan.effects.iter().map(|effect| effect.order).collect::<Vec<_>>(), [2, 1, 0, 4, 3]);
}

#[test]
fn a_key_that_is_named_twice_is_folded_in_order() {
    assert_eq!(
        shape(&put(&[("a", 0), ("a", 1)], None, &[]).unwrap()),
        [("a", Expect::Absent, Some(2))]
    );
    assert_eq!(
        shape(&put(&[("a", 5), ("a", -1)], None, &[]).unwrap()),
        [("a", Expect::Version(5), Some(1))]
    );
    assert_eq!(shape(&put(&[("a", -1)], None, &[("a", 1)]).unwrap()), [("a", Expect::Any, None)]);
    assert_eq!(
        shape(&put(&[(GLOBAL_VERSION_KEY, 0)], Some(1), &[]).unwrap()),
        [(GLOBAL_VERSION_KEY, Expect::Absent, Some(2))]
    );
    for contradiction in [
        put(&[("a", 0), ("a", 0)], None, &[]),
        put(&[("a", 3), ("a", 3)], None, &[]),
        put(&[("a", -1)], None, &[("a", 2)]),
        put(&[], None, &[("a", -1), ("a", -1)]),
        put(&[("a", -2)], None, &[]),
        put(&[], None, &[("a", 0)]),
        put(&[], Some(-2), &[]),
        put(&[("a", i64::MAX)], None, &[]),
    ] {
        assert!(matches!(contradiction, Err(PutFault::Conflict(_))), "{contradiction:?}");
    }
}

#[test]
fn what_exceeds_a_limit_is_invalid() {
    let long = "ä".repeat(KEY_MAX);
    assert!(put(&[(&long, 0)], None, &[]).is_ok(), "characters are counted, not bytes");
    for invalid in [
        put(&[(&format!("{long}a"), 0)], None, &[]),
        put(&[("a\0", 0)], None, &[]),
        put(&[], None, &[("a\0", 1)]),
        put(&vec![("a", -1); ITEMS_MAX + 1], None, &[]),
    ] {
        assert!(matches!(invalid, Err(PutFault::Invalid(_))), "{invalid:?}");
    }
}

#[test]
fn a_fenced_put_is_conditional_on_the_head_and_leaves_one() {
    let heads = |items: &[_], deletes: &[_]| put(items, None, deletes).unwrap().heads;
    assert_eq!(heads(&[("head.a", 4), ("k", -1)], &[]), Heads::Fenced { before: 1 });
    assert_eq!(heads(&[("head.b", 0)], &[("head.a", 4)]), Heads::Fenced { before: 1 });
    assert_eq!(heads(&[("head.a", 0), ("root", 0)], &[]), Heads::Fenced { before: 0 });
    for (items, deletes) in [
        (vec![("k", -1)], vec![]),
        (vec![("head.a", -1)], vec![]),
        (vec![("head.a", 4), ("head.b", 0)], vec![]),
        (vec![("head.b", 0)], vec![("head.a", -1)]),
        (vec![("k", 0)], vec![("head.a", 4)]),
        (vec![("head.a", 4), ("head.b", 4)], vec![("head.b", 5)]),
    ] {
        assert_eq!(heads(&items, &deletes), Heads::Unfenced, "{items:?} {deletes:?}");
    }
}

#[test]
fn tags_differ_where_anything_does() {
    let tags = [
        tag("a", 1, b"v"),
        tag("b", 1, b"v"),
        tag("a", 2, b"v"),
        tag("a", 1, b"w"),
        tag("", 1, b"av"),
    ];
    for (i, one) in tags.iter().enumerate() {
        assert!(tags[..i].iter().all(|other| other != one));
    }
}
