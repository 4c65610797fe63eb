"""The README tells of every setting there is."""

from __future__ import annotations

from pathlib import Path
from typing import get_type_hints

import msgspec

from gbe_operative.plugin_settings import Setting
from gbe_operative_http.settings import HttpSettings

README = Path(__file__).parents[1] / "README.md"


def test_every_setting_is_in_the_readme() -> None:
    hints = get_type_hints(HttpSettings, include_extras=True)
    variables = []
    for field in msgspec.structs.fields(HttpSettings):
        (setting,) = (extra for extra in hints[field.name].__metadata__ if isinstance(extra, Setting))
        assert setting.env == f"GBE_HTTP_{field.name.upper()}"
        variables.append(setting.env)
    text = README.read_text(encoding="utf-8")
    assert [variable for variable in variables if f"`{variable}`" not in text] == []
