"""Writes the tables of a board in LaTeX, with the package booktabs. The same tables give the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cmet_leaderboards.paper import PaperCell, PaperColumn, PaperRow, PaperTable

# Characters that LaTeX reads as commands, or that its standard fonts do not have. Accented Latin letters need no
# replacement. Letters of other scripts need XeLaTeX or LuaLaTeX and a font that has them.
_LATEX = {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", '"': "''"},
    **{char: f"\\{char}" for char in "&%$#_{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "@": "{@}"},
    **{"–": "--", "—": "---", "−": "$-$", "±": r"$\pm$", "∞": r"$\infty$", "·": r"$\cdot$", "×": r"$\times$"},
    **{"↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\rightarrow$", "≈": r"$\approx$", "≤": r"$\leq$"},
    **{"≥": r"$\geq$", "…": r"\dots{}", "’": "'", "‘": "`", "“": "``", "”": "''", "\N{NO-BREAK SPACE}": "~"},
}
_NARROW = 4  # the most columns of a table that fits into one of two text columns


def latex(text: str) -> str:
    r"""The text for LaTeX, in which no character is a command.

    Example:
        >>> latex("100% of a_b → 1")
        '100\\% of a\\_b $\\rightarrow$ 1'
    """
    return "".join(_LATEX.get(char, char) for char in text)


def to_latex(tables: Sequence[PaperTable]) -> str:
    r"""One `table` environment for each table. It needs `\usepackage{booktabs}`."""
    return "\n".join(line for table in tables for line in _lines(table))


def _lines(table: PaperTable) -> Iterator[str]:
    place = "table" if len(table.columns) <= _NARROW else "table*"
    for name, digest, signature in table.signatures:
        yield f"% {digest} {name}: {signature}"
    yield from (rf"\begin{{{place}}}[t]", r"\centering", rf"\caption{{{_caption(table)}}}")
    yield from (rf"\label{{tab:{table.name}}}", r"\smallskip", r"\small", r"\setlength{\tabcolsep}{3pt}")
    yield rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}"
    yield r"\toprule"
    yield _row(["Method", *map(_head, table.columns)])
    for group in table.groups:
        yield r"\midrule"
        yield from (_row([_title(row), *map(_cell, row.cells)]) for row in group)
    yield from (r"\bottomrule", r"\end{tabular}", rf"\end{{{place}}}", "")


def _caption(table: PaperTable) -> str:
    return " ".join([f"{latex(table.title)}.", *map(latex, table.notes)])


def _head(column: PaperColumn) -> str:
    """The head of a column, with one line for each word of its name and each of its facts, so that it is narrow."""
    names = [latex(word) for word in column.name.split(" ")]
    lines = [
        *names[:-1],
        f"{names[-1]} {latex(column.arrow)}",
        *(rf"\scriptsize\strut {latex(x)}" for x in column.facts),
    ]
    return r"\shortstack[r]{" + r" \\ ".join(lines) + "}"


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _title(row: PaperRow) -> str:
    return latex(row.title) + (rf" \textit{{({row.role})}}" if row.role else "")


def _cell(cell: PaperCell) -> str:
    value = rf"\textbf{{{latex(cell.value)}}}" if cell.bold else latex(cell.value)
    half = rf" {{\scriptsize $\pm$ {latex(cell.half)}}}" if cell.half else ""
    return value + half + (rf" {{\scriptsize ({latex(cell.coverage)})}}" if cell.coverage else "")
