"""A single-node broker that speaks the Kafka protocol, for one machine: development, demos, tests, small installations.

What it keeps, it keeps as Apache Kafka would; what it does not support, it refuses with Kafka's own error codes. It is
durable against a killed process (everything acknowledged is in the page cache), not against a power cut: it never
calls fsync. It never grows features of its own, and nothing outside this package may import from it.

Reading order: `wire` (bytes to dictionaries), `messages/*.table` (the fields of every request), `batches`, `segment`,
`log` (a partition), `topics`, `groups`, `transactions`, `handlers`, `server`.
"""
