"""Everything of GBE on one host: `gbe run` and `gbe up`."""
