"""The language of the system: events, model spec, topics, encodings, errors, clock.

Knows no Kafka and no ClickHouse.
"""
