"""The template Operative: a task is a Jinja template and its variables.

The Operative is imported when it is asked for: the process that renders is of this package too, and needs none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gbe_operative_template.operative import TemplateOperative as TemplateOperative

__all__ = ["TemplateOperative"]


def __getattr__(name: str) -> object:
    if name == "TemplateOperative":
        from gbe_operative_template.operative import TemplateOperative

        return TemplateOperative
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
