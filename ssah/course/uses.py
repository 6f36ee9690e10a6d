"""Which functions of the library a cell uses.

Names are read off the syntax tree; nothing is run. So it is a hint for the person who looks at the
code, and no proof: a name can be hidden.
"""

import ast
from collections.abc import Iterable

PACKAGE = "ssah"


def library_names(code: str, imports: dict[str, str]) -> set[str]:
    """Names of the library that a cell's code uses, such as ``ssah.ablated``.

    `imports`: what names of the notebook stand for (`imported`). Methods count that are called on
    arguments whose type is annotated. Code that is not Python uses nothing.
    """
    tree = _parsed(code)
    stands_for = imports | imported([code])
    types = _types_of_arguments(tree, stands_for)
    for name in types:
        stands_for.pop(name, None)
    found = set()
    inner = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found.add(_dotted(node.func, types))
        elif isinstance(node, ast.Attribute | ast.Name) and node not in inner:
            found.add(_dotted(node, stands_for))
        if isinstance(node, ast.Attribute):
            # a name comes before its parts, and only the whole of it counts
            inner.add(node.value)
    return {name for name in found if name.startswith(f"{PACKAGE}.")}


def _types_of_arguments(tree: ast.AST, stands_for: dict[str, str]) -> dict[str, str]:
    """By the arguments' names; empty for one without a type that is known."""
    types = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            types[node.arg] = _dotted(node.annotation, stands_for)
    return types


def imported(codes: Iterable[str]) -> dict[str, str]:
    """What imports in some cells make names stand for: ``{"rules": "ssah.claims.rules"}``."""
    stands_for = {}
    for code in codes:
        for node in ast.walk(_parsed(code)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    whole = alias.name if alias.asname else alias.name.partition(".")[0]
                    stands_for[alias.asname or whole] = whole
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    stands_for[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return stands_for


def _parsed(code: str) -> ast.AST:
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def _dotted(node: ast.AST | None, stands_for: dict[str, str]) -> str:
    """``a.b.c`` with what `a` stands for; empty for anything but names and their parts."""
    if isinstance(node, ast.Name):
        return stands_for.get(node.id, "")
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value, stands_for)
        return f"{before}.{node.attr}" if before else ""
    return ""
