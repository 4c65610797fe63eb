"""What every role process shares: settings, logging, signals, lifecycle and heartbeat."""
