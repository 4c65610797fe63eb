"""A stage to test such Operatives on alone: what stands behind an `Execution`, and who still lives.

The whole way, with a worker and a bus, is `gbe_operative.testing.Hall`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Mapping, Sequence
from pathlib import Path

from gbe_jobs_domain.edges import ARTIFACT_STORE, Ref
from gbe_jobs_domain.ids import new_job_id, task_id
from gbe_jobs_domain.payloads import ProgressKind, TaskQueued
from gbe_nexus import Artifact, ArtifactStore, Transport
from gbe_operative.contract import Execution, LineReporter, OperativeContext


class Stage:
    """An `ExecutionHost` that keeps what is said. `root`: where directories are made."""

    def __init__(self, transport: Transport, artifacts: ArtifactStore, root: Path) -> None:
        self.transport = transport
        self.artifacts = artifacts
        self.root = root
        self.job_id = new_job_id()
        self.lines: list[tuple[str, str]] = []
        self.said = asyncio.Event()
        self._made = 0
        self._kept: list[Path] | None = None

    @classmethod
    async def on(cls, transport: Transport, root: Path) -> Stage:
        """A stage with the artifact store of that bus."""
        return cls(transport, await transport.artifact_store(ARTIFACT_STORE), root)

    @property
    def context(self) -> OperativeContext:
        """What to start an Operative with."""
        return OperativeContext("test", self.transport, self.artifacts, self.root)

    def execution(
        self, params: Mapping[str, str], refs: Mapping[str, Ref] | None = None, task_type: str = "shell"
    ) -> Execution:
        """The second attempt of `the-task`."""
        task = TaskQueued(task_id(self.job_id, 0), self.job_id, "org_default", "test", "the-task", task_type)
        return Execution(self, task, 2, params, refs or {})

    def ref(self, artifact: Artifact) -> Ref:
        """The reference to something stored."""
        return Ref(ARTIFACT_STORE, artifact.key, artifact.size, artifact.sha256, artifact.media_type)

    def keep_spills_as_files(self) -> list[Path]:
        """From now on what is spilled is linked into `root`, and no line kept: for very large outputs."""
        self._kept = []
        return self._kept

    # --- for executions ---

    def make_work_dir(self, execution: Execution) -> Path:
        """A new directory."""
        self._made += 1
        path = self.root / f"work-{self._made}"
        path.mkdir()
        return path

    def report_progress(
        self, execution: Execution, kind: ProgressKind, message: str, lines: Sequence[str], stream: str, data: object
    ) -> None:
        """Keep the lines."""
        self.lines += [(stream, line) for line in lines]
        self.said.set()

    def line_reporter(self, execution: Execution) -> LineReporter:
        """Keep the lines."""

        def report(stream: str, line: bytes) -> None:
            if self._kept is None:
                self.lines.append((stream, line.decode(errors="replace")))
            self.said.set()

        return report

    async def spill(
        self, execution: Execution, source: bytes | Path | AsyncIterable[bytes], name: str, media_type: str
    ) -> Ref:
        """Store it."""
        if self._kept is not None and isinstance(source, Path):
            kept = self.root / f"kept-{len(self._kept)}"
            kept.hardlink_to(source)
            self._kept.append(kept)
            return Ref(ARTIFACT_STORE, f"{self.job_id}/{name}", kept.stat().st_size, "0" * 64, media_type)
        data = source.read_bytes() if isinstance(source, Path) else source
        return self.ref(await self.artifacts.put(f"{self.job_id}/{name}", data, media_type=media_type))


def runs(pid: int) -> bool:
    """Whether the process does something: nobody may be there to reap a dead one in a container."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
