-- State of the workers, stamped with places in the log. Deleted by the workers when its windows are past retention,
-- never by TTL.

-- The sink: everything below next_offset of this partition is stored.
CREATE TABLE IF NOT EXISTS sink_markers
(
    topic LowCardinality(String),
    topic_id UUID,
    partition UInt32,
    next_offset UInt64,
    at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(next_offset)
ORDER BY (topic, topic_id, partition);

-- Stage 1: what a partition's events below `stamp` say of one window.
CREATE TABLE IF NOT EXISTS summaries
(
    job LowCardinality(String),
    topic LowCardinality(String),
    topic_id UUID,
    partition UInt32,
    model LowCardinality(String),
    model_version LowCardinality(String),
    spec_version UInt32,
    segment String,
    window_start DateTime64(3, 'UTC'),
    window_end DateTime64(3, 'UTC'),
    stamp UInt64,
    num_rows UInt64,
    num_duplicates UInt64,
    num_late UInt64,
    state String CODEC(ZSTD(1)),
    format UInt16
)
ENGINE = ReplacingMergeTree(stamp)
ORDER BY (job, model, window_start, topic, topic_id, partition, model_version, spec_version, segment);

-- Stage 1: every window of this partition has a row that is right below next_offset.
CREATE TABLE IF NOT EXISTS stage1_markers
(
    job LowCardinality(String),
    topic LowCardinality(String),
    topic_id UUID,
    partition UInt32,
    next_offset UInt64,
    watermarks String,
    at_end_at DateTime64(3, 'UTC'),
    format UInt16,
    -- Of two markers at one offset the one that was at the end last says more.
    precedence UInt128 MATERIALIZED bitOr(
        bitShiftLeft(toUInt128(next_offset), 64), toUInt128(greatest(toUnixTimestamp64Milli(at_end_at), 0)))
)
ENGINE = ReplacingMergeTree(precedence)
ORDER BY (job, topic, topic_id, partition);

-- Stage 1: the memory of identities, append-only, each hash with the offset that brought it first.
CREATE TABLE IF NOT EXISTS seen_ids
(
    job LowCardinality(String),
    topic LowCardinality(String),
    topic_id UUID,
    partition UInt32,
    model LowCardinality(String),
    model_version LowCardinality(String),
    window_start DateTime64(3, 'UTC'),
    expires_at DateTime64(3, 'UTC'),
    first_offset UInt64,
    last_offset UInt64,
    hashes Array(UInt64) CODEC(NONE),
    offsets Array(UInt64) CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
ORDER BY (job, topic, topic_id, partition, model, model_version, window_start);

-- State of an online detector after a window: what the next window's feed begins with.
CREATE TABLE IF NOT EXISTS detector_states
(
    model LowCardinality(String),
    model_version LowCardinality(String),
    detector LowCardinality(String),
    on LowCardinality(String),
    window_start DateTime64(3, 'UTC'),
    state String CODEC(ZSTD(1)),
    num_updates UInt64,
    updated_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(updated_at)
ORDER BY (model, model_version, detector, on, window_start);
