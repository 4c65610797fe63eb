"""The nexus contracts inside one process, for tests and for runs without a server."""
