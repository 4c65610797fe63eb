"""Which service is asked, and with which key: the owner of the host says so, and no job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from gbe_operative.plugin_settings import SecretStr, Setting, Settings


class LlmSettings(Settings, frozen=True, kw_only=True):
    """From the variables `GBE_LLM_*` of the Operative's process. Times in seconds."""

    base_url: Annotated[
        str | None, Setting("The service: https://host/v1, for example", flag="", env="GBE_LLM_BASE_URL")
    ] = None
    api_key: Annotated[SecretStr | None, Setting("Its key", env="GBE_LLM_API_KEY")] = None
    api_key_file: Annotated[
        Path | None, Setting("A file that has its key; nobody else's to read", flag="", env="GBE_LLM_API_KEY_FILE")
    ] = None
    model: Annotated[str | None, Setting("The model where a task names none", flag="", env="GBE_LLM_MODEL")] = None
    proxy: Annotated[SecretStr | None, Setting("Proxy: http://[user:password@]host:port", env="GBE_LLM_PROXY")] = None
    tls_ca: Annotated[Path | None, Setting("Certificates of more authorities", flag="", env="GBE_LLM_TLS_CA")] = None
    connect_timeout: Annotated[
        float, msgspec.Meta(gt=0, le=3600), Setting("Seconds for a connection", flag="", env="GBE_LLM_CONNECT_TIMEOUT")
    ] = 10.0
    read_timeout: Annotated[
        float, msgspec.Meta(gt=0, le=86_400), Setting("Seconds for an answer", flag="", env="GBE_LLM_READ_TIMEOUT")
    ] = 300.0
