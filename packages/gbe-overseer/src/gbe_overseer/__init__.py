"""The `gbe` command: submit, watch, show and cancel jobs."""
