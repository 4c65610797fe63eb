"""`MoleculeOperative`: a task whose work is a job of its own.

With `mode: bus` (the default) the inner job is submitted as a child of the task's job, and the task let go of: a
molecule that waits holds nothing, and the Oracle that ends the child reports the task. With `mode: local` its steps run
in this process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from gbe_jobs_domain import subjects
from gbe_jobs_domain.definitions import JobDefinition
from gbe_jobs_domain.molecules import MAX_BYTES, REFERENCE
from gbe_nexus import NexusError, StateStore
from gbe_operative.contract import Delegated, Execution, Operative, OperativeContext, Result
from gbe_operative.plugin_settings import from_environment
from gbe_operative_molecule.local import LocalOperatives, run_locally
from gbe_operative_molecule.plan import Plan, inner_definition, lineage_of, plan, rejected
from gbe_operative_molecule.registry import NotRegistered, Registry
from gbe_operative_molecule.settings import MoleculeSettings
from gbe_operative_molecule.submission import adopted, insist, submit_child

IN_A_THREAD = 16 << 10
"""Bytes of a document from which on it is read beside the event loop."""


class MoleculeOperative(Operative):
    """`environment`: settings, see `settings.py`. `local`: what executes the steps with `mode: local`, by task type;
    default: the installed plug-in of that name."""

    def __init__(
        self,
        task_types: Sequence[str] = ("molecule",),
        *,
        environment: Mapping[str, str] | None = None,
        local: Callable[[str], Operative] | None = None,
    ) -> None:
        self._types = tuple(task_types)
        self._settings = from_environment(MoleculeSettings, environment)
        self._local = LocalOperatives(local)
        self._context: OperativeContext | None = None
        self._store: StateStore | None = None

    @property
    def handles(self) -> tuple[str, ...]:
        """As given."""
        return self._types

    async def start(self, context: OperativeContext) -> None:
        """See `Operative`."""
        self._context = context
        self._local.context = context

    async def close(self) -> None:
        """See `Operative`."""
        await self._local.close()

    async def execute(self, execution: Execution) -> Result:
        """Submit the inner job, or run it."""
        return await self._execute(execution, within_local=False)

    async def _execute(self, execution: Execution, *, within_local: bool) -> Result:
        task = execution.task
        found = plan(task, execution.attempt, execution.params, self._settings.max_depth)
        local = within_local or found.mode == "local"
        if not local and task.output_schema is not None:
            raise rejected("output_schema: the data of a molecule on the bus is not checked; declare it for its steps")
        variables = dict(found.variables)
        if not local:
            for name, ref in execution.refs.items():
                if name in variables:
                    variables[name] = await adopted(execution.artifacts, found.child, name, ref)
        definition, lineage = await self._definition(execution, found, variables)
        if local:
            return await run_locally(
                execution,
                definition,
                found.child,
                lineage,
                operatives=self._local,
                checks=self._context.checks if self._context is not None else None,
                slots=self._settings.local_slots,
                molecule=lambda inner: self._execute(inner, within_local=True),
                molecule_types=self._types,
            )
        assert self._context is not None
        try:
            await submit_child(
                self._context.transport,
                execution.artifacts,
                task,
                execution.attempt,
                found.child,
                definition,
                lineage,
            )
        except NexusError as error:
            raise rejected(f"the inner job can't be submitted: {error}") from error
        return Delegated(found.child)

    async def _definition(
        self, execution: Execution, found: Plan, variables: Mapping[str, str]
    ) -> tuple[JobDefinition, list[str]]:
        """The inner job, and the registered molecules it is made of."""
        task = execution.task
        text: str | bytes = found.given
        source, lineage = "molecule", list(task.lineage)
        if (ref := execution.refs.get(found.source)) is not None:
            # What came along an edge, or was stored by this job: the document itself.
            try:
                text = await insist("read a molecule", lambda: execution.artifacts.read(ref.key, limit=MAX_BYTES))
            except NexusError as error:
                raise rejected(f"param {REFERENCE!r}: {error}") from error
        elif found.source == REFERENCE:
            registry = Registry(await self._molecules())
            try:
                registered = await insist("read the registry", lambda: registry.find(found.given, found.child))
            except (NotRegistered, NexusError) as error:
                raise rejected(f"param {REFERENCE!r}: {error}") from error
            text, source = registered.text, registered.reference
            lineage = lineage_of(task, source)
        if len(text) > MAX_BYTES:
            raise rejected(f"a molecule of {len(text):,} bytes is too large (limit {MAX_BYTES:,} bytes)")
        if len(text) > IN_A_THREAD:
            definition = await asyncio.to_thread(inner_definition, text, source, variables, task.org_id)
        else:
            definition = inner_definition(text, source, variables, task.org_id)
        return definition, lineage

    async def _molecules(self) -> StateStore:
        if self._store is None:
            assert self._context is not None
            transport = self._context.transport
            self._store = await insist("open the registry", lambda: transport.state_store(subjects.MOLECULES_BUCKET))
        return self._store
