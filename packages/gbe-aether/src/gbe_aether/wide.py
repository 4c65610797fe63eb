"""The kernel for large graphs: 64-bit arrays, and text by byte matrices.

It takes a state only when no number of the tick can come near the limits of 64 bits; any other
state is for `umx.ExactKernel`, and both give the same bytes.
"""

from collections.abc import Sequence

import numpy as np

from gbe_aether.canonical import text_json
from gbe_aether.digits import Ints, NumberRows, largest_of, texts
from gbe_aether.topology import TopologyProfileV1
from gbe_aether.umx import Outcome

_STATE_LIMIT = 2**60
"""States and fluxes stay below it, so that differences of differences stay within 64 bits."""

_SUM_LIMIT = 2**62


class WideKernel:
    """Steps with arrays. Raises `OverflowError` for a topology whose constants it can't hold."""

    def __init__(self, topology: TopologyProfileV1) -> None:
        edges = topology.edges
        self._size = topology.N
        self._scale = topology.SC
        if self._scale >= _STATE_LIMIT:
            raise OverflowError("SC does not fit")
        caps = [topology.cap(edge) for edge in edges]
        radii = [topology.radius(edge) for edge in edges]
        self._i = np.array([edge.i - 1 for edge in edges], np.int64)
        self._j = np.array([edge.j - 1 for edge in edges], np.int64)
        self._k = np.array([edge.k for edge in edges], np.int64)
        # A cap above every flux is as good as any other such cap.
        self._cap = np.array([min(cap, _STATE_LIMIT) for cap in caps], np.int64)
        self._radius = np.array([min(radius, _STATE_LIMIT) or _STATE_LIMIT for radius in radii], np.int64)
        self._has_radius = any(radii)
        self._largest_k = max((abs(edge.k) for edge in edges), default=0)
        # The largest absolute value that the cap or the radius themselves can become a flux by.
        self._floor = max((-value for value in (*caps, *radii) if value < 0), default=0)
        self._may_reverse = self._floor > 0 or any(edge.k < 0 for edge in edges)
        # For each node with edges: its entries in the list of all flows, i-ends first, then j-ends.
        ends = np.concatenate([self._i, self._j])
        self._order = np.argsort(ends, kind="stable")
        self._nodes, self._starts = np.unique(ends[self._order], return_index=True)
        degrees = np.diff(np.append(self._starts, len(ends)))
        self._degree = int(degrees.max()) if len(degrees) else 0
        # Each row ends with a number; what closes it stands at the beginning of the next.
        between = ["", *["},"] * (len(edges) - 1)]
        self._edge_rows = NumberRows(
            [
                texts([f'{start}{{"cap":{cap},"du":' for start, cap in zip(between, caps, strict=False)]),
                texts([f',"e_id":{edge.e_id},"f_e":' for edge in edges]),
                texts([f',"i":{edge.i},"j":{edge.j},"raw":' for edge in edges]),
            ]
        )
        self._flux_rows = NumberRows(
            [texts([f'{start}{{"e_id":{edge.e_id},"f_e":' for start, edge in zip(between, edges, strict=False)])]
        )
        self._state_rows = NumberRows([texts(["", *[","] * (self._size - 1)])])
        self._nap_ref = text_json(topology.nap_ref or "")

    def admit(self, state: Sequence[int] | Ints) -> tuple[Ints, int] | None:
        """The state as an array with its largest absolute value, or `None` when the tick might leave 64 bits."""
        if isinstance(state, np.ndarray):
            array, largest = state, largest_of(state)
        else:
            largest = max(map(abs, state))
            if largest >= _STATE_LIMIT:
                return None
            array = np.array(state, np.int64)
        magnitude = max(2 * largest, self._floor)
        raw = self._largest_k * magnitude
        flux = max(raw // self._scale + 1, magnitude) if self._may_reverse else magnitude
        count = len(self._k)
        if (
            raw >= _SUM_LIMIT
            or largest + self._degree * flux >= _STATE_LIMIT
            or self._size * largest >= _SUM_LIMIT
            or count * flux >= _SUM_LIMIT
        ):
            return None
        return array, largest

    def step(self, admitted: tuple[Ints, int], pre_text: bytes | None) -> Outcome:
        """The outcome of a tick on an admitted state; `pre_text` is its canonical text, where it is known."""
        pre, largest = admitted
        du = pre[self._i] - pre[self._j]
        magnitude = np.abs(du)
        clamped = False
        if self._has_radius:
            clamped = bool((magnitude > self._radius).any())
            if clamped:
                magnitude = np.minimum(magnitude, self._radius)
        raw = self._k * magnitude
        raw //= self._scale
        fluxes = np.minimum(raw, self._cap)
        np.minimum(fluxes, magnitude, out=fluxes)
        fluxes *= np.sign(du)
        post = pre.copy()
        if len(self._nodes):
            flows = np.concatenate([-fluxes, fluxes])[self._order]
            post[self._nodes] += np.add.reduceat(flows, self._starts)
        total = int(pre.sum())
        if int(post.sum()) != total:
            raise ValueError("a tick must conserve the sum of the state")
        largest_flux = largest_of(fluxes)
        before = self._state_text(pre, largest) if pre_text is None else pre_text
        after = self._state_text(post, largest_of(post))
        edge_text, flux_text = bytearray(), b""
        if len(du):
            edge_text = self._edge_rows.fill((du, fluxes, raw), (largest_of(du), largest_flux, largest_of(raw)))
            flux_text = bytes(self._flux_rows.fill((fluxes,), (largest_flux,)) + b"}")
        head = f'{{"causal_radius_applied":{"true" if clamped else "false"},"edges":['.encode()
        notes = '["causal_radius_clamped"]' if clamped else "[]"
        middle = f'],"epsilon_applied":false,"nap_ref":{self._nap_ref},"policy_notes":{notes},"post_u":['.encode()
        end = b'],"sum_post_u":%d,"sum_pre_u":%d,"tick":' % (total, total)
        parts = (head, edge_text, b"}" if edge_text else b"", middle, after, b'],"pre_u":[', before, end)
        return Outcome(pre, post, du, raw, fluxes, total, clamped, before, after, parts, flux_text)

    def _state_text(self, state: Ints, largest: int) -> bytes:
        return bytes(self._state_rows.fill((state,), (largest,)))
