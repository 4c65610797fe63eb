"""The numeric profile: the constants of the chain and the defaults of envelopes and streams (section 1.4)."""

import os
from typing import Any

import msgspec

from gbe_aether.documents import read_document
from gbe_aether.reading import an_object, required, strict_int


class ProfileConfigV1(msgspec.Struct, frozen=True):
    """A CMP profile. `flux_rule` and `chain_rule` are documentation; the formulas are fixed. Raises `ValueError`."""

    name: str
    modulus_M: int
    C0: int
    SC: int
    I_block_spacing_W: int
    flux_rule: dict[str, Any] = msgspec.field(default_factory=dict)
    chain_rule: dict[str, Any] = msgspec.field(default_factory=dict)
    s_t_rule: dict[str, Any] = msgspec.field(default_factory=dict)
    nap_defaults: dict[str, Any] = msgspec.field(default_factory=dict)
    press_defaults: dict[str, Any] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("ProfileConfig name must be provided")
        if not self.name.startswith("CMP-"):
            raise ValueError("Profile name must start with 'CMP-'")
        if min(self.modulus_M, self.C0, self.SC, self.I_block_spacing_W) <= 0:
            raise ValueError("CMP numeric constants must be positive integers")

    @property
    def default_scheme(self) -> str:
        """The first preferred scheme, `R` where there is none. It was not checked at load.

        Raises:
            ValueError: the preferred schemes are no list.
        """
        preferred = self.press_defaults.get("preferred_schemes")
        if not preferred:
            return "R"
        if not isinstance(preferred, list | tuple):
            raise ValueError("preferred_schemes must be a list")
        return str(preferred[0])


def cmp0_profile() -> ProfileConfigV1:
    """The built-in CMP-0 profile."""
    return ProfileConfigV1("CMP-0", 1_000_000_007, 1_234_567, 32, 8)


_MISSING = "ProfileConfig missing required field: {}"
_RULES = ("flux_rule", "chain_rule", "s_t_rule", "nap_defaults", "press_defaults")
_CONSTANTS = ("modulus_M", "C0", "SC", "I_block_spacing_W")


def load_profile_config(path: str | os.PathLike[str]) -> ProfileConfigV1:
    """Read a profile from its file. Raises what `read_document` and `profile_from_document` raise."""
    return profile_from_document(read_document(path, "Profile"))


def profile_from_document(document: Any) -> ProfileConfigV1:
    """The profile in a document. Raises `ValueError` with the message of section 1.4."""
    doc = an_object(document, "Profile must be an object")
    name = str(required(doc, "name", _MISSING))
    modulus, c0, scale, spacing = (strict_int(required(doc, each, _MISSING), each) for each in _CONSTANTS)
    rules = [an_object(doc.get(each, {}), f"{each} must be an object") for each in _RULES]
    return ProfileConfigV1(name, modulus, c0, scale, spacing, *rules)
