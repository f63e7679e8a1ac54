"""The embedded servers: a Kafka-protocol broker and a ClickHouse engine, each a process of its own."""
