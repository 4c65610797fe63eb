"""The exit codes of every command (architecture, section 6)."""

from __future__ import annotations

from typing import Final

OK: Final = 0
"""Completed, or stopped in order."""
FAILED: Final = 1
"""A task failed, or the role failed by itself."""
USAGE: Final = 2
"""The input or the environment was wrong."""
INTERRUPTED: Final = 130
"""Interrupted before it could end in order."""
