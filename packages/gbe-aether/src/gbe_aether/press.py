"""Press/APX: windows over streams, length estimates, manifests (specification, section 4)."""

import math
from collections.abc import Iterable, Sequence
from operator import sub
from typing import Any

from gbe_aether.profile import ProfileConfigV1
from gbe_aether.records import APXManifestV1, APXStreamV1
from gbe_aether.run_config import SCHEMES, RunStreamV1, RunWindowV1
from gbe_aether.umx import Outcome

DEFAULT_STREAMS = (
    RunStreamV1("S1_post_u_deltas", "post_u_deltas", None, "post_u delta per node"),
    RunStreamV1("S2_fluxes", "fluxes", None, "edge flux per edge"),
)
"""The streams of a window that declares none."""


_ATTRIBUTES = {"post_u_deltas": "deltas", "fluxes": "fluxes", "pre_u": "pre", "post_u": "post", "prev_chain": None}
"""Where the value of each source stands in an outcome; that of `prev_chain` is the chain's."""


def vb(value: int) -> int:
    """Bits of a variable-length integer: 8 for each started group of 7 bits, at least one."""
    return 8 * max(1, (abs(value).bit_length() + 6) // 7)


def z(value: int) -> int:
    """Bits of a signed component: `vb(2|x|)`."""
    return 8 * max(1, (abs(value).bit_length() + 7) // 7)


class _Bits(dict[int, int]):
    """`z` of integers, remembered for those that came up."""

    def __missing__(self, value: int) -> int:
        bits = z(value)
        if len(self) < 10_000:
            self[value] = bits
        return bits


_bits = _Bits().__getitem__


def z_sum(values: Any) -> int:
    """The sum of `z` over components, of a sequence or an array."""
    if isinstance(values, list | tuple):
        return sum(map(_bits, values))
    from gbe_aether.digits import z_sum_of

    return z_sum_of(values)


def _z_sum_of_difference(value: Any, last: Any) -> int:
    if isinstance(value, list | tuple) and isinstance(last, list | tuple):
        return sum(map(_bits, map(sub, value, last)))
    if isinstance(value, list | tuple):
        return sum(map(_bits, map(sub, value, last.tolist())))
    if isinstance(last, list | tuple):
        return sum(map(_bits, map(sub, value.tolist(), last)))
    return z_sum(value - last)


def _equal(value: Any, last: Any) -> bool:
    if isinstance(value, list | tuple) and isinstance(last, list | tuple):
        return value == last
    return len(value) == len(last) and bool((value == last).all())


class Stream:
    """The length estimate of one stream, kept up to date as values come in: no value but the last is held."""

    def __init__(self, name: str, source: str, scheme: str, description: str) -> None:
        self.name = name
        self.source = source
        self.scheme = scheme
        self.description = description
        self._count = 0
        self._width = 0
        self._last: Any = None
        self._first_bits = 0
        self._bits = 0
        self._runs = 0
        self._run_length = 0

    def append(self, value: Any) -> None:
        """Take the value of the next tick: a list, a tuple, or an array of integers."""
        last = self._last
        self._count += 1
        if last is None:
            self._width = len(value)
        if self.scheme == "R":
            if last is None:
                self._first_bits = z_sum(value)
            elif value is last:
                self._bits += 8 * self._width
            else:
                self._bits += _z_sum_of_difference(value, last)
        elif self.scheme == "ID":
            self._bits += z_sum(value)
        elif last is not None and (value is last or _equal(value, last)):
            self._run_length += 1
        else:
            if last is not None:
                self._bits += vb(self._run_length)
            self._first_bits += z_sum(value)
            self._runs += 1
            self._run_length = 1
        self._last = value

    def record(self) -> APXStreamV1:
        """The stream as a manifest shows it.

        Raises:
            ValueError: for a scheme that does not exist.
        """
        if self.scheme not in SCHEMES:
            raise ValueError(f"Unsupported scheme: {self.scheme}")
        model = vb(self._width) + vb(self._runs if self.scheme == "GR" else self._count) + self._first_bits
        residual = self._bits
        if self.scheme == "GR" and self._runs:
            residual += vb(self._run_length)
        return APXStreamV1(model, residual, model + residual, self.description, 0, self.scheme, self.name)


class Window:
    """A declared window with its streams."""

    def __init__(self, spec: RunWindowV1, profile: ProfileConfigV1) -> None:
        self.spec = spec
        self.streams = [
            Stream(each.name, each.source, each.scheme_hint or profile.default_scheme, each.description or each.name)
            for each in spec.streams or DEFAULT_STREAMS
        ]
        names = [stream.name for stream in self.streams]
        self.repeated_name = len(set(names)) != len(names)

    def close(self, gid: str, profile: ProfileConfigV1) -> APXManifestV1:
        """The manifest of what came in."""
        streams = [stream.record() for stream in self.streams]
        check = manifest_check(self.spec.apx_name, profile, streams)
        return APXManifestV1(self.spec.apx_name, None, gid, check, profile.name, streams, self.spec.window_id)


class Press:
    """All windows of a session. Of two with one id the later stands in the place of the earlier."""

    def __init__(self, specs: Iterable[RunWindowV1], profile: ProfileConfigV1) -> None:
        by_id: dict[str, Window] = {}
        for spec in specs:
            by_id[spec.window_id] = Window(spec, profile)
        self.windows = list(by_id.values())
        self._profile = profile
        self._changes = sorted({w.spec.start_tick for w in self.windows} | {w.spec.end_tick + 1 for w in self.windows})
        self._next_change: float = self._changes[0]
        self._open: list[Stream] = []

    def append(self, tick: int, outcome: Outcome, previous_chain: int) -> None:
        """Take a tick's values. Windows open before it, and close after it for good.

        Raises:
            ValueError: a window that begins with this tick has two streams of one name.
        """
        if tick >= self._next_change:
            self._change(tick)
        for stream in self._open:
            attribute = _ATTRIBUTES[stream.source]
            stream.append((previous_chain,) if attribute is None else getattr(outcome, attribute))

    def _change(self, tick: int) -> None:
        windows = [w for w in self.windows if w.spec.start_tick <= tick <= w.spec.end_tick]
        if any(window.repeated_name and window.spec.start_tick == tick for window in windows):
            raise ValueError(f"Tick mismatch: expected {tick + 1} but received {tick}")
        self._open = [stream for window in windows for stream in window.streams]
        while self._changes and tick >= self._changes[0]:
            del self._changes[0]
        self._next_change = self._changes[0] if self._changes else math.inf

    def close(self, gid: str) -> list[APXManifestV1]:
        """The manifests of all windows in declaration order."""
        return [window.close(gid, self._profile) for window in self.windows]


def manifest_check(apx_name: str, profile: ProfileConfigV1, streams: Sequence[APXStreamV1]) -> int:
    """The check number of a manifest: over names and lengths, not over values (section 4.4)."""
    modulus = profile.modulus_M
    acc = 2166136261 % modulus

    def mix(values: Iterable[int]) -> None:
        nonlocal acc
        for value in values:
            acc = ((acc ^ (value % modulus)) * 16777619) % modulus

    mix(map(ord, apx_name))
    mix(map(ord, profile.name))
    mix([len(streams)])
    for stream in streams:
        for text in (stream.stream_id, stream.description, stream.scheme, str(stream.params)):
            mix(map(ord, text))
        mix([stream.L_model, stream.L_residual, stream.L_total])
    return (25239686 * acc + 282668257) % modulus
