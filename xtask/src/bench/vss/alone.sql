CREATE TABLE items (
    store bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (store, key)
) WITH (fillfactor = 80);
ALTER TABLE items ALTER COLUMN value SET STORAGE EXTERNAL;

-- 1 KiB that can't be compressed.
CREATE FUNCTION noise(number int) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT string_agg(sha256(convert_to(number || ' ' || part, 'UTF8')), '')
    FROM generate_series(1, 32) AS p (part)
$$;
INSERT INTO items SELECT 1, 'key ' || number, noise(number) FROM generate_series(0, 999) AS n (number);

CREATE PROCEDURE measure(seconds int, INOUT rate numeric DEFAULT 0) LANGUAGE plpgsql AS $$
DECLARE
    contents bytea[];
    names text[];
    begun timestamptz;
    took numeric := 0;
BEGIN
    SELECT array_agg(noise(number)) INTO contents FROM generate_series(1, 100) AS n (number);
    COMMIT;
    begun := clock_timestamp();
    WHILE took < seconds LOOP
        SELECT array_agg('key ' || (rate::int * 100 + number) % 1000) INTO names
        FROM generate_series(0, 99) AS n (number);
        UPDATE items i SET value = r.content
        FROM unnest(names, contents) AS r (key, content)
        WHERE i.store = 1 AND i.key = r.key;
        COMMIT;
        rate := rate + 1;
        took := extract(epoch FROM clock_timestamp() - begun);
    END LOOP;
    rate := round(rate / took, 1);
END
$$;
