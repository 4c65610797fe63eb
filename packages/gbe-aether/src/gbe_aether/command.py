"""The command `gbe-aether`: run, inspect, ledger, snapshot, verify.

Exit codes: 0 well; 1 a difference, or a run that failed; 2 bad input or a wrong command line.
"""

import argparse
import json
import os
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gbe_aether import fixtures
from gbe_aether.bundle import Bundle, write_bundle
from gbe_aether.canonical import plain
from gbe_aether.documents import open_regular, read_document
from gbe_aether.golden import verify_golden
from gbe_aether.introspection import build_introspection_view
from gbe_aether.registry import load_scenario_registry
from gbe_aether.result import SessionRunResult
from gbe_aether.session import run_session
from gbe_aether.session_config import SessionConfigV1, load_run_session_config, with_ticks
from gbe_aether.snapshots import FULL_FORMAT, compare_snapshots, full_snapshot, session_snapshot, write_snapshot
from gbe_aether.verification import verify_ledger


class _BadInput(Exception):
    """What the user gave cannot be used."""


_INPUT_ERRORS = (ValueError, TypeError, KeyError, OverflowError, OSError, zipfile.BadZipFile, RecursionError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read the output has enough of it. What is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except _BadInput as error:
        return _complain(error, 2)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except (*_INPUT_ERRORS, MemoryError) as error:
        return _complain(_one_line(error), 1)


def _complain(problem: object, code: int) -> int:
    print(f"gbe-aether: {problem}", file=sys.stderr)
    return code


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename:
        # Where a finished file cannot get its name, that is the second.
        return f"{error.strerror}: {error.filename2 or error.filename}"
    text = " ".join([str(error) or type(error).__name__, *getattr(error, "__notes__", ())])
    return " ".join(text.split())


def _input(read: Callable[[], Any]) -> Any:
    """What `read` gives; what it raises is bad input."""
    try:
        return read()
    except _INPUT_ERRORS as error:
        raise _BadInput(_one_line(error)) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gbe-aether", description="The Aether engine.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    def what(added: argparse.ArgumentParser) -> None:
        added.add_argument("what", metavar="RUN_CONFIG|SCENARIO", help="a run config's file, or a scenario's id")
        added.add_argument(
            "--registry", type=Path, metavar="F", help="the scenarios; those of this package if not said"
        )
        added.add_argument("--ticks", type=int, help="another number of ticks; windows that reach the end still do")

    run = command("run", _run, "Run a session and print a summary.")
    what(run)
    run.add_argument("--json", action="store_true", help="print the summary as JSON")
    run.add_argument("--export", type=Path, metavar="ZIP", help="write the whole result to a bundle")
    inspect = command("inspect", _inspect, "Run a session and print what it consists of, or one of its records.")
    what(inspect)
    inspect.add_argument("--summary", action="store_true", help="numbers, ids and ticks; the default")
    inspect.add_argument("--tick", type=int, help="the ledger, the blocks, the U-ledger entry of a tick")
    inspect.add_argument("--window", help="the manifest of a window")
    ledger = command("ledger", _ledger, "Run a session, print its U-ledger and verify it.")
    what(ledger)
    snapshot = command("snapshot", _nothing, "Write and compare session snapshots.")
    kinds = snapshot.add_subparsers(required=True, metavar="COMMAND")
    write = kinds.add_parser("write", help="run a session and write its snapshot")
    write.set_defaults(run=_snapshot_write)
    what(write)
    write.add_argument("--output", "-o", type=Path, required=True, metavar="F", help="the file to write")
    write.add_argument("--full", action="store_true", help="everything that is hashed, for verification")
    compare = kinds.add_parser("compare", help="compare a snapshot file with another, or with that of a run")
    compare.set_defaults(run=_snapshot_compare)
    compare.add_argument("what", nargs="?", metavar="RUN_CONFIG|SCENARIO", help="what to run and compare with")
    compare.add_argument("--registry", type=Path, metavar="F", help="the scenarios; those of this package if not said")
    compare.add_argument("--ticks", type=int, help=argparse.SUPPRESS)
    compare.add_argument("--baseline", type=Path, required=True, metavar="F", help="the snapshot to compare with")
    compare.add_argument("--candidate", type=Path, metavar="F", help="the snapshot to be compared")
    compare.add_argument("--max-diffs", type=int, default=50, metavar="N", help="show about so many; 50")
    verify = command("verify", _verify, "Run golden files; verify export bundles and full snapshots.")
    verify.add_argument("files", nargs="+", type=Path, metavar="FILE")
    return parser


def _nothing(options: argparse.Namespace) -> int:
    raise AssertionError("a command of its own is required")


def _config(options: argparse.Namespace) -> SessionConfigV1:
    config: SessionConfigV1 = _input(lambda: _load(options))
    if options.ticks is not None:
        config = _input(lambda: with_ticks(config, options.ticks))
    return config


def _load(options: argparse.Namespace) -> SessionConfigV1:
    given = str(options.what)
    registry = load_scenario_registry(options.registry or fixtures.registry_path())
    if given in registry.ids():
        return load_run_session_config(registry.run_config_file(given))
    if Path(given).exists() or given.endswith(".json") or os.sep in given:
        return load_run_session_config(given)
    known = ", ".join(registry.ids())
    raise ValueError(f"Scenario not found: {given} (there are {known}), nor is there such a file")


def _run_config(options: argparse.Namespace) -> SessionRunResult:
    return run_session(_config(options))


def _run(options: argparse.Namespace) -> int:
    result = _run_config(options)
    if options.export is not None:
        write_bundle(result, options.export)
    summary = _summary(result)
    if options.json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
        return 0
    for line in _readable(result, summary):
        print(line)
    return 0


def _summary(result: SessionRunResult) -> dict[str, Any]:
    ticks = result.tick_result
    checkpoint = ticks.u_ledger_checkpoint
    return {
        "run_id": result.run_id,
        "gid": result.config.gid,
        "status": result.status,
        "ticks": result.completed_ticks,
        "nodes": result.config.topology.N,
        "edges": len(result.config.topology.edges),
        "final_state": result.final_state,
        "final_sum": sum(result.final_state),
        "chain": ticks.history.chain(result.completed_ticks),
        "manifests": {name: plain(manifest) for name, manifest in ticks.manifests.items()},
        "governance": ticks.governance_summary(),
        "codex_motifs": len(ticks.codex_motifs),
        "envelopes": result.envelope_count(),
        "uledger_last_hash": None if checkpoint is None else checkpoint.head_hash,
        "metrics": plain(result.metrics),
    }


def _readable(result: SessionRunResult, summary: dict[str, Any]) -> Iterator[str]:
    state = summary["final_state"]
    shown = ", ".join(map(str, state[:12])) + (f", … ({len(state)} nodes)" if len(state) > 12 else "")
    yield f"run        {summary['run_id']} on {summary['gid']}: {summary['status']} after {summary['ticks']} ticks"
    yield f"graph      {summary['nodes']} nodes, {summary['edges']} edges"
    yield f"state      {shown} (sum {summary['final_sum']})"
    yield f"chain      {summary['chain']}"
    for manifest in result.tick_result.manifests.values():
        lengths = ", ".join(
            f"{stream.stream_id} {stream.scheme} {stream.L_model}/{stream.L_residual}" for stream in manifest.streams
        )
        yield f"window     {manifest.window_id}: check {manifest.manifest_check}; {lengths}"
    governance = summary["governance"]
    counts = ", ".join(f"{n} {status.lower()}" for status, n in sorted(governance["evaluated_status_counts"].items()))
    yield (
        f"governance {governance['governance_mode']}, policy set {governance['policy_set_hash'][:12]}; "
        f"motifs {summary['codex_motifs']}, proposals {governance['proposals_seen']}{f' ({counts})' if counts else ''}"
    )
    yield f"envelopes  {summary['envelopes']}"
    yield f"u-ledger   {summary['ticks']} entries, last {summary['uledger_last_hash']}"


def _inspect(options: argparse.Namespace) -> int:
    view = build_introspection_view(_run_config(options))
    shown: dict[str, Any] = {}
    if options.tick is not None:
        tick = options.tick
        shown["ledger"] = plain(_input(lambda: view.get_umx_ledger(tick)))
        shown["p_block"] = plain(view.get_p_block(tick))
        if tick in view.i_blocks_by_tick:
            shown["i_block"] = plain(view.get_i_block(tick))
        shown["uledger_entry"] = plain(view.get_uledger_entry(tick))
        shown["envelopes"] = [plain(each) for each in view.get_envelopes(tick=tick)]
    if options.window is not None:
        shown["manifest"] = plain(_input(lambda: view.get_manifest(options.window)))
    if options.summary or not shown:
        shown = {**view.summary(), **shown}
    print(json.dumps(shown, indent=2, ensure_ascii=False))
    return 0


def _ledger(options: argparse.Namespace) -> int:
    result = _run_config(options)
    ticks = result.tick_result
    for tick in range(1, result.completed_ticks + 1):
        print(f"{tick:>8}  C {ticks.history.chain(tick):>10}  entry {ticks.sealing.entry_hashes(tick)[1]}")
    found = verify_ledger(result)
    print(f"verified: {found.ticks} entries" if found.ok else f"not verified: {found.problem}")
    return 0 if found.ok else 1


def _snapshot_write(options: argparse.Namespace) -> int:
    result = _run_config(options)
    write_snapshot(full_snapshot(result) if options.full else session_snapshot(result), options.output)
    print(options.output)
    return 0


def _snapshot_compare(options: argparse.Namespace) -> int:
    if options.candidate is None and options.what is None:
        raise _BadInput("say what to compare with: --candidate F, a run config, or a scenario")
    config = None if options.candidate is not None else _config(options)
    diffs, _ = _input(
        lambda: compare_snapshots(
            options.baseline, candidate_path=options.candidate, run_config=config, max_diffs=options.max_diffs
        )
    )
    for diff in diffs:
        print(diff.render())
    if not diffs:
        print("Snapshots match")
    return 1 if diffs else 0


def _verify(options: argparse.Namespace) -> int:
    worst = 0
    for file in options.files:
        try:
            worst = max(worst, _verify_file(file))
        except _INPUT_ERRORS as error:
            print(f"BAD   {_printable(str(file))}: {_one_line(error)}")
            worst = 2
    return worst


def _printable(text: str) -> str:
    """On one line, whatever is in it."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _verify_file(file: Path) -> int:
    with open_regular(file, "Golden file") as opened:
        zipped = zipfile.is_zipfile(opened)
    if zipped:
        with Bundle(file) as bundle:
            bundle.check()
        return _tell_ledger(file, verify_ledger(file))
    document = read_document(file, "Golden file")
    if isinstance(document, dict) and document.get("format") == FULL_FORMAT:
        return _tell_ledger(file, verify_ledger(document))
    failed = 0
    for outcome in verify_golden(document):
        if outcome.passed:
            print(f"ok    {_printable(file.name)}: {_printable(outcome.case)}")
        else:
            failed = 1
            print(f"FAIL  {_printable(file.name)}: {_printable(outcome.case)}: {_printable(outcome.diffs[0].render())}")
    return failed


def _tell_ledger(file: Path, found: Any) -> int:
    if found.ok:
        if found.ticks and found.last_hash is None:
            print(f"ok    {_printable(file.name)}: {found.ticks} ticks; it ended before its U-ledger was built")
        else:
            print(f"ok    {_printable(file.name)}: {found.ticks} entries, last {found.last_hash}")
        return 0
    print(f"FAIL  {_printable(file.name)}: {_printable(found.problem)}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
