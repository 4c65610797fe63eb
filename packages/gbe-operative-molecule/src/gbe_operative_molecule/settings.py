"""What a host's owner can say about molecules, by environment variables."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from gbe_jobs_domain.molecules import MAX_DEPTH
from gbe_operative.plugin_settings import Setting, Settings

DEEPEST = 32
"""Hardly a document holds more: each level takes some of its own nesting."""


class MoleculeSettings(Settings, frozen=True, kw_only=True):
    """For the Operative of one process."""

    max_depth: Annotated[
        int, Meta(ge=1, le=DEEPEST), Setting("Molecules within molecules", env="GBE_MOLECULE_MAX_DEPTH")
    ] = MAX_DEPTH
    local_slots: Annotated[
        int,
        Meta(ge=1, le=1024),
        Setting("Steps of one molecule with mode: local at once", env="GBE_MOLECULE_LOCAL_SLOTS"),
    ] = 4
