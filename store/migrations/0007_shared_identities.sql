-- An identity that counted as output and as input stands in one row, and is hashed without its version.
-- State of the former format is not read any more: stage 1 counts again from the beginning of the log.

DROP TABLE IF EXISTS identities;

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
    -- Of a version: they counted as inputs too. Those of version '' are inputs alone.
    with_inputs Bool,
    hashes Array(UInt64) CODEC(NONE),
    -- How far the number of each is from the one before; empty where they are consecutive.
    gaps Array(UInt32) CODEC(ZSTD(1))
)
ENGINE = MergeTree
ORDER BY (job, topic, topic_id, partition, model, model_version, window_start);
