"""`divulge audit` and `divulge gate`: the commands that end in a verdict."""

from __future__ import annotations

import secrets
import shlex
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import click

from divulge import signals
from divulge.attacks import BUDGETS, classifiers, quantile, traces
from divulge.cli import terminal
from divulge.cli.engines import Engine, with_engine
from divulge.cli.options import with_judging, with_loudness, with_places
from divulge.cli.places import Places
from divulge.cli.records import check_suffix, write_records
from divulge.cli.terminal import logger
from divulge.controls import CONTROLS
from divulge.doors.tables import Overrides
from divulge.errors import PolicyError
from divulge.evidence import Evidence
from divulge.limits import Policy
from divulge.metrics import PLAIN
from divulge.pipeline import audit
from divulge.references.matching import with_references
from divulge.report import Report
from divulge.slices import MIN_N

_BUDGET = (
    "Attacks to run. quick: thresholds. default: logistic regressions of membership and quantiles too, about 10 times "
    "as long (100 with features). thorough: boosting, networks, neighbours too, about 100 times: up to minutes."
)


_NAMES = f"""Attacks: {", ".join(signals.NAMES)}, or any signal that the file has; class_wise(SIGNAL);
learned({" | ".join(classifiers.MODELS)}), with columns learned(logistic, age); quantile({" | ".join(quantile.MODELS)});
traces({" | ".join(traces.KINDS)}); label_only; and, with --references, ratio, lira, rmia, difficulty, attack_r and
references, the one of them that does best.

Metrics: {", ".join(PLAIN)}, tpr@FPR, achieved_fpr@FPR, ppv@FPR,PRIOR.

Controls: {", ".join(CONTROLS)}."""


@click.command("audit", short_help="Attack a model through its outputs; the main job.", epilog=_NAMES)
@click.argument("file")
@click.option("--label", metavar="COLUMN", help="The label column.")
@click.option("--member", "--split", metavar="COLUMN", help="The column that tells members from non-members.")
@click.option("--id", "id_column", metavar="COLUMN", help="The record column.")
@click.option("--group", metavar="COLUMN", help="The column of persons or households.")
@click.option("--outputs", metavar="COLUMN", multiple=True, help="The output column; or once for each class, in order.")
@click.option("--kind", type=click.Choice(("logits", "probs", "predictions")), help="What the outputs are.")
@click.option("--column", metavar="COLUMN", multiple=True, help="A column to keep for slicing; default: all left over.")
@click.option("--classes", metavar="A,B,…", help="The label values in the order of the output columns.")
@click.option("--member-value", metavar="WORD", multiple=True, help="One more word for members.")
@click.option("--nonmember-value", metavar="WORD", multiple=True, help="One more word for non-members.")
@click.option("--lower-is-member", metavar="SIGNAL", multiple=True, help="A signal that is low for members.")
@click.option("--slice", "slices", metavar="NAME", multiple=True, help="class, correct, a column, loss/10, class*sex.")
@click.option("--references", "store", metavar="DIR", help="Reference models, of `divulge references run`.")
@click.option("--budget", type=click.Choice(tuple(BUDGETS)), help=_BUDGET)
@click.option(
    "--attack", "attacks", metavar="NAME", multiple=True, help="This attack only, or besides the --budget; names below."
)
@click.option(
    "--metric", "metrics", metavar="NAME", multiple=True, help="Measure this only: auc, tpr@0.001 …; names below."
)
@click.option(
    "--control",
    "controls",
    metavar="NAME",
    multiple=True,
    help="Run this control only; -NAME: all but it; names below.",
)
@click.option("--records", metavar="PATH", help="Write the records one by one (.csv, .parquet): it names persons.")
@click.option("--name", metavar="MODEL", help="What to call the model.")
@click.option("--confidence", type=float, default=0.95, show_default=True, help="Of every interval.")
@click.option("--min-n", type=int, default=MIN_N, show_default=True, help="Fewest records a side of a slice.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed, the same report."
)
@click.option("--no-policy", is_flag=True, help="Gate nothing, whatever lies here.")
@with_engine
@with_judging
@with_places
@with_loudness
def audit_command(
    file: str,
    label: str | None,
    member: str | None,
    id_column: str | None,
    group: str | None,
    outputs: tuple[str, ...],
    kind: str | None,
    column: tuple[str, ...],
    classes: str | None,
    member_value: tuple[str, ...],
    nonmember_value: tuple[str, ...],
    lower_is_member: tuple[str, ...],
    slices: tuple[str, ...],
    store: str | None,
    budget: str | None,
    attacks: tuple[str, ...],
    metrics: tuple[str, ...],
    controls: tuple[str, ...],
    records: str | None,
    name: str | None,
    confidence: float,
    min_n: int,
    seed: int,
    policy_path: str | None,
    no_policy: bool,
    baseline: str | None,
    inconclusive: str | None,
    engine: Engine,
    places: Places,
) -> int:
    """Attack a model through its outputs in FILE (.npz, .csv, .parquet, or a folder of .parquet).

    Exit status: 0 PASS or nothing gated, 1 FAIL, 2 error, 3 INCONCLUSIVE, 4 INVALID, 70 internal error.
    """
    if policy_path is not None and no_policy:
        raise click.UsageError("--policy and --no-policy exclude each other")
    policy = None if no_policy else _policy(policy_path, inconclusive)
    _check_unused(policy, baseline, inconclusive)
    written = places
    if records is not None:
        check_suffix(records)
        written = replace(places, forms={**places.forms, "records": records})
    written.check(file, baseline, None if policy is None else policy.source)
    earlier = None if baseline is None else Report.load(baseline)
    with terminal.progress() as tell:
        tell(0, 1, f"reading {file}")
        columns = Overrides(
            member=member,
            label=label,
            id=id_column,
            group=group,
            outputs=outputs[0] if len(outputs) == 1 else list(outputs) or None,
            kind=kind,
            columns=list(column) or None,
            classes=None if classes is None else [name.strip() for name in classes.split(",")],
            member_values=member_value,
            nonmember_values=nonmember_value,
            lower_is_member=lower_is_member,
        )
        evidence = engine.records(file, columns)
        if store is not None:
            if not isinstance(evidence, Evidence):
                raise click.UsageError("--references needs the records in memory: leave out --engine")
            tell(0, 1, f"reading {store}")
            evidence = with_references(evidence, store)
        with engine.stops_said():
            report = audit(
                evidence,
                attacks=[*([budget] if budget else []), *attacks] or "default",
                slices=slices,
                metrics=list(metrics) or "default",
                controls=list(controls) or "default",
                policy=policy,
                baseline=earlier,
                name=name,
                confidence=confidence,
                min_n=min_n,
                seed=seed,
                records=records is not None,
                progress=tell,
            )
    if records is not None:
        write_records(report, records)
    report = replace(report, meta={**report.meta, "command": _command_line()})
    return _finish(report, places, file, earlier)


def _command_line() -> str:
    """The command as it was given; what is not text in a file's name is escaped."""
    given = click.get_current_context().obj
    return shlex.join(["divulge", *given]).encode("utf-8", "backslashreplace").decode("utf-8")


@click.command("gate", short_help="Hold a saved run against a policy, without its data.")
@click.argument("run")
@with_judging
@with_places
@with_loudness
def gate_command(
    run: str, policy_path: str | None, baseline: str | None, inconclusive: str | None, places: Places
) -> int:
    """Hold a saved run (RUN, a run file) against a policy, without its data; exit status as for audit."""
    policy = _policy(policy_path, inconclusive)
    if policy is None:
        raise PolicyError(
            "DV303",
            "gate has nothing to hold the run against: expected --policy FILE, or divulge.toml or a pyproject.toml "
            "with [tool.divulge] in this folder",
        )
    places.check(policy.source, baseline, rewritten=run)
    earlier = None if baseline is None else Report.load(baseline)
    return _finish(Report.load(run).judged(policy, baseline=earlier), places, run, earlier)


def _policy(path: str | None, inconclusive: str | None) -> Policy | None:
    """The policy that was named, or that of the working directory, which is then said."""
    found = Path(path) if path is not None else _policy_here()
    if found is None:
        return None
    policy = Policy.load(found)
    if path is None:
        logger.info("policy: %s", found)
    return policy if inconclusive is None else replace(policy, inconclusive=inconclusive)


def _policy_here() -> Path | None:
    own, project = Path("divulge.toml"), Path("pyproject.toml")
    if own.exists():
        return own
    if not project.is_file():
        return None
    try:
        content = tomllib.loads(project.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        message = f"pyproject.toml of this folder may hold a policy and cannot be read: {error}; --no-policy skips it"
        raise PolicyError("DV303", message) from error
    tool = content.get("tool")
    return project if isinstance(tool, dict) and "divulge" in tool else None


def _check_unused(policy: Policy | None, baseline: str | None, inconclusive: str | None) -> None:
    """An option that nothing reads would seem to gate."""
    if policy is None:
        for name, value in (("--baseline", baseline), ("--inconclusive", inconclusive)):
            if value is not None:
                raise click.UsageError(f"{name} does nothing without a policy: give --policy, or leave it out")


def _finish(report: Report, places: Places, source: str, baseline: Report | None) -> int:
    """Write what was asked for, say what came out; the verdict's status."""
    places.write(report, source=source, baseline=baseline)
    stream = sys.stderr if places.piped else sys.stdout
    if stream is not None:
        terminal.write(stream, _said(report, places, terminal.look(stream)))
    return report.verdict.exit_code


def _said(report: Report, places: Places, look: terminal.Look) -> str:
    from divulge.reporters import github, text

    if not terminal.quiet():
        summary = text.render(report, **look)
    else:
        summary = "" if places.piped else text.render_verdict(report, ascii=look["ascii"])
    if not places.github:
        return summary
    # A name in the summary may read like a command of GitHub's.
    return github.muted(summary, secrets.token_hex(16)) + github.annotations(report)
