"""Every command with its options; what each does is a function of another file of this folder."""

import argparse
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..inputs import archives
from . import course, machine, notebooks, results


def parser() -> argparse.ArgumentParser:
    """All commands; the global options are taken before or after the command."""
    top = argparse.ArgumentParser(prog="ssah", parents=[_everywhere()],
                                  description="Run, recompute and check everything.")
    top.add_argument("--version", action="version", version=f"ssah {_version()}")
    top.set_defaults(function=lambda args: top.print_help() or 0)
    commands = top.add_subparsers(metavar="COMMAND")
    _add_notebooks(commands)
    _add_results(commands)
    _add_course(commands)
    _add_machine(commands)
    return top


def _add(commands, function, *parents) -> argparse.ArgumentParser:
    """A command with the name of a function, which it calls, and its docstring as help."""
    command = commands.add_parser(function.__name__, parents=[_everywhere(), *parents],
                                  help=function.__doc__, description=function.__doc__,
                                  conflict_handler="resolve")       # a --help of its own
    command.set_defaults(function=function)
    return command


# ---- commands --------------------------------------------------------------------------------

def _add_notebooks(commands) -> None:
    command = _add(commands, notebooks.run, _profile(), _parameter(), _into())
    command.add_argument("notebooks", nargs="*", metavar="NN",
                         help="numbers of notebooks, such as 02")
    command.add_argument("--recompute", action="store_true",
                         help="from results made on this machine")
    command.add_argument("--again", action="store_true",
                         help="also what has not changed since it was run")
    command = _add(commands, notebooks.site)
    command.add_argument("folder", type=Path, metavar="FOLDER", help="is made if it is not there")
    command = _add(commands, notebooks.rerun, _profile(), _parameter(), _into(), _jobs())
    command.add_argument("--all", action="store_true",
                         help="every committed result, not only seed 0")
    command.add_argument("--estimate", action="store_true",
                         help="say what it would take, step by step, and compute nothing")


def _add_results(commands) -> None:
    command = _add(commands, results.recompute, _profile(), _parameter(), _into(), _jobs())
    command.add_argument("steps", nargs="+", metavar="STEP", help="those below, or `help`")
    command.add_argument("--help", "-h", action=_HelpWithSteps, help="show this message and exit")
    command.add_argument("--in-place", action="store_true",
                         help="into the committed results (for maintainers)")
    command = _add(commands, results.accept)
    command.add_argument("steps", nargs="*", metavar="STEP", help="default: all that changed")
    command.add_argument("--reason", help="why no result changes; kept in data/accepted.json")
    command.add_argument("--before", metavar="COMMIT",
                         help="compare with it (default: the last whose code made the results)")
    command = _add(commands, results.status, _profile(), _parameter(), _into())
    command.add_argument("--recomputed", action="store_true",
                         help="those of `ssah rerun` instead of the committed ones")
    command = _add(commands, results.verify, _profile(), _parameter(), _into())
    command.add_argument("--quick", action="store_true", help="no model (seconds; the default)")
    command.add_argument("--spot", action="store_true",
                         help="two numbers of the model and of training, too (minutes)")
    command.add_argument("--full", action="store_true", help="train the first seed again (hours)")
    command = _add(commands, results.compare)
    command.add_argument("first", metavar="PROFILE", help="such as default")
    command.add_argument("second", metavar="PROFILE", help="such as model:BASE,aligned=CHAT")
    _add(commands, results.readme)
    _add(commands, results.preregister)


def _add_course(commands) -> None:
    command = _add(commands, course.course)
    command.set_defaults(part=lambda args: command.print_help() or 0)
    parts = command.add_subparsers(metavar="PART")
    build = parts.add_parser("build", parents=[_everywhere(), _into()], help=course.build.__doc__,
                             description=course.build.__doc__)
    build.add_argument("assignments", nargs="*", metavar="NN", help="such as 01 (default: all)")
    build.set_defaults(part=course.build)
    grade = parts.add_parser("grade", parents=[_everywhere()], help=course.grade.__doc__,
                             description=course.grade.__doc__)
    grade.add_argument("folder", type=Path, help="with the notebooks, also in folders of it")
    grade.add_argument("--csv", type=Path, metavar="FILE", help="default: grades.csv in the folder")
    grade.add_argument("--seconds", type=int, default=120,
                       help="that a cell may take (120); a notebook may take five times that")
    grade.add_argument("--sum", action="store_true",
                       help="run nothing: totals.csv anew from the table, as it was filled in")
    grade.set_defaults(part=course.grade)


def _add_machine(commands) -> None:
    command = _add(commands, machine.fetch)
    command.add_argument("models", nargs="*", metavar="MODEL",
                         help=f"only these large models: {', '.join(archives.LARGE_FILES)}")
    command = _add(commands, machine.clean)
    command.add_argument("--yes", action="store_true", help="do not ask")
    command = _add(commands, machine.bench, _profile())
    command.add_argument("--quick", action="store_true", help="measure once instead of three times")
    command.add_argument("--save", action="store_true",
                         help="into data/, from which `ssah readme` makes docs/speed.md")
    command.add_argument("--figure", type=Path, metavar="PATH",
                         help="draw how time grows with tokens, blocks and width")
    command.add_argument("--plan", action="store_true",
                         help="measure nothing; bytes and hours of models of 7B to 70B weights")


# ---- options that several have ---------------------------------------------------------------

def _everywhere() -> argparse.ArgumentParser:
    shared = _option("--offline", action="store_true", default=argparse.SUPPRESS,
                     help="never use the network")
    shared.add_argument("--debug", action="store_true", default=argparse.SUPPRESS,
                        help="show tracebacks")
    return shared


def _profile() -> argparse.ArgumentParser:
    return _option("--profile", default="default", type=_absolute,
                   help="default, smoke, qwen-0.5b, qwen-1.5b, model:BASE[,aligned=CHAT], "
                        "pair:ALIGNED,UNALIGNED or a TOML file")


def _parameter() -> argparse.ArgumentParser:
    return _option("-p", dest="parameter", action="append", default=[], metavar="NAME=VALUE",
                   help="a parameter, or a setting such as alignment.epochs=4; may be repeated")


def _into() -> argparse.ArgumentParser:
    return _option("--into", type=Path, metavar="FOLDER",
                   help="where everything is written (build)")


def _jobs() -> argparse.ArgumentParser:
    """Of what runs steps side by side."""
    shared = argparse.ArgumentParser(add_help=False)
    workers = shared.add_mutually_exclusive_group()
    workers.add_argument("--jobs", type=_positive(int), metavar="N",
                         help="so many steps side by side on this machine, which share its cores")
    workers.add_argument("--scheduler", metavar="ADDRESS",
                         help="on the workers of a Dask cluster that runs already")
    shared.add_argument("--memory", type=_positive(float), metavar="GIB",
                        help="with --jobs: what the steps may take together, of the GPU where "
                             "there is one (all the memory of this machine)")
    return shared


def _option(name: str, **settings) -> argparse.ArgumentParser:
    """A parser of one option, as a parent of those that have it."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(name, **settings)
    return shared


def _positive(kind: type):
    """A reader of numbers above zero, for an argument."""
    def read(text: str):
        number = kind(text)
        if not number > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above zero")
        return number
    read.__name__ = kind.__name__       # what argparse calls it in its message
    return read


class _HelpWithSteps(argparse.Action):
    """Show a command's help, and below it the steps of the default profile."""

    def __init__(self, option_strings, dest, help):
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser, namespace, values, option_string=None):
        from ..claims import load_profile

        parser.print_help()
        print("\n" + results.steps_of(load_profile("default")))
        parser.exit()


def _absolute(name: str) -> str:
    """The profile's name with the paths in it made absolute."""
    from ..claims.profiles import absolute

    return absolute(name)


def _version() -> str:
    try:
        return version("ssah")
    except PackageNotFoundError:
        return "(not installed)"
