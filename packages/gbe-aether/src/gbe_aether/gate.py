"""The gate: envelopes and their order (specification, sections 5.1, 5.3, 6.3)."""

from collections.abc import Sequence
from typing import Any

from gbe_aether.canonical import canonical, plain
from gbe_aether.governance import LAYERS
from gbe_aether.pfna import IntegerizationV1
from gbe_aether.profile import ProfileConfigV1
from gbe_aether.records import NAPEnvelopeV1

MODES = ("P", "I", "S", "G")


class Envelopes:
    """Makes the envelopes of a session from what they have in common."""

    def __init__(self, profile: ProfileConfigV1, gid: str, nid: str) -> None:
        defaults = profile.nap_defaults
        self._v: Any = defaults.get("v", 1)
        self._gid = gid
        self._nid = nid
        self.data_layer: Any = defaults.get("layer", "DATA")
        self._data_mode: Any = defaults.get("mode", "P")
        self._ingress_mode: Any = defaults.get("ingress_mode", "P")
        self._egress_mode: Any = defaults.get("egress_mode", "P")

    def ingress(self, tick: int, payload_ref: int, prev_chain: int) -> NAPEnvelopeV1:
        """The envelope of a tick with external input."""
        return self._make("INGRESS", self._ingress_mode, tick, tick, payload_ref, prev_chain, {})

    def data(
        self, tick: int, payload_ref: int, prev_chain: int, entries: Sequence[IntegerizationV1] = ()
    ) -> NAPEnvelopeV1:
        """The envelope of a tick."""
        meta = {"pfna_integerization": [plain(each) for each in entries]}
        return self._make(self.data_layer, self._data_mode, tick, tick, payload_ref, prev_chain, meta)

    def control(self, tick: int, seq: int, payload_ref: int, prev_chain: int) -> NAPEnvelopeV1:
        """The envelope at the start or the end of a session."""
        return self._make("CTRL", "P", tick, seq, payload_ref, prev_chain, {})

    def egress(self, tick: int, seq: int, payload_ref: int, prev_chain: int) -> NAPEnvelopeV1:
        """The last envelope of a session."""
        return self._make("EGRESS", self._egress_mode, tick, seq, payload_ref, prev_chain, {})

    def governance(self, tick: int, seq: int, payload_ref: int, prev_chain: int, meta: dict[str, Any]) -> NAPEnvelopeV1:
        """An envelope of the governance layer."""
        return self._make("GOV", "G", tick, seq, payload_ref, prev_chain, meta)

    def data_text(self, payload_ref: int) -> "DataText":
        """A writer of the canonical text of DATA envelopes."""
        return DataText(self, payload_ref)

    def _make(
        self, layer: Any, mode: Any, tick: int, seq: int, payload_ref: int, prev_chain: int, meta: dict[str, Any]
    ) -> NAPEnvelopeV1:
        if layer not in LAYERS:
            raise ValueError(f"layer must be one of {LAYERS}")
        if mode not in MODES:
            raise ValueError(f"mode must be one of {MODES}")
        return NAPEnvelopeV1(
            self._gid, layer, meta, mode, self._nid, payload_ref, prev_chain, seq, "", [], tick, self._v
        )


class DataText:
    """Writes the canonical text of the DATA envelopes of one session."""

    def __init__(self, envelopes: Envelopes, payload_ref: int) -> None:
        self._envelopes = envelopes
        self._payload_ref = payload_ref
        # The places of prev_chain, seq and tick in an envelope without external input.
        text = canonical(envelopes.data(1, payload_ref, 0))
        head, rest = text.split(b'"prev_chain":0,"seq":1,', 1)
        middle, end = rest.split(b'"tick":1,', 1)
        self._head = head + b'"prev_chain":'
        self._middle = b"," + middle + b'"tick":'
        self._end = b"," + end

    def write(self, tick: int, prev_chain: int, entries: Sequence[IntegerizationV1] = ()) -> bytes:
        """The text of a tick's envelope."""
        if entries:
            return canonical(self._envelopes.data(tick, self._payload_ref, prev_chain, entries))
        return b'%b%d,"seq":%d%b%d%b' % (self._head, prev_chain, tick, self._middle, tick, self._end)
