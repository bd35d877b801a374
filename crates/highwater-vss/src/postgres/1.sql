-- What the service keeps. An item's place grows with each key that is made, so that listings go by it;
-- an update keeps it. `since` is the commit that wrote the value, `until` the one that replaced it: a
-- store at commit c is its items with since <= c and its old values with since <= c < until.
CREATE TABLE vss.stores (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_name text COLLATE "C" NOT NULL,
    store_id text COLLATE "C" NOT NULL,
    fence boolean NOT NULL DEFAULT false,
    keep_versions bigint,
    keep_days bigint,
    generation bigint NOT NULL DEFAULT 0,
    commit bigint NOT NULL DEFAULT 0,
    oldest bigint NOT NULL DEFAULT 0,
    UNIQUE (user_name, store_id)
);

-- Room in each page, so that an update of a small value need not touch the indexes.
CREATE TABLE vss.items (
    store bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    place bigint NOT NULL,
    since bigint NOT NULL,
    tag bytea NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (store, key)
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX items_place ON vss.items (store, place);

CREATE TABLE vss.old_values (
    store bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    since bigint NOT NULL,
    until bigint NOT NULL,
    at bigint NOT NULL,
    version bigint NOT NULL,
    tag bytea NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (store, key, until)
);

-- Values are ciphertext: no time is spent on compressing them.
ALTER TABLE vss.items ALTER COLUMN value SET STORAGE EXTERNAL;
ALTER TABLE vss.old_values ALTER COLUMN value SET STORAGE EXTERNAL;

CREATE TABLE vss.commits (
    store bigint NOT NULL,
    number bigint NOT NULL,
    at bigint NOT NULL,
    puts bigint NOT NULL,
    deletes bigint NOT NULL,
    restored bigint,
    PRIMARY KEY (store, number)
);

-- Each request has a number of its own; a place is that number and the key's order in the request.
CREATE SEQUENCE vss.places;

-- Carries out requests that share no key, each of them all or nothing; an outcome for each: 0 done,
-- 1 a version is not the one expected, 2 the store is fenced and takes no such request, 3 the number of
-- heads is not the one expected, 4 to be asked again: another request of the same fenced store came
-- first, 5 nothing to do, 6 somebody holds the store for long.
--
-- `users` to `heads` have one element for each request, the others one for each key that it is about;
-- those are in the order of store and key, in which rows are written, so that two calls can't wait for
-- one another. `heads`: how many it is conditional on, -1 where it is not conditional on them, -2 for a
-- lone delete, which does nothing where it does not fit. `expects`: a version, 0 absent, -1 anything,
-- -2 anything that is there, -3 never. `versions`: 0 deletes.
--
-- A caller that does not wait is told of stores that are held for long; one that waits has one request.
CREATE FUNCTION vss.put(
    buckets int[], users text[], names text[], heads int[],
    requests int[], keys text[], expects bigint[], versions bigint[], orders int[],
    tags bytea[], contents bytea[],
    now bigint, wait boolean
) RETURNS int[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    outcomes int[];
    ids bigint[];
    fences boolean[];
    keeps boolean[];
    -- Commits of each store before, then the one that each request makes; 0: none.
    commits bigint[];
    numbers bigint[];
    serial bigint[];
    held bigint[];
    held_commits bigint[];
    places bigint[];
    fits boolean[];
    bases bigint[];
    seen bigint[] := '{}';
    updates bigint;
    inserts bigint;
    deletes bigint;
    wanted bigint;
    done bigint;
    count bigint;
    request int;
BEGIN
    -- A change of a policy holds the bucket of its store alone: what is read of a policy below holds
    -- until this transaction ends.
    IF wait THEN
        PERFORM pg_advisory_xact_lock_shared(1215714131, bucket) FROM unnest(buckets) AS b (bucket);
        SELECT array_agg(0) INTO outcomes FROM unnest(buckets);
    ELSE
        SELECT array_agg(
            CASE WHEN pg_try_advisory_xact_lock_shared(1215714131, bucket) THEN 0 ELSE 6 END
            ORDER BY n)
        INTO outcomes FROM unnest(buckets) WITH ORDINALITY AS b (bucket, n);
    END IF;

    SELECT array_agg(coalesce(s.id, 0) ORDER BY r.n),
        array_agg(coalesce(s.fence, false) ORDER BY r.n),
        array_agg(s.keep_versions IS NOT NULL ORDER BY r.n),
        array_agg(coalesce(s.commit, 0) ORDER BY r.n),
        array_agg(s.id) FILTER (WHERE s.fence OR s.keep_versions IS NOT NULL)
    INTO ids, fences, keeps, commits, serial
    FROM unnest(users, names) WITH ORDINALITY AS r (user_name, store_id, n)
    LEFT JOIN vss.stores s ON s.user_name = r.user_name AND s.store_id = r.store_id;

    -- Stores with a fence or a history take one transaction after the other.
    IF serial IS NOT NULL THEN
        IF wait THEN
            SELECT array_agg(l.id), array_agg(l.commit) INTO held, held_commits FROM (
                SELECT s.id, s.commit FROM vss.stores s WHERE s.id = ANY (serial)
                ORDER BY s.id FOR UPDATE) l;
        ELSE
            SELECT array_agg(l.id), array_agg(l.commit) INTO held, held_commits FROM (
                SELECT s.id, s.commit FROM vss.stores s WHERE s.id = ANY (serial)
                ORDER BY s.id FOR UPDATE SKIP LOCKED) l;
        END IF;
        FOR request IN 1 .. cardinality(users) LOOP
            CONTINUE WHEN NOT (fences[request] OR keeps[request]) OR outcomes[request] <> 0;
            count := array_position(held, ids[request]);
            IF count IS NULL THEN
                outcomes[request] := 6;
                CONTINUE;
            END IF;
            commits[request] := held_commits[count];
            CONTINUE WHEN NOT fences[request];
            IF heads[request] < 0 THEN
                outcomes[request] := 2;
            ELSIF ids[request] = ANY (seen) THEN
                outcomes[request] := 4;
            ELSE
                seen := seen || ids[request];
                SELECT count(*) INTO count FROM vss.items i
                WHERE i.store = ids[request] AND i.key >= 'head.' AND i.key < 'head/';
                IF count <> heads[request] THEN
                    outcomes[request] := 3;
                END IF;
            END IF;
        END LOOP;
    END IF;

    -- What is there is looked at without a lock: should somebody change it meanwhile, fewer rows are
    -- written below than were found here, and the next attempt sees it.
    SELECT array_agg(coalesce(w.place, 0) ORDER BY w.n),
        array_agg(CASE w.expect
            WHEN -1 THEN true
            WHEN -2 THEN w.place IS NOT NULL
            WHEN 0 THEN w.place IS NULL
            ELSE coalesce(w.version = w.expect, false) END ORDER BY w.n)
    INTO places, fits
    FROM (
        SELECT r.n, r.expect, i.version, i.place
        FROM unnest(requests, keys, expects) WITH ORDINALITY AS r (request, key, expect, n)
        LEFT JOIN LATERAL (
            SELECT i.version, i.place FROM vss.items i
            WHERE outcomes[r.request] = 0 AND i.store = ids[r.request] AND i.key = r.key
            OFFSET 0) i ON true) w;
    FOR request IN SELECT DISTINCT f.request FROM unnest(requests, fits) AS f (request, fit)
        WHERE NOT f.fit LOOP
        IF outcomes[request] = 0 THEN
            outcomes[request] := CASE WHEN heads[request] = -2 THEN 5 ELSE 1 END;
        END IF;
    END LOOP;

    SELECT count(*) FILTER (WHERE r.place > 0 AND r.version > 0),
        count(*) FILTER (WHERE r.place = 0 AND r.version > 0),
        count(*) FILTER (WHERE r.place > 0 AND r.version = 0),
        count(*)
    INTO updates, inserts, deletes, wanted
    FROM unnest(requests, places, versions) AS r (request, place, version)
    WHERE outcomes[r.request] = 0;
    IF wanted = 0 THEN
        RETURN outcomes;
    END IF;

    -- Made by a request that lands, and by no other.
    IF 0 = ANY (ids) THEN
        INSERT INTO vss.stores (user_name, store_id)
        SELECT DISTINCT r.user_name, r.store_id
        FROM unnest(users, names, ids, outcomes) AS r (user_name, store_id, id, outcome)
        WHERE r.id = 0 AND r.outcome = 0
        ORDER BY r.user_name, r.store_id
        ON CONFLICT DO NOTHING;
        SELECT array_agg(coalesce(s.id, 0) ORDER BY r.n) INTO ids
        FROM unnest(users, names) WITH ORDINALITY AS r (user_name, store_id, n)
        LEFT JOIN vss.stores s ON s.user_name = r.user_name AND s.store_id = r.store_id;
    END IF;

    SELECT array_agg(CASE WHEN r.keep AND r.outcome = 0 THEN r.commit + r.rank ELSE 0 END ORDER BY r.n)
    INTO numbers
    FROM (
        SELECT r.n, r.keep, r.commit, r.outcome,
            count(*) FILTER (WHERE r.outcome = 0) OVER (PARTITION BY r.id ORDER BY r.n) AS rank
        FROM unnest(ids, keeps, commits, outcomes)
            WITH ORDINALITY AS r (id, keep, commit, outcome, n)) r;

    IF serial IS NOT NULL THEN
        INSERT INTO vss.old_values (store, key, since, until, at, version, tag, value)
        SELECT ids[r.request], r.key, i.since, numbers[r.request], now, i.version, i.tag, i.value
        FROM unnest(requests, keys, places) AS r (request, key, place)
        CROSS JOIN LATERAL (
            SELECT i.since, i.version, i.tag, i.value FROM vss.items i
            WHERE i.store = ids[r.request] AND i.key = r.key OFFSET 0) i
        WHERE numbers[r.request] > 0 AND r.place > 0;

        INSERT INTO vss.commits (store, number, at, puts, deletes)
        SELECT ids[r.request], numbers[r.request], now,
            count(*) FILTER (WHERE r.version > 0),
            count(*) FILTER (WHERE r.version = 0 AND r.place > 0)
        FROM unnest(requests, places, versions) AS r (request, place, version)
        WHERE numbers[r.request] > 0
        GROUP BY r.request;

        UPDATE vss.stores s SET commit = r.number
        FROM (
            SELECT r.id, max(r.number) AS number FROM unnest(ids, numbers) AS r (id, number)
            WHERE r.number > 0 GROUP BY r.id) r
        WHERE s.id = r.id;
    END IF;

    IF updates > 0 THEN
        UPDATE vss.items i
        SET version = r.version, since = numbers[r.request], tag = r.tag, value = r.content
        FROM unnest(requests, keys, places, expects, versions, tags, contents)
            AS r (request, key, place, expect, version, tag, content)
        WHERE outcomes[r.request] = 0 AND r.place > 0 AND r.version > 0
            AND i.store = ids[r.request] AND i.key = r.key
            AND (r.expect < 0 OR i.version = r.expect);
        GET DIAGNOSTICS done = ROW_COUNT;
        IF done <> updates THEN
            RAISE EXCEPTION 'a key was changed meanwhile' USING ERRCODE = 'serialization_failure';
        END IF;
    END IF;

    IF inserts > 0 THEN
        SELECT array_agg(nextval('vss.places') ORDER BY n) INTO bases FROM (
            SELECT r.n FROM unnest(outcomes) WITH ORDINALITY AS r (outcome, n) ORDER BY r.n) r;
        INSERT INTO vss.items (store, key, version, place, since, tag, value)
        SELECT ids[r.request], r.key, r.version, bases[r.request] * 1024 + r.position,
            numbers[r.request], r.tag, r.content
        FROM unnest(requests, keys, places, versions, orders, tags, contents)
            AS r (request, key, place, version, position, tag, content)
        WHERE outcomes[r.request] = 0 AND r.place = 0 AND r.version > 0
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS done = ROW_COUNT;
        -- Somebody else has made one of the keys meanwhile: the next attempt sees it.
        IF done <> inserts THEN
            RAISE EXCEPTION 'a key was made meanwhile' USING ERRCODE = 'serialization_failure';
        END IF;
    END IF;

    IF deletes > 0 THEN
        DELETE FROM vss.items i
        USING unnest(requests, keys, places, expects, versions)
            AS r (request, key, place, expect, version)
        WHERE outcomes[r.request] = 0 AND r.place > 0 AND r.version = 0
            AND i.store = ids[r.request] AND i.key = r.key
            AND (r.expect < 0 OR i.version = r.expect);
        GET DIAGNOSTICS done = ROW_COUNT;
        IF done <> deletes THEN
            RAISE EXCEPTION 'a key was changed meanwhile' USING ERRCODE = 'serialization_failure';
        END IF;
    END IF;
    RETURN outcomes;
END
$$;
