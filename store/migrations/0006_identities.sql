-- Identities are remembered with the numbers of their events, so that how long they count follows from the log alone.
-- State of the former format is not read any more: stage 1 counts again from the beginning of the log.

ALTER TABLE stage1_markers ADD COLUMN IF NOT EXISTS next_ordinal UInt64 AFTER next_offset;

DROP TABLE IF EXISTS seen_ids;

-- Stage 1: the memory of identities, append-only, each hash with the number of the event that brought it.
CREATE TABLE IF NOT EXISTS identities
(
    job LowCardinality(String),
    topic LowCardinality(String),
    topic_id UUID,
    partition UInt32,
    model LowCardinality(String),
    model_version LowCardinality(String),
    window_start DateTime64(3, 'UTC'),
    expires_at DateTime64(3, 'UTC'),
    first_ordinal UInt64,
    last_ordinal UInt64,
    hashes Array(UInt64) CODEC(NONE),
    -- How far the number of each is from the one before; empty where they are consecutive.
    gaps Array(UInt32) CODEC(ZSTD(1))
)
ENGINE = MergeTree
ORDER BY (job, topic, topic_id, partition, model, model_version, window_start);
