"""An interrupted fine-tuning goes on after its last finished epoch and ends as if it had never stopped.

One safetensors file holds the moved tensors and the optimizer's state; its metadata holds the rest as JSON. A
single file is whole or absent, so it is written beside and then renamed.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from .errors import SsahError
from .masking import Moving


def fingerprint(model, facts: dict) -> str:
    """Hash of what fixes a run: its `facts` (as JSON takes them) and the weights that it starts from."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, weight in model.named_parameters():
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


class Resume:
    """The state of one run in a folder, between its epochs."""

    def __init__(self, folder, key: str):
        self.file, self.key = Path(folder).expanduser() / "epoch.safetensors", key

    def save(self, moving: Moving, optimizer: torch.optim.Optimizer, draw: np.random.Generator, progress: dict) -> None:
        """Keep all that the next epoch depends on; `progress` is what JSON takes (numbers of NumPy or torch too)."""
        tensors = {f"moved/{name}": parameter.detach().cpu() for name, parameter in moving.named.items()}
        plain = {}
        for number, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                if torch.is_tensor(value):
                    tensors[f"optimizer/{number}/{name}"] = value.detach().cpu().contiguous()
                else:
                    plain[f"{number}/{name}"] = value
        facts = {"key": self.key, "optimizer": plain, "draw": draw.bit_generator.state, "progress": progress}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.file.with_suffix(".writing")
        save_file(tensors, scratch, metadata={"run": json.dumps(facts, default=lambda number: number.item())})
        os.replace(scratch, self.file)

    def load(self, moving: Moving, optimizer: torch.optim.Optimizer, draw: np.random.Generator) -> dict | None:
        """Put the kept state back and return its `progress`; None if nothing was kept.

        Raises `SsahError`, naming the folder, if it is the state of another run or cannot be read.
        """
        if not self.file.exists():
            return None
        try:
            with safe_open(self.file, "pt") as kept:
                facts = json.loads(kept.metadata()["run"])
                tensors = {name: kept.get_tensor(name) for name in kept.keys()} if facts["key"] == self.key else {}
        except Exception as error:      # what a damaged file raises is up to safetensors
            raise SsahError(f"{self.file} cannot be read ({error}); delete the folder {self.file.parent}") from error
        if facts["key"] != self.key:
            raise SsahError(f"{self.file.parent} holds another run (other options, examples, mask or starting "
                            "weights); delete it, or resume into another folder")
        state = {}
        for path, value in [*facts["optimizer"].items(), *((n.removeprefix("optimizer/"), t) for n, t in tensors.items()
                                                           if n.startswith("optimizer/"))]:
            number, name = path.split("/")
            state.setdefault(int(number), {})[name] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        with torch.no_grad():
            for name, parameter in moving.named.items():
                parameter.copy_(tensors[f"moved/{name}"])
        moving.sync()
        draw.bit_generator.state = facts["draw"]
        return facts["progress"]

    def remove(self) -> None:
        """Delete the state of a run that ended well, and its folder if nothing else is in it."""
        self.file.unlink(missing_ok=True)
        if self.file.parent.is_dir() and not any(self.file.parent.iterdir()):
            self.file.parent.rmdir()
