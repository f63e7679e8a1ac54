-- What a challenger was tested on: one row per gate of each judged version, in the words that its card has.

CREATE TABLE IF NOT EXISTS gates
(
    model LowCardinality(String),
    version String,
    job_id String,
    name LowCardinality(String),
    segment String,
    passed Bool,
    value Nullable(Float64),
    limit Nullable(Float64),
    words String,
    at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(at)
ORDER BY (model, job_id, name, segment);
