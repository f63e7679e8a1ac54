"""What reads Kafka and touches the outside: the ClickHouse sink and the notifier."""
