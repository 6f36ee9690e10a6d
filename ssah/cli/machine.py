"""The cache folder and this machine: ``ssah fetch``, ``clean``, ``bench``."""

import shutil
import sys

from ..errors import SsahError
from ..inputs import archives


def fetch(args) -> int:
    """Download all pinned archives and dequantize the model, so that everything else works offline.

    Large models come only by name.
    """
    from ..claims import load_profile
    from ..loading import dequantized

    unknown = [name for name in args.models if name not in archives.LARGE_FILES]
    if unknown:
        raise SsahError(f"unknown model {unknown[0]!r}; known: {', '.join(archives.LARGE_FILES)}")
    for name in args.models:
        print(dequantized(name))
    if args.models:
        return 0
    for name in archives.ARCHIVES:
        archives.discard_damaged(name)
        print(archives.fetch_archive(name))
    print(dequantized(load_profile("default").model.name))
    return 0


def clean(args) -> int:
    """Empty the cache folder: archives, models, checkpoints, answers, other profiles' results."""
    folders = archives.cache_folders()
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    print(f"{archives.cache_dir()}: {size / 2**30:.2f} GiB")
    if not args.yes and not _agreed():
        print("kept (--yes deletes without asking)")
        return 0
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _agreed() -> bool:
    """Whether somebody says yes; without a terminal nobody can be asked."""
    return sys.stdin.isatty() and input("delete it? [y/N] ").strip().lower() == "y"


def bench(args) -> int:
    """Time ours and its peers in turn on this machine; or plan memory and hours of large models."""
    if args.plan:
        from ..bench import plan, table

        computed = plan.computed()
        print(table.plan_markdown(computed))
        if args.save:
            computed.save()
        return 0
    from ..bench import run

    repeats = 1 if args.quick else 3
    return run.main(args.profile, repeats=repeats, save=args.save, figure=args.figure)
