"""The template Operative: a task is a Jinja template and its variables."""
