"""The pure core: what the worker decides."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gbe_jobs_domain.edges import ARTIFACT_STORE, EdgeData, Ref, inline
from gbe_jobs_domain.ids import new_job_id, task_id
from gbe_jobs_domain.outcomes import Completed, Failed, Skipped
from gbe_jobs_domain.payloads import OnLost, RetryPolicy, SecretRef, TaskNote, TaskQueued
from gbe_operative.core.backoff import retry_delay, seconds_text
from gbe_operative.core.claim import GiveUp, LetGo, Start, after_failure, after_hand_back, decide
from gbe_operative.core.credit import Slots
from gbe_operative.core.handles import Handle, InvalidHandles, parse_handles
from gbe_operative.core.http_retry import retry_after, worth_another
from gbe_operative.core.inputs import Confirm, Fetch, InputError, LookUp, Open, Store, plan_inputs, value_of
from gbe_operative.core.limiter import BYTES_PER_SECOND, MESSAGES_PER_SECOND, LineBuffer, ProgressLimiter
from gbe_operative.core.masking import Masker
from gbe_operative.core.sizing import encoded_size, tail_of_lines, tail_of_text, trim_texts
from gbe_operative.core.wish import FinalHead, JobView, OutcomeHead, RecordHead

JOB = new_job_id()
RERUN, FAIL = OnLost.RERUN, OnLost.FAIL


# --- what to do with a delivery ---


def test_the_first_delivery_starts_without_a_note() -> None:
    assert decide(1, None, RERUN, 3) == Start(attempt=1, starts=1, note=None)


def test_what_must_not_run_twice_is_noted_before_its_first_start() -> None:
    """A server that was killed forgets deliveries: what a worker runs is given out as new to another."""
    claim = TaskNote(starts=1, running=True)
    assert decide(1, None, FAIL, 3) == Start(attempt=1, starts=1, note=claim)
    assert isinstance(decide(2, claim, FAIL, 3), GiveUp)


@pytest.mark.parametrize("on_lost", list(OnLost))
def test_a_first_delivery_of_what_runs_elsewhere_is_let_go(on_lost: OnLost) -> None:
    """No lease has ended, so no start is known to be lost: should it be, it comes again."""
    running = TaskNote(failed=1, lost=2, starts=3, running=True)
    assert decide(1, running, on_lost, 3) == LetGo(attempt=2, starts=3)
    assert isinstance(decide(2, running, on_lost, 3), GiveUp)


def test_a_later_delivery_without_a_note_is_one_possible_lost_start() -> None:
    assert decide(2, None, RERUN, 3) == Start(1, 2, TaskNote(lost=1, starts=2, running=True))
    assert decide(9, None, RERUN, 3) == Start(1, 2, TaskNote(lost=1, starts=2, running=True))
    assert isinstance(decide(2, None, FAIL, 3), GiveUp)


def test_an_orderly_end_is_not_a_lost_start() -> None:
    failed = TaskNote(failed=1, starts=1, last_error="x")
    assert decide(2, failed, FAIL, 3) == Start(2, 2, TaskNote(failed=1, starts=2, last_error="x", running=True))
    back = TaskNote(handed_back=5, starts=5)
    assert decide(6, back, FAIL, 1) == Start(1, 6, TaskNote(handed_back=5, starts=6, running=True))


def test_a_note_counts_although_the_delivery_count_went_back() -> None:
    assert decide(1, TaskNote(failed=2, starts=2), RERUN, 3) == Start(3, 3, TaskNote(failed=2, starts=3, running=True))


def test_a_start_without_an_end_is_lost() -> None:
    running = TaskNote(starts=2, lost=1, running=True)
    assert decide(3, running, RERUN, 3) == Start(1, 3, TaskNote(starts=3, lost=2, running=True))
    given_up = decide(3, running, FAIL, 3)
    assert isinstance(given_up, GiveUp)
    assert not given_up.dead_letter


def test_a_task_that_kills_its_worker_is_given_up_after_the_budget() -> None:
    note: TaskNote | None = None
    starts = 0
    for delivery in range(1, 10):
        decision = decide(delivery, note, RERUN, 3)
        if isinstance(decision, GiveUp):
            break
        assert isinstance(decision, Start)
        starts += 1
        note = decision.note
    assert isinstance(decision, GiveUp)
    assert decision.dead_letter
    assert starts == decision.starts == 3


@given(st.lists(st.sampled_from(["hand back", "swallow"]), max_size=30))
def test_neither_stops_nor_swallowed_deliveries_use_up_the_budget(events: list[str]) -> None:
    note: TaskNote | None = None
    for delivery, event in enumerate(events, start=1):
        if event == "swallow":  # delivered, and nothing was begun
            continue
        decision = decide(delivery, note, RERUN, 3)
        assert isinstance(decision, Start)
        note = after_hand_back(decision.note, decision.starts)
    assert isinstance(decide(len(events) + 1, note, RERUN, 3), Start)


@given(st.lists(st.sampled_from(["fail", "hand back"]), max_size=30))
def test_the_attempt_counts_failures_only(events: list[str]) -> None:
    note: TaskNote | None = None
    for delivery, event in enumerate(events, start=1):
        decision = decide(delivery, note, FAIL, 3)
        assert isinstance(decision, Start)
        assert decision.starts == delivery
        assert decision.attempt == events[: delivery - 1].count("fail") + 1
        if event == "fail":
            note = after_failure(decision.note, decision.starts, "x")
        else:
            note = after_hand_back(decision.note, decision.starts)


# --- back-off ---


def test_back_off_grows_to_its_maximum_with_full_jitter() -> None:
    policy = RetryPolicy(delay=1, factor=2, max_delay=10)
    assert [retry_delay(policy, failed, lambda: 1.0) for failed in (1, 2, 3, 4, 5, 5000)] == [1, 2, 4, 8, 10, 10]
    assert retry_delay(policy, 3, lambda: 0.25) == 1.0
    assert retry_delay(None, 1, lambda: 1.0) == 1.0


def test_what_a_service_asks_for_comes_before_the_back_off() -> None:
    policy = RetryPolicy(delay=1, factor=2, max_delay=10)
    assert retry_delay(policy, 2, lambda: 0.5, 30.0) == 31.0
    assert retry_delay(policy, 1, lambda: 0.0, 1e9) == 3600.0, "a stranger's word has its limits"
    assert retry_delay(policy, 1, lambda: 0.0, -5.0) == 0.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Fri, 27 Nov 2026 10:00:30 GMT", 30.0),
        ("Friday, 27-Nov-26 10:00:30 GMT", 30.0),
        ("Fri, 27 Nov 2026 10:00:30 -0000", 30.0),
        ("Fri, 27 Nov 2026 09:00:00 GMT", 0.0),
        ("9" * 100, 999_999_999_999.0),
        ("-1", 0.0),
        ("1.5", 0.0),
        ("²", 0.0),
        ("soon", 0.0),
        ("", 0.0),
        (None, 0.0),
        ("Fri, 99 Nov 2026 10:00:30 GMT", 0.0),
    ],
)
def test_retry_after(text: str | None, seconds: float) -> None:
    assert retry_after(text, datetime(2026, 11, 27, 10, tzinfo=UTC)) == seconds


def test_which_answers_are_worth_another_request() -> None:
    wanted = {408, 425, 429, 500, 502, 503, 504, 507, 599}
    assert {status for status in range(200, 600) if worth_another(status)} >= wanted
    assert not any(worth_another(status) for status in (200, 301, 400, 401, 403, 404, 409, 410, 422, 501, 505))


@pytest.mark.parametrize(("seconds", "text"), [(0.31, "0.3 s"), (4.0, "4 s"), (4.04, "4 s"), (89.6, "90 s")])
def test_delays_for_people(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


# --- slots ---


def test_no_more_credit_than_free_slots() -> None:
    slots = Slots(2)
    slots.taken(2)
    assert slots.freed(1) == 1
    with pytest.raises(ValueError, match="2 slots freed"):
        slots.freed(2)
    assert slots.ended(1) == 1
    slots.taken(2)
    assert slots.ended(2) == 0, "too many reports are under way"
    assert slots.ended(1) == 1
    assert (slots.in_hand, slots.reporting) == (1, 2)
    slots.reported(2)
    assert slots.ended(1) == 1
    with pytest.raises(ValueError, match="at least one"):
        Slots(0)


# --- --handles ---


def test_handles() -> None:
    assert parse_handles("shell:4,http, data-fetch=shell:2", 8) == (
        Handle("shell", "shell", 4),
        Handle("http", "http", 8),
        Handle("data-fetch", "shell", 2),
    )


@pytest.mark.parametrize(
    "text", ["", ",", "Shell", "a.b", "a=:1", "a=x/y", "a:0", "a:x", "a:-1", "a:²", "a,a=b", "a:99999"]
)
def test_bad_handles(text: str) -> None:
    with pytest.raises(InvalidHandles):
        parse_handles(text, 1)


# --- inputs ---


def queued(**fields: Any) -> TaskQueued:
    return TaskQueued(task_id(JOB, 0), JOB, "org_default", "test", "t", "mock", **fields)


def edge(value: object) -> EdgeData:
    return inline(value)


PRODUCE = {"produce": edge({"url": "http://x", "count": 42, "list": [1, {"a": None}], "": "empty", "t": True})}


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("produce.url", "http://x"),
        ("produce.count", "42"),
        ("produce.list", '[1,{"a":null}]'),
        ("produce.list.0", "1"),
        ("produce.list.1.a", "null"),
        ("produce.t", "true"),
    ],
)
def test_references(reference: str, expected: str) -> None:
    inputs = plan_inputs(queued(params={"P": "static"}, input_from={"P": reference}, inputs=PRODUCE), lambda _: None)
    assert inputs.params == {"P": expected}
    assert not inputs.errands


def test_a_reference_without_a_path_is_the_whole_value() -> None:
    task = queued(input_from={"A": "a", "B": "b"}, inputs={"a": edge(["x", 1]), "b": edge("plain")})
    assert plan_inputs(task, lambda _: None).params == {"A": '["x",1]', "B": "plain"}


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("produce.nope", "'produce.nope'.*there is 'url', 'count'"),
        ("produce.list.7", "'produce.list.7'.*2 items"),
        ("produce.list.x", "'produce.list.x'"),
        ("produce.list.-1", "index"),
        ("produce.list.²", "index"),
        ("produce.url.x", "a string"),
        ("produce.count.x", "a number"),
        ("produce.t.x", "a boolean"),
        ("produce.list.1.a.b", "null"),
        ("other.x", "'other'.*no data"),
    ],
)
def test_missing_paths_name_the_reference(reference: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        plan_inputs(queued(input_from={"P": reference}, inputs=PRODUCE), lambda _: None)


@pytest.mark.parametrize(
    ("param", "reference", "expected"),
    [
        ("stdin_ref", "small.body_ref", Store("stdin_ref", b'{"n":[1]}', "application/json")),
        ("stdin_ref", "small.body", Store("stdin_ref", b'{"n":[1]}', "application/json")),
        ("stdin_ref", "large.body_ref", LookUp("stdin_ref", f"{JOB}/body")),
        ("stdin_ref", "large.body", LookUp("stdin_ref", f"{JOB}/body")),
        ("BODY", "large.body", Open("BODY", "large.body", f"{JOB}/body", "")),
        ("N", "large.body.n.0", Open("N", "large.body.n.0", f"{JOB}/body", "n.0")),
        ("n_ref", "large.body.n", Open("n_ref", "large.body.n", f"{JOB}/body", "n")),
        # Another job's: opened only if this one ran that as a molecule.
        ("X", "stranger.body", Open("X", "stranger.body", "job_other/body", "", "job_other")),
    ],
)
def test_a_value_and_its_reference_are_two_forms_of_one(param: str, reference: str, expected: object) -> None:
    """Whoever wires `fetch.body` or `fetch.body_ref` need not know how large the body will be."""
    edges = {
        "small": edge({"body": {"n": [1]}}),
        "large": edge({"body_ref": f"store://{ARTIFACT_STORE}/{JOB}/body"}),
        "stranger": edge({"body_ref": f"store://{ARTIFACT_STORE}/job_other/body"}),
    }
    assert plan_inputs(queued(input_from={param: reference}, inputs=edges), lambda _: None).errands == [expected]


@pytest.mark.parametrize(
    ("param", "reference", "says"),
    [
        ("URI", "small.body_ref", "no 'body_ref'; there is 'body'"),
        ("x_ref", "small.body_ref.n", "no 'body_ref'"),
        ("x_ref", "small.nope_ref", "no 'nope_ref'"),
        ("X", "other.body", "no 'body'; there is 'body_ref'"),
    ],
)
def test_only_forms_that_are_there_stand_in(param: str, reference: str, says: str) -> None:
    edges = {
        "small": edge({"body": {"n": [1]}}),
        "other": edge({"body_ref": "https://x"}),
    }
    with pytest.raises(InputError, match=says):
        plan_inputs(queued(input_from={param: reference}, inputs=edges), lambda _: None)


def test_references_to_artifacts() -> None:
    ref = Ref(ARTIFACT_STORE, f"{JOB}/x", 3, "0" * 64, "text/plain")
    own = f"store://{ARTIFACT_STORE}/{JOB}/y"
    task = queued(
        params={"static_ref": own, "plain_ref": "file.txt"},
        input_from={"whole_ref": "a", "part": "a.x", "uri_ref": "b.uri", "text_ref": "b.text", "json_ref": "b"},
        inputs={"a": ref, "b": edge({"uri": own, "text": "hello"})},
    )
    inputs = plan_inputs(task, lambda _: None)
    assert inputs.params == {"plain_ref": "file.txt"}
    assert inputs.errands == [
        LookUp("static_ref", f"{JOB}/y"),
        Confirm("whole_ref", "a", ref),
        Fetch("part", "a.x", ref, "x"),
        LookUp("uri_ref", f"{JOB}/y"),
        Store("text_ref", b"hello", "text/plain"),
        Store("json_ref", b'{"uri":"%s","text":"hello"}' % own.encode(), "application/json"),
    ]


def test_lines_are_stored_as_text() -> None:
    task = queued(input_from={"stdin_ref": "a"}, inputs={"a": edge(["b", "a"])})
    assert plan_inputs(task, lambda _: None).errands == [Store("stdin_ref", b"b\na\n", "text/plain")]


@pytest.mark.parametrize(
    "uri",
    [
        "store://other/k",
        f"store://{ARTIFACT_STORE}/job_other/k",
        f"store://{ARTIFACT_STORE}/{JOB}",
        f"store://{ARTIFACT_STORE}/{JOB}/../job_other/k",
        f"store://{ARTIFACT_STORE}/{JOB}x/k",
        "store://",
    ],
    ids=["store", "job", "all", "up", "prefix", "nothing"],
)
def test_a_job_reaches_only_its_own_artifacts(uri: str) -> None:
    with pytest.raises(InputError):
        plan_inputs(queued(params={"x_ref": uri}), lambda _: None)
    task = queued(input_from={"x_ref": "a"}, inputs={"a": edge(uri)})
    try:
        inputs = plan_inputs(task, lambda _: None)
    except InputError:
        return
    # It came along an edge and names another job: looked up as that of a child (see test_inputs of molecules).
    (errand,) = inputs.errands
    assert isinstance(errand, LookUp)
    assert errand.owner == errand.key.split("/")[0] != JOB


def test_secrets() -> None:
    task = queued(params={"TOKEN": SecretRef("api"), "X": "x"})
    inputs = plan_inputs(task, {"api": "s3cret"}.get)
    assert inputs.params == {"TOKEN": "s3cret", "X": "x"}
    assert inputs.secrets == ["s3cret"]
    with pytest.raises(InputError, match=r"'TOKEN'.*no secret 'api'"):
        plan_inputs(task, lambda _: None)


def test_artifacts_as_values() -> None:
    assert value_of(b'{"a":1}', "application/json", "r") == {"a": 1}
    assert value_of(b"a\nb\n", "text/plain", "r") == ["a", "b"]
    with pytest.raises(InputError, match=r"'r'.*not JSON"):
        value_of(b"{", "application/json", "r")
    with pytest.raises(InputError, match="image/png"):
        value_of(b"", "image/png", "r")


# --- secrets masked ---


def test_masking() -> None:
    masker = Masker(["s3cret", 'with"quote', "ab", "-----KEY-----\nMIIEvQIBADAN\nxy\n-----END-----"])
    assert masker.text("a s3cret b s3cret") == "a *** b ***"
    assert masker.text("ab") == "ab", "too short to be replaced"
    assert masker.text("line MIIEvQIBADAN alone") == "line *** alone"
    assert masker.json(b'{"s3cret":["with\\"quote",1]}') == b'{"***":["***",1]}'


def test_a_number_that_is_a_secret_leaves_json() -> None:
    assert Masker(["123456"]).json(b'{"pin":123456,"n":1}') == b'{"pin":"***","n":1}'


def test_no_secrets_no_masker() -> None:
    assert not Masker(["", "abc"])
    assert Masker([]).text("x") == Masker([]).excerpt("x") == "x"
    assert Masker([]).raw(b"x") == b"x"


def test_pieces_of_secrets_where_a_text_was_cut() -> None:
    secret = "correct horse battery staple"
    masker = Masker([secret, "s3cret"])
    for cut in range(1, len(secret)):
        begun, rest = secret[:cut], secret[cut:]
        assert masker.excerpt(f"it is {begun}") == ("it is ***" if len(begun) >= 8 else f"it is {begun}")
        assert masker.excerpt(f"{rest} it is") == ("*** it is" if len(rest) >= 8 else f"{rest} it is")
        shown = masker.excerpt(f"'{begun}…{rest}'")
        assert shown.startswith("'***…" if len(begun) >= 8 else f"'{begun}…")
        assert masker.excerpt_raw(f"{rest} \udcff".encode("utf-8", "surrogateescape")).endswith(b" \xff")
    assert masker.excerpt("ret and more, s3c") == "*** and more, ***"
    for text in ("", "…", "staple", "a correct horse is", f"{secret[:20]}, {secret[8:]}x"):
        assert masker.excerpt(text) == text
    assert masker.excerpt(f"{secret}{secret[8:]}") == "***" + secret[8:], "cut nowhere"
    assert Masker(["aaaaaaaaaaaaaaaa"]).excerpt("a" * 15 + "b" + "a" * 9) == "***b***"
    # Cut at both ends, within it; or within a character.
    assert masker.excerpt(f"it says …{secret[3:14]}… and no more") == "it says …***… and no more"
    assert masker.excerpt_raw(secret[5:25].encode()) == b"***"
    for cut in range(1, 9):
        foreign, data = Masker(["grüße-aus-köln"]), "grüße-aus-köln".encode()
        assert b"aus" not in foreign.excerpt_raw(data[cut:] + b"!")
        assert b"aus" not in foreign.excerpt_raw(b"!" + data[:-cut]) or len(data) - cut < 9
        assert "aus" not in foreign.excerpt(data[cut:].decode("utf-8", "replace") + "…")


@given(st.lists(st.sampled_from([b"s3cret", b"s3", b"cret", b"x", b"s3cre", b"t", b"s3cs3cret"]), max_size=20))
async def test_masking_of_streams_is_masking_of_the_whole(chunks: list[bytes]) -> None:
    async def stream() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    masker = Masker(["s3cret"])
    masked = b"".join([piece async for piece in masker.stream(stream())])
    assert masked == masker.raw(b"".join(chunks))


# --- sizes ---


@given(st.text(), st.integers(0, 200))
def test_tails_of_texts_fit(text: str, limit: int) -> None:
    tail = tail_of_text(text, limit)
    if encoded_size(text) <= limit:
        assert tail == text
    elif tail != text:
        assert encoded_size(tail.split("\n", 1)[1]) <= max(limit, 2)


@given(st.lists(st.text(max_size=30), max_size=30), st.integers(10, 300))
def test_tails_of_lines_fit(lines: list[str], limit: int) -> None:
    tail = tail_of_lines(lines, limit)
    if tail != lines:
        assert sum(encoded_size(line) + 1 for line in tail[1:]) <= limit + 60
        assert "omitted" in tail[0]


def test_sizes_are_of_encoded_bytes() -> None:
    nuls = "\0" * 250_000
    assert encoded_size(nuls) == 1_500_002
    trimmed = trim_texts(Completed(output=[nuls, "last"], stderr=nuls), 100_000)
    assert len(msgspec.json.encode(trimmed)) < 250_000
    assert isinstance(trimmed, Completed)
    assert trimmed.output == ["[… 1 lines omitted …]", "last"]
    failed = trim_texts(Failed(error=nuls), 1000)
    assert len(msgspec.json.encode(failed)) < 1200
    assert trim_texts(Skipped("x"), 1000) == Skipped("x")


# --- progress ---


def test_progress_is_limited_per_second() -> None:
    limiter = ProgressLimiter()
    for _ in range(MESSAGES_PER_SECOND):
        assert limiter.room(0.5) > 0
        limiter.spend(0.5, 10)
    assert limiter.room(0.9) == 0
    assert limiter.room(1.6) == BYTES_PER_SECOND
    limiter.spend(1.6, BYTES_PER_SECOND)
    assert limiter.room(1.7) == 0


def test_lines_that_do_not_fit_are_counted() -> None:
    buffer = LineBuffer("stdout")
    for _ in range(100):
        buffer.add("x" * 1000)
    lines, omitted = buffer.take()
    assert len(lines) + omitted == 100
    assert omitted > 60
    assert buffer.take() == ([], 0)


# --- is it wanted ---


def test_views_of_a_job() -> None:
    view = JobView(since=4)
    assert view.wants(0)
    view.apply(5, RecordHead(outcomes=[OutcomeHead(0)]))
    view.apply(6, RecordHead(outcomes=[OutcomeHead(2), OutcomeHead(3)]))
    assert [view.wants(index) for index in range(5)] == [False, True, False, False, True]
    assert view.last_seq == 6
    view.apply(7, RecordHead(final=FinalHead()))
    assert not view.wants(1)
    cancelled = JobView(since=0)
    cancelled.apply(1, RecordHead(cancel=""))
    assert not cancelled.wants(0)
