-- What is monitored, and what it is compared with.

CREATE TABLE IF NOT EXISTS specs
(
    model LowCardinality(String),
    spec_version UInt32,
    effective_from DateTime64(3, 'UTC'),
    published_at DateTime64(3, 'UTC'),
    reference_hash String,
    reference_rows UInt32,
    spec String CODEC(ZSTD(1)),
    removed Bool
)
ENGINE = ReplacingMergeTree(published_at)
ORDER BY (model, spec_version);

CREATE TABLE IF NOT EXISTS reference_rows
(
    reference_hash String,
    row_number UInt32,
    ts DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    features Map(String, Nullable(Float64)),
    features_text Map(String, String),
    score Nullable(Float64),
    scores Map(String, Float64),
    prediction Nullable(Float64),
    prediction_text String,
    label Nullable(Float64),
    label_text String
)
ENGINE = ReplacingMergeTree
ORDER BY (reference_hash, row_number);

-- Retraining: jobs, their epochs, the versions they made, and who has which role.
CREATE TABLE IF NOT EXISTS jobs
(
    job_id String,
    model LowCardinality(String),
    trigger_alert_id String,
    rule String,
    state LowCardinality(String),
    verdict String,
    reason String,
    attempt UInt32,
    worker String,
    first_window_start DateTime64(3, 'UTC'),
    train_from DateTime64(3, 'UTC'),
    train_to DateTime64(3, 'UTC'),
    gate_from DateTime64(3, 'UTC'),
    gate_to DateTime64(3, 'UTC'),
    num_train_rows UInt64,
    num_gate_rows UInt64,
    data_hash String,
    version String,
    metrics Map(String, Float64),
    device LowCardinality(String),
    manual Bool,
    request String CODEC(ZSTD(1)),
    requested_at DateTime64(3, 'UTC'),
    started_at Nullable(DateTime64(3, 'UTC')),
    finished_at Nullable(DateTime64(3, 'UTC')),
    updated_at DateTime64(3, 'UTC'),
    sequence UInt64
)
ENGINE = ReplacingMergeTree(sequence)
ORDER BY (model, job_id);

CREATE TABLE IF NOT EXISTS epochs
(
    job_id String,
    model LowCardinality(String),
    attempt UInt32,
    epoch UInt32,
    loss Float64,
    validation_loss Float64,
    metric_name LowCardinality(String),
    metric Float64,
    seconds Float64,
    at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(at)
ORDER BY (model, job_id, attempt, epoch);

CREATE TABLE IF NOT EXISTS versions
(
    model LowCardinality(String),
    version String,
    job_id String,
    architecture LowCardinality(String),
    metrics Map(String, Float64),
    data_hash String,
    sha256 String,
    uri String,
    reference_hash String,
    manifest String CODEC(ZSTD(1)),
    card String CODEC(ZSTD(1)),
    created_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(created_at)
ORDER BY (model, version);

-- A copy of the topic `models`, which alone decides: of two maps with one epoch the first in the log wins there.
CREATE TABLE IF NOT EXISTS roles
(
    model LowCardinality(String),
    version String,
    role LowCardinality(String),
    epoch UInt64,
    at DateTime64(3, 'UTC'),
    changed_at DateTime64(3, 'UTC'),
    reason String,
    job_id String
)
ENGINE = ReplacingMergeTree
ORDER BY (model, epoch, role, version);
