-- The log. Its first five columns are those of the eventsourcing library's recorder, under the library's names;
-- notification_id is the position, the one order of everything, without gaps.
CREATE TABLE events (
    notification_id    bigint PRIMARY KEY,
    originator_id      uuid   NOT NULL,
    originator_version bigint NOT NULL,
    topic              text   COLLATE "C" NOT NULL,
    state              bytea  NOT NULL,
    merchant_id        uuid   NOT NULL,
    subject_id         uuid,
    UNIQUE (originator_id, originator_version)
);

-- First events, by merchant and name: the directory of a merchant's cards, PINs and terminals.
CREATE INDEX events_first ON events (merchant_id, topic, notification_id) WHERE originator_version = 1;

-- What can be taken once: idempotency keys, order references, card numbers, QR tokens, PINs, store codes.
CREATE TABLE claims (
    merchant_id uuid  NOT NULL,
    kind        text  COLLATE "C" NOT NULL,
    key         text  COLLATE "C" NOT NULL,
    value       bytea NOT NULL,
    PRIMARY KEY (merchant_id, kind, key)
);

-- One key per person, wrapped by the master key. Deleting a row erases the person everywhere.
CREATE TABLE subject_keys (
    subject_id  uuid  PRIMARY KEY,
    merchant_id uuid  NOT NULL,
    wrapped     bytea NOT NULL
);

-- Folded states of long streams: a cache, never a source. `fold` names the code that folded it.
CREATE TABLE snapshots (
    stream_id   uuid   PRIMARY KEY,
    merchant_id uuid   NOT NULL,
    subject_id  uuid,
    version     bigint NOT NULL,
    fold        text   NOT NULL,
    state       bytea  NOT NULL
);
