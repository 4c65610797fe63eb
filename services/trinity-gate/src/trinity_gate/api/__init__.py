"""The HTTP API: routes by resource, each a thin layer over `trinity_gate.gate.Gate`."""
