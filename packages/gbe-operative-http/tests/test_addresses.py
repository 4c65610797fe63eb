"""What may be reached: the default, the owner's lists, and that the checked address is the one connected to."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gbe_jobs_domain.outcomes import Completed, FailureKind
from gbe_operative.contract import OperativeError
from gbe_operative.plugin_settings import ConfigurationError
from gbe_operative_http import HttpOperative, network
from gbe_operative_http.core.addresses import METADATA, AddressPolicy, meaning
from gbe_operative_http.testing import Received, Reply, Web

Start = Any  # of conftest.py, which can't be imported


def why_not(address: str, *, allow: tuple[str, ...] = (), deny: tuple[str, ...] = (), port: int = 80) -> str | None:
    return AddressPolicy(allow, deny).why_not(ipaddress.ip_address(address), port)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::1"])
def test_public_addresses_may_be_reached(address: str) -> None:
    assert why_not(address) is None


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.3.4", "loopback"),
        ("::1", "loopback"),
        ("0.0.0.0", "this network"),
        ("::", "unspecified"),
        ("169.254.1.1", "link-local"),
        ("169.254.169.254", "metadata"),
        ("168.63.129.16", "metadata"),
        ("100.100.100.200", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("fec0::1", "reserved"),
        ("10.0.0.1", "private"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("fd12::1", "private"),
        ("100.64.0.1", "a provider's own"),
        ("192.0.0.8", "reserved"),
        ("198.18.0.1", "benchmarks"),
        ("203.0.113.5", "documentation"),
        ("2001:db8::1", "documentation"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:169.254.169.254", "metadata"),
        ("::127.0.0.1", "reserved"),
        ("64:ff9b::7f00:1", "loopback"),
        ("64:ff9b::a9fe:a9fe", "metadata"),
        ("64:ff9b:1::1", "reserved"),
        ("2002:7f00:1::", "loopback"),
        ("2002:a9fe:a9fe::1", "metadata"),
        ("2001:0:1::1", "reserved"),
    ],
)
def test_others_may_not(address: str, why: str) -> None:
    assert why in (why_not(address) or "")


def test_what_stands_for_a_public_address_may_be_reached() -> None:
    assert why_not("64:ff9b::808:808") is None, "a network without IPv4 reaches everything by NAT64"
    assert why_not("::ffff:8.8.8.8") is None
    assert str(meaning(ipaddress.ip_address("2002:808:808::"))) == "8.8.8.8"


def test_the_owner_opens_and_closes() -> None:
    assert why_not("127.0.0.1", allow=("loopback",)) is None
    assert why_not("::1", allow=("loopback",)) is None
    assert why_not("10.9.8.7", allow=("private",)) is None
    assert why_not("10.9.8.7", allow=("10.9.0.0/16",)) is None
    assert why_not("10.8.8.7", allow=("10.9.0.0/16",)) == "private"
    assert why_not("::ffff:10.9.8.7", allow=("10.9.0.0/16",)) is None
    assert why_not("8.8.8.8", deny=("8.0.0.0/8",)) == "denied on this host"
    assert why_not("8.8.8.8", allow=("8.8.8.8",), deny=("8.0.0.0/8",)) is None, "the narrower counts"
    assert why_not("8.8.8.8", allow=("8.0.0.0/8",), deny=("8.8.8.8",)) == "denied on this host"
    assert why_not("8.8.8.8", allow=("8.8.8.8",), deny=("8.8.8.8",)) == "denied on this host"
    nothing_else = ("0.0.0.0/0", "::/0")
    assert why_not("8.8.8.8", allow=("10.0.0.0/8",), deny=nothing_else) == "denied on this host"
    assert why_not("2606:4700::1", allow=("10.0.0.0/8",), deny=nothing_else) == "denied on this host"
    assert why_not("10.0.0.1", allow=("10.0.0.0/8",), deny=nothing_else) is None


def test_entries_for_ipv6_that_stands_for_ipv4() -> None:
    assert why_not("8.8.8.8", deny=("::ffff:8.8.8.8",)) == "denied on this host"
    assert why_not("8.8.8.8", deny=("::ffff:8.0.0.0/104",)) == "denied on this host"
    assert why_not("127.0.0.1", allow=("[::ffff:127.0.0.1]:8080",), port=8080) is None
    for wide in ("::/0", "64:ff9b::/96"):
        assert why_not("64:ff9b::808:808", deny=(wide,)) == "denied on this host"
        assert why_not("8.8.8.8", deny=(wide,)) is None
        assert why_not("64:ff9b::808:808", allow=("8.8.8.8",), deny=(wide,)) is None, "the narrower counts"
        assert why_not("64:ff9b::7f00:1", allow=(wide,)) == "loopback"
    assert why_not("2002:808:808::1", deny=("2002::/16",)) == "denied on this host"
    assert why_not("::ffff:8.8.8.8", deny=("::/0",)) is None, "it is a connection by IPv4"


def test_one_port() -> None:
    assert why_not("127.0.0.1", allow=("127.0.0.1:8080",), port=8080) is None
    assert why_not("127.0.0.1", allow=("127.0.0.1:8080",), port=4222) == "loopback"
    assert why_not("::1", allow=("[::1]:8080",), port=8080) is None
    assert why_not("127.0.0.1", allow=("loopback",), deny=("loopback:4222",), port=4222) == "denied on this host"
    assert why_not("127.0.0.1", allow=("loopback",), deny=("loopback:4222",), port=80) is None


@pytest.mark.parametrize("address", METADATA)
def test_metadata_services_have_to_be_named(address: str) -> None:
    wide = ("0.0.0.0/0", "::/0", "169.254.0.0/16", "private")
    assert why_not(address, allow=wide) == "a metadata service"
    assert why_not(address, allow=(address,)) is None


@pytest.mark.parametrize(
    "entry", ["", "x", "localhost", "10.0.0.1/8", "10.0.0.0/33", "[::1", "10.0.0.1:0", "10.0.0.1:99999"]
)
def test_entries_that_make_no_sense(entry: str) -> None:
    with pytest.raises(ValueError, match=r"network|address|port"):
        AddressPolicy([entry])
    if entry:
        with pytest.raises(ConfigurationError, match="GBE_HTTP_ALLOW"):
            HttpOperative(environment={"GBE_HTTP_DENY": entry})


@given(st.ip_addresses())
def test_every_address_has_an_answer(address: Any) -> None:
    policy = AddressPolicy()
    assert policy.why_not(address, 80) == policy.why_not(meaning(address), 80)
    if policy.why_not(address, 80) is None:
        assert meaning(address).is_global


# --- with real sockets ---


async def denied(http: Any, url: str, **params: str) -> OperativeError:
    with pytest.raises(OperativeError) as caught:
        await http.get(url, **params)
    assert not caught.value.retryable
    return caught.value


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.0.0.1", "[::ffff:127.0.0.1]", "0"]
)
async def test_loopback_is_closed_by_default_whatever_its_spelling(start: Start, web: Web, host: str) -> None:
    http = await start(allow=())
    error = await denied(http, f"http://{host}:{web.port}/")
    assert error.kind is FailureKind.REJECTED
    assert "may not be reached from here; whoever owns this host can allow it, GBE_HTTP_ALLOW=" in str(error)
    assert web.connections == 0


async def test_each_hop_is_checked(start: Start, web: Web) -> None:
    http = await start(allow=(f"127.0.0.1:{web.port}",))
    async with Web({"/": Reply(body=b"secret")}) as other:
        targets = [other.url, "http://169.254.169.254/latest/meta-data", "http://[fd00:ec2::254]/", "http://10.0.0.1/"]
        for target in targets:
            web.routes["/"] = Reply(302, {"Location": target})
            error = await denied(http, web.url)
            assert error.kind is FailureKind.ERROR, "a request has been sent"
            assert "may not be reached" in str(error)
        assert other.connections == 0


async def test_a_name_is_resolved_once_per_connection(start: Start, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the second answer is another address, and nobody asks for it."""
    answers = [["127.0.0.1"], ["10.0.0.1"]]
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[Any]:
        asked.append(host)
        return [ipaddress.ip_address(text) for text in answers.pop(0)]

    monkeypatch.setattr(network, "resolve", resolve)
    connected: list[str] = []
    loop = asyncio.get_running_loop()
    connect = loop.create_connection

    async def watched(factory: Any, host: str, *args: Any, **kwargs: Any) -> Any:
        connected.append(host)
        return await connect(factory, host, *args, **kwargs)

    monkeypatch.setattr(loop, "create_connection", watched)

    def reply(received: Received) -> Reply:
        assert received.headers["host"] == f"rebind.example:{web.port}"
        return Reply(200, {"Connection": "close"})

    web.routes["/"] = reply
    http = await start(allow=("loopback",))
    assert isinstance(await http.get(f"http://rebind.example:{web.port}/"), Completed)
    assert (asked, connected) == (["rebind.example"], ["127.0.0.1"])
    await denied(http, f"http://rebind.example:{web.port}/")
    assert connected == ["127.0.0.1"]


async def test_of_several_addresses_only_the_allowed_are_tried(
    start: Start, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(host: str, port: int) -> list[Any]:
        return [ipaddress.ip_address(text) for text in ("169.254.169.254", "127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(network, "resolve", resolve)
    web.routes["/"] = Reply()
    http = await start(allow=("127.0.0.0/8",))
    assert isinstance(await http.get(f"http://many.example:{web.port}/"), Completed), "127.0.0.2 refuses"


async def test_a_name_without_an_address(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(host: str, port: int) -> list[Any]:
        return []

    monkeypatch.setattr(network, "resolve", resolve)
    with pytest.raises(OperativeError, match=r"the name empty\.example has no address"):
        await (await start()).get("http://empty.example/")


async def test_a_name_that_is_none(start: Start) -> None:
    http = await start()
    with pytest.raises(OperativeError, match=r"the name nowhere\.invalid can't be resolved") as caught:
        await http.get("http://nowhere.invalid/")
    assert caught.value.retryable
