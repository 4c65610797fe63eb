"""`File`: a result that is a file."""

from __future__ import annotations

import mimetypes
import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class File:
    """Return it, and the file's content is the task's data, by reference: kept in the artifact store, at hand for
    dependents on other hosts too, in params whose names end in `_ref`.

    `media_type`: what it is; by default guessed from its name.
    """

    path: str | os.PathLike[str]
    media_type: str | None = None

    @property
    def kind(self) -> str:
        """The media type, given or guessed."""
        return self.media_type or mimetypes.guess_type(os.fspath(self.path))[0] or "application/octet-stream"
