"""The command line: ``ssah COMMAND``, or ``python -m ssah.cli COMMAND``.

    arguments            every command with its options
    notebooks            run, rerun, site
    results              recompute, accept, status, verify, compare, readme, preregister
    course               course build, course grade
    machine              fetch, clean, bench
    jobs                 --jobs, --scheduler: steps side by side
    options              what --profile and -p say
    places               where commands read and write
    estimates, words     how long results will take; tables for a terminal

A command is a function of the parsed arguments that returns an exit code: 0, or 1 where something
failed that was looked at. `main` turns bad input (2) and Ctrl-C (130) into one line. Heavy modules
are imported where they are used, so that help and cached notebooks never wait for torch.
"""

import errno
import logging
import os
import sys

from ..errors import MODEL_PACKAGES, SsahError, no_models
from . import results
from .arguments import parser

#: Errors of the file system whose own words say what is wrong with the input.
CLEAR = (PermissionError, NotADirectoryError, FileExistsError)


def main(argv: list[str] | None = None) -> int:
    """Run one command; its exit code, or 2 after bad input and 130 after Ctrl-C, with one line."""
    args = parser().parse_args(argv)
    if "offline" in args:
        os.environ.update(SSAH_OFFLINE="1", HF_HUB_OFFLINE="1")
    try:
        return args.function(args)
    except KeyboardInterrupt:
        logging.getLogger("asyncio").disabled = True    # else it reports the notebook that was left
        again = ("-p picks those that are left" if args.function is results.recompute
                 else "run the same command to go on")
        print(f"interrupted; finished results are kept; {again}", file=sys.stderr)
        return 130
    except Exception as error:
        line = in_one_line(error)
        if "debug" in args or line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 2


def in_one_line(error: Exception) -> str | None:
    """What to say of bad input, or of what this machine lacks; None of an error of the program."""
    if isinstance(error, SsahError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name in MODEL_PACKAGES:
        return str(no_models(error.name))
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full ({error.filename}); `ssah clean` empties the cache folder"
    if isinstance(error, CLEAR):
        return str(error)
    return None
