"""Journal records as far as clean-up reads them."""

from __future__ import annotations

from msgspec import Struct

from gbe_jobs_domain.records import FinalRecord, JobRecord
from gbe_nexus import JournalEntry, PayloadDecoder, UndecodableMessage, UnknownVersion


class RecordHead(Struct):
    """How a job begins and how it is decided."""

    created: JobRecord | None = None
    final: FinalRecord | None = None


_record = PayloadDecoder(RecordHead)


def head_of(entry: JournalEntry) -> RecordHead | None:
    """The record's; None where it can't be read here (a newer one, say)."""
    try:
        return _record.decode(entry.payload).data
    except (UndecodableMessage, UnknownVersion):
        return None
