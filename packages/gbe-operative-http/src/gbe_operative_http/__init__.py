"""The http Operative: a task is an HTTP request."""
