"""An interrupted fine-tuning goes on after its last finished epoch, as if it had never stopped.

Dropout (of an adapter) is not kept: it draws from torch's own random state, which no seed here sets.
Callbacks begin anew.

One safetensors file holds the moved tensors and the optimizer's state; its metadata holds the rest
as JSON. A single file is whole or absent, so it is written beside and then renamed.
"""

import hashlib
import json
import os
import tempfile

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from .errors import SsahError
from .inputs.archives import expanded
from .masking import Moving

#: Beginnings of the names under which tensors are kept.
MOVED = "moved/"
OPTIMIZER = "optimizer/"


def fingerprint(model, facts: dict) -> str:
    """Hash of what fixes a run: its `facts` (as JSON takes them) and its starting weights."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, weight in model.named_parameters():
        digest.update(name.encode())
        flat = weight.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


class Resume:
    """The state of one run in a folder, between its epochs.

    Raises `SsahError` where nothing can be written to the folder.
    """

    def __init__(self, folder, key: str):
        self.file = expanded(folder) / "epoch.safetensors"
        self.key = key
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.file.parent).close()
        except OSError as error:
            raise SsahError(f"{self.file.parent} is no folder to resume from: {error}; give another "
                            "one as resume") from error

    def save(
        self,
        moving: Moving,
        optimizer: torch.optim.Optimizer,
        draw: np.random.Generator,
        progress: dict,
    ) -> None:
        """Keep all that the next epoch depends on.

        `progress` is what JSON takes (numbers of NumPy or torch too).
        """
        tensors, numbers = _of_optimizer(optimizer)
        for name, parameter in moving.named.items():
            tensors[MOVED + name] = parameter.detach().cpu()
        run = {
            "key": self.key,
            "optimizer": numbers,
            "draw": draw.bit_generator.state,
            "progress": progress,
        }
        scratch = self.file.with_suffix(".writing")
        save_file(tensors, scratch, metadata={"run": json.dumps(run, default=_plain)})
        os.replace(scratch, self.file)

    def load(
        self, moving: Moving, optimizer: torch.optim.Optimizer, draw: np.random.Generator
    ) -> dict | None:
        """Put the kept state back and return its `progress`; None if nothing was kept.

        Raises `SsahError`, naming the folder, if it is the state of another run or cannot be read.
        """
        if not self.file.exists():
            return None
        run, tensors = self._read()
        if run["key"] != self.key:
            raise SsahError(
                f"{self.file.parent} holds another run (other options, examples, mask or "
                "starting weights); delete it, or resume into another folder"
            )
        state = _optimizer_state(run["optimizer"], tensors)
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        with torch.no_grad():
            for name, parameter in moving.named.items():
                parameter.copy_(tensors[MOVED + name])
        moving.sync()
        draw.bit_generator.state = run["draw"]
        return run["progress"]

    def remove(self) -> None:
        """Delete the state of a run that ended well, and its folder if nothing else is in it."""
        self.file.unlink(missing_ok=True)
        folder = self.file.parent
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def _read(self) -> tuple[dict, dict[str, torch.Tensor]]:
        """What JSON kept, and the tensors (none of another run's, which may be large)."""
        try:
            with safe_open(self.file, "pt") as kept:
                run = json.loads(kept.metadata()["run"])
                names = kept.keys() if run["key"] == self.key else []
                return run, {name: kept.get_tensor(name) for name in names}
        except Exception as error:  # what a damaged file raises is up to safetensors
            raise SsahError(
                f"{self.file} cannot be read ({error}); delete the folder {self.file.parent}"
            ) from error


def _of_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict]:
    """Its state by the names under which it is kept: the tensors, and what is no tensor."""
    tensors = {}
    numbers = {}
    for number, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if torch.is_tensor(value):
                tensors[f"{OPTIMIZER}{number}/{name}"] = value.detach().cpu().contiguous()
            else:
                numbers[f"{number}/{name}"] = value
    return tensors, numbers


def _optimizer_state(numbers: dict, tensors: dict[str, torch.Tensor]) -> dict[int, dict]:
    """The other way round: number of the parameter -> name -> value."""
    values = dict(numbers)
    for name, tensor in tensors.items():
        if name.startswith(OPTIMIZER):
            values[name.removeprefix(OPTIMIZER)] = tensor
    state: dict[int, dict] = {}
    for path, value in values.items():
        number, name = path.split("/")
        state.setdefault(int(number), {})[name] = value
    return state


def _plain(number):
    """A number of NumPy or torch as JSON takes it."""
    return number.item()
