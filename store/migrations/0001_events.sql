-- Events as they came, once each.
--
-- Every place is (topic, topic_id, partition, offset, row). Of equal records and predictions the first in the log
-- counts: `precedence` is the bitwise complement of (partition, offset, row), 32 + 64 + 32 bits, so that the smallest
-- place is the largest version. Of labels the latest ts counts, ties to the largest offset, then row: 44 + 52 + 32 bits.
-- No PARTITION BY: a block into one partition is never stored in part, and the key makes reading a window a range read.
-- TTL on ingestion, never on event time: a replay of 2018 must stay.

CREATE TABLE IF NOT EXISTS records
(
    model LowCardinality(String),
    record_id String,
    ts DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    model_version LowCardinality(String),
    segment Map(String, String),
    trace_id String,
    features Map(String, Nullable(Float64)),
    features_text Map(String, String),
    extra String,
    topic LowCardinality(String),
    topic_id UUID,
    partition UInt32,
    offset UInt64 CODEC(Delta, ZSTD(1)),
    row UInt32,
    ingested_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(DoubleDelta, ZSTD(1)),
    precedence UInt128 MATERIALIZED bitNot(bitOr(bitOr(
        bitShiftLeft(toUInt128(partition), 96), bitShiftLeft(toUInt128(offset), 32)), toUInt128(row)))
)
ENGINE = ReplacingMergeTree(precedence)
ORDER BY (model, toStartOfHour(ts), record_id)
TTL toDateTime(ingested_at) + INTERVAL 2 YEAR;

CREATE TABLE IF NOT EXISTS predictions
(
    model LowCardinality(String),
    record_id String,
    ts DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    model_version LowCardinality(String),
    prediction Nullable(Float64),
    prediction_text String,
    score Nullable(Float64),
    scores Map(String, Float64),
    has_features Bool,
    segment Map(String, String),
    trace_id String,
    features Map(String, Nullable(Float64)),
    features_text Map(String, String),
    extra String,
    topic LowCardinality(String),
    topic_id UUID,
    partition UInt32,
    offset UInt64 CODEC(Delta, ZSTD(1)),
    row UInt32,
    ingested_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(DoubleDelta, ZSTD(1)),
    precedence UInt128 MATERIALIZED bitNot(bitOr(bitOr(
        bitShiftLeft(toUInt128(partition), 96), bitShiftLeft(toUInt128(offset), 32)), toUInt128(row)))
)
ENGINE = ReplacingMergeTree(precedence)
ORDER BY (model, toStartOfHour(ts), model_version, record_id)
TTL toDateTime(ingested_at) + INTERVAL 2 YEAR;

CREATE TABLE IF NOT EXISTS labels
(
    model LowCardinality(String),
    record_id String,
    ts DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    model_version LowCardinality(String),
    label Nullable(Float64),
    label_text String,
    segment Map(String, String),
    trace_id String,
    extra String,
    topic LowCardinality(String),
    topic_id UUID,
    partition UInt32,
    offset UInt64 CODEC(Delta, ZSTD(1)),
    row UInt32,
    ingested_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(DoubleDelta, ZSTD(1)),
    recency UInt128 MATERIALIZED bitOr(bitOr(
        bitShiftLeft(toUInt128(toUnixTimestamp64Milli(ts)), 84), bitShiftLeft(toUInt128(offset), 32)), toUInt128(row))
)
ENGINE = ReplacingMergeTree(recency)
ORDER BY (model, record_id)
TTL toDateTime(ingested_at) + INTERVAL 2 YEAR;

-- What was refused, with its bytes. They may hold personal data: seven days, and not for the read-only role.
CREATE TABLE IF NOT EXISTS dead_letters
(
    model LowCardinality(String),
    reason LowCardinality(String),
    message String,
    raw String,
    raw_encoding LowCardinality(String) DEFAULT 'utf-8',
    path String,
    stage LowCardinality(String),
    at DateTime64(3, 'UTC'),
    topic LowCardinality(String),
    topic_id UUID,
    partition UInt32,
    offset UInt64,
    row UInt32,
    inserted_at DateTime DEFAULT now()
)
ENGINE = ReplacingMergeTree
ORDER BY (topic, topic_id, partition, offset, row, stage, reason)
TTL inserted_at + INTERVAL 7 DAY;
