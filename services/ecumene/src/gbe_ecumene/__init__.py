"""Everything of GBE on one host: `gbe up` and `gbe run` with the embedded server."""
