"""`divulge demo | recipe | explain`: what helps a person who begins."""

from __future__ import annotations

import shlex
import sys
from difflib import get_close_matches
from importlib import resources
from pathlib import Path

import click

from divulge.cli import terminal
from divulge.cli.options import with_loudness
from divulge.cli.terminal import logger
from divulge.codes import CODES
from divulge.errors import InputError

RECIPES = ("sklearn", "torch", "keras", "jax", "hf", "xgboost", "lightgbm", "catboost", "onnx")


@click.command("demo", short_help="Audit two example models, in a few seconds.")
@click.option("--out", "folder", metavar="DIR", default="divulge-demo", show_default=True, help="Where to write.")
@with_loudness
def demo_command(folder: str) -> int:
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
        "audited with those and 1,000 others. Both classify new digits about equally well;\n"
        "the overfit one tells which images it was trained on.\n\n"
    )
    terminal.out(text_runs.render_comparison(shown.comparison, **look))
    logger.info("wrote %s", ", ".join(str(path) for path in shown.files))
    logger.info("open %s in a browser", shown.files[0])
    predictions, policy = (shlex.quote(str(path)) for path in shown.files[-2:])
    command = f"divulge audit {predictions} --policy {policy} --slice class --html privacy.html"
    terminal.out(f"\nNow the overfit model in full:\n  {command}\n")
    return 0


@click.command("recipe", short_help="Print the lines that write predictions.npz.")
@click.argument("framework", metavar="FRAMEWORK", type=click.Choice(RECIPES), required=False)
@with_loudness
def recipe_command(framework: str | None) -> int:
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


@click.command("explain", short_help="Say what a DV code means and what to do.")
@click.argument("code", required=False)
@with_loudness
def explain_command(code: str | None) -> int:
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
