"""The contract suites that every nexus implementation has to pass, importable by third parties."""

import pytest

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

from gbe_conformance.artifacts import ArtifactStoreContract as ArtifactStoreContract  # noqa: E402
from gbe_conformance.capabilities import Capabilities as Capabilities  # noqa: E402
from gbe_conformance.capabilities import Faults as Faults  # noqa: E402
from gbe_conformance.connection import ConnectionContract as ConnectionContract  # noqa: E402
from gbe_conformance.contract import Bus as Bus  # noqa: E402
from gbe_conformance.contract import Connect as Connect  # noqa: E402
from gbe_conformance.credit import CreditContract as CreditContract  # noqa: E402
from gbe_conformance.credit import PinnedContract as PinnedContract  # noqa: E402
from gbe_conformance.delivery import DeliveryContract as DeliveryContract  # noqa: E402
from gbe_conformance.inbox import Inbox as Inbox  # noqa: E402
from gbe_conformance.inbox import until as until  # noqa: E402
from gbe_conformance.journal import JournalContract as JournalContract  # noqa: E402
from gbe_conformance.publishing import PublishingContract as PublishingContract  # noqa: E402
from gbe_conformance.restart import RestartContract as RestartContract  # noqa: E402
from gbe_conformance.state import StateStoreContract as StateStoreContract  # noqa: E402
from gbe_conformance.streams import StreamsContract as StreamsContract  # noqa: E402
from gbe_conformance.transport import TransportContract as TransportContract  # noqa: E402
