"""APXi: descriptors that predict a stream, and what they leave over (specification, section 15.1).

A run config cannot ask for them, so that a session's manifests never refer to a view; this is a
library for whoever has a stream's values.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from gbe_aether.press import Stream
from gbe_aether.records import APXManifestV1

Value = Sequence[int]


class ConstSegmentV1(msgspec.Struct, frozen=True, tag="CONST_SEGMENT"):
    """Every value is `value`: one integer for all components, or one for each."""

    value: int | tuple[int, ...]


class RunSegmentV1(msgspec.Struct, frozen=True, tag="RUN_SEGMENT"):
    """`pattern`, `repeats` times; for streams of width 1, and exactly as long as the stream."""

    pattern: tuple[int, ...]
    repeats: int


class LinearTrendV1(msgspec.Struct, frozen=True, tag="LINEAR_TREND"):
    """`intercept + slope * (start_tick + index)` in every component."""

    intercept: int
    slope: int
    start_tick: int = 0


Descriptor = ConstSegmentV1 | RunSegmentV1 | LinearTrendV1


class APXiFitV1(msgspec.Struct, frozen=True):
    """How well a descriptor predicts a stream, in the units of section 4.3."""

    descriptor: Descriptor
    L_model: int
    L_residual: int
    L_total: int
    residuals: tuple[tuple[int, ...], ...]


def fit(values: Sequence[Value], descriptor: Descriptor, scheme: str = "R") -> APXiFitV1:
    """The lengths of a stream under a descriptor.

    Args:
        values: The stream's values, one vector for each tick.
        descriptor: What predicts them.
        scheme: How the residuals are estimated: `R`, `GR` or `ID`.

    Raises:
        ValueError: no values, vectors of several widths, or a descriptor that doesn't fit them.
    """
    if not values:
        raise ValueError("an APXi view needs at least one value")
    width = len(values[0])
    if any(len(value) != width for value in values):
        raise ValueError("the values of a stream must have one width")
    predicted = _predict(descriptor, len(values), width)
    residuals = tuple(
        tuple(a - b for a, b in zip(value, guess, strict=True)) for value, guess in zip(values, predicted, strict=True)
    )
    left = 0
    if any(any(residual) for residual in residuals):
        stream = Stream("residuals", "", scheme, "")
        for residual in residuals:
            stream.append(residual)
        left = stream.record().L_residual
    model = _model_length(descriptor, width)
    return APXiFitV1(descriptor, model, left, model + left, residuals)


def best_fit(values: Sequence[Value], descriptors: Sequence[Descriptor], scheme: str = "R") -> APXiFitV1:
    """The fit with the least total length, the first of equals.

    Raises:
        ValueError: there are no descriptors, or what `fit` refuses.
    """
    if not descriptors:
        raise ValueError("an APXi view needs at least one descriptor")
    return min((fit(values, each, scheme) for each in descriptors), key=lambda each: each.L_total)


def view_id(apx_name: str, window_id: str, aeon_window_id: str | None = None) -> str:
    """The id of a view: it goes by the AEON window where there is one."""
    return f"{apx_name}::{aeon_window_id or window_id}::APXiView_v1"


def with_view(manifest: APXManifestV1, view: str) -> APXManifestV1:
    """The manifest with a reference to a view; `uledger.manifest_hash` covers it then."""
    return msgspec.structs.replace(manifest, apxi_view_ref=view)


def _predict(descriptor: Descriptor, count: int, width: int) -> list[tuple[int, ...]]:
    if isinstance(descriptor, ConstSegmentV1):
        value = descriptor.value
        row = (value,) * width if isinstance(value, int) else value
        if len(row) != width:
            raise ValueError(f"CONST_SEGMENT has {len(row)} components, the stream has {width}")
        return [row] * count
    if isinstance(descriptor, RunSegmentV1):
        if width != 1:
            raise ValueError("RUN_SEGMENT is for streams of width 1")
        if len(descriptor.pattern) * descriptor.repeats != count:
            raise ValueError("RUN_SEGMENT must cover the window exactly")
        return [(value,) for value in descriptor.pattern * descriptor.repeats]
    start = descriptor.start_tick
    return [(descriptor.intercept + descriptor.slope * (start + index),) * width for index in range(count)]


def _model_length(descriptor: Any, width: int) -> int:
    if not isinstance(descriptor, LinearTrendV1):
        return 1
    return 3 + sum(map(bool, (descriptor.start_tick, descriptor.slope, descriptor.intercept, width > 1)))
