"""compare(): figures of several runs, differences against the first."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

import divulge
from divulge.comparison import COLUMNS, compare, runs_in
from divulge.errors import InputError
from divulge.intervals import Bounds, difference


def evidence(leak: float = 0.0, *, n: int = 1000, seed: int = 0, noise: float = 0.0) -> divulge.Evidence:
    """Records of one seed are the same; noise sets apart what two models say of them."""
    rng = np.random.default_rng(seed)
    member = np.arange(2 * n) < n
    signals = {name: rng.normal(size=2 * n) + leak * member for name in ("loss", "other")}
    correct = {"correct": (rng.random(2 * n) < 0.9 + 0.05 * member).astype(float)}
    if noise:
        signals = {name: values + noise * rng.normal(size=2 * n) for name, values in signals.items()}
    return divulge.Evidence(member=member, signals={**signals, **correct}, ids=np.arange(2 * n))


def audited(given: divulge.Evidence, **options: object) -> divulge.Report:
    return divulge.audit(given, attacks=["loss", "other"], **options)


def report(leak: float = 0.0, *, n: int = 1000, seed: int = 0, **options: object) -> divulge.Report:
    return audited(evidence(leak, n=n, seed=seed), **options)


def rows_of(comparison: divulge.comparison.Comparison, metric: str) -> list[dict[str, object]]:
    return [row for row in comparison.rows() if row["metric"] == metric]


def test_rows_have_the_stable_columns_and_one_a_figure_and_run() -> None:
    comparison = compare(report(), report(0.5), report(1.0))
    assert all(tuple(row) == COLUMNS for row in comparison.rows())
    assert [row["run"] for row in rows_of(comparison, "score")] == ["run 1", "run 2", "run 3"]
    assert {row["metric"] for row in comparison.rows()} == {
        "score", "tail_lift", "auc", "member_accuracy", "nonmember_accuracy",
    }  # fmt: skip
    assert {row["fpr"] for row in rows_of(comparison, "tail_lift")} == {0.01, 0.05}


def test_a_difference_is_of_the_values_and_its_interval_is_movers() -> None:
    first, second = report(), report(0.8)
    row = rows_of(compare(first, second), "score")[1]
    a, b = first.score, second.score
    ends = difference(b.value, Bounds(b.low, b.high), a.value, Bounds(a.low, a.high))
    assert row["difference"] == b.value - a.value
    assert (row["diff_low"], row["diff_high"]) == (float(ends.low), float(ends.high))
    assert row["diff_low"] > 0


def test_the_first_run_has_no_difference() -> None:
    assert all(math.isnan(row["difference"]) for row in compare(report(), report(1)).rows() if row["run"] == "run 1")


def test_the_best_auc_has_an_interval_that_allows_for_the_choice() -> None:
    one = report(0.3)
    row = rows_of(compare(one, report()), "auc")[0]
    both = [one.estimate("auc", attack=attack) for attack in ("loss", "other")]
    assert row["value"] == max(estimate.value for estimate in both)
    assert row["low"] < max(estimate.low for estimate in both)
    assert row["high"] >= max(estimate.high for estimate in both)


def test_the_best_of_two_equal_aucs_is_covered() -> None:
    """The interval of the largest AUC holds the truth, 0.5, in nearly all leak-free runs."""
    found = [rows_of(compare(report(seed=seed, n=200), report(seed=seed, n=200)), "auc")[0] for seed in range(60)]
    assert sum(row["low"] <= 0.5 <= row["high"] for row in found) >= 54


def test_a_figure_that_one_run_lacks_is_undefined_with_a_reason() -> None:
    rows = [row for row in rows_of(compare(report(n=1000), report(n=300)), "tail_lift") if row["fpr"] == 0.01]
    assert math.isnan(rows[1]["value"]) and math.isnan(rows[1]["difference"])
    assert rows[1]["reason"] == "run 2 has no figure for it"


def test_files_are_called_by_the_shortest_names_that_differ(tmp_path) -> None:
    one = report()
    for name in ("a/run.json", "b/run.json", "c.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        one.save(tmp_path / name)
    assert compare(tmp_path / "c.json", str(tmp_path / "a/run.json")).names == ("c", "run")
    assert compare(tmp_path / "a/run.json", tmp_path / "b/run.json").names[1] == str(tmp_path / "b/run.json")
    twice = compare(tmp_path / "c.json", tmp_path / "c.json").names
    assert len(set(twice)) == 2
    assert compare(one, one, names=["new", "old"]).names == ("new", "old")


@pytest.mark.parametrize("names", [["one"], ["same", "same"]])
def test_names_are_one_a_run(names) -> None:
    with pytest.raises(InputError, match="different names"):
        compare(report(), report(), names=names)


def test_one_run_is_too_few() -> None:
    with pytest.raises(InputError, match="two or more"):
        compare(report())


def test_runs_of_different_confidence_are_refused() -> None:
    with pytest.raises(InputError, match=r"0\.9"):
        compare(report(), report(confidence=0.9))


def test_only_the_comparison_is_a_table() -> None:
    with pytest.raises(InputError, match="results"):
        compare(report(), report()).rows("results")


def test_runs_without_a_table_of_bounds_rows_have_no_best_auc() -> None:
    one = report(metrics=["advantage"])
    assert not rows_of(compare(one, one), "auc")
    assert replace(one).verdict == compare(one, one).verdicts[0]


# --------------------------------------------------------------------------------------------------------- paired


@pytest.fixture(scope="module")
def pair() -> tuple[list[divulge.Evidence], list[divulge.Report]]:
    """Two models that answer much alike about the same records."""
    given = [evidence(0.5), evidence(0.8, noise=0.2)]
    return given, [audited(one, controls=()) for one in given]


def width(row: dict[str, float]) -> float:
    return row["diff_high"] - row["diff_low"]


def test_paired_differences_are_narrower_and_of_the_same_values(pair) -> None:
    given, reports = pair
    paired, apart = compare(*reports, evidence=given), compare(*reports)
    for metric in ("score", "auc", "member_accuracy", "nonmember_accuracy"):
        one, other = rows_of(paired, metric)[1], rows_of(apart, metric)[1]
        assert one["difference"] == pytest.approx(other["difference"], abs=1e-12)
        assert one["diff_low"] <= one["difference"] <= one["diff_high"]
        assert width(one) < 0.8 * width(other)
        assert {**one, "difference": 0, "diff_low": 0, "diff_high": 0, "pairing": 0} == {
            **other, "difference": 0, "diff_low": 0, "diff_high": 0, "pairing": 0,
        }  # fmt: skip
    for at in (0, 1):
        assert rows_of(paired, "tail_lift")[at]["diff_low"] == pytest.approx(
            rows_of(apart, "tail_lift")[at]["diff_low"], nan_ok=True
        )


def test_each_row_says_whether_it_is_paired(pair) -> None:
    given, reports = pair
    for row in compare(*reports, evidence=given).rows():
        expected = "unpaired" if row["metric"] == "tail_lift" else "paired"
        assert row["pairing"] == (None if row["run"] == "run 1" else expected)
    assert {row["pairing"] for row in compare(*reports).rows() if row["run"] != "run 1"} == {"unpaired"}


def test_evidence_may_be_paths_and_missing_for_some(pair, tmp_path) -> None:
    given, reports = pair
    given[1].save(tmp_path / "own.npz")
    comparison = compare(*reports, reports[1], evidence=[given[0], tmp_path / "own.npz", None])
    assert [pairing is None for pairing in comparison.pairings] == [True, False, True]
    assert comparison.pairings[1].members == comparison.pairings[1].nonmembers == 1000
    assert [row["pairing"] for row in rows_of(comparison, "score")] == [None, "paired", "unpaired"]
    assert comparison.reports == (*reports, reports[1])


def test_without_the_first_runs_evidence_nothing_is_paired(pair) -> None:
    given, reports = pair
    assert compare(*reports, evidence=[None, given[1]]).pairings == (None, None)


def test_a_run_against_itself_differs_by_nothing(pair) -> None:
    given, reports = pair
    for metric in ("score", "auc", "member_accuracy", "nonmember_accuracy"):
        row = rows_of(compare(reports[0], reports[0], evidence=[given[0], given[0]]), metric)[1]
        assert row["difference"] == 0 and -0.05 < row["diff_low"] < 0 < row["diff_high"] < 0.05


def test_a_paired_difference_is_of_the_matched_records(pair) -> None:
    """Values stay the runs' own, of all their records."""
    given, reports = pair
    part = given[1].take(np.arange(2000) % 4 > 0)
    own = audited(part, controls=())
    comparison = compare(reports[0], own, evidence=[given[0], part])
    row = rows_of(comparison, "member_accuracy")
    right = [one.signals["correct"][np.arange(2000) % 4 > 0] for one in given]
    of_members = part.member
    assert [row[at]["value"] for at in (0, 1)] == [
        given[0].signals["correct"][:1000].mean(),
        right[1][of_members].mean(),
    ]
    assert row[1]["difference"] == pytest.approx(right[1][of_members].mean() - right[0][of_members].mean())
    assert comparison.pairings[1].left_out == (500, 0)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_evidence_is_one_a_run(pair, count) -> None:
    given, reports = pair
    with pytest.raises(InputError, match="2 evidences") as caught:
        compare(*reports, evidence=[given[0]] * count)
    assert caught.value.code == "DV065"


@pytest.mark.parametrize("one", ["ab", Path("ab"), evidence(n=2)], ids=["text", "path", "evidence"])
def test_one_evidence_alone_is_refused(pair, one) -> None:
    with pytest.raises(InputError, match="2 evidences"):
        compare(*pair[1], evidence=one)


def test_evidence_in_another_order_is_refused(pair) -> None:
    given, reports = pair
    with pytest.raises(InputError, match="run 1") as caught:
        compare(*reports, evidence=given[::-1])
    assert caught.value.code == "DV065"


# ---------------------------------------------------------------------------------------------- JSON and folders


def test_json_holds_the_rows_and_the_pairing(pair) -> None:
    given, reports = pair
    comparison = compare(*reports, evidence=given)
    text = comparison.to_json()
    assert text == compare(*reports, evidence=given).to_json() and "NaN" not in text
    schema = json.loads(resources.files("divulge").joinpath("schemas/comparison-1.schema.json").read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    for found in (comparison, compare(*reports)):
        Draft202012Validator(schema).validate(json.loads(found.to_json()))
    assert set(schema["properties"]["rows"]["items"]["properties"]) == set(COLUMNS)
    assert not Draft202012Validator(schema).is_valid({**json.loads(text), "schema": "divulge-comparison-2"})
    body = json.loads(text)
    assert body["schema"] == "divulge-comparison-1" and body["confidence"] == 0.95
    assert [run["name"] for run in body["runs"]] == ["run 1", "run 2"]
    assert body["runs"][0]["pairing"] is None and body["runs"][1]["pairing"]["members"] == 1000
    for own, row in zip(body["rows"], comparison.rows(), strict=True):
        assert tuple(own) == COLUMNS
        for name, cell in row.items():
            assert own[name] == (None if isinstance(cell, float) and math.isnan(cell) else cell)


def test_the_runs_of_a_folder(tmp_path) -> None:
    one = report()
    for name in ("b.json", "a.json", ".hidden.json"):
        one.save(tmp_path / name)
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "notes.txt").write_text("{}")
    (tmp_path / "folder.json").mkdir()
    ours, others = runs_in(tmp_path)
    assert [path.name for path in ours] == ["a.json", "b.json"]
    assert [path.name for path in others] == ["broken.json", "list.json"]
