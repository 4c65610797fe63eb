"""The aether Operative: a task is a session of the Aether engine.

Importing this loads nothing: services that only speak the wire contract import `gbe_operative_aether.wire`, and the
entry point names `gbe_operative_aether.operative`.
"""
