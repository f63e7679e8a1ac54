-- How far a metric could be off for having been measured on few rows: its standard error and interval of 95 %.
ALTER TABLE measurements ADD COLUMN IF NOT EXISTS sampling_error Nullable(Float64);
ALTER TABLE measurements ADD COLUMN IF NOT EXISTS interval_lower Nullable(Float64);
ALTER TABLE measurements ADD COLUMN IF NOT EXISTS interval_upper Nullable(Float64);

-- The latest revision of every measurement: what we know now.
CREATE OR REPLACE VIEW measurements_now AS
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
    argMax(m.computed_at, (m.spec_version, m.covered, m.revision)) AS computed_at,
    tupleElement(argMax(tuple(m.sampling_error), (m.spec_version, m.covered, m.revision)), 1) AS sampling_error,
    tupleElement(argMax(tuple(m.interval_lower), (m.spec_version, m.covered, m.revision)), 1) AS interval_lower,
    tupleElement(argMax(tuple(m.interval_upper), (m.spec_version, m.covered, m.revision)), 1) AS interval_upper
FROM measurements AS m FINAL
GROUP BY model, model_version, window_start, window_end, segment, feature, kind, metric;
