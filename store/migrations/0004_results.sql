-- What was measured, what was judged, who was told.

-- Of two rows with one key the one computed from more of the log is right, whoever wrote it.
CREATE TABLE IF NOT EXISTS measurements
(
    model LowCardinality(String),
    model_version LowCardinality(String),
    window_start DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    window_end DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    segment String,
    feature LowCardinality(String),
    kind LowCardinality(String),
    metric LowCardinality(String),
    value Nullable(Float64),
    lower Nullable(Float64),
    upper Nullable(Float64),
    p_value Nullable(Float64),
    alpha Nullable(Float64),
    threshold Nullable(Float64),
    status LowCardinality(String),
    scale UInt16 DEFAULT 1,
    source LowCardinality(String),
    num_rows UInt64,
    num_sampled UInt64,
    label_coverage Nullable(Float64),
    covered UInt64,
    revision UInt32,
    spec_version UInt32,
    computed_at DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(covered)
ORDER BY (model, toStartOfHour(window_start), model_version, segment, feature, kind, metric,
          window_start, window_end, spec_version, revision)
TTL toDateTime(computed_at) + INTERVAL 5 YEAR;

CREATE TABLE IF NOT EXISTS detections
(
    model LowCardinality(String),
    model_version LowCardinality(String),
    detector LowCardinality(String),
    on LowCardinality(String),
    row_number UInt64,
    record_id String,
    ts DateTime64(3, 'UTC'),
    window_start DateTime64(3, 'UTC'),
    computed_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree
ORDER BY (model, model_version, detector, on, row_number)
TTL toDateTime(computed_at) + INTERVAL 5 YEAR;

CREATE TABLE IF NOT EXISTS alerts
(
    alert_id String,
    transition_id String,
    model LowCardinality(String),
    model_version LowCardinality(String),
    rule LowCardinality(String),
    kind LowCardinality(String),
    feature LowCardinality(String),
    metric LowCardinality(String),
    segment String,
    severity LowCardinality(String),
    state LowCardinality(String),
    value Nullable(Float64),
    threshold Nullable(Float64),
    harm Nullable(Float64),
    reason String,
    window_start DateTime64(3, 'UTC'),
    window_end DateTime64(3, 'UTC'),
    at DateTime64(3, 'UTC'),
    revision UInt32,
    evidence String
)
ENGINE = ReplacingMergeTree
ORDER BY (model, alert_id, transition_id);

-- Everything measured up to `measured_at` is judged: its alerts and requests are stored and sent.
CREATE TABLE IF NOT EXISTS judgements
(
    model LowCardinality(String),
    measured_at DateTime64(3, 'UTC'),
    judged_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(measured_at)
ORDER BY model;

CREATE TABLE IF NOT EXISTS subscriptions
(
    name String,
    model LowCardinality(String),
    severity_min LowCardinality(String),
    url String,
    secret String,
    disabled Bool,
    removed Bool,
    reason String,
    created_at DateTime64(3, 'UTC'),
    updated_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(updated_at)
ORDER BY name;

CREATE TABLE IF NOT EXISTS deliveries
(
    subscription String,
    model LowCardinality(String),
    alert_id String,
    transition_id String,
    webhook_id String,
    status_code UInt16,
    outcome LowCardinality(String),
    error String,
    attempt UInt32,
    duration_ms UInt32,
    at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (subscription, webhook_id, attempt, at)
TTL toDateTime(at) + INTERVAL 1 YEAR;
