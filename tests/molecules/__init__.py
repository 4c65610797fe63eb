"""Molecules, with everything that takes part: an Oracle, Operatives, a bus."""
