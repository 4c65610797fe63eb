"""What the owner of the host decides for all requests. No job can change it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from gbe_operative.plugin_settings import SecretStr, Setting, Settings

GIB = 1 << 30


class HttpSettings(Settings, frozen=True, kw_only=True):
    """From the variables `GBE_HTTP_*` of the Operative's process. Sizes in bytes, times in seconds."""

    allow: Annotated[
        tuple[str, ...],
        Setting(
            "Addresses that may be reached besides public ones: networks, `loopback`, `private`; `:port` narrows",
            flag="",
            env="GBE_HTTP_ALLOW",
        ),
    ] = ()
    deny: Annotated[
        tuple[str, ...],
        Setting("Addresses that may not be reached; the narrower network counts", flag="", env="GBE_HTTP_DENY"),
    ] = ()
    proxy: Annotated[
        SecretStr | None,
        Setting("Proxy for all requests: http://[user:password@]host:port", flag="", env="GBE_HTTP_PROXY"),
    ] = None
    tls_ca: Annotated[
        Path | None, Setting("Certificates of more authorities to trust", flag="", env="GBE_HTTP_TLS_CA")
    ] = None
    tls_verify: Annotated[bool, Setting("Whether certificates are checked", flag="", env="GBE_HTTP_TLS_VERIFY")] = True
    tls_cert: Annotated[
        Path | None,
        Setting("A certificate of our own, for servers that ask for one", flag="", env="GBE_HTTP_TLS_CERT"),
    ] = None
    tls_key: Annotated[
        Path | None,
        Setting("Its key, where that is not in the same file; nobody else's to read", flag="", env="GBE_HTTP_TLS_KEY"),
    ] = None
    max_body: Annotated[
        int,
        msgspec.Meta(ge=1024),
        Setting("Bytes of the largest response body, unpacked", flag="", env="GBE_HTTP_MAX_BODY"),
    ] = GIB
    connect_timeout: Annotated[
        float, msgspec.Meta(gt=0, le=3600), Setting("Seconds for a connection", flag="", env="GBE_HTTP_CONNECT_TIMEOUT")
    ] = 10.0
    read_timeout: Annotated[
        float,
        msgspec.Meta(gt=0, le=86_400),
        Setting("Seconds of silence until giving up", flag="", env="GBE_HTTP_READ_TIMEOUT"),
    ] = 60.0
