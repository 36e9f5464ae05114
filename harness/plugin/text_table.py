"""Tables of plain text, for terminals and for the repr of results."""

from collections.abc import Iterator, Sequence


def text_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 2
) -> Iterator[str]:
    """The lines of a table; the first ``words`` columns are words, set to the left, all others
    amounts, set to the right.
    """
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = [
            cell.ljust(width) if number < words else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
