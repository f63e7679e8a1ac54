"""Any CSV or Parquet file as a stream of events."""
