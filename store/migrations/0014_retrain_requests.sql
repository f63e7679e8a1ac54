-- What asked for a retraining: written by the monitor before the request is sent, so that cooldown and budget are
-- counted from what is stored. Requests by hand are not among them.

CREATE TABLE IF NOT EXISTS retrain_requests
(
    model LowCardinality(String),
    request_id String,
    rule String,
    trigger_alert_id String,
    reason String,
    -- What the request is named by, beside model and rule: an alert's first window, a time of the schedule, or the
    -- event time since which labels were counted.
    first DateTime64(3, 'UTC'),
    -- The event time at which it asked.
    due DateTime64(3, 'UTC'),
    request String CODEC(ZSTD(1)),
    requested_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(requested_at)
ORDER BY (model, request_id);

-- Jobs of earlier releases had asked, too.
INSERT INTO retrain_requests
SELECT
    model, job_id, rule, trigger_alert_id, reason, first_window_start,
    fromUnixTimestamp64Milli(JSONExtractInt(request, 'first_window_end'), 'UTC'), request, requested_at
FROM jobs FINAL
WHERE NOT manual AND job_id NOT IN (SELECT request_id FROM retrain_requests);
