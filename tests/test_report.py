"""Reports: rows, frames, lookups, and the run file, whole or damaged."""

import functools
import json
import math
from importlib import resources

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import divulge
from divulge import Evidence, InputError, Policy, PrivacyGateError, Report, Verdict
from divulge.report import COLUMNS, table_of

audit = functools.partial(divulge.audit, controls=())
STRANGE = [
    "<script>alert(1)</script>",
    "\u202egnol",
    "a\x00b\x1b[31m",
    'quo"te\\',
    "Zoë\n😀",
    "x" * 10_000,
    "-1",
    "null",
]


@pytest.fixture(autouse=True)
def fixed_clock(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")


def leaky(n=1200, leak=1.0, **fields):
    rng = np.random.default_rng(0)
    member, labels = np.arange(n) < n // 2, rng.integers(0, 4, n)
    logits = rng.normal(size=(n, 4)).astype(np.float32)
    logits[np.arange(n), labels] += 1 + leak * member
    outputs = {"outputs": logits, "labels": labels, "kind": "logits"}
    return Evidence(member, **{**outputs, **fields})


POLICY = Policy.from_mapping({"gate": {"score": {"max": 0.1}, "tail": {"max_lift": 10}, "auc": {"max": 0.9}}})

KINDS = {
    "with controls": lambda: divulge.audit(leaky(), slices=["class"]),
    "classes": lambda: audit(leaky(), slices=["class", "correct", "loss/4"]),
    "gated": lambda: audit(leaky(), policy=POLICY, slices="class"),
    "inconclusive": lambda: audit(leaky(), policy=Policy.from_mapping({"gate": {"tpr@0.0001": {"max": 0.1}}})),
    "loss only": lambda: audit(leaky(outputs=None, labels=None, kind=None, signals={"loss": np.arange(1200.0)})),
    "constant": lambda: audit(leaky(outputs=None, labels=None, kind=None, signals={"loss": np.zeros(1200)})),
    "tiny": lambda: audit(leaky(n=4), slices="class"),
    "multi-label": lambda: audit(
        leaky(labels=np.random.default_rng(0).random((1200, 4)) < 0.3), slices="class", min_n=20
    ),
    "regression": lambda: audit(leaky(outputs=np.arange(1200.0), labels=np.zeros(1200), kind=None)),
    "unlabelled": lambda: audit(leaky(labels=None)),
    "strange names": lambda: audit(
        leaky(columns={"na\x00me": np.array(STRANGE * 150)}, classes=tuple(STRANGE[:4])), slices=["na\x00me", "class"]
    ),
    "skipped attack": lambda: audit(leaky(), attacks=["loss"], metrics=["auc"], slices=()),
    "reversed": lambda: audit(leaky(leak=-3.0)),
}


@functools.cache
def report_of(kind):
    return KINDS[kind]()


@functools.cache
def small_run_file():
    """Every table filled, in few bytes: it is damaged a thousand times."""
    held = Policy.from_mapping({"gate": {"score": {"max": 0.001}, "auc": {"max": 0.9}}})
    return audit(leaky(n=400), policy=held, attacks=["loss"], metrics=["auc"], slices="class", min_n=40).to_json()


@pytest.fixture(params=KINDS)
def report(request):
    return report_of(request.param)


def equal(a, b):
    """Cells alike, NaN with NaN and None with None only."""
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, float) and math.isnan(a):
        return isinstance(b, float) and math.isnan(b)
    return type(a) is type(b) and a == b


@functools.cache
def schema():
    text = resources.files("divulge").joinpath("schemas/run-1.schema.json").read_text(encoding="utf-8")
    return json.loads(text)


# ----------------------------------------------------------------------------------------------------- run file


def test_the_run_file_is_of_its_schema(report):
    Draft202012Validator(schema()).validate(json.loads(report.to_json()))


def test_the_schema_is_a_schema_and_says_what_each_column_is():
    Draft202012Validator.check_schema(schema())
    tables = dict(schema()["properties"]["tables"]["properties"])
    assert tables.pop("records")["$ref"] == "#/properties/tables/properties/bands"  # as older files call it
    for name, table in tables.items():
        assert list(table["properties"]) == list(COLUMNS[name])
        assert table["required"] == list(COLUMNS[name])
        assert table["additionalProperties"] is False
        assert all(column["description"] for column in table["properties"].values())
    assert set(tables) == set(COLUMNS)


def test_the_bands_of_an_older_run_file_are_read(report):
    body = json.loads(report.to_json())
    body["tables"]["records"] = body["tables"].pop("bands")
    Draft202012Validator(schema()).validate(body)
    older = Report.from_json(json.dumps(body))
    assert older.rows("bands") == report.rows("bands") != []
    assert "records" not in older.tables
    assert older.to_json() == report.to_json()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["schema"], "divulge-run-2"),
        (["extra"], 1),
        (["meta", "verdict"], "MAYBE"),
        (["meta", "data", "digest"], "none"),
        (["tables", "results", "extra"], []),
        (["tables", "extra"], {}),
        (["tables", "results", "value"], ["0.5"]),
        (["tables", "results", "members"], [1.5]),
        (["tables", "results", "slice"], {"texts": ["a"], "codes": [-2]}),
        (["tables", "results", "slice"], {"texts": ["a", "a"], "codes": [0]}),
        (["tables", "results", "slice"], {"texts": ["a"]}),
        (["tables", "attacks", "status"], ["failed"]),
        (["tables", "findings", "severity"], ["dire"]),
        (["tables", "findings", "code"], ["DV1"]),
    ],
)
def test_the_schema_refuses(path, value):
    body = json.loads(report_of("gated").to_json())
    inner = functools.reduce(lambda at, key: at[key], path[:-1], body)
    inner[path[-1]] = value
    assert not Draft202012Validator(schema()).is_valid(body)


def test_some_columns_are_packed_and_some_are_not():
    """So that the schema's two forms of a text column are both tried."""
    tables = json.loads(report_of("classes").to_json())["tables"]
    assert set(tables["results"]["slice"]) == {"texts", "codes"}
    assert isinstance(tables["slices"]["slice"], list)


def test_saved_and_loaded_is_the_same_report(report, tmp_path):
    report.save(tmp_path / "run.json")
    loaded = Report.load(tmp_path / "run.json")
    assert set(loaded.tables) == set(report.tables)
    for table in report.tables:
        for before, after in zip(report.rows(table), loaded.rows(table), strict=True):
            wrong = {name: (before[name], after[name]) for name in before if not equal(before[name], after[name])}
            assert not wrong
    assert loaded.meta == report.meta
    assert loaded.to_json() == report.to_json()


def test_a_loaded_report_says_the_same(report, tmp_path):
    report.save(tmp_path / "run.json")
    loaded = Report.load(tmp_path / "run.json")
    assert equal(loaded.score, report.score)
    assert equal(loaded.tail, report.tail)
    assert loaded.verdict is report.verdict
    assert repr(loaded) == repr(report)


def test_the_same_seed_gives_the_same_bytes():
    first, again = (audit(leaky(), slices=["class"], seed=4).to_json() for _ in range(2))
    assert first == again
    assert audit(leaky(), slices=["class"], seed=5).to_json() != first
    assert json.loads(first)["meta"]["created"] == "2026-01-01T00:00:00+00:00"


def test_a_names_bytes_are_kept():
    names = {row["slice"] for row in report_of("strange names").rows("slices")}
    assert {f"na\x00me={text}" for text in STRANGE} <= names


def test_the_run_file_holds_no_number_that_json_lacks(report):
    def refuse(text):
        raise AssertionError(text)

    json.loads(report.to_json(), parse_constant=refuse)


def test_a_thousand_slices_by_five_attacks_take_less_than_five_megabytes():
    n = 101_000
    evidence = Evidence(
        np.arange(n) % 2 == 0,
        signals={f"signal {i}": np.random.default_rng(i).normal(size=n) for i in range(5)},
        columns={"city": np.char.add("a city of some length, ", (np.arange(n) // 2 % 1000).astype(str))},
    )
    report = audit(evidence, slices="city")
    assert len(report.rows("slices")) == 1001
    assert sum(row["status"] == "ran" for row in report.rows("attacks")) == 5
    assert len(report.to_json().encode()) < 5_000_000


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path):
    report_of("tiny").save(tmp_path / "run.json")
    before = (tmp_path / "run.json").read_bytes()
    broken = Report({**report_of("tiny").meta, "note": object()}, report_of("tiny").tables)
    with pytest.raises(TypeError):
        broken.save(tmp_path / "run.json")
    assert (tmp_path / "run.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


# ----------------------------------------------------------------------------------------------- damaged, foreign


def assert_not_a_run_file(text):
    with pytest.raises(InputError) as raised:
        Report.from_json(text)
    assert raised.value.code == "DV055"
    assert len(str(raised.value)) < 1000


def test_a_run_file_cut_off_anywhere_is_refused():
    text = report_of("gated").to_json()
    for end in range(0, len(text) - 1, 1000):
        assert_not_a_run_file(text[:end])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "3",
        '"divulge-run-1"',
        "[]",
        "{}",
        '{"schema": "divulge-run-2", "meta": {}, "tables": {}}',
        '{"schema": ["divulge-run-1"]}',
        '{"schema": "divulge-run-1"}',
        '{"schema": "divulge-run-1", "meta": {"verdict": "PASS"}, "tables": {}}',
        '{"schema": "divulge-run-1", "meta": {"verdict": "MAYBE"}, "tables": {}}',
        '{"schema": "divulge-run-1", "meta": [], "tables": []}',
        '{"name": "a-package", "dependencies": {"x": "^1.0"}}',
        "\ufeff{}",
        "PK\x03\x04",
        "[" * 200_000,
        '{"schema":' * 200_000,
    ],
)
def test_what_is_not_a_run_file_is_refused(text):
    assert_not_a_run_file(text)


@pytest.mark.parametrize("name", ["missing.json", "folder", "a\0b"])
def test_a_path_without_a_run_file_is_refused(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError) as raised:
        Report.load(f"{tmp_path}/{name}")
    assert raised.value.code == "DV055"


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "run.json").write_bytes(b"\xff\xfe\x00" * 100)
    with pytest.raises(InputError, match="cannot be read") as raised:
        Report.load(tmp_path / "run.json")
    assert raised.value.code == "DV055"


@functools.cache
def places():
    """Every place in a run file, as paths of keys; of long lists the first and the last item."""

    def walk(value, path):
        yield path
        items = value.items() if isinstance(value, dict) else []
        if isinstance(value, list) and value:
            items = {0: value[0], len(value) - 1: value[-1]}.items()
        for key, item in items:
            yield from walk(item, (*path, key))

    return [path for path in walk(json.loads(small_run_file()), ()) if path]


SWAPS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.floats(allow_nan=False),
    st.text(max_size=4),
    st.lists(st.integers(-2, 2), max_size=3),
    st.dictionaries(st.sampled_from(["texts", "codes", "value"]), st.lists(st.none() | st.integers(), max_size=2)),
)


@given(st.data(), SWAPS)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_swapped_value_is_refused_or_read_and_usable(data, swap):
    """Whatever stands where it should not: DV055 on loading, or a report that can be looked at and judged."""
    path = data.draw(st.sampled_from(places()))
    body = json.loads(small_run_file())
    inner = functools.reduce(lambda at, key: at[key], path[:-1], body)
    inner[path[-1]] = swap
    try:
        report = Report.from_json(json.dumps(body))
    except InputError as error:
        assert error.code == "DV055"
        return
    for table in COLUMNS:
        report.rows(table)
    report.to_json()


@given(st.data(), SWAPS)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_report_that_loads_can_be_judged(data, swap):
    path = data.draw(st.sampled_from(places()))
    body = json.loads(small_run_file())
    inner = functools.reduce(lambda at, key: at[key], path[:-1], body)
    inner[path[-1]] = swap
    try:
        report = Report.from_json(json.dumps(body)).judged(POLICY)
    except InputError as error:
        assert error.code in ("DV054", "DV055")
        return
    assert isinstance(report.verdict, Verdict)


@given(st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_missing_key_is_refused_or_read(data):
    path = data.draw(st.sampled_from([path for path in places() if isinstance(path[-1], str)]))
    body = json.loads(small_run_file())
    del functools.reduce(lambda at, key: at[key], path[:-1], body)[path[-1]]
    try:
        Report.from_json(json.dumps(body)).judged(POLICY)
    except InputError as error:
        assert error.code == "DV055"


def test_a_number_too_large_for_a_float_is_refused():
    body = json.loads(small_run_file())
    body["tables"]["results"]["value"][0] = 10**400
    assert_not_a_run_file(json.dumps(body))


def test_columns_of_different_lengths_are_refused():
    body = json.loads(report_of("gated").to_json())
    body["tables"]["results"]["value"].append(1.0)
    assert_not_a_run_file(json.dumps(body))


# ------------------------------------------------------------------------------------------------ rows and frames


def test_rows_are_dicts_of_the_tables_columns(report):
    for table, columns in COLUMNS.items():
        assert all(list(row) == list(columns) for row in report.rows(table))
        assert len(report.rows(table)) == len(next(iter(report.tables[table].values())))


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("results", "attack slice metric fpr prior value low high members nonmembers reason"),
        ("slices", "partition slice members nonmembers merged"),
        ("attacks", "attack status reason"),
        ("findings", "code severity slice attack text fix waived"),
        ("controls", "control code status value low high text reason"),
        ("curve", "attack slice threshold tpr fpr low high"),
    ],
)
def test_the_promised_columns_are_there(table, columns):
    assert COLUMNS[table][: len(columns.split())] == tuple(columns.split())


@pytest.mark.parametrize("backend", ["pandas", "polars", "pyarrow"])
@pytest.mark.parametrize("table", COLUMNS)
@pytest.mark.parametrize("kind", ["gated", "constant", "tiny", "strange names"])
def test_frames_hold_the_rows(require, backend, table, kind):
    require(backend)
    report = report_of(kind)
    frame = report.to_frame(table, backend=backend)
    columns = frame.column_names if backend == "pyarrow" else list(frame.columns)
    assert columns == list(COLUMNS[table])
    rows = report.rows(table)
    assert len(frame) == len(rows)
    name = columns[0]
    values = frame[name].to_pylist() if backend == "pyarrow" else frame[name].to_list()
    assert values == [row[name] for row in rows]


@pytest.mark.parametrize("backend", ["pandas", "polars", "pyarrow"])
def test_a_frames_numbers_are_numbers(require, backend):
    require(backend)
    frame = report_of("classes").to_frame(backend=backend)
    wanted = [row["value"] for row in report_of("classes").rows("results")]
    found = np.asarray(frame["value"], dtype=float)
    np.testing.assert_array_equal(found, wanted)


def test_without_a_backend_the_first_installed_is_taken(require):
    pandas = require("pandas")
    assert isinstance(report_of("tiny").to_frame(), pandas.DataFrame)


@pytest.mark.parametrize("call", [lambda r: r.rows("result"), lambda r: r.to_frame("result")])
def test_an_unknown_table_is_refused(call):
    with pytest.raises(InputError, match="it has results, slices, attacks") as raised:
        call(report_of("tiny"))
    assert raised.value.code == "DV054"


def test_an_unknown_backend_is_refused():
    with pytest.raises(InputError, match="polars, pyarrow, got") as raised:
        report_of("tiny").to_frame(backend="excel")
    assert raised.value.code == "DV054"


def test_a_backend_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "polars", None)
    with pytest.raises(InputError, match="polars is not installed") as raised:
        report_of("tiny").to_frame(backend="polars")
    assert raised.value.code == "DV054"


# ------------------------------------------------------------------------------------------------------- lookups


@pytest.mark.parametrize("kind", ["classes", "strange names", "multi-label"])
def test_every_row_can_be_looked_up(kind):
    report = report_of(kind)
    for row in report.rows("results"):
        found = report.estimate(
            row["metric"], attack=row["attack"], slice=row["slice"], fpr=row["fpr"], prior=row["prior"]
        )
        assert equal(tuple(found), (row["value"], row["low"], row["high"], row["reason"]))


def test_rates_may_stand_in_the_name():
    report = report_of("classes")
    by_name = report.estimate("tpr@0.05", attack="loss")
    assert by_name == report.estimate("tpr", attack="loss", fpr=0.05)
    assert equal(report.estimate("ppv@0.01,0.1", attack="loss"), report.estimate("ppv", attack="loss", prior=0.1))


def test_the_attack_may_be_left_out_where_one_row_fits():
    assert report_of("loss only").estimate("auc") == report_of("loss only").estimate("auc", attack="loss")
    assert report_of("classes").estimate("score") == report_of("classes").score


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "auc"}, "say which attack"),
        ({"metric": "tpr", "attack": "loss"}, "say which attack, fpr or prior"),
        ({"metric": "acu", "attack": "loss"}, "no estimate of 'acu'"),
        ({"metric": "auc", "attack": "los"}, "by attack 'los'"),
        ({"metric": "auc", "attack": "loss", "slice": "class=99"}, "class=99"),
        ({"metric": "tpr", "attack": "loss", "fpr": 0.5}, "no estimate of 'tpr'"),
    ],
)
def test_a_lookup_that_fits_none_or_many_is_refused(arguments, message):
    with pytest.raises(InputError) as raised:
        report_of("classes").estimate(**arguments)
    assert message in str(raised.value)
    assert raised.value.code == "DV054"


def test_a_lookup_by_an_unknown_metric_with_a_rate_is_refused():
    with pytest.raises(InputError, match=r"unknown metric 'trp@0\.01'") as raised:
        report_of("classes").estimate("trp@0.01")
    assert raised.value.code == "DV051"


def test_the_tails_are_at_rising_rates_and_the_headline_is_one_of_them():
    tails = report_of("classes").tails
    assert [tail.fpr for tail in tails] == sorted(tail.fpr for tail in tails)
    assert any(equal(tail, report_of("classes").tail) for tail in tails)


def test_a_tail_that_a_small_sample_cannot_carry_is_undefined_with_its_reason():
    tail = report_of("tiny").tail
    assert math.isnan(tail.tpr.value) and "needs 200 non-members" in tail.tpr.reason


# -------------------------------------------------------------------------------------------------------- verdict


def verdict_report(verdict, findings=(), controls=()):
    return Report(
        {"verdict": verdict, "policy": "p.toml"},
        {"findings": table_of("findings", findings), "controls": table_of("controls", controls)},
    )


FAIL = {"code": "DV103", "severity": "fail", "text": "the tail is long", "waived": False}
LEAK = {"code": "DV101", "severity": "warning", "text": "a leak", "waived": False}
DOUBT = {"code": "DV306", "severity": "info", "text": "score cannot be held against its limit", "waived": False}


@pytest.mark.parametrize("verdict", ["PASS", "NOT_GATED"])
def test_check_lets_a_pass_through(verdict):
    verdict_report(verdict, [LEAK]).check()


def test_check_raises_the_finding_that_failed():
    with pytest.raises(PrivacyGateError, match="verdict FAIL: the tail is long") as raised:
        verdict_report("FAIL", [LEAK, {**FAIL, "waived": True, "text": "waived"}, FAIL]).check()
    assert raised.value.code == "DV103"


def test_check_raises_the_doubt_of_an_inconclusive_gate_unless_told_not_to():
    report = verdict_report("INCONCLUSIVE", [LEAK, DOUBT])
    with pytest.raises(PrivacyGateError, match="verdict INCONCLUSIVE: score cannot be held") as raised:
        report.check()
    assert raised.value.code == "DV306"
    report.check(inconclusive=False)


def test_check_raises_the_control_that_makes_a_report_invalid():
    control = {
        "control": "shift",
        "code": "DV201",
        "status": "invalid",
        "text": "the two sides differ without the model",
    }
    with pytest.raises(PrivacyGateError, match="verdict INVALID: the two sides differ") as raised:
        verdict_report("INVALID", [FAIL], [control]).check(inconclusive=False)
    assert raised.value.code == "DV201"


@pytest.mark.parametrize(
    ("verdict", "code"), [("PASS", 0), ("NOT_GATED", 0), ("FAIL", 1), ("INCONCLUSIVE", 3), ("INVALID", 4)]
)
def test_verdicts_have_their_exit_codes(verdict, code):
    assert Verdict(verdict).exit_code == code


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("tables", "controls", "status"), "fine"),
        (("tables", "findings", "severity"), "grave"),
        (("tables", "gates", "outcome"), "MAYBE"),
        (("tables", "curve", "fpr"), None),
        (("tables", "bands", "members"), 10**400),
        (("meta", "data"), {"members": 1}),
        (("meta", "slices"), 5),
        (("meta", "attacks"), []),
    ],
)
def test_what_no_reader_could_show_is_damage(place, value, report):
    body = json.loads(report.judged(divulge.Policy.from_mapping({"gate": {"score": {"max": 0.0}}})).to_json())
    *outer, last = place
    table = body
    for key in outer:
        table = table[key]
    if place[0] == "tables":
        cells = table[last]
        count = len(cells["codes"]) if isinstance(cells, dict) else len(cells)
        table[last] = [value] * count
    else:
        table[last] = value
    with pytest.raises(InputError) as error:
        Report.from_json(json.dumps(body))
    assert error.value.code == "DV055"
