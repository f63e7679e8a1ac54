-- How old a model's data is, by topic: from the marks that stage 1 keeps, so it costs nothing as the tables grow.

CREATE VIEW IF NOT EXISTS freshness AS
SELECT
    model,
    topic,
    fromUnixTimestamp64Milli(max(watermark_ms), 'UTC') AS watermark,
    fromUnixTimestamp64Milli(max(last_append_ms), 'UTC') AS last_message_at,
    dateDiff('millisecond', last_message_at, now64(3, 'UTC')) / 1000 AS age_s
FROM
(
    SELECT
        topic,
        m.1 AS model,
        v.1 AS version,
        JSONExtractInt(v.2, 1) AS watermark_ms,
        JSONExtractInt(v.2, 2) AS last_append_ms
    FROM stage1_markers FINAL
    ARRAY JOIN JSONExtractKeysAndValuesRaw(watermarks) AS m
    ARRAY JOIN JSONExtractKeysAndValuesRaw(m.2) AS v
)
GROUP BY model, topic
ORDER BY model, topic;
