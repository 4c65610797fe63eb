"""The commands of `gbe`, one module per group. They import what is heavy when they run, so that `--help` is fast."""
