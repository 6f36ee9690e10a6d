"""A notebook's code without a kernel, whose start takes most of the time; also for whole notebooks."""

from pathlib import Path

import nbformat


def run_notebook(path: Path, **parameters) -> dict:
    """Run the code cells of a notebook with these parameters; the names that it leaves."""
    names: dict = {"__name__": "__main__"}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        exec(compile(cell.source, f"{path.name}, cell {cell.id}", "exec"), names)
        if "parameters" in cell.metadata.get("tags", []):
            names.update(parameters)
    return names
