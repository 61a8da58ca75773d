"""compare(): figures of several runs, differences against the first."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import divulge
from divulge.comparison import COLUMNS, compare
from divulge.errors import InputError
from divulge.intervals import Bounds, difference


def report(leak: float = 0.0, *, n: int = 1000, seed: int = 0, **options: object) -> divulge.Report:
    rng = np.random.default_rng(seed)
    member = np.arange(2 * n) < n
    signals = {name: rng.normal(size=2 * n) + leak * member for name in ("loss", "other")}
    correct = {"correct": (rng.random(2 * n) < 0.9 + 0.05 * member).astype(float)}
    return divulge.audit(
        divulge.Evidence(member=member, signals={**signals, **correct}), attacks=["loss", "other"], **options
    )


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
