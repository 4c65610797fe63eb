"""Acceptance scenario P7, and P13 and P15 as they are for scripts."""

from __future__ import annotations

import asyncio
import os
import resource
from pathlib import Path
from typing import Any

import pytest

from gbe_jobs_domain.edges import Ref
from gbe_jobs_domain.outcomes import Failed, FailureKind
from gbe_operative.contract import OperativeError
from gbe_operative.plugin_settings import ConfigurationError
from gbe_operative_command.testing import runs
from gbe_operative_script import ScriptOperative

Scripts = Any  # of conftest.py, which can't be imported

SHOW = '#!/bin/sh\nfor word in "$@"; do echo "<$word>"; done\n'


async def refused(scripts: Scripts, says: str, **params: str) -> None:
    """Rejected, and nothing has run: every script here would leave a mark."""
    with pytest.raises(OperativeError, match=says) as caught:
        await scripts.run(**params)
    assert caught.value.kind is FailureKind.REJECTED
    assert not caught.value.retryable
    assert not (scripts.root / "ran").exists()


async def test_a_script_runs(scripts: Scripts) -> None:
    scripts.write("tools/show.sh", SHOW + 'echo "$GREETING $GBE_TASK_NAME" "$(cat)"; pwd; echo "$0"\n')
    outcome = await scripts.run(script_path="tools/show.sh", args="a 'b c' d\\ e", GREETING="hi", stdin="read")
    assert outcome.output[:4] == ["<a>", "<b c>", "<d e>", "hi the-task read"]
    assert "/work/" in outcome.output[4], "in a private directory, not beside the script"
    assert outcome.output[5] == str(scripts.root / "tools/show.sh"), "so that it finds what lies beside it"


async def test_its_json_is_data_and_its_exit_code_counts(scripts: Scripts) -> None:
    scripts.write("json.sh", "#!/bin/sh\necho '{\"n\": 1}'\n")
    assert (await scripts.run(script_path="json.sh")).data.decoded() == {"n": 1}
    scripts.write("fails.sh", "#!/bin/sh\necho broken >&2; exit 42\n")
    outcome = await scripts.run(script_path="fails.sh")
    assert (outcome.exit_code, outcome.error) == (42, "broken")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("", []),
        ("  ", []),
        ("one two", ["one", "two"]),
        ("$HOME `id` *", ["$HOME", "`id`", "*"]),
        ('["a b", "", "$x", 5, true, 1.5]', ["a b", "", "$x", "5", "true", "1.5"]),
        ('"[a]"', ["[a]"]),
        ("--name=ä\nsecond", ["--name=ä", "second"]),
    ],
)
async def test_arguments(scripts: Scripts, args: str, words: list[str]) -> None:
    outcome = await scripts.run(script_path=scripts.write("show.sh", SHOW), args=args)
    assert outcome.output == [f"<{word}>" for word in words]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ("'open", "args can't be split into words: No closing quotation"),
        ("[a]", r"begins with '\[' and is no JSON array.*quoted"),
        ('[["a"]]', r"no JSON array of strings"),
        ("[" * 100_000, "no JSON array"),
        ("a\0b", "argument 1 contains a NUL"),
        ("x " * 20_000, "args: 40000 characters are too many to split into words .limit 32768.; use a JSON array"),
        ('["x", "' + "y" * 140_000 + '"]', "argument 2 has 140000 bytes, the limit is 131071; use stdin_ref"),
        ("[" + ", ".join(['"' + "y" * 100_000 + '"'] * 11) + "]", "1100011 bytes in all, the limit is 1048576"),
    ],
)
async def test_arguments_that_are_none(scripts: Scripts, args: str, says: str) -> None:
    await refused(scripts, says, script_path=scripts.write("s.sh", "#!/bin/sh\ntouch ../../ran\n"), args=args)


async def test_the_interpreter(scripts: Scripts) -> None:
    scripts.write("plain", "import sys; print(sys.flags.optimize, sys.argv[1:])", mode=0o644)
    outcome = await scripts.run(script_path="plain", interpreter="python3 -O", args="x")
    assert outcome.output == ["1 ['x']"]
    scripts.write("script", "#!/usr/bin/env -S python3 -O\nimport sys; print(sys.flags.optimize)\n")
    assert (await scripts.run(script_path="script")).output == ["1"]
    assert (await scripts.run(script_path="script", interpreter="/usr/bin/env python3")).output == ["0"]


@pytest.mark.parametrize(
    ("interpreter", "says"),
    [
        ("no-such-thing", "interpreter: cannot run 'no-such-thing': no such executable in PATH"),
        ("/no/such", "interpreter: '/no/such' is not there"),
        ("/etc/passwd", "interpreter: '/etc/passwd' is not executable"),
        ("", "interpreter is empty"),
        ("'", "interpreter can't be split"),
    ],
)
async def test_interpreters_that_are_none(scripts: Scripts, interpreter: str, says: str) -> None:
    await refused(scripts, says, script_path=scripts.write("s", "touch ran"), interpreter=interpreter)


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("#!/bin/sh\n", 0o644, r"it is not executable; name an interpreter, or chmod \+x it"),
        ("echo hello\n", 0o755, "it has no #! line; name an interpreter"),
        ("#!\n", 0o755, "its #! line names nothing"),
        ("#!/no/such/shell -e\n", 0o755, "its #! line: '/no/such/shell' is not there"),
        ("#!/bin/sh\r\n", 0o755, r"its #! line: '/bin/sh\\r' is not there; its lines end in CR LF"),
        ("#!/usr/bin/env no-such-language\n", 0o755, "its #! line: cannot run 'no-such-language'"),
    ],
)
async def test_what_nothing_can_execute(scripts: Scripts, text: str, mode: int, says: str) -> None:
    await refused(scripts, says, script_path=scripts.write("s", text, mode))


async def test_what_is_no_script(scripts: Scripts, tmp_path: Path) -> None:
    outside = tmp_path / "outside.sh"
    outside.write_text(f"#!/bin/sh\ntouch {scripts.root}/ran\n")
    outside.chmod(0o755)
    (scripts.root / "link.sh").symlink_to(outside)
    (scripts.root / "directory").mkdir()
    await refused(scripts, "^missing param: script_path$")
    await refused(scripts, "script_path 'missing.sh': there is no such file in ", script_path="missing.sh")
    await refused(scripts, "script_path 'directory': it is a directory", script_path="directory")
    for path in ("../outside.sh", str(outside), "link.sh", "directory/../../outside.sh"):
        await refused(scripts, "it is outside of .*/root, where this host lets", script_path=path)


async def test_a_script_that_may_not_be_read(scripts: Scripts) -> None:
    scripts.write("secret.sh", "#!/bin/sh\ntouch ran\n", mode=0o000)
    for directory in (scripts.root, *scripts.root.parents[:5]):
        if directory.stat().st_uid == os.getuid() and directory != Path("/tmp"):
            directory.chmod(0o755)
    if root := os.geteuid() == 0:
        os.seteuid(65534)
    try:
        await refused(scripts, "script_path 'secret.sh': it can't be read: Permission denied", script_path="secret.sh")
    finally:
        if root:
            os.seteuid(0)


async def test_variables(scripts: Scripts) -> None:
    scripts.write("env.sh", "#!/bin/sh\nenv\n")
    outcome = await scripts.run(script_path="env.sh", args="x", A="1")
    variables = dict(line.split("=", 1) for line in outcome.output)
    assert variables["A"] == "1"
    assert not {"args", "script_path", "TOKEN", "GBE_SCRIPT_ROOT"} & variables.keys()
    await refused(scripts, "param 'PATH'", script_path="env.sh", PATH="/evil")
    await refused(scripts, "param 'BIG': 200000 bytes.*BIG_ref", script_path="env.sh", BIG="x" * 200_000)


async def test_cancelled_mid_way(scripts: Scripts, tmp_path: Path) -> None:
    scripts.write("sleeps.sh", f"#!/bin/sh\nsleep 77 & echo $! > {tmp_path}/pid\necho up\nwait\n")
    execution = scripts.stage.execution({"script_path": "sleeps.sh"})
    running = asyncio.create_task(scripts.operative.execute(execution))
    async with asyncio.timeout(10):
        await scripts.stage.said.wait()
    execution.cancelled.set()
    outcome = await running
    assert isinstance(outcome, Failed)
    assert outcome.kind is FailureKind.CANCELLED
    assert not runs(int((tmp_path / "pid").read_text()))


@pytest.mark.slow
async def test_half_a_gigabyte_of_output(scripts: Scripts) -> None:
    scripts.write("huge.sh", "#!/bin/sh\nhead -c 500000000 /dev/zero | tr '\\0' 'x'\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    stored = scripts.stage.keep_spills_as_files()
    outcome = await scripts.run(script_path="huge.sh")
    assert outcome.data.size == 500_000_000
    assert stored[0].stat().st_size == 500_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kilobytes"


async def test_a_large_output_goes_by_reference(scripts: Scripts) -> None:
    scripts.write("large.sh", "#!/bin/sh\nseq 1 100000\n")
    outcome = await scripts.run(script_path="large.sh")
    assert isinstance(outcome.data, Ref)
    assert outcome.data.size == 588_895
    assert outcome.output[-1] == "100000"
    assert sum(map(len, outcome.output)) < 70_000


def test_the_hosts_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GBE_SCRIPT_ROOT", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match=r"^GBE_SCRIPT_ROOT: .*/none: not a directory$"):
        ScriptOperative()
