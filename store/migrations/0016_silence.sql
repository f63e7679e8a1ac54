-- As before, but a model of which nothing comes is neither harmed nor ok: its last windows say nothing of now. Labels that
-- stay away are noted, since estimates go on without them.
CREATE OR REPLACE VIEW model_health AS
WITH
    champions AS
    (
        SELECT r.model AS model, argMax(r.version, r.epoch) AS champion, max(r.epoch) AS role_epoch
        FROM roles AS r FINAL
        WHERE r.role = 'champion'
        GROUP BY model
    ),
    current_specs AS
    (
        SELECT s.model AS model, argMax(s.spec, s.spec_version) AS spec, max(s.spec_version) AS spec_version
        FROM specs AS s FINAL
        WHERE NOT s.removed
        GROUP BY model
    ),
    performance AS
    (
        SELECT p.*
        FROM performance_by_segment AS p
        LEFT JOIN champions AS c ON c.model = p.model
        INNER JOIN current_specs AS s ON s.model = p.model
        WHERE p.segment = '' AND p.metric = JSONExtractString(s.spec, 'performance', 'metrics', 1)
        ORDER BY p.window_end DESC, p.model_version = c.champion DESC, p.num_rows DESC
        LIMIT 1 BY p.model
    ),
    drift AS
    (
        SELECT
            d.model AS model,
            max(d.window_end) AS drift_window_end,
            -- Uncalibrated drift has no status of its own: its distance (or its p-value) says it.
            uniqExactIf(
                d.feature,
                (d.status = 'alert' OR (d.status = 'uncalibrated' AND ifNull(d.p_value <= d.alpha, d.value >= d.threshold)))
                AND d.feature NOT IN ('', 'score', 'prediction')
            ) AS num_drifted_features
        FROM drift_now AS d
        WHERE d.segment = ''
        GROUP BY model
    ),
    open AS
    (
        SELECT
            o.model AS model,
            count() AS num_open_alerts,
            countIf(o.severity IN ('high', 'critical') AND o.rule NOT IN ('drift', 'freshness')) AS num_harmful,
            countIf(o.rule = 'freshness' AND o.segment != 'labels') AS num_silent,
            countIf(o.severity IN ('high', 'critical') AND o.rule = 'drift') AS num_raised,
            argMax(o.severity, indexOf(['info', 'low', 'high', 'critical'], o.severity)) AS worst_severity,
            argMax(o.reason, indexOf(['info', 'low', 'high', 'critical'], o.severity)) AS alert_reason
        FROM open_alerts AS o
        GROUP BY model
    )
SELECT
    s.model AS model,
    s.spec_version AS spec_version,
    c.champion AS champion,
    p.model_version AS model_version,
    p.window_start AS window_start,
    p.window_end AS window_end,
    p.metric AS metric,
    p.realized AS realized,
    p.realized_status AS realized_status,
    p.estimated AS estimated,
    p.estimated_status AS estimated_status,
    p.lower AS lower,
    p.upper AS upper,
    p.label_coverage AS label_coverage,
    p.num_rows AS num_rows,
    d.num_drifted_features AS num_drifted_features,
    d.drift_window_end AS drift_window_end,
    o.num_open_alerts AS num_open_alerts,
    o.worst_severity AS worst_severity,
    o.alert_reason AS alert_reason,
    multiIf(o.num_harmful > 0, 'harmed',
            o.num_raised > 0 AND 'alert' IN (p.realized_status, p.estimated_status), 'harmed',
            o.num_silent > 0, 'no data',
            o.num_open_alerts > 0, 'noted',
            p.num_rows = 0 AND d.drift_window_end <= toDateTime64(0, 3, 'UTC'), 'no data', 'ok') AS health
FROM current_specs AS s
LEFT JOIN champions AS c ON c.model = s.model
LEFT JOIN performance AS p ON p.model = s.model
LEFT JOIN drift AS d ON d.model = s.model
LEFT JOIN open AS o ON o.model = s.model;
