"""The aether Operative: a task is a session of the Aether engine."""
