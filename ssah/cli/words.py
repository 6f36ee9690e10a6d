"""Words and tables for a terminal."""


def text_table(head: list[str], rows: list[list]) -> str:
    """Left-aligned columns for a terminal."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def duration(minutes: float) -> str:
    """``45 min``, ``3.0 hours``."""
    if minutes < 1:
        return "less than a minute"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} hours"


def gibibytes(shares: list[float]) -> str:
    """Shares of memory in words: ``7.8 GiB each``, ``12.6 and 3.4 GiB``."""
    sizes = [f"{share:.1f}" for share in shares]
    if len(set(sizes)) == 1:
        return f"{sizes[0]} GiB each"
    return f"{', '.join(sizes[:-1])} and {sizes[-1]} GiB"
