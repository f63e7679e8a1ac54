"""ClickHouse's HTTP interface over chDB, as a process of its own on one data folder.

Run it with `python -m driftloop.embedded.clickhouse --data DIR --port N`. Standard ClickHouse clients work
unchanged for what a single node supports. It owns nothing of driftloop's: no tables, no migrations.

chDB must never be forked after it has started: the child hangs. This server therefore uses threads only, and
whoever embeds its modules must do the same.
"""
