"""Who may import what, read off the syntax tree; and what importing loads."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import ssah

PACKAGE = Path(ssah.__file__).parent
MODULES = {path.relative_to(PACKAGE.parent).as_posix().removesuffix(".py").removesuffix("/__init__")
           .replace("/", "."): path for path in sorted(PACKAGE.rglob("*.py"))}
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("claims/*/read.py"))
LIBRARY = sorted(name for name in MODULES if name.count(".") == 1
                 and name.removeprefix("ssah.") not in ("errors", "cli", "bench", "inputs", "lab",
                                                        "claims", "teach", "course", "site"))


def imports(name: str) -> set[str]:
    """The modules of the package that a module imports, anywhere in it."""
    path = MODULES[name]
    here = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if not isinstance(node, ast.ImportFrom):
            continue
        above = here[:len(here) - node.level + 1] if node.level else []
        origin = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            whole = f"{origin}.{alias.name}"
            found.add(whole if whole in MODULES else origin)
    return {module for module in found if module.split(".")[0] == "ssah"} - {name}


def allowed(name: str) -> tuple[str, ...]:
    """What a module may import: names, or beginnings of names that end with a dot."""
    library = tuple(LIBRARY)
    shared = (*library, "ssah.errors", "ssah.inputs.", "ssah.lab", "ssah.lab.",
              "ssah.claims.claim", "ssah.claims.rules", "ssah.claims.shared.")
    parts = name.split(".")
    if parts[1:2] == ["inputs"]:
        return ("ssah.errors", "ssah.inputs.")
    if parts[1:2] == ["lab"]:
        return ("ssah.errors", "ssah.lab", "ssah.lab.")
    if parts[1:2] == ["site"]:      # what readers get: words and stored scores, nothing of a room
        return ("ssah.errors", "ssah.lab", "ssah.lab.", "ssah.inputs.words", "ssah.claims",
                "ssah.claims.answers", "ssah.claims.scoreboard", "ssah.claims.rules",
                "ssah.claims.shared.measuring", "ssah.claims.shared.runs",
                "ssah.claims.shared.conditions", "ssah.classification", "ssah.units", "ssah.site.")
    if name in library:
        return ("ssah.errors", "ssah.inputs.", *library)
    if name == "ssah.claims.claim":
        return ("ssah.errors", "ssah.lab", "ssah.lab.", "ssah.claims.rules")
    if parts[1:3] == ["claims", "rules"]:
        return ("ssah.errors", "ssah.claims.rules.")
    if name == "ssah.claims.published":
        return ("ssah.errors",)
    if parts[1:3] == ["claims", "profiles"]:
        return ("ssah.errors", "ssah.claims.profiles.")
    if parts[1:2] == ["teach"]:     # checks may compare with all that reads results
        return (*library, "ssah.errors", "ssah.inputs.", "ssah.claims", "ssah.claims.rules",
                "ssah.claims.shared.measuring", "ssah.teach.")
    if parts[1:2] == ["course"]:    # knows notebooks and no science
        return ("ssah.errors", "ssah.lab.", "ssah.course", "ssah.course.")
    if parts[1:3] == ["claims", "shared"]:
        return shared
    if parts[2:3] and parts[2] in (*ROOMS, "every_step"):
        return room_may(parts, shared)
    return ("ssah.",)       # the door, cli/, bench, scoreboard, readme, verify


def room_may(parts: list[str], shared: tuple[str, ...]) -> tuple[str, ...]:
    """Of a file of a claim's room."""
    own = f"ssah.claims.{parts[2]}"
    kind = parts[3] if len(parts) > 3 else "__init__"
    if kind.startswith("draw"):
        return ("ssah.claims.shared.", "ssah.classification")
    if kind == "conditions":        # rows by name, which both sides read
        return ("ssah.errors", "ssah.classification")
    if kind in ("run", "ratio_scan", "direction", "transplant", "behaviour", "variations",
                "removal", "second_judge", "leaning", "preferred"):
        return (*shared, f"{own}.conditions", f"{own}.direction", f"{own}.run")
    if kind == "__init__":
        return ("ssah.claims.claim", own + ".")
    # read, and what stands beside it: names of steps, never what computes or draws
    return ("ssah.errors", "ssah.lab", "ssah.lab.", "ssah.inputs.words", "ssah.claims.claim",
            "ssah.claims.rules", "ssah.claims.published", "ssah.claims.shared.",
            "ssah.classification", "ssah.units", "ssah.judging", f"{own}.")


def permitted(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or (name.endswith(".") and module.startswith(name))
               for name in names)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_what_its_place_may(name):
    breaches = {module for module in imports(name) if not permitted(module, allowed(name))}
    assert not breaches, f"{name} imports {', '.join(sorted(breaches))}"


@pytest.mark.parametrize("name", [name for name in MODULES if ".read" in name or "claims" in name
                                  and name.rpartition(".")[2] in ("judge", "choices", "doubts",
                                                                 "paper", "seen")])
def test_reading_draws_nothing(name):
    """Neither the drawing files nor style and pictures."""
    assert not {module for module in imports(name)
                if module.rpartition(".")[2] in ("draw", "style", "pictures", "ribbons")}


def test_nobody_imports_in_a_circle():
    """Not even late, inside a function (graphlib raises `CycleError` and names the circle)."""
    graph = {name: imports(name) & set(MODULES) for name in MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


@pytest.mark.parametrize("room", ROOMS)
def test_a_claim_imports_no_other(room):
    own = [name for name in MODULES if name.startswith(f"ssah.claims.{room}")]
    others = {f"ssah.claims.{other}" for other in ROOMS if other != room}
    for name in own:
        assert not {module for module in imports(name)
                    if any(module.startswith(other) for other in others)}


def test_only_the_command_line_knows_the_pages():
    users = {name for name in MODULES if not name.startswith("ssah.site")
             and any(module.startswith("ssah.site") for module in imports(name))}
    assert users == {"ssah.cli.notebooks"}


def test_files_of_commands_know_no_other_and_nobody_knows_them():
    """But the file of their arguments, and `main`, to which `recompute` is what goes on by parts."""
    commands = {f"ssah.cli.{name}" for name in ("notebooks", "results", "course", "machine")}
    assert commands < set(MODULES)
    users = {name for name in MODULES if imports(name) & commands}
    assert users == {"ssah.cli", "ssah.cli.arguments"}


def test_the_rules_see_a_breach(tmp_path, monkeypatch):
    """Made-up files, each with a forbidden import in another form."""
    for number, text in enumerate(("from ..claims import plan", "import ssah.claims.profiles",
                                   "def late():\n    from ..models import Chat")):
        path = tmp_path / f"new{number}.py"
        path.write_text(text)
        monkeypatch.setitem(MODULES, f"ssah.lab.new{number}", path)
        with pytest.raises(AssertionError, match="imports ssah"):
            test_a_module_imports_what_its_place_may(f"ssah.lab.new{number}")


#: What must not be loaded -> statements that leave it unloaded, run one after the other.
UNLOADED = {
    "torch transformers pandas matplotlib": ("import ssah", "import ssah.cli"),
    "torch transformers matplotlib": (
        "ssah.open_lab()",
        "import ssah.claims.scoreboard, ssah.claims.readme",
        "import ssah.site.static",
        "from ssah import teach; teach.check_classify, teach.check_words; teach.given('activations')",
        "import ssah.course.build, ssah.course.grade",
        *(f"import ssah.claims.{room}.read" for room in ROOMS))}


def test_what_importing_leaves_unloaded():
    """In one process, since each costs seconds: what is loaded stays, so all of them are seen."""
    lines = ["import sys"]
    for absent, statements in UNLOADED.items():
        for statement in statements:
            lines += [statement, f"found = {set(absent.split())} & set(sys.modules)",
                      f"assert not found, ({statement!r}, found)"]
    run = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
