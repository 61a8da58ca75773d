r"""GitHub-flavoured Markdown from untrusted text: nothing from outside becomes markup, a link, a mention or a picture.

A name stands in a code span. In a text, each word that could be more than a word does: GitHub finds mentions, issue
numbers, commits and addresses even in escaped text, but not in code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from divulge.wording import clipped

NAME, TEXT = 60, 400
"""Terminal columns at most of a name and of a text."""

_PLAIN = re.compile(r"[^\W_]|[.,;!?%+\-–−×≤≥…'’\"()\[\]]")
_MORE_THAN_A_WORD = re.compile(r"\.[^\W\d]|^\W*(www|gh-)|[0-9a-f]{7}", re.IGNORECASE)
"""Addresses (evil.example), issues (GH-1) and commits."""


def code(name: object, limit: int = NAME) -> str:
    """An untrusted name as a code span, at most `limit` columns wide.

    >>> code("a`b")
    '``a`b``'
    """
    text = clipped(name, limit) or "(no name)"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text[0] in "` " or text[-1] in "` " else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def prose(text: object, limit: int = TEXT) -> str:
    r"""An untrusted text as words, at most `limit` columns wide. Never begin a line with it.

    >>> prose("class=cat is at 0.1 [0.0, 0.2], says @someone")
    '`class=cat` is at 0.1 \\[0.0, 0.2\\], says `@someone`'
    """
    return " ".join(map(_word, clipped(text, limit).split()))


def _word(word: str) -> str:
    stem = "" if word == "=" else word.removesuffix(":")
    if _PLAIN.sub("", stem) or _MORE_THAN_A_WORD.search(word):
        return code(word, len(word) * 2)
    return word.replace("[", r"\[").replace("]", r"\]")


def row(cells: Iterable[str]) -> str:
    r"""A table's row; cells are Markdown.

    >>> row(["a|b", "c"])
    '| a\\|b | c |'
    """
    escaped = (cell.replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def heading(columns: Sequence[str]) -> str:
    r"""A table's first two lines.

    >>> heading(["a", "b"])
    '| a | b |\n| --- | --- |'
    """
    return f"{row(columns)}\n{row('---' for _ in columns)}"
