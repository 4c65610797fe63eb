"""A table of figures, for people and as JSON."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from msgspec import json


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `target` and `ratio` (to the raw client or the bare loop) where there are any."""

    workload: str
    value: float
    unit: str
    target: str = ""
    met: bool | None = None
    ratio: str = ""
    detail: str = ""


class Report:
    """Figures as they come in."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []

    def add(self, figure: Figure) -> None:
        """Keep and print one."""
        self.figures.append(figure)
        mark = {True: "met", False: "MISSED", None: ""}[figure.met]
        value = f"{figure.value:,.0f}" if figure.value >= 100 else f"{figure.value:.3g}"
        name, unit, target = figure.workload, figure.unit, figure.target
        print(f"{name:34} {value:>9} {unit:8} {target:12} {mark:7} {figure.ratio:24} {figure.detail}", flush=True)

    def write(self, path: Path) -> None:
        """All figures with what they were measured on."""
        machine = {
            "cpus": os.cpu_count(),
            "load_before": LOAD_BEFORE,
            "python": platform.python_version(),
            "kernel": platform.release(),
        }
        path.write_bytes(json.format(json.encode({"machine": machine, "figures": [asdict(f) for f in self.figures]})))


LOAD_BEFORE = round(os.getloadavg()[0], 2)
