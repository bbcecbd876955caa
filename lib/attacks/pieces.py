"""Finished pieces of a climb in a folder, so that a climb that was cut off goes on where it was."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Pieces:
    """What :func:`lib.attacks.climb.climb` takes as ``keep``.

    Parameters
    ----------
    folder : where the pieces are.
    save, load : write and read a ``.safetensors`` file whole or not at all, as ``files.save`` and
        ``files.load`` do.
    version : names what the pieces rest on beside what the climb sees; a hash of the victim's file.
    """

    folder: Path
    save: Callable[[Path, Tensors], Any]
    load: Callable[[Path], tuple[Tensors, Any]]
    version: str = ""

    def __call__(self, name: str, work: Callable[[], Tensors]) -> Tensors:
        """The tensors of the piece ``name``: read where it is finished, else made and kept."""
        digest = hashlib.sha256(f"{self.version}/{name}".encode()).hexdigest()
        path = Path(self.folder) / f"{digest}.safetensors"
        if path.exists():
            return self.load(path)[0]
        made = work()
        self.save(path, made)
        return made

    def clear(self) -> None:
        """Remove the pieces, and what a kill left of one that was being written: what they made is saved."""
        for pattern in ("*.safetensors", ".*.safetensors.*"):
            for path in Path(self.folder).glob(pattern):
                path.unlink()
        if Path(self.folder).is_dir():
            Path(self.folder).rmdir()
