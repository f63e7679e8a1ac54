-- The questions that people ask most, answered from the tables above.

-- The latest revision of every measurement: what we know now.
CREATE VIEW IF NOT EXISTS measurements_now AS
SELECT
    m.model AS model,
    m.model_version AS model_version,
    m.window_start AS window_start,
    m.window_end AS window_end,
    m.segment AS segment,
    m.feature AS feature,
    m.kind AS kind,
    m.metric AS metric,
    -- argMax passes over NULL: tuples keep it.
    tupleElement(argMax(tuple(m.value), (m.spec_version, m.covered, m.revision)), 1) AS value,
    tupleElement(argMax(tuple(m.lower), (m.spec_version, m.covered, m.revision)), 1) AS lower,
    tupleElement(argMax(tuple(m.upper), (m.spec_version, m.covered, m.revision)), 1) AS upper,
    tupleElement(argMax(tuple(m.p_value), (m.spec_version, m.covered, m.revision)), 1) AS p_value,
    tupleElement(argMax(tuple(m.alpha), (m.spec_version, m.covered, m.revision)), 1) AS alpha,
    tupleElement(argMax(tuple(m.threshold), (m.spec_version, m.covered, m.revision)), 1) AS threshold,
    argMax(m.status, (m.spec_version, m.covered, m.revision)) AS status,
    argMax(m.scale, (m.spec_version, m.covered, m.revision)) AS scale,
    argMax(m.source, (m.spec_version, m.covered, m.revision)) AS source,
    argMax(m.num_rows, (m.spec_version, m.covered, m.revision)) AS num_rows,
    argMax(m.num_sampled, (m.spec_version, m.covered, m.revision)) AS num_sampled,
    tupleElement(argMax(tuple(m.label_coverage), (m.spec_version, m.covered, m.revision)), 1) AS label_coverage,
    argMax(m.covered, (m.spec_version, m.covered, m.revision)) AS covered,
    argMax(m.revision, (m.spec_version, m.covered, m.revision)) AS revision,
    max(m.spec_version) AS spec_version,
    argMax(m.computed_at, (m.spec_version, m.covered, m.revision)) AS computed_at
FROM measurements AS m FINAL
GROUP BY model, model_version, window_start, window_end, segment, feature, kind, metric;

-- Drift of the last measured window of every model and segment.
CREATE VIEW IF NOT EXISTS drift_now AS
SELECT
    model, model_version, segment, feature, metric, value, threshold, p_value, alpha, status,
    window_start, window_end, num_rows, num_sampled, revision, computed_at
FROM measurements_now
WHERE kind = 'drift'
ORDER BY window_end DESC, scale ASC
LIMIT 1 BY model, model_version, segment, feature, metric;

-- Alerts whose last state is not resolved. States only move on, so the furthest one is the last.
CREATE VIEW IF NOT EXISTS open_alerts AS
SELECT
    a.model AS model, a.alert_id AS alert_id, a.transition_id AS transition_id, a.model_version AS model_version,
    a.rule AS rule, a.kind AS kind, a.feature AS feature, a.metric AS metric, a.segment AS segment,
    a.severity AS severity, a.state AS state, a.value AS value, a.threshold AS threshold, a.harm AS harm,
    a.reason AS reason, a.window_start AS window_start, a.window_end AS window_end, a.at AS at,
    a.opened_at AS opened_at
FROM
(
    SELECT *, min(at) OVER (PARTITION BY model, alert_id) AS opened_at
    FROM alerts FINAL
    ORDER BY indexOf(['pending', 'firing', 'resolved'], state) DESC, at DESC
    LIMIT 1 BY model, alert_id
) AS a
WHERE a.state != 'resolved';

-- Realized and estimated performance side by side, per window, version and segment.
CREATE VIEW IF NOT EXISTS performance_by_segment AS
SELECT
    m.model AS model, m.model_version AS model_version, m.segment AS segment, m.metric AS metric,
    m.window_start AS window_start, m.window_end AS window_end,
    anyIf(m.value, m.kind = 'performance') AS realized,
    anyIf(m.status, m.kind = 'performance') AS realized_status,
    anyIf(m.value, m.kind = 'estimate') AS estimated,
    anyIf(m.status, m.kind = 'estimate') AS estimated_status,
    any(m.lower) AS lower,
    any(m.upper) AS upper,
    anyIf(m.label_coverage, m.kind = 'performance') AS label_coverage,
    max(m.num_rows) AS num_rows
FROM measurements_now AS m
WHERE m.kind IN ('performance', 'estimate') AND m.feature = ''
GROUP BY model, model_version, segment, metric, window_start, window_end;

-- One row per model: its last measured window, the version that stands for it, and what is open.
CREATE VIEW IF NOT EXISTS model_health AS
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
    multiIf(o.worst_severity IN ('high', 'critical'), 'harmed', o.num_open_alerts > 0, 'noted',
            p.num_rows = 0 AND d.drift_window_end <= toDateTime64(0, 3, 'UTC'), 'no data', 'ok') AS health
FROM current_specs AS s
LEFT JOIN champions AS c ON c.model = s.model
LEFT JOIN performance AS p ON p.model = s.model
LEFT JOIN drift AS d ON d.model = s.model
LEFT JOIN open AS o ON o.model = s.model;

-- Every retraining with what it led to.
CREATE VIEW IF NOT EXISTS retrain_history AS
SELECT
    j.model AS model, j.job_id AS job_id, j.state AS state, j.verdict AS verdict, j.reason AS reason,
    j.trigger_alert_id AS trigger_alert_id, j.rule AS rule, j.attempt AS attempt,
    j.train_from AS train_from, j.train_to AS train_to, j.gate_from AS gate_from, j.gate_to AS gate_to,
    j.num_train_rows AS num_train_rows, j.num_gate_rows AS num_gate_rows, j.data_hash AS data_hash,
    j.version AS version, v.architecture AS architecture, j.metrics AS metrics, j.device AS device,
    e.num_epochs AS num_epochs,
    j.requested_at AS requested_at, j.started_at AS started_at, j.finished_at AS finished_at
FROM jobs AS j FINAL
LEFT JOIN (SELECT * FROM versions FINAL) AS v ON v.model = j.model AND v.job_id = j.job_id
LEFT JOIN
(
    SELECT e.model AS model, e.job_id AS job_id, e.attempt AS attempt, count() AS num_epochs
    FROM epochs AS e FINAL
    GROUP BY model, job_id, attempt
) AS e ON e.model = j.model AND e.job_id = j.job_id AND e.attempt = j.attempt;

-- From the alert over the job and its data to the version and the role it got. An event of `records`, `predictions`
-- or `labels` led to a version when its ts lies in [train_from, train_to).
CREATE VIEW IF NOT EXISTS lineage AS
SELECT
    j.model AS model,
    j.trigger_alert_id AS alert_id,
    a.at AS alert_at,
    a.reason AS alert_reason,
    a.window_start AS alert_window_start,
    a.window_end AS alert_window_end,
    j.job_id AS job_id,
    j.state AS job_state,
    j.verdict AS verdict,
    j.train_from AS train_from,
    j.train_to AS train_to,
    j.gate_from AS gate_from,
    j.gate_to AS gate_to,
    j.num_train_rows AS num_train_rows,
    j.data_hash AS data_hash,
    j.version AS version,
    v.architecture AS architecture,
    v.sha256 AS sha256,
    v.uri AS uri,
    r.role AS role,
    r.epoch AS role_epoch,
    r.at AS role_at,
    r.changed_at AS role_changed_at,
    r.reason AS role_reason
FROM jobs AS j FINAL
LEFT JOIN
(
    SELECT * FROM alerts FINAL
    ORDER BY state = 'firing' DESC, at ASC
    LIMIT 1 BY model, alert_id
) AS a ON a.model = j.model AND a.alert_id = j.trigger_alert_id
LEFT JOIN (SELECT * FROM versions FINAL) AS v ON v.model = j.model AND v.version = j.version
LEFT JOIN
(
    SELECT * FROM roles FINAL
    ORDER BY epoch ASC
    LIMIT 1 BY model, version, role
) AS r ON r.model = j.model AND r.version = j.version AND r.version != '';
