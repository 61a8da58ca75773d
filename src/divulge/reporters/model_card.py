"""A report as a Hugging Face model card: metadata that the Hub lists, and a section that says what it means.

The metadata is YAML in which every text is a JSON string, which YAML reads alike; control characters are escapes.
"""

from __future__ import annotations

import json

from divulge.errors import InputError
from divulge.report import Report, Verdict
from divulge.reporters.figures import Figure, main_figures
from divulge.reporters.gfm import code, heading, prose, row
from divulge.wording import MARKS, SAYS_NOT, attackers, clipped, known, model_name, rate, why, worded

NAME = 120

_TYPES = {
    "score": "membership_inference_score",
    "tail_lift": "membership_inference_lift",
    "tail_tpr": "membership_inference_tpr",
    "auc": "membership_inference_auc",
    "member_accuracy": "training_accuracy",
    "nonmember_accuracy": "accuracy",
}
_NAMES = {
    "score": "membership inference: vulnerability score (0 = chance, 1 = every record told apart)",
    "tail_lift": "membership inference: times chance at a low false-positive rate (1 = chance)",
    "tail_tpr": "membership inference: members found at a low false-positive rate",
    "auc": "membership inference: highest AUC of an attack (0.5 = chance)",
    "member_accuracy": "accuracy on audited training records",
    "nonmember_accuracy": "accuracy on audited held-out records",
}


def render(
    report: Report, *, model: str | None = None, dataset: str = "not named", task: str = "membership-inference"
) -> str:
    """The report as a model card, the same text for the same report.

    Args:
        report: of `audit`, or loaded.
        model: the model's name; None: the report's, "model" where it has none.
        dataset: the name of the data that members and non-members were drawn from.
        task: the kind of task that the figures are listed under.

    Returns:
        YAML between two lines of dashes, then Markdown.

    Raises:
        InputError: DV061, an empty name.
    """
    model = model_name(report) or "model" if model is None else model
    for argument, name in (("model", model), ("dataset", dataset), ("task", task)):
        if not name.strip():
            raise InputError("DV061", f"expected a name for {argument}, got {name!r}")
    figures = main_figures(report)
    # Figures of a test that cannot be trusted are worse than none, and the metadata has no place for that word.
    told = [item for item in figures if known(item.estimate.value) and report.verdict is not Verdict.INVALID]
    return f"---\n{_metadata(report, told, model, dataset, task)}---\n\n{_section(report, figures, dataset)}"


def _metadata(report: Report, figures: list[Figure], model: str, dataset: str, task: str) -> str:
    lines = [
        "tags:",
        '- "privacy"',
        '- "membership-inference"',
        "model-index:",
        f"- name: {_quoted(model)}",
        "  results:",
        "  - task:",
        f"      type: {_quoted(task)}",
        "    dataset:",
        f"      name: {_quoted(dataset)}",
        f"      type: {_quoted(dataset)}",
        "    metrics:",
    ]
    for item in figures:
        lines += _metric(item, float(report.meta.get("confidence", 0.95)))
    return "\n".join(lines if figures else lines[:3]) + "\n"


def _metric(item: Figure, confidence: float) -> list[str]:
    lines = [
        f"    - type: {_quoted(_TYPES[item.metric])}",
        f"      name: {_quoted(_NAMES[item.metric])}",
        f"      value: {_number(item.estimate.value)}",
        "      args:",
        f"        confidence: {_number(confidence)}",
    ]
    for name, value in (("low", item.estimate.low), ("high", item.estimate.high), ("fpr", item.fpr)):
        if value is not None and known(value):
            lines.append(f"        {name}: {_number(value)}")
    if item.attack:
        lines.append(f"        attack: {_quoted(item.attack)}")
    return lines


def _quoted(text: str) -> str:
    """A JSON string. Not in ASCII: YAML does not join the two halves that JSON makes of a rare character."""
    return json.dumps(clipped(text, NAME), ensure_ascii=False)


def _number(value: float) -> str:
    """Always with a point and never with an exponent: YAML readers differ on 1e-05."""
    text = f"{value:.6f}".rstrip("0")
    return f"{text}0" if text.endswith(".") else text


def _section(report: Report, figures: list[Figure], dataset: str) -> str:
    verdict, data = report.verdict, report.meta.get("data", {})
    about = f"An audit asked how well attacks on this model's outputs tell who was in its training set ({code(dataset)}"
    if data:
        about += f"; {data['members']:,} training records, {data['nonmembers']:,} held-out records"
    rows = [
        row([item.label, item.text() if known(item.estimate.value) else "", item.chance, _attack(item)])
        for item in figures
    ]
    undefined = [f"- {item.label}: {prose(item.text())}" for item in figures if not known(item.estimate.value)]
    left_out = ["Left out of the metadata above, since this sample does not tell:", "\n".join(undefined)]
    if verdict is Verdict.INVALID:
        left_out = ["All figures are left out of the metadata above, since the test itself cannot be trusted."]
    ran = ", ".join(code(item["attack"], 40) for item in report.rows("attacks") if item["status"] == "ran")
    parts = [
        "## Privacy: membership inference",
        f"{about}); intervals at {rate(report.meta.get('confidence', 0.95))}.",
        f"{MARKS[verdict]} {worded(verdict)}: {why(report)}.",
        "\n".join([heading(("figure", "value [interval]", "chance", "attack")), *rows]),
        *(left_out if undefined or verdict is Verdict.INVALID else ()),
        "### What these figures do not show",
        SAYS_NOT,
        f"{prose(attackers(report), 1000)} Tried: {ran or 'nothing'}.",
        *_doubts(report),
        f"Made with divulge {code(report.meta.get('version'), 30)}, {code(report.meta.get('created'), 40)}.",
    ]
    return "\n\n".join(parts) + "\n"


def _attack(item: Figure) -> str:
    return code(item.attack, 40) if item.attack else ""


def _doubts(report: Report) -> list[str]:
    """What the controls say against the test itself."""
    controls = report.rows("controls")
    if all(item["status"] == "not run" for item in controls):
        return ["No control looked whether the test itself is valid."]
    doubts = [
        f"- {item['status']}: {prose(item['control'], 40)}: {prose(item['text'])}"
        for item in controls
        if item["status"] in ("invalid", "warning")
    ]
    return ["What speaks against the test itself:", "\n".join(doubts)] if doubts else []
