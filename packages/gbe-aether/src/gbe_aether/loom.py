"""Loom: the time chain (specification, section 3)."""

from collections.abc import Callable
from typing import Any, Protocol

from gbe_aether.canonical import text_json
from gbe_aether.profile import ProfileConfigV1
from gbe_aether.reading import is_int

CHAIN_FACTOR = 17
RULE_FACTOR = 23


class HasFluxes(Protocol):
    """What a tick did, as far as the rule for s_t is concerned."""

    @property
    def flux_sum(self) -> int:
        """The sum of the absolute fluxes."""


def s_t_rule(profile: ProfileConfigV1) -> Callable[[HasFluxes], int]:
    """The rule that gives a tick's s_t from its outcome.

    Raises:
        ValueError: for an unknown mode or a constant that is no integer; the session raises it at tick 1.
    """
    rule = profile.s_t_rule
    mode = rule.get("mode", "constant")
    if mode == "constant":
        value: Any = rule.get("value", rule.get("gf01_constant", 9))
        if not is_int(value):
            raise ValueError("constant s_t value must be an integer")
        constant = int(value)
        return lambda outcome: constant
    if mode == "sum_abs_flux":
        offset, scale, maximum = rule.get("offset", 0), rule.get("scale", 1), rule.get("max_value")

        def from_fluxes(outcome: HasFluxes) -> int:
            value = offset + scale * outcome.flux_sum
            if maximum is not None:
                value = min(value, maximum)
            if not is_int(value):
                raise TypeError(f"s_t must be an integer, the s_t rule gives {value!r}")
            return int(value)

        return from_fluxes
    raise ValueError(f"Unsupported s_t rule mode: {mode}")


class PBlockText:
    """Writes the canonical text of P-blocks."""

    def __init__(self, gid: str, topology_version: str) -> None:
        self._middle = f'],"gid":{text_json(gid)},"s_t":'.encode()
        self._end = f',"topology_version":{text_json(topology_version)}}}'.encode()

    def write(self, tick: int, s_t: int, chain: int, flux_text: bytes) -> bytes:
        """The text of a tick's P-block."""
        return b'{"C_t":%d,"edge_flux_summary":[%b%b%d,"seq":%d,"tick":%d%b' % (
            chain, flux_text, self._middle, s_t, tick, tick, self._end,
        )  # fmt: skip
