"""A page of plain text in one width and one character set."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from divulge.wording import clipped, printable, tied

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

NARROWEST, WIDEST = 40, 120
_TIE = "\ue000"  # a space that rich does not break at, as it does at a no-break space; no printable text holds it


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
        return "".join(f"{line.rstrip()}\n" for line in file.getvalue().replace(_TIE, " ").splitlines())

    def of(self, text: str, style: str = "") -> Text:
        """Our text or a figure, in this page's characters."""
        from rich.text import Text

        return Text(tied(printable(text, ascii=self.ascii), _TIE), style)

    def name(self, name: object, limit: int) -> str:
        """An untrusted name, at most `limit` columns wide."""
        return clipped(name, limit, ascii=self.ascii)

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
            table.add_row(*(Text(tied(cell, _TIE)) for cell in row))
        self.print(Padding(table, (0, 0, 0, 2)))
