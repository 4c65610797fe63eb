"""Tool plumbing: starts commands, feeds and captures them, and ends them with everything they started."""
