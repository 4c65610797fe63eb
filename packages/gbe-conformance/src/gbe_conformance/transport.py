"""`TransportContract`: what a `Transport` has to hold as long as its bus is up (`RestartContract`: over a crash)."""

from __future__ import annotations

from gbe_conformance.connection import ConnectionContract
from gbe_conformance.credit import CreditContract, PinnedContract
from gbe_conformance.delivery import DeliveryContract
from gbe_conformance.publishing import PublishingContract
from gbe_conformance.streams import StreamsContract


class TransportContract(
    PublishingContract,
    StreamsContract,
    DeliveryContract,
    CreditContract,
    PinnedContract,
    ConnectionContract,
):
    """N1 to N8 and N13. Subclass it as `Test…` and give the fixture `connect`."""
