-- Drift of the last tested window of every model and segment: of each scale, since windows are tested alone and merged.

CREATE OR REPLACE VIEW drift_now AS
SELECT
    model, model_version, segment, feature, metric, value, threshold, p_value, alpha, status, scale,
    window_start, window_end, num_rows, num_sampled, revision, computed_at
FROM measurements_now
WHERE kind = 'drift'
ORDER BY window_end DESC
LIMIT 1 BY model, model_version, segment, feature, metric, scale;
