"""A page of plain text in one width and one character set, and how figures are written on it.

Class and column names are untrusted: they pass `printable` and are never read as markup.
"""

from __future__ import annotations

import io
import math
import shutil
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

NARROWEST, WIDEST = 40, 120

_ASCII = {"✓": "+", "✗": "x", "·": "-", "×": "x", "≤": "<=", "…": "...", "−": "-", "–": "-", "•": "-", "→": "->"}


def printable(text: str, *, ascii: bool = False) -> str:
    r"""Text with every control, bidirectional and other invisible character shown as its escape.

    Args:
        text: from anywhere.
        ascii: escape all that is not ASCII, too; our own symbols get a stand-in.

    >>> printable("a\x1b[31m\u202eb")
    'a\\x1b[31m\\u202eb'
    >>> len(printable("score ≤ 0.1", ascii=True))
    12
    """
    if text.isprintable() and (not ascii or text.isascii()):
        return text
    return "".join(_shown(character, ascii) for character in text)


def _shown(character: str, ascii: bool) -> str:
    if character.isprintable() and (not ascii or character.isascii()):
        return character
    if ascii and character in _ASCII:
        return _ASCII[character]
    return character.encode("unicode_escape").decode("ascii")


class Page:
    """Text that grows line by line, in one width and one character set."""

    def __init__(self, width: int | None, color: bool, ascii: bool) -> None:
        from rich.console import Console

        if width is None:
            width = shutil.get_terminal_size((80, 24)).columns
        self.width = min(max(width, NARROWEST), WIDEST)
        self.ascii = ascii
        self._console: Console = Console(
            file=io.StringIO(),
            width=self.width,
            color_system="standard" if color else None,
            force_terminal=color,
            no_color=not color,
            highlight=False,
            markup=False,
            emoji=False,
            legacy_windows=False,
            force_jupyter=False,
        )

    def text(self) -> str:
        """All that was printed."""
        file = self._console.file
        assert isinstance(file, io.StringIO)
        return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())

    def of(self, text: str, style: str = "") -> Text:
        """Our text or a figure, in this page's characters."""
        from rich.text import Text

        return Text(printable(text, ascii=self.ascii), style)

    def name(self, name: object, limit: int) -> str:
        """An untrusted name, at most `limit` columns wide."""
        from rich.cells import cell_len

        text = printable(str(name)[: 4 * limit], ascii=self.ascii)
        if cell_len(text) <= limit and len(str(name)) <= 4 * limit:
            return text
        dots = "..." if self.ascii else "…"
        while text and cell_len(text) > limit - len(dots):
            text = text[:-1]
        return text + dots

    def print(self, item: RenderableType = "") -> None:
        """One renderable and a line's end."""
        self._console.print(item)

    def heading(self, text: str) -> None:
        """A blank line and a heading."""
        self.print()
        self.print(self.of(text, "bold"))

    def line(self, *parts: str | tuple[str, str] | Text, indent: int = 2, hang: int = 0) -> None:
        """One paragraph, wrapped; parts are text, (text, style), or ready."""
        from rich.padding import Padding
        from rich.text import Text

        text = Text()
        for part in parts:
            text.append_text(part if isinstance(part, Text) else self.of(*((part,) if isinstance(part, str) else part)))
        # The first line reaches as far as the others, although it starts further left.
        first = text.wrap(self._console, self.width - indent)[0]
        rest = text[len(first) :]
        first.rstrip()
        self.print(Padding(first, (0, 0, 0, indent)))
        while rest.plain[:1] == " ":
            rest = rest[1:]
        if rest:
            self.print(Padding(rest, (0, 0, 0, min(indent + hang, self.width // 2))))

    def table(self, columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]]) -> None:
        """A table without lines; columns are (heading, "left" or "right"), cells are in this page's characters."""
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False, header_style="dim")
        for heading, side in columns:
            table.add_column(self.of(heading), justify="right" if side == "right" else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self.print(Padding(table, (0, 0, 0, 2)))


class _Unit(NamedTuple):
    """How a metric's values are written: their factor, decimals (None: by size), and the sign after the value."""

    factor: float = 1
    decimals: int | None = 3
    sign: str = ""


_SHARE = _Unit(100, None, " %")
_UNITS = {
    "tail_lift": _Unit(1, 1),
    **dict.fromkeys(("tpr", "tail_tpr", "ppv", "achieved_fpr"), _SHARE),
    **dict.fromkeys(("member_accuracy", "nonmember_accuracy"), _SHARE._replace(decimals=1)),
}


def known(value: float | None) -> bool:
    """Whether a number is there: neither None nor NaN.

    >>> [int(known(value)) for value in (0.0, None, math.nan)]
    [1, 0, 0]
    """
    return value is not None and not math.isnan(value)


def figure(metric: str, value: float, low: float, high: float) -> str:
    """A value with its interval as text; without an interval the value alone.

    >>> figure("score", 0.4907, 0.4321, 0.5378)
    '0.491 [0.432, 0.538]'
    >>> figure("tpr", 0.0123, 0.004, 0.02)
    '1.2 % [0.4, 2.0]'
    """
    if not known(value):
        return "not measurable"
    unit = _UNITS.get(metric, _Unit())
    text = _written(value, unit, value) + unit.sign
    if not (known(low) and known(high)):
        return text
    return f"{text} [{_written(low, unit, value)}, {_written(high, unit, value)}]"


def _written(number: float, unit: _Unit, like: float) -> str:
    """A number in a unit, with the decimals that suit the number `like`: two digits of a share below 1 %."""
    decimals = unit.decimals
    if decimals is None:
        size = abs(like) * unit.factor
        decimals = 1 if size >= 1 or size == 0 else min(1 - math.floor(math.log10(size)), 6)
    text = f"{number * unit.factor:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def rate(value: float) -> str:
    """A rate as people say it.

    >>> rate(0.001)
    '0.1 %'
    """
    return f"{100 * value:g} %"
