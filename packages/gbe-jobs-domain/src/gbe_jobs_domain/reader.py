"""Nodes to `JobDefinition`: what a document means, and everything that is wrong with it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from msgspec.structs import replace

from gbe_jobs_domain import dag, molecules
from gbe_jobs_domain.collector import Collector
from gbe_jobs_domain.definitions import MAX_RETRIES, JobDefinition, Output, TaskDefinition
from gbe_jobs_domain.errors import PathPart, quoted
from gbe_jobs_domain.ids import DEFAULT_ORG, InvalidId, check_org_id, check_task_name, check_type_name
from gbe_jobs_domain.inner import InnerDocument, InnerDocuments
from gbe_jobs_domain.keys import IN_PARAMS, JOB, LOCAL_KEYS, MOLECULE, RETRY_KEYS, SYNONYMS, Form
from gbe_jobs_domain.nodes import Broken, Entries, Items, Kind, Node, Scalar, node_at
from gbe_jobs_domain.payloads import OnLost, Param, RetryPolicy, SecretRef
from gbe_jobs_domain.schema_files import SchemaFiles
from gbe_jobs_domain.suggestions import Suggester
from gbe_jobs_domain.variables import TEMPLATE, VARIABLE_NAME, VARIABLES, VariableError, refers, substitute

_YEAR: Final = 31_536_000.0
_DAY: Final = 86_400.0
_SECRET_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}\Z")
_NOT_IN_A_SLUG: Final = re.compile(r"[^a-z0-9]+")
_SAID: Final = dict.fromkeys(("true", "yes", "on", "y", "1"), "true") | dict.fromkeys(
    ("false", "no", "off", "n", "0"), "false"
)
"""What people write for a boolean, and what it is in YAML 1.2."""
_CLAIM_CHECK: Final = "store it and pass a reference (a param named *_ref), or write it as one JSON string"

Path: TypeAlias = tuple[PathPart, ...]
Check: TypeAlias = Callable[[str], str]


def slug(name: str) -> str:
    """The job type of a job that names none: lower-case, anything else a dash, at most 48 characters."""
    return _NOT_IN_A_SLUG.sub("-", name.lower()).strip("-")[:48].rstrip("-") or "job"


class Reader:
    """Reads one document. Errors go to the collector; what is returned counts only if there are none."""

    def __init__(
        self,
        collector: Collector,
        overrides: Mapping[str, str],
        limit: int,
        *,
        inner: InnerDocuments | None = None,
        schemas: SchemaFiles | None = None,
        outermost: bool = True,
        given_as: str = "--var",
    ) -> None:
        self.collector = self._errors = collector
        self.overrides = overrides
        self._inner = inner or InnerDocuments(None, limit)
        self._outermost = outermost
        self._given_as = given_as
        self._schemas = schemas or SchemaFiles(None if inner is None else inner.folder)
        self._substituted = 0
        self._limit = limit
        self._suggester = Suggester()
        self.form: Form = JOB
        self.variables: dict[str, str] = {}
        self.height = 0
        """Levels of molecules within molecules that were found in it."""
        self.with_files = False
        """Whether one of them, or a schema, is a file."""

    def read(self, root: Node | None) -> JobDefinition | None:
        """The definition; None where there are errors."""
        if root is None or (isinstance(root, Scalar) and root.kind is Kind.NULL):
            self._errors.at(1, 1, "the document is empty", "a job has a name and tasks")
            return None
        if not isinstance(root, Entries):
            if not isinstance(root, Broken):
                self._errors.on(root, (), f"expected a mapping with a job's keys, found {_found(root)}")
            return None
        self.form = form = _form_of(root)
        meant = self._keys(root, (), form.keys, form.reserved)
        self._version(root)
        self.variables = self._vars(root)
        name = self._job_name(root, meant)
        job_type = self._checked(root, "job_type", (), check_type_name) or slug(name)
        org = self._checked(root, "org", (), check_org_id) or DEFAULT_ORG
        tasks = self._tasks(root, meant)
        output = self._output(root, tasks)
        fail_fast = self._flag(root, "fail_fast", default=True)
        self.local = self._local(root)
        if self.variables:
            tasks = [self._with_variables(task) for task in tasks]
        if self._errors:
            return None
        return JobDefinition(name=name, job_type=job_type, tasks=tasks, org=org, output=output, fail_fast=fail_fast)

    # --- the job ---------------------------------------------------------------------------------

    def _version(self, root: Entries) -> None:
        node = _value(root, "v")
        if node is not None and not isinstance(node, Broken):
            if isinstance(node, Scalar) and node.kind is Kind.NUMBER and node.text == "1":
                return
            self._errors.on(node, ("v",), f"expected 1, the only version there is, found {_found(node)}")

    def _local(self, root: Entries) -> dict[str, str]:
        node = _value(root, "local")
        if node is None or isinstance(node, Broken):
            return {}
        if not isinstance(node, Entries):
            self._errors.on(node, ("local",), f"expected a mapping of {', '.join(LOCAL_KEYS)}, found {_found(node)}")
            return {}
        self._keys(node, ("local",), LOCAL_KEYS, frozenset())
        given = {key: self._string(node, key, ("local",)) for key in LOCAL_KEYS}
        return {key: text for key, text in given.items() if text}

    def _flag(self, root: Entries, key: str, *, default: bool) -> bool:
        node = _value(root, key)
        if node is None or isinstance(node, Broken):
            return default
        if isinstance(node, Scalar) and node.kind is Kind.BOOL:
            return node.text == "true"
        meant = _SAID.get(node.text.lower(), "") if isinstance(node, Scalar) else ""
        self._errors.on(node, (key,), f"expected true or false, found {_found(node)}", meant and f"write {meant}")
        return default

    def _vars(self, root: Entries) -> dict[str, str]:
        variables: dict[str, str] = {}
        node = _value(root, "vars")
        for key, value in self._mapping(node, ("vars",)):
            path = ("vars", key.text)
            if not VARIABLE_NAME.match(key.text):
                hint = "a letter or '_', then letters, digits, '-' and '_'"
                self._errors.on(key, path, f"{quoted(key.text)} is no variable name", hint)
            if isinstance(value, Scalar) and value.kind is not Kind.NULL:
                if "${{ vars." in value.text:
                    self._errors.on(value, path, "variables are substituted in params only, not in vars")
                variables[key.text] = value.text
            else:
                if not isinstance(value, Broken):
                    self._errors.on(value, path, f"expected a string, a number or a boolean, found {_found(value)}")
                variables[key.text] = ""
        for name, override in self.overrides.items():
            if name not in variables:
                hint = self._suggester.hint(name, variables) or "declare it under vars"
                what = "document" if self._outermost and self._given_as == "--var" else "molecule"
                message = f"{self._given_as} {quoted(name)}: the {what} declares no such variable"
                self._errors.at(0, 0, message, hint)
            elif not _is_text(override):
                self._errors.at(0, 0, f"{self._given_as} {quoted(name)}: not valid UTF-8")
            else:
                variables[name] = override
        return variables

    def _with_variables(self, task: TaskDefinition) -> TaskDefinition:
        """A template's task gets the job's variables as one param, since nothing else takes them to an Operative."""
        if task.task_type != TEMPLATE or VARIABLES in task.params or VARIABLES in task.input_from:
            return task
        text = json.dumps(self.variables, ensure_ascii=False, separators=(",", ":"))
        self._substituted += len(text)
        if self._substituted > self._limit:
            self._errors.at(0, 0, f"the variables make the definition larger than {self._limit:,} bytes")
            return task
        return replace(task, params={**task.params, VARIABLES: text})

    def _job_name(self, root: Entries, meant: set[str]) -> str:
        key = self.form.name
        name = self._string(root, key, ())
        if name is None:
            if key not in root.entries and key not in meant and not root.partial:
                self._errors.on(root, (), f"missing key '{key}'", f"a {self.form.title} needs a name")
            return "job"
        node = root.entries[key][1]
        if refers(name):
            self._errors.on(node, (key,), "variables are substituted in params only")
        elif problem := dag.job_name_problem(name):
            self._errors.on(node, (key,), problem)
        return name

    def _tasks(self, root: Entries, meant: set[str]) -> list[TaskDefinition]:
        key = self.form.tasks
        node = _value(root, key)
        if node is None:
            if key not in meant:
                if root.partial:
                    return []
                self._errors.on(root, (), f"missing key '{key}'", f"a {self.form.title} needs a list of them")
                return []
            # Written under another key, which is reported: its tasks are looked at all the same.
            key = next((k for k, right in self.form.foreign.items() if right == key and k in root.entries), key)
            node = _value(root, key)
        if not isinstance(node, Items):
            if node is not None and not isinstance(node, Broken):
                self._errors.on(node, (key,), f"expected a list, found {_found(node)}", "each task begins with '- '")
            return []
        tasks = [self._task(item, (key, i), i) for i, item in enumerate(node.items)]
        for problem in dag.check(tasks, self._suggester):
            path: Path = (key, problem.index, *problem.path) if problem.index >= 0 else (key,)
            place = node_at(node, (problem.index, *problem.path)) if problem.index >= 0 else node
            self._errors.on(place, path, problem.message, problem.hint)
        return tasks

    def _output(self, root: Entries, tasks: list[TaskDefinition]) -> Output:
        node = _value(root, "output")
        if node is None or isinstance(node, Broken):
            return None
        output: Output
        if isinstance(node, Entries):
            output = {}
            for key, value in node.entries.values():
                at = ("output", key.text)
                if not _could_be_a_name(key.text):
                    self._errors.on(key, at, f"{quoted(key.text)}: a name is 1 to 128 of letters, digits, '-' and '_'")
                elif isinstance(value, Scalar) and value.kind is Kind.STRING:
                    output[key.text] = value.text
                elif not isinstance(value, Broken):
                    expected = "expected a reference like 'task' or 'task.field'"
                    self._errors.on(value, at, f"{expected}, found {_found(value)}", _quotes(value))
        elif isinstance(node, Scalar) and node.kind is Kind.STRING:
            output = node.text
        else:
            expected = "expected a reference like 'task.field', or a mapping of names to such"
            self._errors.on(node, ("output",), f"{expected}, found {_found(node)}", _quotes(node))
            return None
        for name, message, hint in dag.output_problems(output, tasks, self._suggester):
            path = ("output", name) if name else ("output",)
            if refers(output if isinstance(output, str) else output[name]):
                self._errors.on(node_at(root, path), path, "variables are substituted in params only")
            else:
                self._errors.on(node_at(root, path), path, message, hint)
        return output

    # --- a task ----------------------------------------------------------------------------------

    def _task(self, node: Node, path: Path, index: int) -> TaskDefinition:
        nameless = f"\0{index}"
        if not isinstance(node, Entries):
            if not isinstance(node, Broken):
                self._errors.on(node, path, f"expected a mapping with a task's keys, found {_found(node)}")
            return TaskDefinition(nameless, "unknown")
        form = self.form
        meant = self._keys(node, path, form.task_keys, form.reserved_in_task)
        for key in ("name", form.task_type):
            if key not in node.entries and key not in meant and not node.partial:
                self._errors.on(node, path, f"missing key '{key}'")
        name = self._checked(node, "name", path, check_task_name)
        retries = self._number(node, "max_retries", path, "a whole number", 0, MAX_RETRIES, whole=True)
        task_type = self._checked(node, form.task_type, path, check_type_name) or "unknown"
        references = self._input_from(node, path)
        params = self._params(node, path, task_type)
        if task_type == molecules.TASK_TYPE:
            self._molecule(node, path, params, references)
        return TaskDefinition(
            name=nameless if name is None else name,
            task_type=task_type,
            depends_on=self._depends_on(node, path),
            input_from=references,
            params=params,
            timeout_secs=self._number(node, "timeout_secs", path, "a number of seconds", 0, _YEAR, above=True),
            max_retries=int(retries or 0),
            retry=self._retry(node, path),
            on_lost=self._on_lost(node, path),
            input_schema=self._schema(node, "input_schema", path),
            output_schema=self._schema(node, "output_schema", path),
        )

    def _depends_on(self, task: Entries, path: Path) -> list[str]:
        node = _value(task, "depends_on")
        if node is None or isinstance(node, Broken):
            return []
        path = (*path, "depends_on")
        if not isinstance(node, Items):
            hint = f"write [{node.text}]" if isinstance(node, Scalar) and _could_be_a_name(node.text) else ""
            self._errors.on(node, path, f"expected a list of task names, found {_found(node)}", hint)
            return []
        names: list[str] = []
        kept: list[Node] = []
        for i, item in enumerate(node.items):
            if isinstance(item, Scalar) and item.kind is Kind.STRING:
                names.append(item.text)
                kept.append(item)
            elif not isinstance(item, Broken):
                self._errors.on(item, (*path, i), f"expected a task name, found {_found(item)}", _quotes(item))
        node.items = kept  # so that the index of a name is that of its node
        return names

    def _input_from(self, task: Entries, path: Path) -> dict[str, str]:
        path = (*path, "input_from")
        references: dict[str, str] = {}
        for key, value in self._mapping(_value(task, "input_from"), path):
            at = (*path, key.text)
            self._param_name(key, at)
            if not isinstance(value, Scalar) or value.kind is not Kind.STRING:
                if not isinstance(value, Broken):
                    expected = "expected a reference like 'task' or 'task.field'"
                    self._errors.on(value, at, f"{expected}, found {_found(value)}", _quotes(value))
            elif refers(value.text):
                self._errors.on(value, at, "variables are substituted in params only")
            elif "" in value.text.split("."):
                self._errors.on(value, at, f"{quoted(value.text)} has an empty part", "write 'task' or 'task.field'")
            else:
                references[key.text] = value.text
        return references

    def _params(self, task: Entries, path: Path, task_type: str) -> dict[str, Param]:
        path = (*path, "params")
        params: dict[str, Param] = {}
        for key, value in self._mapping(_value(task, "params"), path):
            at = (*path, key.text)
            self._param_name(key, at)
            if task_type == molecules.TASK_TYPE and key.text == molecules.DOCUMENT:
                continue  # a document with variables of its own
            if isinstance(value, Scalar):
                if value.kind is Kind.NULL:
                    self._errors.on(value, at, "null is no value for a param", 'write "" for an empty string')
                else:
                    params[key.text] = self._substituted_text(value, at)
            elif isinstance(value, Entries) and "secret" in value.entries:
                params[key.text] = self._secret(value, at)
            elif not isinstance(value, Broken):
                what = "a list" if isinstance(value, Items) else "a nested mapping"
                message = f"param {quoted(key.text)} is {what}, but params are strings, numbers and booleans"
                self._errors.on(value, at, message, _CLAIM_CHECK)
        return params

    def _molecule(self, task: Entries, path: Path, params: dict[str, Param], references: Mapping[str, str]) -> None:
        """What the molecule of a task is; its document is put into the params, and into the nodes."""
        node = _value(task, "params")
        given = node.entries if isinstance(node, Entries) else {}
        if isinstance(node, Broken) or (isinstance(node, Entries) and node.partial):
            return
        sources = [name for name in molecules.SOURCES if name in given or name in references]
        at = (*path, "params")
        if len(sources) != 1:
            found = " and ".join(sources) or "none of them"
            message = f"a molecule is one of the params {', '.join(molecules.SOURCES)}; found {found}"
            self._errors.on(node or task, at if node else path, message)
            return
        self._molecule_settings(task, path, given, params)
        source = sources[0]
        if source not in given or source in references:
            if source == molecules.PATH:
                message = "a file is read where the job is submitted: its name can't come from a task"
                self._errors.on(node_at(task, ("input_from", source)), (*path, "input_from", source), message)
            return
        key, value = given[source]
        at = (*at, source)
        inner: InnerDocument | None = None
        if source == molecules.DOCUMENT:
            inner = self._inner.inline(value, self._errors, at)
        elif source == molecules.PATH:
            inner = self._molecule_file(value, at, params.pop(source, None))
        elif isinstance(value, Scalar) and not refers(value.text) and not molecules.parse_reference(value.text):
            message = f"{quoted(value.text)}: a registered molecule is 'name' or 'name@version'"
            self._errors.on(value, at, message, "the name is 1 to 64 of letters, digits, '-' and '_'")
        if inner is None:
            return
        self.height = max(self.height, inner.height + 1)
        self.with_files |= inner.with_files or source == molecules.PATH
        params[molecules.DOCUMENT] = inner.text
        if isinstance(node, Entries):
            del node.entries[source]
            node.entries[molecules.DOCUMENT] = (key, inner.root)
        for where, names in (("params", given), ("input_from", references)):
            for name in names:
                if name not in inner.variables and name not in molecules.OWN_PARAMS:
                    hint = self._suggester.hint(name, inner.variables) or "declare it under the molecule's vars"
                    parent = _value(task, where)
                    place = parent.entries[name][0] if isinstance(parent, Entries) else task
                    message = f"the molecule declares no variable {quoted(name)}"
                    self._errors.on(place, (*path, where, name), message, hint)

    def _molecule_file(self, node: Node, path: Path, name: Param | None) -> InnerDocument | None:
        if not isinstance(node, Scalar) or not isinstance(name, str):
            return None  # said already
        if not self._outermost and refers(node.text):
            message = "within a molecule, the name of a file can't have variables: it is read when the job is submitted"
            self._errors.on(node, path, message)
            return None
        return self._inner.file(name, node, self._errors, path)

    def _molecule_settings(
        self, task: Entries, path: Path, given: Mapping[str, tuple[Scalar, Node]], params: Mapping[str, Param]
    ) -> None:
        mode = params.get(molecules.MODE)
        if mode is not None and mode not in molecules.MODES and self._outermost:
            value = given[molecules.MODE][1]
            found = _found(value)
            hint = self._suggester.hint(str(mode), molecules.MODES)
            self._errors.on(value, (*path, "params", "mode"), f"expected 'bus' or 'local', found {found}", hint)
        for name, param in params.items():
            if isinstance(param, SecretRef):
                message = "a secret can't be passed to a molecule: it would travel with the inner job"
                self._errors.on(given[name][1], (*path, "params", name), message, "name it in the step that needs it")
        declared = _value(task, "output_schema")
        if declared is not None and (mode is None or mode == "bus"):
            message = "the data of a molecule is put together when its last step is over, and not checked"
            self._errors.on(declared, (*path, "output_schema"), message, "say it of the steps, or use mode: local")
        on_lost = _value(task, "on_lost")
        if isinstance(on_lost, Scalar) and on_lost.text == OnLost.FAIL and mode != "local":
            message = "a molecule is never run a second time, it is gone on with"
            self._errors.on(on_lost, (*path, "on_lost"), message, "say it of the steps that must not run twice")

    def _param_name(self, key: Scalar, path: Path) -> None:
        if not key.text or len(key.text) > 128:
            self._errors.on(key, path, "a param name has 1 to 128 characters")

    def _substituted_text(self, value: Scalar, path: Path) -> str:
        if not refers(value.text):
            return value.text
        if self._substituted > self._limit:
            return ""
        try:
            text = substitute(value.text, self.variables, self._suggester)
        except VariableError as error:
            self._errors.on(value, path, error.message, error.hint)
            return ""
        self._substituted += len(text)
        if self._substituted > self._limit:
            self._errors.on(value, path, f"the variables make the definition larger than {self._limit:,} bytes")
        return text

    def _secret(self, node: Entries, path: Path) -> Param:
        self._keys(node, path, ("secret",), frozenset())
        key, value = node.entries["secret"]
        if isinstance(value, Broken):
            return ""
        if not isinstance(value, Scalar) or value.kind is not Kind.STRING:
            self._errors.on(value, (*path, "secret"), f"expected the name of a secret, found {_found(value)}")
            return ""
        if not _SECRET_NAME.match(value.text):
            message = f"{quoted(value.text)}: a secret's name is 1 to 128 of letters, digits, '.', '-' and '_'"
            self._errors.on(value, (*path, key.text), message)
            return ""
        return SecretRef(value.text)

    def _retry(self, task: Entries, path: Path) -> RetryPolicy | None:
        node = _value(task, "retry")
        if node is None or isinstance(node, Broken):
            return None
        path = (*path, "retry")
        if not isinstance(node, Entries):
            hint = "how often to retry is max_retries" if isinstance(node, Scalar) and node.kind is Kind.NUMBER else ""
            self._errors.on(node, path, f"expected a mapping of {', '.join(RETRY_KEYS)}, found {_found(node)}", hint)
            return None
        self._keys(node, path, RETRY_KEYS, frozenset())
        usual = RetryPolicy()
        delay = self._number(node, "delay", path, "a number of seconds", 0, _DAY)
        factor = self._number(node, "factor", path, "a number", 1, 100)
        longest = self._number(node, "max_delay", path, "a number of seconds", 0, _DAY)
        return RetryPolicy(
            delay=usual.delay if delay is None else delay,
            factor=usual.factor if factor is None else factor,
            max_delay=usual.max_delay if longest is None else longest,
        )

    def _on_lost(self, task: Entries, path: Path) -> OnLost:
        text = self._string(task, "on_lost", path)
        if text is None:
            return OnLost.RERUN
        try:
            return OnLost(text)
        except ValueError:
            node = task.entries["on_lost"][1]
            hint = self._suggester.hint(text, list(OnLost))
            self._errors.on(node, (*path, "on_lost"), f"expected 'rerun' or 'fail', found {quoted(text)}", hint)
            return OnLost.RERUN

    def _schema(self, task: Entries, key: str, path: Path) -> dict[str, Any] | None:
        node = _value(task, key)
        if node is None or isinstance(node, Broken):
            return None
        path = (*path, key)
        if isinstance(node, Items) or (isinstance(node, Scalar) and node.kind is not Kind.STRING):
            expected = "expected a JSON Schema (a mapping), or the name of a file that holds one"
            self._errors.on(node, path, f"{expected}, found {_found(node)}")
            return None
        schema = self._schemas.read(node, self._errors, path)
        if schema is None:
            return None
        self.with_files |= isinstance(node, Scalar)
        self._substituted += schema.size
        if self._substituted > self._limit:
            self._errors.on(node, path, f"the schemas make the definition larger than {self._limit:,} bytes")
        task.entries[key] = (task.entries[key][0], schema.node)  # what was in a file is in the document now
        return schema.value

    # --- values ----------------------------------------------------------------------------------

    def _keys(self, node: Entries, path: Path, allowed: tuple[str, ...], reserved: frozenset[str]) -> set[str]:
        """Complain about keys that aren't allowed. Returns the keys that were probably meant by them."""
        meant: set[str] = set()
        form = self.form
        for text, (key, _) in node.entries.items():
            if text in allowed:
                continue
            at = (*path, text)
            right = form.foreign.get(text)
            other = (MOLECULE if form is JOB else JOB).title
            if right in allowed:
                meant.add(right)
                message = f"{quoted(text)} belongs to the {other} form"
                self._errors.on(key, at, message, f"in a {form.title} write '{right}'")
                continue
            synonym = SYNONYMS.get(text, "")
            if synonym == "task_type" and form is MOLECULE:
                synonym = "operative"
            if synonym in allowed:
                meant.add(synonym)
                self._errors.on(key, at, f"unknown key {quoted(text)}", f"did you mean '{synonym}'?")
            elif text in reserved:
                self._errors.on(key, at, f"{quoted(text)} is reserved, and not supported yet")
            elif text in IN_PARAMS and "params" in allowed:
                self._errors.on(key, at, f"unknown key {quoted(text)}", "it belongs under params")
            elif found := self._suggester.nearest(text, allowed):
                meant.add(found)
                self._errors.on(key, at, f"unknown key {quoted(text)}", f"did you mean '{found}'?")
            else:
                self._errors.on(key, at, f"unknown key {quoted(text)}", f"expected one of {', '.join(allowed)}")
        return meant

    def _mapping(self, node: Node | None, path: Path) -> Iterable[tuple[Scalar, Node]]:
        if node is None or isinstance(node, Broken):
            return ()
        if not isinstance(node, Entries):
            self._errors.on(node, path, f"expected a mapping, found {_found(node)}")
            return ()
        return node.entries.values()

    def _string(self, parent: Entries, key: str, path: Path) -> str | None:
        node = _value(parent, key)
        if node is None or isinstance(node, Broken):
            return None
        if isinstance(node, Scalar) and node.kind is Kind.STRING:
            return node.text
        self._errors.on(node, (*path, key), f"expected a string, found {_found(node)}", _quotes(node))
        return None

    def _checked(self, parent: Entries, key: str, path: Path, check: Check) -> str | None:
        """A string of a given shape; returned also where it isn't, so that the graph is checked with it."""
        text = self._string(parent, key, path)
        if text is not None:
            node = parent.entries[key][1]
            try:
                check(text)
            except InvalidId as error:
                if refers(text):
                    self._errors.on(node, (*path, key), "variables are substituted in params only")
                else:
                    self._errors.on(node, (*path, key), str(error))
        return text

    def _number(
        self,
        parent: Entries,
        key: str,
        path: Path,
        expected: str,
        low: float,
        high: float,
        *,
        whole: bool = False,
        above: bool = False,
    ) -> float | None:
        node = _value(parent, key)
        if node is None or isinstance(node, Broken):
            return None
        number = _number_of(node, whole)
        if number is None:
            self._errors.on(node, (*path, key), f"expected {expected}, found {_found(node)}", _no_quotes(node))
        elif not (low < number if above else low <= number) or number > high:
            bounds = f"above {low:g} and at most {high:.10g}" if above else f"from {low:g} to {high:.10g}"
            self._errors.on(node, (*path, key), f"expected {expected} {bounds}, found {_found(node)}")
        return number


def _could_be_a_name(text: str) -> bool:
    """Whether a text could be a task's name."""
    try:
        check_task_name(text)
    except InvalidId:
        return False
    return True


def _form_of(root: Entries) -> Form:
    keys = root.entries
    if "molecule" in keys or ("steps" in keys and "tasks" not in keys and "name" not in keys):
        return MOLECULE
    return JOB


def _value(parent: Entries, key: str) -> Node | None:
    found = parent.entries.get(key)
    return found[1] if found else None


def _found(node: Node) -> str:
    if isinstance(node, Items):
        return "a list"
    if isinstance(node, Entries):
        return "a mapping"
    if isinstance(node, Broken):
        return "something else"
    if node.kind is Kind.NULL:
        return "nothing"
    return f"the {node.kind.value} {quoted(node.text) if node.kind is Kind.STRING else node.text[:80]}"


def _quotes(node: Node) -> str:
    wants = isinstance(node, Scalar) and node.kind in (Kind.NUMBER, Kind.BOOL)
    return "put it in quotes" if wants else ""


def _no_quotes(node: Node) -> str:
    wants = isinstance(node, Scalar) and node.kind is Kind.STRING and _plain_number(node.text) is not None
    return "remove the quotes" if wants else ""


def _number_of(node: Node, whole: bool) -> float | None:
    if not isinstance(node, Scalar) or node.kind is not Kind.NUMBER:
        return None
    number = _plain_number(node.text)
    return None if number is None or (whole and not number.is_integer()) else number


def _plain_number(text: str) -> float | None:
    """The number that a text is, if it is finite."""
    try:
        number = float(int(text[:100], 0)) if text[:2] in ("0x", "0o") else float(text)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
