"""Acceptance scenario D8: the shapes of ids, checked when they are given and when they are decoded."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gbe_jobs_domain import ids
from gbe_jobs_domain.payloads import JobCancelRequested, TaskQueued

REST = "Ab9-_"
WRONG_RESTS = ["", "a.b", "a b", "a*", "a>", "ä", "a\n", "a\0", "a/b", "٣"]


@pytest.mark.parametrize(
    ("annotated", "good"),
    [
        (ids.JobId, ["job_a", "job_" + "a" * 44, "job_" + REST, "job_-"]),
        (ids.TaskId, ["task_a", "task_" + "a" * 59, "task_" + REST]),
        (ids.OrgId, ["org_a", "org_" + "a" * 60, "org_" + REST]),
        (ids.TypeName, ["a", "0", "a-b", "a" * 48, "a--b"]),
        (ids.TaskName, ["a", "A", "-", "_", "a" * 128]),
    ],
)
def test_d8_good_ids_decode(annotated: type[str], good: list[str]) -> None:
    for value in good:
        assert msgspec.json.decode(msgspec.json.encode(value), type=annotated) == value
        assert len(value) <= 64 or annotated is ids.TaskName


@pytest.mark.parametrize(
    ("annotated", "bad"),
    [
        (ids.JobId, ["", "a", "jobs_a", "JOB_a", " job_a", "job_" + "a" * 45, *("job_" + r for r in WRONG_RESTS)]),
        (ids.TaskId, ["", "job_a", "task_" + "a" * 60, *("task_" + r for r in WRONG_RESTS)]),
        (ids.OrgId, ["", "org", "org_" + "a" * 61, *("org_" + r for r in WRONG_RESTS)]),
        (ids.TypeName, ["", "-a", "a-", "-", "A", "a_b", "a" * 49, *WRONG_RESTS]),
        (ids.TaskName, ["", "a" * 129, *WRONG_RESTS]),
    ],
)
def test_d8_bad_ids_are_refused_on_decode(annotated: type[str], bad: list[str]) -> None:
    for value in bad:
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(msgspec.json.encode(value), type=annotated)


@pytest.mark.parametrize(
    ("check", "annotated"),
    [
        (ids.check_job_id, ids.JobId),
        (ids.check_org_id, ids.OrgId),
        (ids.check_type_name, ids.TypeName),
        (ids.check_task_name, ids.TaskName),
    ],
)
@given(value=st.text(alphabet="jobrgtask_-aZ09.*> \nä", max_size=70))
def test_d8_the_checks_and_the_decoder_agree(check: Callable[[str], str], annotated: type[str], value: str) -> None:
    try:
        checked = check(value) == value
    except ids.InvalidId:
        checked = False
    try:
        decoded = msgspec.json.decode(msgspec.json.encode(value), type=annotated) == value
    except msgspec.ValidationError:
        decoded = False
    assert checked == decoded


def test_d8_messages_with_bad_ids_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"\$.job_id"):
        msgspec.json.decode(b'{"job_id":"job_a.>"}', type=JobCancelRequested)
    queued = b'{"task_id":"task_a","job_id":"job_a","org_id":"org_a","job_type":"%s","task_name":"t","task_type":"x"}'
    assert msgspec.json.decode(queued % b"etl", type=TaskQueued).job_type == "etl"
    with pytest.raises(msgspec.ValidationError, match=r"\$.job_type"):
        msgspec.json.decode(queued % b"a.*", type=TaskQueued)


def test_made_ids_have_their_shape_and_their_order() -> None:
    made = [ids.new_job_id() for _ in range(100)]
    assert len(set(made)) == 100
    for job in made:
        assert ids.check_job_id(job) == job
        assert len(job) == len("job_") + 26
        task = ids.task_id(job, 99_999)
        assert ids.TASK_ID.match(task)
        assert ids.task_index(job, task) == 99_999
    longest = "job_" + "x" * 44
    assert ids.TASK_ID.match(ids.task_id(longest, 99_999))


@pytest.mark.parametrize(
    "task", ["task_other_1", "task_a_", "task_a_01", "task_a_-1", "task_a_1_2", "task_a_x", "", "task_a_²"]
)
def test_the_index_of_a_foreign_task_is_none(task: str) -> None:
    assert ids.task_index("job_a", task) is None


def test_a_child_job_id_is_stable_and_fits() -> None:
    task = ids.task_id("job_" + "x" * 44, 99_999)
    assert ids.child_job_id(task, 0) == ids.child_job_id(task, 0)
    assert ids.child_job_id(task, 0) != ids.child_job_id(task, 1)
    assert ids.check_job_id(ids.child_job_id(task, 0))
