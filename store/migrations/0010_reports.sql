-- The HTML report of the window in which an alert began, made once the alert has fired.

CREATE TABLE IF NOT EXISTS reports
(
    model LowCardinality(String),
    alert_id String,
    -- The state change in `alerts` that asked for it.
    transition_id String,
    window_start DateTime64(3, 'UTC'),
    window_end DateTime64(3, 'UTC'),
    html String CODEC(ZSTD(3)),
    created_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(created_at)
ORDER BY (model, alert_id)
TTL toDateTime(created_at) + INTERVAL 180 DAY
-- A page has some megabytes, and most of it is the same script.
SETTINGS index_granularity = 16;

CREATE OR REPLACE VIEW open_alerts AS
SELECT
    a.model AS model, a.alert_id AS alert_id, a.transition_id AS transition_id, a.model_version AS model_version,
    a.rule AS rule, a.kind AS kind, a.feature AS feature, a.metric AS metric, a.segment AS segment,
    a.severity AS severity, a.state AS state, a.value AS value, a.threshold AS threshold, a.harm AS harm,
    a.reason AS reason, a.window_start AS window_start, a.window_end AS window_end, a.at AS at,
    a.opened_at AS opened_at,
    toBool((a.model, a.alert_id) IN (SELECT model, alert_id FROM reports)) AS has_report
FROM
(
    SELECT *, min(at) OVER (PARTITION BY model, alert_id) AS opened_at
    FROM alerts FINAL
    ORDER BY indexOf(['pending', 'firing', 'resolved'], state) DESC, at DESC
    LIMIT 1 BY model, alert_id
) AS a
WHERE a.state != 'resolved';
