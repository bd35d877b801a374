-- What users may keep; of the row for everybody the name is empty.
CREATE TABLE vss.quotas (
    everybody boolean NOT NULL,
    user_name text COLLATE "C" NOT NULL,
    bytes bigint,
    keys bigint,
    stores bigint,
    PRIMARY KEY (everybody, user_name)
);
