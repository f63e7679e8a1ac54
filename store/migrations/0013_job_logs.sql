-- What a job used, and what its process printed.

ALTER TABLE jobs ADD COLUMN IF NOT EXISTS cpu_seconds Float64;
ALTER TABLE jobs ADD COLUMN IF NOT EXISTS gpu_seconds Float64;
ALTER TABLE jobs ADD COLUMN IF NOT EXISTS peak_memory_bytes UInt64;
ALTER TABLE jobs ADD COLUMN IF NOT EXISTS peak_gpu_memory_bytes UInt64;

CREATE TABLE IF NOT EXISTS job_logs
(
    job_id String,
    attempt UInt32,
    line UInt32,
    at DateTime64(3, 'UTC'),
    text String CODEC(ZSTD(3))
)
ENGINE = ReplacingMergeTree
ORDER BY (job_id, attempt, line)
TTL toDateTime(at) + INTERVAL 90 DAY;
