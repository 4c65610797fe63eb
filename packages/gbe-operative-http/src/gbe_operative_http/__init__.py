"""The http Operative: a task is an HTTP request."""

from gbe_operative_http.operative import HttpOperative as HttpOperative
