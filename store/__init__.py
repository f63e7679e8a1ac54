"""Everything that knows ClickHouse, the artifact folder, or the control topics of the log. No decisions."""
