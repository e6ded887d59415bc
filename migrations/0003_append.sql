-- Appends as 0002 does, for the same promises, with one look at the end of each stream instead of two: a guard now
-- carries the SHA-256 of the event that a command builds upon, where it builds upon one. 0002 looked that up by itself.
--
-- Appends a batch of commands, each whole or not at all, and says which could not be.
--
-- One appender at a time (the advisory lock is held until the commit is durable), so that positions become visible
-- in order and a reader that follows them never skips one. Under that lock, what is checked here still holds when it
-- is written. A command is refused when a guard of its own has moved or a claim of its own is taken; the others are
-- written. A guard holds while its stream ends at the very version that was read: a later one means that somebody
-- wrote, a missing one that the database lost its end (a standby that lagged, a restore) under a server that knew it.
-- Where a guard gives the SHA-256 of the event at that end, it must be that very event: another server may have
-- written another in the place of a lost one.
-- Guards are passed once per batch and pointed at, as the commands of a batch mostly rest on the same few streams.
--
-- The planner settings keep every check an index look-up, whatever the statistics of a young table say.
DROP FUNCTION ledger_append;
CREATE FUNCTION ledger_append(
    event_command int[], event_stream uuid[], event_version bigint[], event_topic text[], event_state bytea[],
    event_merchant uuid[], event_subject uuid[],
    guard_stream uuid[], guard_version bigint[], guard_previous bytea[], guarded_command int[], guarded_by int[],
    claim_command int[], claim_merchant uuid[], claim_kind text[], claim_key text[], claim_value bytea[],
    release_command int[], release_merchant uuid[], release_kind text[], release_key text[],
    subject_command int[], subject_id_ uuid[], subject_merchant uuid[], subject_wrapped bytea[],
    OUT base bigint, OUT stale int[], OUT taken int[]
)
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
DECLARE
    moved    int[];
    refused  int[];
    left_out bigint[] := '{}';
BEGIN
    PERFORM pg_advisory_xact_lock(7310868725460103213);

    SELECT array_agg(g.i) INTO moved
    FROM unnest(guard_stream, guard_version, guard_previous) WITH ORDINALITY AS g (stream, version, previous, i)
    LEFT JOIN LATERAL (
        SELECT e.originator_version AS version, e.state FROM events e WHERE e.originator_id = g.stream
        ORDER BY e.originator_version DESC LIMIT 1
    ) AS stream_end ON true
    WHERE stream_end.version <> g.version OR (stream_end.version IS NULL AND g.version > 0)
        OR (g.previous IS NOT NULL AND sha256(stream_end.state) IS DISTINCT FROM g.previous);
    IF moved IS NOT NULL THEN
        SELECT array_agg(DISTINCT g.command) INTO stale
        FROM unnest(guarded_command, guarded_by) AS g (command, guard)
        WHERE g.guard = ANY (moved);
    END IF;

    SELECT array_agg(k.i) INTO taken
    FROM unnest(claim_merchant, claim_kind, claim_key) WITH ORDINALITY AS k (merchant, kind, key, i)
    WHERE EXISTS (
        SELECT FROM claims c WHERE c.merchant_id = k.merchant AND c.kind = k.kind AND c.key = k.key
    );
    refused := coalesce(stale, '{}');
    IF taken IS NOT NULL THEN
        refused := refused || ARRAY(SELECT claim_command[i] FROM unnest(taken) AS i);
    END IF;

    IF refused <> '{}' THEN
        left_out := ARRAY(
            SELECT e.i FROM unnest(event_command) WITH ORDINALITY AS e (command, i)
            WHERE e.command = ANY (refused) ORDER BY e.i
        );
    END IF;

    SELECT coalesce(max(notification_id), 0) INTO base FROM events;

    -- width_bucket tells how many of those left out stand before an event, so that positions have no gaps.
    INSERT INTO events (
        notification_id, originator_id, originator_version, topic, state, merchant_id, subject_id
    )
    SELECT base + e.i - width_bucket(e.i, left_out), e.stream, e.version, e.topic, e.state, e.merchant, e.subject
    FROM unnest(event_command, event_stream, event_version, event_topic, event_state, event_merchant, event_subject)
        WITH ORDINALITY AS e (command, stream, version, topic, state, merchant, subject, i)
    WHERE e.command <> ALL (refused);

    IF release_command <> '{}' THEN
        DELETE FROM claims c
        USING unnest(release_command, release_merchant, release_kind, release_key) AS r (command, merchant, kind, key)
        WHERE c.merchant_id = r.merchant AND c.kind = r.kind AND c.key = r.key AND r.command <> ALL (refused);
    END IF;

    IF claim_command <> '{}' THEN
        INSERT INTO claims (merchant_id, kind, key, value)
        SELECT k.merchant, k.kind, k.key, k.value
        FROM unnest(claim_command, claim_merchant, claim_kind, claim_key, claim_value)
            AS k (command, merchant, kind, key, value)
        WHERE k.command <> ALL (refused);
    END IF;

    IF subject_command <> '{}' THEN
        INSERT INTO subject_keys (subject_id, merchant_id, wrapped)
        SELECT s.subject, s.merchant, s.wrapped
        FROM unnest(subject_command, subject_id_, subject_merchant, subject_wrapped)
            AS s (command, subject, merchant, wrapped)
        WHERE s.command <> ALL (refused);
    END IF;

    NOTIFY events;
END;
$$;
