"""Acceptance scenarios D5 to D7, D10 and D11: documents as people write them."""

import json
from pathlib import Path

import pytest

from gbe_jobs_domain import json_nodes, yaml_nodes
from gbe_jobs_domain.definitions import JobDefinition, TaskDefinition
from gbe_jobs_domain.documents import DefinitionErrors, load_document, load_file
from gbe_jobs_domain.payloads import OnLost, Param, RetryPolicy, SecretRef

FULL = """
v: 1
name: nightly
job_type: nightly-etl
org: org_acme
vars: {city: Basel}
tasks:
  - name: fetch
    task_type: http
    params: {url: "https://example.org/${{ vars.city }}"}
    timeout_secs: 30
    max_retries: 2
    retry: {delay: 1, factor: 2, max_delay: 60}
    on_lost: rerun
  - name: load
    task_type: data-load
    depends_on: [fetch]
    input_from: {BODY: fetch.body, WHOLE: fetch}
    params: {command: "load"}
"""

FULL_LOADED = JobDefinition(
    name="nightly",
    job_type="nightly-etl",
    org="org_acme",
    tasks=[
        TaskDefinition(
            "fetch",
            "http",
            params={"url": "https://example.org/Basel"},
            timeout_secs=30,
            max_retries=2,
            retry=RetryPolicy(1, 2, 60),
        ),
        TaskDefinition(
            "load",
            "data-load",
            depends_on=["fetch"],
            input_from={"BODY": "fetch.body", "WHOLE": "fetch"},
            params={"command": "load"},
        ),
    ],
)


def load(text: str | bytes, **variables: str) -> JobDefinition:
    return load_document(text, source="job.yaml", variables=variables).definition


def errors_of(text: str | bytes, source: str = "job.yaml", **variables: str) -> list[str]:
    with pytest.raises(DefinitionErrors) as caught:
        load_document(text, source=source, variables=variables)
    return str(caught.value).splitlines()


def job(extra: str = "", params: str = "{}") -> str:
    return f"name: job\n{extra}\ntasks:\n- name: a\n  task_type: shell\n  params: {params}\n"


def params(value: str, extra: str = "", **variables: str) -> dict[str, Param]:
    return load(job(extra, value), **variables).tasks[0].params


def test_the_document_of_the_architecture_loads() -> None:
    assert load(FULL) == FULL_LOADED


def test_what_may_be_left_out() -> None:
    assert load("{name: Die Nacht, tasks: [{name: a, task_type: x}]}") == JobDefinition(
        "Die Nacht", "die-nacht", [TaskDefinition("a", "x")]
    )


@pytest.mark.parametrize(
    ("name", "job_type"),
    [
        ("nightly", "nightly"),
        ("Weather Demo 2", "weather-demo-2"),
        ("  --a__b..c--  ", "a-b-c"),
        ("日本", "job"),
        ("x" * 47 + " y", "x" * 47),
        ("x" * 200, "x" * 48),
    ],
)
def test_the_job_type_is_made_from_the_name(name: str, job_type: str) -> None:
    assert load(json.dumps({"name": name, "tasks": [{"name": "a", "task_type": "x"}]})).job_type == job_type


# --- D7 and the scalars -------------------------------------------------------------------------------


def test_d7_numbers_and_booleans_are_accepted_as_strings() -> None:
    assert params("{n: 5, flag: true}") == {"n": "5", "flag": "true"}


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("1.50", "1.50"),
        ("-0", "-0"),
        ("1e3", "1e3"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ('"5"', "5"),
        ("true", "true"),
        ('"True"', "True"),
        ('""', ""),
        ('"a\\nb\\u00e9"', "a\nbé"),
    ],
)
def test_d7_scalars_in_yaml_and_json(written: str, text: str) -> None:
    assert params(f'{{"x": {written}}}') == {"x": text}
    document = f'{{"name": "job", "tasks": [{{"name": "a", "task_type": "shell", "params": {{"x": {written}}}}}]}}'
    assert load(document).tasks[0].params == {"x": text}
    long_way = document.replace('"name": "job"', '"vars": {"v": 1}, "name": "job"')
    assert load_document(long_way, source="a.json").definition.tasks[0].params == {"x": text}


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("OFF", "OFF"),
        ("y", "y"),
        ("True", "true"),
        ("FALSE", "false"),
        ("0x1F", "0x1F"),
        ("0o17", "0o17"),
        ("017", "017"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2026-01-31", "2026-01-31"),
        (".inf", ".inf"),
        ("=", "="),
        ("'~'", "~"),
        ("a {{ x }} ${y} $z", "a {{ x }} ${y} $z"),
        ("|\n    a\n    b\n", "a\nb\n"),
        (">-\n    a\n    b\n", "a b"),
    ],
)
def test_d7_yaml_is_read_as_yaml_1_2(written: str, text: str) -> None:
    document = f"name: job\ntasks:\n- name: a\n  task_type: shell\n  params:\n   x: {written}\n"
    assert load(document).tasks[0].params == {"x": text}


@pytest.mark.parametrize(("value", "what"), [("{a: 1}", "a nested mapping"), ("[1]", "a list")])
def test_d7_a_nested_value_is_an_error_with_a_claim_check_hint(value: str, what: str) -> None:
    (error,) = errors_of(job(params=f"{{body: {value}}}"))
    assert error.startswith(f"job.yaml:6:18: tasks[0].params.body: param 'body' is {what}, ")
    assert "pass a reference" in error


def test_a_secret_is_a_reference() -> None:
    assert params("{token: {secret: api.token}}") == {"token": SecretRef("api.token")}


def test_a_param_may_be_in_params_and_in_input_from() -> None:
    text = "{name: j, tasks: [{name: a, task_type: x}, {name: b, task_type: x, depends_on: [a], "
    task = load(text + "input_from: {X: a.y}, params: {X: default}, on_lost: fail}]}").tasks[1]
    assert (task.params, task.input_from, task.on_lost) == ({"X": "default"}, {"X": "a.y"}, OnLost.FAIL)


# --- variables ----------------------------------------------------------------------------------------


def test_variables_have_defaults_and_overrides() -> None:
    text = "{a: '${{ vars.city }}', b: '${{vars.n}}-${{  vars.n  }}', c: plain}"
    extra = "vars: {city: Basel, n: 1.50}"
    assert params(text, extra) == {"a": "Basel", "b": "1.50-1.50", "c": "plain"}
    assert params(text, extra, city="Bern", n="x") == {"a": "Bern", "b": "x-x", "c": "plain"}
    document = load_document(job(extra, text), source="x", variables={"city": "Bern"})
    assert document.variables == {"city": "Bern", "n": "1.50"}


def test_a_variables_value_is_not_looked_into() -> None:
    assert params("{a: '${{ vars.x }}'}", "vars: {x: '', y: secret}", x="${{ vars.y }}") == {"a": "${{ vars.y }}"}


def test_an_undeclared_override_is_an_error() -> None:
    assert errors_of(job("vars: {city: Basel}"), ctiy="Bern", other="x") == [
        "job.yaml: --var 'ctiy': the document declares no such variable, did you mean 'city'?",
        "job.yaml: --var 'other': the document declares no such variable; declare it under vars",
    ]
    plain = '{"name": "j", "tasks": [{"name": "a", "task_type": "x"}]}'
    assert errors_of(plain, x="y") == [
        "job.yaml: --var 'x': the document declares no such variable; declare it under vars"
    ]


def test_an_override_that_is_no_text_is_an_error() -> None:
    assert errors_of(job("vars: {x: a}"), x="\udcff") == ["job.yaml: --var 'x': not valid UTF-8"]


def test_what_substitution_adds_is_bounded() -> None:
    many = ", ".join(f"k{i}: '${{{{ vars.x }}}}'" for i in range(50))
    (error,) = errors_of(job("vars: {x: ''}", f"{{{many}}}"), x="x" * 1_000_000)
    assert "the variables make the definition larger than 16,777,216 bytes" in error


# --- D10 ----------------------------------------------------------------------------------------------


def test_d10_an_unknown_key_has_its_place_and_the_nearest_key() -> None:
    text = "name: job\ntasks:\n- {name: a, task_type: x}\n- {name: b, task_type: x}\n- name: c\n  task_type: x\n"
    assert errors_of(text + "  depend_on: [a]\n") == [
        "job.yaml:7:3: tasks[2].depend_on: unknown key 'depend_on', did you mean 'depends_on'?"
    ]


def test_d10_json_has_places_too() -> None:
    text = '{"name": "job",\n "tasks": [\n  {"name": "a", "task_type": "x", "depend_on": []}]}'
    for source in ("job.json", "-"):
        assert errors_of(text, source) == [
            f"{source}:3:35: tasks[0].depend_on: unknown key 'depend_on', did you mean 'depends_on'?"
        ]


def test_d10_an_error_has_its_parts() -> None:
    with pytest.raises(DefinitionErrors) as caught:
        load_document("nmae: x\ntasks: []\n", source="a.yaml")
    first, second = caught.value.errors
    assert (first.source, first.line, first.column, first.path) == ("a.yaml", 1, 1, "nmae")
    assert (first.message, first.hint) == ("unknown key 'nmae'", "did you mean 'name'?")
    assert (second.line, second.column, second.path) == (2, 8, "tasks")


def test_d10_an_alias_bomb_is_refused_where_it_begins() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        bomb += f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n"
    lines = errors_of(bomb + "tasks: *i\n")
    assert "job.yaml:1:4: anchors are not supported (&a); write the value out" in lines
    assert "job.yaml:2:8: aliases are not supported; write the value out" in lines


def test_d10_a_file_of_100_mb_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    with pytest.raises(DefinitionErrors) as caught:
        load_file(path)
    assert str(caught.value) == f"{path}: larger than 16,777,216 bytes; store large values and pass references"


def test_d10_the_limit_is_a_setting() -> None:
    text = job()
    assert load_document(text, source="x", max_bytes=len(text)).definition.name == "job"
    with pytest.raises(DefinitionErrors, match="larger than 10 bytes"):
        load_document(text, source="x", max_bytes=10)


@pytest.mark.parametrize(
    "hostile",
    ["[" * 100_000, "{" * 100_000, '{"a":' * 100_000, "- " * 100_000, "? " * 100_000, "a: [" * 10_000, "!" * 100_000],
)
@pytest.mark.parametrize("source", ["x.yaml", "x.json"])
def test_d10_deep_nesting_is_refused(hostile: str, source: str) -> None:
    assert all(len(line) < 400 for line in errors_of(hostile, source))


def test_d10_errors_are_bounded_in_number_and_in_time() -> None:
    tasks = [{"name": f"task{i}", "task_type": "x", "depends_on": [f"tsak{i}"], "k": 1} for i in range(3_000)]
    lines = errors_of(json.dumps({"name": "job", "tasks": tasks}))
    assert lines[-1] == "… and 5800 more"
    assert len(lines) == 201


def test_d10_more_values_than_any_job_needs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (json_nodes, yaml_nodes):
        monkeypatch.setattr(module, "MAX_NODES", 1_000)
    text = "[" + "[]," * 1_000 + "[]]"
    for source in ("x.json", "x.yaml"):
        assert errors_of(text, source) == [f"{source}:1:2999: more than 1,000 values in one document"]
    assert errors_of("- a\n" * 1_001) == ["job.yaml:1000:3: more than 1,000 values in one document"]


def test_d10_a_missing_file_is_an_error_of_the_same_kind(tmp_path: Path) -> None:
    with pytest.raises(DefinitionErrors, match="can't be read: No such file or directory"):
        load_file(tmp_path / "none.yaml")
    with pytest.raises(DefinitionErrors, match="can't be read: Is a directory"):
        load_file(tmp_path)


# --- D11 ----------------------------------------------------------------------------------------------

MOLECULE = """
molecule: "web-extract"
steps:
  - name: "render-url"
    operative: template
    params: { template: "https://api.example.com/{{org}}/usage" }
    # output: { "url": "https://api.example.com/acme/usage" }

  - name: "fetch"
    operative: http
    depends_on: ["render-url"]
    input_from: { url: "render-url.url" }
    params: { method: GET }
    # output: { "body_ref": "store://tmp/fetch-result.json", "status": 200 }

  - name: "extract"
    operative: shell
    depends_on: ["fetch"]
    input_from: { stdin_ref: "fetch.body_ref" }
    params: { command: "jq '.data[]'" }
"""


def test_d11_the_molecule_form_loads_into_the_same_model() -> None:
    as_job = MOLECULE.replace("molecule:", "name:").replace("steps:", "tasks:").replace("operative:", "task_type:")
    molecule = load_document(MOLECULE, source="x")
    assert molecule.definition == load(as_job)
    assert molecule.definition.job_type == "web-extract"
    assert molecule.definition.tasks[1].input_from == {"url": "render-url.url"}
    assert (molecule.form, load_document(as_job, source="x").form) == ("molecule", "job")


def test_d11_the_errors_speak_of_steps() -> None:
    assert errors_of("molecule: m\nsteps:\n- name: a\n  task_type: x\n") == [
        "job.yaml:4:3: steps[0].task_type: 'task_type' belongs to the job form; in a molecule write 'operative'"
    ]


# --- encodings ----------------------------------------------------------------------------------------


def test_a_byte_order_mark_and_windows_line_ends_are_fine() -> None:
    assert load(b"\xef\xbb\xbf" + FULL.replace("\n", "\r\n").encode()) == FULL_LOADED
    assert load("\ufeff" + json.dumps({"name": "j", "tasks": [{"name": "a", "task_type": "x"}]})).name == "j"


def test_json_may_be_indented_with_tabs() -> None:
    text = json.dumps({"name": "j", "tasks": [{"name": "a", "task_type": "x", "params": {"n": 1.5}}]}, indent="\t")
    assert load(text).tasks[0].params == {"n": "1.5"}
    assert errors_of(text.replace('"x"', "5")) == [
        "job.yaml:6:17: tasks[0].task_type: expected a string, found the number 5; put it in quotes"
    ]


def test_yaml_in_flow_style_is_no_broken_json() -> None:
    assert load('{"name": j, tasks: [{name: a, task_type: x,}]}') == JobDefinition("j", "j", [TaskDefinition("a", "x")])


# --- templates ---


def test_a_templates_task_gets_the_jobs_variables() -> None:
    text = """
name: x
vars: {city: Basel, n: 5}
tasks:
  - {name: a, task_type: template, params: {template: "{{ city }}"}}
  - {name: b, task_type: template, params: {template: "", vars: "{}"}}
  - {name: c, task_type: template, params: {template: ""}, depends_on: [a], input_from: {vars: a}}
  - {name: d, task_type: shell, params: {command: ls}}
"""
    a, b, c, d = load_document(text, source="x", variables={"city": "Bern"}).definition.tasks
    assert a.params["vars"] == '{"city":"Bern","n":"5"}'
    assert b.params["vars"] == "{}"
    assert "vars" not in c.params
    assert "vars" not in d.params


def test_variables_of_many_templates_are_bounded() -> None:
    tasks = "\n".join(f'  - {{name: t{n}, task_type: template, params: {{template: ""}}}}' for n in range(100))
    text = f"name: x\nvars: {{big: {'x' * 1000}}}\ntasks:\n{tasks}\n"
    with pytest.raises(DefinitionErrors, match="the variables make the definition larger than 20,000 bytes"):
        load_document(text, source="x", max_bytes=20_000)
