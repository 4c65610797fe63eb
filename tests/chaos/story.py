"""For people: the timeline of faults, the story of a job, the summary of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tests.chaos.checker import Judgement, effects_of
from tests.chaos.evidence import Incident, Run
from tests.chaos.plan import Plan

STORIES = 5


def summary(plan: Plan, run: Run, judgement: Judgement, seconds: float) -> str:
    """The table at the end of a run."""
    figures = judgement.figures
    kinds = Counter(f"{incident.role} {incident.kind}" for incident in run.incidents)
    explained = {name[13:]: count for name, count in sorted(figures.items()) if name.startswith("explained by ")}
    rows = [
        ("seed", f"{plan.seed} ({'cluster of three' if plan.cluster else 'one server'})"),
        ("jobs", f"{figures['jobs']}: {_list({s: figures[s] for s in ('completed', 'failed', 'cancelled')})}"),
        ("tasks", figures["tasks"]),
        ("executions", figures["executions"]),
        ("extra executions", f"{figures['extra executions']}, explained: {_list(explained)}"),
        ("faults", _list(dict(sorted(kinds.items()))) or "none"),
        ("seen after the job's end", figures["seen after the job's end"]),
        ("notes left", figures["notes left"]),
        ("lost", judgement.count("lost")),
        ("doubly recorded", judgement.count("doubled")),
        ("stuck", judgement.count("stuck")),
        ("out of order", judgement.count("order")),
        ("unexplained", judgement.count("unexplained")),
        ("left running", judgement.count("leftover")),
        ("otherwise wrong", judgement.count("wrong", "death")),
        ("seconds", f"{seconds:.1f}"),
    ]
    return "\n".join(f"{name:>26}  {value}" for name, value in rows)


def report(plan: Plan, run: Run, judgement: Judgement) -> str:
    """Everything about what went wrong."""
    lines = [f"{len(judgement.problems)} problems with seed {plan.seed}:"]
    lines += [f"  {problem.kind}: {problem.job_id} {problem.text}" for problem in judgement.problems[:60]]
    lines += ["", "faults, in seconds of the machine's uptime:"]
    lines += [f"  {_incident(incident)}" for incident in sorted(run.incidents, key=lambda one: one.begin)]
    offenders = list(dict.fromkeys(problem.job_id for problem in judgement.problems if problem.job_id))
    for job_id in offenders[:STORIES]:
        lines += ["", *story(run, job_id)]
    if len(offenders) > STORIES:
        lines.append(f"… and {len(offenders) - STORIES} more jobs: {' '.join(offenders[STORIES:])}")
    return "\n".join(lines)


def story(run: Run, job_id: str) -> Iterator[str]:
    """One job, everything that is known of it, in the order of time where there is one."""
    yield f"--- {job_id}"
    job = run.jobs.get(job_id)
    moments: list[tuple[float, str]] = []
    if job is not None:
        yield f"    {job.plan.shape}, expected {sorted(job.plan.expected)}"
        for index, task in enumerate(job.plan.tasks):
            yield f"    {index}: {task}"
        moments.append((job.submitted_at, "submitted"))
        if job.cancelled_at is not None:
            moments.append((job.cancelled_at, "cancel sent"))
    for execution in run.executions:
        if execution.job_id == job_id:
            what = f"{execution.task} attempt {execution.attempt} (pid {execution.pid}, worker {execution.worker})"
            moments.append((execution.started_at, f"start  {what} line {execution.start}"))
            if execution.result:
                moments.append((execution.ended_at, f"{execution.result:<6} {what} line {execution.end}"))
    moments += [(wire.at, f"bus    {wire.kind} {wire.task_id} {wire.text}") for wire in run.wire.get(job_id, ())]
    if moments:
        first, last = min(at for at, _ in moments), max(at for at, _ in moments)
        moments += [
            (incident.begin, f"FAULT  {_incident(incident)}")
            for incident in run.incidents
            if incident.end > first - 10 and incident.begin < last + 10
        ]
    yield from (f"    {at:10.2f}  {text}" for at, text in sorted(moments))
    yield from (f"    record {seq}: {effects_of(record)}" for seq, record in run.ordered(job_id))
    for event in sorted(run.events.get(job_id, ()), key=lambda one: one.seq):
        why = event.data.get("error") or event.data.get("reason") or ""
        yield f"    event {event.seq}: {event.name} {event.id} {why}"
    history = run.histories.get(job_id)
    if history is None:
        yield "    no history"
    else:
        yield f"    history: {history.state} {history.error or history.reason}"
        yield f"    tasks: {', '.join(f'{task.name} {task.state} ×{task.attempts}' for task in history.tasks)}"


def _incident(incident: Incident) -> str:
    what = f"{incident.begin:.2f}-{incident.end:.2f} {incident.target} {incident.kind}"
    return f"{what} (pid {incident.pid}) {incident.detail}".rstrip() if incident.pid else f"{what} {incident.detail}"


def _list(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)
