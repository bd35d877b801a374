-- Puts that are conditional on nothing, which most are, are written without a look at what is there:
-- what an update does not find is made. All else goes the long way, and so does a store that has to be
-- made, has a fence or a history, or is held by somebody.
ALTER FUNCTION vss.put(int[], text[], text[], int[], int[], text[], bigint[], bigint[], int[], bytea[],
    bytea[], bigint, boolean) RENAME TO put_conditional;

-- As `put_conditional`, which tells what the arguments are.
CREATE FUNCTION vss.put(
    buckets int[], users text[], names text[], heads int[],
    requests int[], keys text[], expects bigint[], versions bigint[], orders int[],
    tags bytea[], contents bytea[],
    now bigint, wait boolean
) RETURNS int[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    free boolean;
    plain boolean;
    ids bigint[];
    bases bigint[];
    found bigint[];
    missing int;
    done int;
BEGIN
    IF wait OR NOT (-1 = ALL (heads) AND -1 = ALL (expects) AND 0 < ALL (versions)) THEN
        RETURN vss.put_conditional(buckets, users, names, heads, requests, keys, expects, versions,
            orders, tags, contents, now, wait);
    END IF;

    -- A lock that this transaction has already is given again.
    SELECT bool_and(pg_try_advisory_xact_lock_shared(1215714131, bucket)) INTO free
    FROM unnest(buckets) AS b (bucket);
    IF free THEN
        SELECT array_agg(s.id ORDER BY r.n), bool_and(s.keep_versions IS NULL AND NOT coalesce(s.fence, true))
        INTO ids, plain
        FROM unnest(users, names) WITH ORDINALITY AS r (user_name, store_id, n)
        LEFT JOIN vss.stores s ON s.user_name = r.user_name AND s.store_id = r.store_id;
    END IF;
    IF NOT free OR NOT plain THEN
        RETURN vss.put_conditional(buckets, users, names, heads, requests, keys, expects, versions,
            orders, tags, contents, now, wait);
    END IF;

    WITH written AS (
        UPDATE vss.items i
        SET version = r.version, since = 0, tag = r.tag, value = r.content
        FROM unnest(requests, keys, versions, tags, contents) WITH ORDINALITY
            AS r (request, key, version, tag, content, n)
        WHERE i.store = ids[r.request] AND i.key = r.key
        RETURNING r.n)
    SELECT array_agg(w.n) INTO found FROM written w;

    missing := cardinality(keys) - coalesce(cardinality(found), 0);
    IF missing > 0 THEN
        SELECT array_agg(nextval('vss.places') ORDER BY r.n) INTO bases
        FROM unnest(users) WITH ORDINALITY AS r (user_name, n);
        INSERT INTO vss.items (store, key, version, place, since, tag, value)
        SELECT ids[r.request], r.key, r.version, bases[r.request] * 1024 + r.position, 0, r.tag, r.content
        FROM unnest(requests, keys, versions, orders, tags, contents) WITH ORDINALITY
            AS r (request, key, version, position, tag, content, n)
        WHERE NOT EXISTS (SELECT FROM unnest(found) AS f (n) WHERE f.n = r.n)
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS done = ROW_COUNT;
        -- Somebody else has made one of the keys meanwhile: the next attempt sees it.
        IF done <> missing THEN
            RAISE EXCEPTION 'a key was made meanwhile' USING ERRCODE = 'serialization_failure';
        END IF;
    END IF;
    RETURN array_fill(0, ARRAY[cardinality(users)]);
END
$$;
