"""The Aether engine: the CMP-0 tick loop with its five pillars, exact and fast."""
