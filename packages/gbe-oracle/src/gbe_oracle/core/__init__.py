"""The pure core of the Oracle: (state, event) → (state, effects), without clock, loop or transport."""
