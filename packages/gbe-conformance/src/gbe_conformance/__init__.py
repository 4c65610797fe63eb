"""The contract suites that every nexus implementation has to pass, importable by third parties."""

import pytest

# ruff: noqa: E402
# Before the suites are imported: their asserts then explain themselves as those in test files do.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "artifacts",
            "connection",
            "contract",
            "credit",
            "delivery",
            "inbox",
            "journal",
            "publishing",
            "restart",
            "state",
            "streams",
        )
    )
)

from gbe_conformance.artifacts import ArtifactStoreContract as ArtifactStoreContract
from gbe_conformance.capabilities import Capabilities as Capabilities
from gbe_conformance.capabilities import Faults as Faults
from gbe_conformance.connection import ConnectionContract as ConnectionContract
from gbe_conformance.contract import Bus as Bus
from gbe_conformance.contract import Connect as Connect
from gbe_conformance.credit import CreditContract as CreditContract
from gbe_conformance.credit import PinnedContract as PinnedContract
from gbe_conformance.delivery import DeliveryContract as DeliveryContract
from gbe_conformance.inbox import Inbox as Inbox
from gbe_conformance.inbox import until as until
from gbe_conformance.journal import JournalContract as JournalContract
from gbe_conformance.publishing import PublishingContract as PublishingContract
from gbe_conformance.restart import RestartContract as RestartContract
from gbe_conformance.state import StateStoreContract as StateStoreContract
from gbe_conformance.streams import StreamsContract as StreamsContract
from gbe_conformance.transport import TransportContract as TransportContract
