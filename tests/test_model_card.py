"""The model card: metadata that YAML and the Hub's own library read, and a section that says what it does not show."""

from __future__ import annotations

import math
import re

import pytest
import yaml

import divulge
from divulge.reporters.model_card import render
from reports import HOSTILE, KINDS
from test_markdown import HARMLESS, kinds, tables

DEFINED = [kind for kind in KINDS if kind != "invalid"]


def split(text: str) -> tuple[dict, str]:
    """The metadata and the section."""
    _, metadata, section = text.split("---\n", 2)
    return yaml.safe_load(metadata), section


def metrics(text: str) -> list[dict]:
    return split(text)[0]["model-index"][0]["results"][0]["metrics"]


@pytest.mark.parametrize("kind", DEFINED)
def test_the_metadata_is_the_figures(kind) -> None:
    report = KINDS[kind]()
    found = {item["type"]: item for item in metrics(render(report))}
    score = found["membership_inference_score"]
    assert score["value"] == pytest.approx(report.score.value, abs=1e-6)
    assert score["args"]["low"] == pytest.approx(report.score.low, abs=1e-6)
    assert all(type(item["value"]) is float and math.isfinite(item["value"]) for item in found.values())
    if "membership_inference_lift" in found:
        assert found["membership_inference_lift"]["args"]["fpr"] == report.tail.fpr
    assert render(report) == render(report)


@pytest.mark.parametrize("kind", DEFINED)
def test_the_hubs_library_reads_it(kind, require) -> None:
    card = require("huggingface_hub").ModelCard(render(KINDS[kind](), model="net", dataset="digits", task="image"))
    results = card.data.eval_results
    assert (card.data.model_name, results[0].dataset_name, results[0].task_type) == ("net", "digits", "image")
    assert [result.metric_value for result in results] == [item["value"] for item in metrics(render(KINDS[kind]()))]
    assert results[0].metric_args["attack"] == metrics(render(KINDS[kind]()))[0]["args"]["attack"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_section_is_headings_tables_and_words(kind) -> None:
    _, section = split(render(KINDS[kind]()))
    assert kinds(section) <= HARMLESS and {count for rows in tables(section) for count in rows} == {4}
    assert "not a DP guarantee" in section and "not a probability that a given person" in section
    assert not re.search(r"\bnan\b", section.lower())


def test_undefined_figures_are_left_out_and_said() -> None:
    text = render(KINDS["loss_only"]())
    assert "lift" not in str(metrics(text))
    assert "Left out of the metadata above" in text and "needs 200 non-members" in text


def test_an_invalid_test_gives_no_figure_to_the_metadata() -> None:
    metadata, section = split(render(KINDS["invalid"]()))
    assert "model-index" not in metadata
    assert "INVALID" in section and "told apart without the model" in section and "All figures are left out" in section


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.strip() and len(name) < 100])
def test_hostile_names_are_texts(name) -> None:
    text = render(KINDS["leaking"](), model=name, dataset=name, task=name)
    metadata, section = split(text)
    shown = metadata["model-index"][0]["name"]
    assert shown.isprintable() and (shown == name or not name.isprintable())
    assert metadata["model-index"][0]["results"][0]["task"]["type"] == shown
    assert list(metadata) == ["tags", "model-index"] and kinds(section) <= HARMLESS


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(divulge.InputError, match="DV061"):
        KINDS["sound"]().to_model_card(dataset=" ")


def test_it_is_written_whole(tmp_path) -> None:
    text = KINDS["leaking"]().to_model_card(tmp_path / "README.md", model="net")
    assert (tmp_path / "README.md").read_bytes().decode() == text
