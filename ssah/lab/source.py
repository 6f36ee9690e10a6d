"""The package's own code, shown in a notebook beside the equation that it implements.

Read as text, so that showing a function loads nothing of what it needs.
"""

import ast
import textwrap
from pathlib import Path

from ..errors import SsahError

PACKAGE = Path(__file__).resolve().parents[1]


def source(name: str) -> str:
    """The code of ``module.function`` or ``module.Class.method``, without its docstring.

    `name` is as from inside the package: ``"attribution.importance"``. Raises `SsahError` for
    what is not there.
    """
    path, rest = _file_of(name)
    text = path.read_text("utf-8")
    node = ast.parse(text)
    for part in rest:
        inner = [child for child in node.body if getattr(child, "name", "") == part]
        if not inner:
            raise SsahError(f"{path.relative_to(PACKAGE.parent)} defines no {'.'.join(rest)!r}")
        node = inner[0]
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    left_out = _docstring_lines(node)
    lines = text.splitlines()[first - 1:node.end_lineno]
    kept = [line for number, line in enumerate(lines, first) if number not in left_out]
    return textwrap.dedent("\n".join(kept))


def show_source(*names: str):
    """The code of functions (see `source`) as Jupyter shows Python, one below the other."""
    from IPython.display import Code

    return Code("\n\n\n".join(map(source, names)), language="python")


def _file_of(name: str) -> tuple[Path, list[str]]:
    """The file of a dotted name, and what is left of the name within it."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        path = PACKAGE.joinpath(*parts[:length]).with_suffix(".py")
        if path.exists():
            return path, parts[length:]
    raise SsahError(f"the package has no {name!r}; a name is module.function, such as "
                    "attribution.importance")


def _docstring_lines(node) -> range:
    first = node.body[0]
    if ast.get_docstring(node, clean=False) is None:
        return range(0)
    return range(first.lineno, first.end_lineno + 1)
