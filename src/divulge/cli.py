"""The command line: `divulge demo | audit | gate | compare | references | recipe | explain`.

Results go to stdout, all else to stderr; `divulge.terminal` says what each exit status means.
"""

from __future__ import annotations

import functools
import secrets
import shlex
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

import click

from divulge import atomic, terminal
from divulge.attacks import BUDGETS
from divulge.cli_options import Command, with_loudness
from divulge.cli_records import check_suffix, write_records
from divulge.cli_references import references, with_references
from divulge.cli_streams import Engine, with_engine
from divulge.codes import CODES
from divulge.doors.tables import Overrides
from divulge.errors import InputError, PolicyError
from divulge.evidence import Evidence
from divulge.limits import INCONCLUSIVE_WAYS, Policy
from divulge.pipeline import audit
from divulge.places import FORMS, Places, named
from divulge.report import Report
from divulge.slices import MIN_N
from divulge.terminal import logger
from divulge.version import VERSION

RECIPES = ("sklearn", "torch", "keras", "jax", "hf", "xgboost", "lightgbm", "catboost", "onnx")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name; None: the process's.

    Returns:
        The exit status.

    >>> main(["explain", "DV101"])  # doctest: +ELLIPSIS
    DV101  the model tells members from non-members
    ...
    0
    """
    given = sys.argv[1:] if argv is None else list(argv)
    return terminal.status_of(
        lambda: program.main(
            args=given,
            obj=given,
            prog_name="divulge",
            standalone_mode=False,
            windows_expand_args=False,
        )
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="divulge")
@with_loudness
def program() -> None:
    """Measure how much a trained model gives away about who was in its training set.

    Start with `divulge demo`; for your own model, `divulge recipe sklearn` (or torch, keras …) prints the lines that
    write predictions.npz, and `divulge audit predictions.npz` reads it.
    """


# ---------------------------------------------------------------------------------------- audit, gate, compare

_BUDGET = (
    "Attacks to run. quick: thresholds. default: logistic regressions of membership and quantiles too, about 10 times "
    "as long (100 with features). thorough: boosting, networks, neighbours too, about 100 times: up to minutes."
)
_POLICY = "Limits, in TOML; else divulge.toml or [tool.divulge] of pyproject.toml here."


def _with_judging(command: Command) -> Command:
    """The options of the two commands that end in a verdict."""
    for option in (
        click.option("--inconclusive", type=click.Choice(INCONCLUSIVE_WAYS), help="What an undecided gate becomes."),
        click.option("--baseline", metavar="RUN", help="An earlier run file, for limits on an increase."),
        click.option("--policy", "policy_path", metavar="FILE", help=_POLICY),
    ):
        command = option(command)
    return command


def _with_places(command: Command) -> Command:
    """The options that say where the report goes, as one argument: `places`."""

    @functools.wraps(command)
    def collected(*, github: bool, **given: Any) -> Any:
        asked = {form: given.pop(form) for form in FORMS}
        places = {form: place for form, place in asked.items() if place is not None}
        return command(places=Places(places, github), **given)

    collected = click.option("--github", is_flag=True, help="Annotate, and add to the job's summary.")(collected)
    for form, text in reversed(FORMS.items()):
        collected = click.option(named(form), form, metavar="PATH", help=text)(collected)
    return collected


@program.command("audit", short_help="Attack a model through its outputs; the main job.")
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
@click.option("--attack", "attacks", metavar="NAME", multiple=True, help="This attack only, or besides the --budget.")
@click.option("--metric", "metrics", metavar="NAME", multiple=True, help="Measure this only: auc, tpr@0.001 …")
@click.option("--control", "controls", metavar="NAME", multiple=True, help="Run this control only; -NAME: all but it.")
@click.option("--records", metavar="PATH", help="Write the records one by one (.csv, .parquet): it names persons.")
@click.option("--name", metavar="MODEL", help="What to call the model.")
@click.option("--confidence", type=float, default=0.95, show_default=True, help="Of every interval.")
@click.option("--min-n", type=int, default=MIN_N, show_default=True, help="Fewest records a side of a slice.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed, the same report."
)
@click.option("--no-policy", is_flag=True, help="Gate nothing, whatever lies here.")
@with_engine
@_with_judging
@_with_places
@with_loudness
def _audit(
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


@program.command("gate", short_help="Hold a saved run against a policy, without its data.")
@click.argument("run")
@_with_judging
@_with_places
@with_loudness
def _gate(run: str, policy_path: str | None, baseline: str | None, inconclusive: str | None, places: Places) -> int:
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


@program.command("compare", short_help="Show run files side by side.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN …")
@click.option(
    "--evidence", metavar="FILE", multiple=True, help="What a run was audited with, once for each run in order: pairs."
)
@click.option("--html", metavar="PATH", help="Write the comparison as a page; - is stdout.")
@click.option("--json", "output", metavar="PATH", help="Write its rows; - is stdout.")
@with_loudness
def _compare(runs: tuple[str, ...], evidence: tuple[str, ...], html: str | None, output: str | None) -> int:
    """Show two or more run files side by side; exit status 0 whatever the verdicts.

    A folder stands for all run files in it, by name, or as its series.json orders and names them. With the evidence of
    every run, runs are paired by record ids.
    """
    from divulge.comparison import compare
    from divulge.reporters import text_runs
    from divulge.series import INDEX, Series

    found, series = _run_files(runs), None
    if len(found) < 2:
        raise click.UsageError("give two or more run files to compare")
    asked = {"html": html, "json": output}
    Places({form: place for form, place in asked.items() if place is not None}).check(*found, *evidence)
    if len(runs) == 1 and Path(runs[0], INDEX).is_file():
        series = replace(Series.load(runs[0]), evidence=evidence or None)
    comparison = compare(*found, evidence=evidence or None) if series is None else series.comparison
    page = comparison if series is None else series
    if output == "-":
        terminal.out_json(comparison.to_json())
    elif output is not None:
        with terminal.writing(Path(output)), atomic.replacing(output) as temporary:
            temporary.write_text(comparison.to_json(), encoding="utf-8")
    if html == "-":
        terminal.out(page.to_html())
    elif html is not None:
        with terminal.writing(Path(html)):
            page.to_html(html)
    piped = "-" in (html, output)
    stream = sys.stderr if piped else sys.stdout
    if stream is not None and not (terminal.quiet() and piped):
        terminal.write(stream, text_runs.render_comparison(comparison, **terminal.look(stream)))
    for place in (html, output):
        if place not in (None, "-"):
            logger.info("wrote %s", place)
    return 0


def _run_files(runs: Sequence[str]) -> list[str]:
    """The run files that were named, and those of the folders that were; what else lies there is said."""
    from divulge.series import in_folder

    found: list[str] = []
    for run in runs:
        if not Path(run).is_dir():
            found.append(run)
            continue
        inside, others = in_folder(run)
        for other in others:
            logger.warning("skipped %s: not a run file of divulge", other)
        if not inside:
            raise InputError("DV055", f"expected run files in the folder {run!r}, and it holds none")
        found += map(str, inside)
    return found


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


program.add_command(references)


# ---------------------------------------------------------------------------------------- demo, recipe, explain


@program.command("demo", short_help="Audit two example models, in a few seconds.")
@click.option("--out", "folder", metavar="DIR", default="divulge-demo", show_default=True, help="Where to write.")
@with_loudness
def _demo(folder: str) -> int:
    """Train an overfit and a regularised classifier, audit both, and show the verdicts side by side.

    Uses scikit-learn's digits: nothing is fetched, and it takes a few seconds. Exit status 0 whatever the verdicts.
    """
    from divulge.demo import demonstrate
    from divulge.reporters import text_runs

    with terminal.progress() as tell:
        shown = demonstrate(Path(folder), progress=tell)
    look = terminal.look(sys.stdout)
    terminal.out(
        "Two classifiers of scikit-learn's digits, trained on the same 797 images and\n"
        "audited with those and 1,000 others. Both read new digits about equally well;\n"
        "the overfit one tells which images it was trained on.\n\n"
    )
    terminal.out(text_runs.render_comparison(shown.comparison, **look))
    logger.info("wrote %s", ", ".join(str(path) for path in shown.files))
    logger.info("open %s in a browser", shown.files[0])
    predictions, policy = (shlex.quote(str(path)) for path in shown.files[-2:])
    command = f"divulge audit {predictions} --policy {policy} --slice class --html privacy.html"
    terminal.out(f"\nNow the overfit model in full:\n  {command}\n")
    return 0


@program.command("recipe", short_help="Print the lines that write predictions.npz.")
@click.argument("framework", metavar="FRAMEWORK", type=click.Choice(RECIPES), required=False)
@with_loudness
def _recipe(framework: str | None) -> int:
    """Print the lines that write predictions.npz from a framework; without one, list them."""
    if framework is None:
        terminal.out("".join(f"divulge recipe {name}\n" for name in RECIPES))
        return 0
    terminal.out(recipe_text(framework))
    return 0


def recipe_text(framework: str) -> str:
    """The recipe of one of `RECIPES`: Python source.

    >>> recipe_text("sklearn").count("np.savez")
    1
    """
    return (resources.files("divulge") / "recipes" / f"{framework}.txt").read_text(encoding="utf-8")


@program.command("explain", short_help="Say what a DV code means and what to do.")
@click.argument("code", required=False)
@with_loudness
def _explain(code: str | None) -> int:
    """Say what a finding or error code means and what to do; without one, list all."""
    from divulge.reporters import text

    look = terminal.look(sys.stdout)
    if code is None:
        terminal.out(text.render_codes(**look))
        return 0
    known = code.strip().upper()
    known = f"DV{known}" if known.isdigit() else known
    if known not in CODES:
        close = get_close_matches(known[:20], CODES, 1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise InputError("DV001", f"there is no code {code[:40]!r}; {hint}`divulge explain` alone lists all")
    terminal.out(text.render_code(known, **look))
    return 0
