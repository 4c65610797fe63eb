"""The scenario registry: named run configs (specification, section 1.1)."""

import os
from pathlib import Path
from typing import Any

import msgspec

from gbe_aether.documents import read_document
from gbe_aether.errors import NotFoundError
from gbe_aether.reading import an_object, required


class ScenarioV1(msgspec.Struct, frozen=True):
    """One scenario. `run_config_path` is as it stands in the file, relative to the file's folder.

    Raises `ValueError` for what a document is refused for.
    """

    scenario_id: str
    description: str
    run_config_path: str
    pillars: tuple[str, ...] = ()
    runtime_hint: str = ""

    def __post_init__(self) -> None:
        if not self.scenario_id:
            raise ValueError("scenario_id must be provided")
        if not self.run_config_path:
            raise ValueError("run_config_path must be provided")
        pillars: tuple[object, ...] = self.pillars
        if any(not isinstance(pillar, str) or not pillar for pillar in pillars):
            raise ValueError("pillars must contain non-empty strings")


class ScenarioRegistryV1(msgspec.Struct, frozen=True):
    """The scenarios in file order, and the folder their paths are relative to. Raises `ValueError`."""

    v: int
    scenarios: tuple[ScenarioV1, ...]
    base: Path = Path()

    def __post_init__(self) -> None:
        if self.v != 1:
            raise ValueError("ScenarioRegistry_v1 requires v == 1")
        if not self.scenarios:
            raise ValueError("Scenario registry must contain at least one entry")
        seen = set()
        for scenario in self.scenarios:
            if scenario.scenario_id in seen:
                raise ValueError(f"Duplicate scenario_id detected: {scenario.scenario_id}")
            seen.add(scenario.scenario_id)

    def ids(self) -> list[str]:
        """The scenario ids in file order."""
        return [scenario.scenario_id for scenario in self.scenarios]

    def get(self, scenario_id: str) -> ScenarioV1:
        """The scenario of an id. Raises `KeyError` "Scenario not found: X"."""
        for scenario in self.scenarios:
            if scenario.scenario_id == scenario_id:
                return scenario
        raise NotFoundError(f"Scenario not found: {scenario_id}")

    def run_config_file(self, scenario_id: str) -> Path:
        """Where the run config of a scenario lies. Raises `KeyError` for an unknown id."""
        return self.base / self.get(scenario_id).run_config_path


def load_scenario_registry(path: str | os.PathLike[str]) -> ScenarioRegistryV1:
    """Read a registry from its file. Raises what `read_document` and `registry_from_document` raise."""
    return registry_from_document(read_document(path, "Scenario registry"), Path(path).parent)


def registry_from_document(document: Any, base: Path = Path()) -> ScenarioRegistryV1:
    """The registry in a document; `base` is the folder its paths are relative to.

    Raises:
        ValueError: with the message of section 1.1.
    """
    doc = an_object(document, "Scenario registry must be an object")
    version = int(required(doc, "v", "Scenario registry missing required field: {}"))
    entries = doc.get("scenarios")
    if not isinstance(entries, list):
        raise ValueError("scenarios must be a list")
    scenarios = tuple(_scenario(each) for each in entries)
    return ScenarioRegistryV1(version, scenarios, base)


def _scenario(value: Any) -> ScenarioV1:
    doc = an_object(value, "Scenario entry must be an object")
    scenario_id, description, path = (
        str(required(doc, name, "Scenario entry missing required field: {}"))
        for name in ("scenario_id", "description", "run_config_path")
    )
    pillars = doc.get("pillars", [])
    if not isinstance(pillars, list):
        raise ValueError("pillars must be a list of strings")
    return ScenarioV1(scenario_id, description, path, tuple(pillars), str(doc.get("runtime_hint", "")))
