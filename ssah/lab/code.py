"""Fingerprints of code by reach: the definitions that a function reaches by name, wherever they are.

Followed are names and ``module.name``, through the imports of the package itself. Comments, layout,
docstrings, annotations and the step's own decorator do not count, nor does the file in which a
definition stands or the name under which its module is imported: moving code changes nothing.
Of other packages the imported name alone counts. Not followed: ``getattr`` with a computed name.
"""

import ast
import copy
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from ..errors import SsahError
from .store import canonical

Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


@dataclass(frozen=True)
class Reference:
    """What an imported name stands for: a module, or a name in one (`name`)."""

    module: str
    name: str = ""


@dataclass
class Module:
    """The top level of one file: what it defines, and what its imported names stand for."""

    definitions: dict[str, Definition] = field(default_factory=dict)
    imports: dict[str, Reference] = field(default_factory=dict)


class Package:
    """A package as text. `files`: path from the folder above it (``ssah/units.py``) -> source."""

    def __init__(self, files: dict[str, str]):
        self.texts = {module_name(path): text for path, text in files.items()}
        self.folders = {module_name(path) for path in files if path.endswith("__init__.py")}
        self.normal: dict[Reference, tuple[str, list[Reference]]] = {}

    @classmethod
    def of_folder(cls, folder: Path) -> "Package":
        """As the files stand now; a process should ask once, before they may be edited."""
        return cls({path.relative_to(folder.parent).as_posix(): path.read_text("utf-8")
                    for path in sorted(folder.rglob("*.py"))})

    @cached_property
    def modules(self) -> dict[str, Module]:
        """Every module, read."""
        return {name: self._read(name) for name in self.texts}

    def _read(self, name: str) -> Module:
        module = Module()
        for node in ast.parse(self.texts[name]).body:
            for defined in defined_names(node):
                module.definitions[defined] = node
            module.imports |= self.imported(node, name)
        return module

    def imported(self, node: ast.AST, module: str) -> dict[str, Reference]:
        """The names that an import statement of a module binds, and what they stand for."""
        if isinstance(node, ast.Import):
            return {alias.asname or alias.name.split(".")[0]:
                    Reference(alias.name if alias.asname else alias.name.split(".")[0])
                    for alias in node.names}
        if not isinstance(node, ast.ImportFrom):
            return {}
        origin = self._absolute(node, module)
        return {alias.asname or alias.name: self._target(origin, alias.name)
                for alias in node.names}

    def _absolute(self, node: ast.ImportFrom, module: str) -> str:
        if not node.level:
            return node.module
        parts = module.split(".")
        up = node.level - 1 if module in self.folders else node.level
        above = parts[:len(parts) - up]
        return ".".join([*above, node.module] if node.module else above)

    def _target(self, origin: str, name: str) -> Reference:
        whole = f"{origin}.{name}"
        return Reference(whole) if whole in self.texts else Reference(origin, name)

    def resolve(self, reference: Reference) -> Reference:
        """What a name in a module stands for in the end, through modules that pass it on."""
        module = self.modules.get(reference.module)
        passed_on = module and reference.name not in module.definitions
        if passed_on and reference.name in module.imports:
            return self.resolve(module.imports[reference.name])
        return reference

    def reach(self, start: Reference) -> dict[Reference, str]:
        """Every definition that is reached, with its normal text (see `_normal`)."""
        found: dict[Reference, str] = {}
        waiting = [start]
        while waiting:
            reference = waiting.pop()
            if reference in found:
                continue
            if reference not in self.normal:
                self.normal[reference] = self._normal(reference)
            found[reference], used = self.normal[reference]
            waiting += used
        return found

    def _normal(self, reference: Reference) -> tuple[str, list[Reference]]:
        """A definition's text without what does not count, and what it uses."""
        module = self.modules.get(reference.module)
        if module is None:      # of another package
            return f"{reference.module}.{reference.name}", []
        if reference.name not in module.definitions:
            raise SsahError(f"{reference.module} has no definition of {reference.name!r}")
        node = copy.deepcopy(module.definitions[reference.name])
        imports = dict(module.imports)
        for inner in ast.walk(node):
            imports |= self.imported(inner, reference.module)
        reader = _Reader(self, reference.module, imports)
        text = reader.text_of(node)
        return text, [found for found in reader.used if found != reference]

    def fingerprint(self, module: str, name: str) -> str:
        """Sixteen hex digits of all that a function reaches."""
        texts = sorted(self.reach(Reference(module, name)).values())
        return hashlib.sha256(canonical(texts).encode()).hexdigest()[:16]

    def home_of_step(self, name: str) -> str | None:
        """The module that has a step of this name: a function under an ``@step(...)``."""
        for module, content in self.modules.items():
            node = content.definitions.get(name)
            if isinstance(node, ast.FunctionDef) and any(map(_registers, node.decorator_list)):
                return module
        return None


class _Reader(ast.NodeTransformer):
    """Brings a definition into its normal form, and collects what it uses of the package."""

    def __init__(self, package: Package, module: str, imports: dict[str, Reference]):
        self.package = package
        self.module = module
        self.imports = imports
        self.used: list[Reference] = []

    def text_of(self, node: ast.AST) -> str:
        return _dump(self.visit(node))

    def visit_Name(self, node: ast.Name) -> ast.AST:
        definitions = self.package.modules[self.module].definitions
        if node.id in self.imports:
            return self._use(self.imports[node.id], node)
        if node.id in definitions:
            return self._use(Reference(self.module, node.id), node)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        target = self._target(node)
        if target is None:
            return self.generic_visit(node)
        return self._use(target, node)

    def _target(self, node: ast.expr) -> Reference | None:
        """What ``module.name`` stands for; None where the left side is no module of the package."""
        if not isinstance(node, ast.Attribute):
            return self.imports.get(node.id) if isinstance(node, ast.Name) else None
        left = self._target(node.value)
        if left is None or left.name or left.module not in self.package.texts:
            return None
        return self.package._target(left.module, node.attr)

    def _use(self, reference: Reference, node: ast.expr) -> ast.AST:
        reference = self.package.resolve(reference)
        of_package = reference.module in self.package.texts
        if of_package and not reference.name:       # a module by itself: its names are what counts
            return ast.Name(reference.module.rpartition(".")[2], node.ctx)
        if of_package and reference.name not in self.package.modules[reference.module].definitions:
            return node                             # a name that the module makes in another way
        self.used.append(reference)
        return ast.Name(reference.name or reference.module, node.ctx)

    def visit_Import(self, node: ast.Import) -> None:
        return None         # what is used of it counts where it is used

    visit_ImportFrom = visit_Import

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        _drop_docstring(node)
        node.returns = None
        node.decorator_list = [decorator for decorator in node.decorator_list
                               if not _registers(decorator)]
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        _drop_docstring(node)
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        annotation = node.annotation        # kept as it is written, for dataclasses; not followed
        node = self.generic_visit(node)
        node.annotation = annotation
        return node


def _registers(decorator: ast.expr) -> bool:
    """Whether it is ``@step(...)``, where version and cost stand: no code of the step."""
    return isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "step"


def _drop_docstring(node) -> None:
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
        node.body[0] = ast.Pass()


def _dump(node: ast.AST) -> str:
    """The tree as text, the same in all Pythons that are supported."""
    everything = {"show_empty": True} if sys.version_info >= (3, 13) else {}
    return ast.dump(node, **everything).replace(", type_params=[]", "")


def defined_names(node: ast.AST) -> Iterator[str]:
    """The names that a top-level statement defines."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        yield node.name
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    for target in targets:
        for part in target.elts if isinstance(target, ast.Tuple) else [target]:
            if isinstance(part, ast.Name):
                yield part.id


def module_name(path: str) -> str:
    """``a/b/c.py`` -> ``a.b.c``; ``a/b/__init__.py`` -> ``a.b``."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@cache
def imported_package(name: str) -> Package:
    """The package as it was when this was first asked, which is what runs."""
    return Package.of_folder(Path(sys.modules[name].__file__).parent)


@cache
def package_fingerprint(name: str) -> str:
    """Sixteen hex digits of the whole text of an imported package."""
    texts = imported_package(name).texts
    return hashlib.sha256(canonical(texts).encode()).hexdigest()[:16]


@cache
def fingerprint(run) -> str:
    """Fingerprint of a function of an imported package."""
    package = imported_package(run.__module__.partition(".")[0])
    return package.fingerprint(run.__module__, run.__name__)


def recorded(provenance: dict) -> str:
    """The fingerprint in a result's provenance; of the first results, which named files, its hash."""
    code = provenance["code"]
    if isinstance(code, str):
        return code
    return hashlib.sha256(canonical(code).encode()).hexdigest()[:16]


def is_known(now: str, then: str, accepted: dict | None) -> bool:
    """Whether a result made by the code `then` is what the code `now` makes.

    `accepted`: a step's line in the file of accepted changes, with ``code`` and ``covers``.
    """
    if now == then:
        return True
    return accepted is not None and accepted["code"] == now and then in accepted["covers"]
