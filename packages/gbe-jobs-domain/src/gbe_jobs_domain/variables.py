"""`${{ vars.x }}` in params: substituted once, by the client, before anything is submitted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from gbe_jobs_domain.errors import quoted
from gbe_jobs_domain.suggestions import Suggester

VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,127}\Z")
TEMPLATE: Final = "template"
"""Tasks of this type get all variables of the job, in the param `VARIABLES`."""
VARIABLES: Final = "vars"
"""A JSON object: name to value."""
_REFERENCE: Final = re.compile(r"\s*vars\.([A-Za-z_][A-Za-z0-9_-]{0,127})\s*\Z")
_OPEN: Final = "${{"
_CLOSE: Final = "}}"


class VariableError(ValueError):
    """A reference that can't be substituted."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def refers(text: str) -> bool:
    """Whether there is anything to substitute, or to complain about."""
    return _OPEN in text


def substitute(text: str, variables: Mapping[str, str], suggester: Suggester) -> str:
    """`text` with its references replaced by values, which are not looked into again.

    Raises `VariableError` for the first one that is unknown or isn't a `${{ vars.name }}`.
    """
    parts: list[str] = []
    at = 0
    while (start := text.find(_OPEN, at)) >= 0:
        end = text.find(_CLOSE, start + len(_OPEN))
        if end < 0:
            raise VariableError("'${{' without '}}'", "only ${{ vars.name }} is substituted")
        reference = text[start + len(_OPEN) : end]
        match = _REFERENCE.match(reference)
        if not match:
            shown = quoted(_OPEN + reference + _CLOSE)
            raise VariableError(f"{shown} can't be substituted", "only ${{ vars.name }} is allowed")
        name = match[1]
        if name not in variables:
            hint = suggester.hint(name, variables) or "declare it under vars"
            raise VariableError(f"unknown variable '{name}'", hint)
        parts += (text[at:start], variables[name])
        at = end + len(_CLOSE)
    parts.append(text[at:])
    return "".join(parts)
