"""From a URL to a transport."""

from __future__ import annotations

import importlib.metadata
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from gbe_nexus import UnknownTransport, connect
from gbe_nexus.connect import GROUP


class Installed:
    """What is installed, and how often somebody asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **points: str) -> None:
        self.asked = 0
        self._points = points
        monkeypatch.setattr(importlib.metadata, "entry_points", self._entry_points)

    def _entry_points(self, *, group: str) -> EntryPoints:
        assert group == GROUP
        self.asked += 1
        return EntryPoints(EntryPoint(name, value, group) for name, value in self._points.items())


async def test_an_unknown_scheme_names_the_known_ones_after_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = Installed(monkeypatch, tls="x:y", nats="x:y")
    with pytest.raises(UnknownTransport) as caught:
        await connect("memory://")
    assert str(caught.value) == "no transport for 'memory': URL schemes installed here are nats, tls"
    assert installed.asked == 1


@pytest.mark.parametrize("url", ["localhost", ""])
async def test_a_url_without_a_scheme(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    Installed(monkeypatch)
    with pytest.raises(UnknownTransport) as caught:
        await connect(url)
    assert str(caught.value) == f"no transport for '{url}': URL schemes installed here are none"


async def test_a_broken_plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    Installed(monkeypatch, nats="gbe_not_there:connect")
    with pytest.raises(UnknownTransport, match="plug-in 'gbe_not_there:connect' for 'nats' is broken: No module named"):
        await connect("nats://localhost:4222,nats://localhost:4223")
