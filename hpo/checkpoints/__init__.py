"""Where the checkpoints of a study lie: a folder that runs write to and, if there is one, an object store.

A run only ever sees its folder (finetune knows no object store). What it has written whole is sent to the
store, and another attempt, on whichever machine, fetches it from there before its run begins. Calls that
reach the store raise :class:`DepotAwayError` while it cannot be reached, and can be made again.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from hpo.checkpoints.depot import Depot, DepotAwayError, is_depot, parse_depot, plain_folder
from hpo.errors import Said, UsageError

__all__ = ["Checkpoints", "Depot", "DepotAwayError", "is_depot", "parse_depot", "plain_folder"]

LAST, BEST = "last.pt", "best.safetensors"
"""What a run keeps: its last epoch and the weights of its best one. It needs both to go on."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one study: a folder, or an object store with a folder of this machine before it."""

    folder: Path
    depot: Depot | None = None
    """None: the folder itself is what workers share."""

    def of(self, slot: int) -> Path:
        """Return the folder of a slot's run."""
        return self.folder / str(slot)

    def prepare(self, slot: int, *, is_first: bool) -> None:
        """Put into a slot's folder what its run may go on from: nothing at a first attempt."""
        if is_first or self.depot is not None:
            shutil.rmtree(self.of(slot), ignore_errors=True)
        if self.depot is not None and not is_first:
            for name in (BEST, LAST):
                (self.depot / str(slot)).fetch(name, self.of(slot))

    def keep(self, slot: int, file: Path) -> None:
        """Take a file that a run has written whole."""
        if self.depot is not None:
            (self.depot / str(slot)).send(file)

    def clear(self, slot: int, *, keeps_weights: bool) -> None:
        """Delete the checkpoints of a finished run; of a confirmation the best weights are still needed."""
        if self.depot is not None:
            (self.depot / str(slot)).delete([LAST] if keeps_weights else [LAST, BEST])
        if not keeps_weights:
            shutil.rmtree(self.of(slot), ignore_errors=True)
            return
        for file in self.of(slot).glob(f"{LAST}*"):
            file.unlink(missing_ok=True)

    def address(self, slot: int, file: Path) -> str:
        """Return where others find a file that was kept."""
        return str(file) if self.depot is None else f"{self.depot / str(slot)}/{file.name}"

    def find(self, slot: int, stored: str) -> Path | None:
        """Return the file of that address, fetched if need be; None where this machine cannot have it."""
        here = self.of(slot) / Path(stored).name
        for candidate in (Path(stored), here):
            if candidate.exists():
                return candidate
        if self.depot is None or not (self.depot / str(slot)).fetch(here.name, here.parent):
            return None
        return here

    def forget(self, slots: Collection[int]) -> None:
        """Delete all that some slots have kept."""
        for slot in sorted(slots):
            self.clear(slot, keeps_weights=False)

    def delete(self) -> None:
        """Delete all of the study's checkpoints."""
        if self.depot is not None:
            self.depot.delete_all()
        shutil.rmtree(self.folder, ignore_errors=True)

    def move_to(self, new: Checkpoints) -> None:
        """Give all checkpoints another place, unless something lies there already."""
        if self.depot is not None and new.depot is not None:
            self.depot.copy_to(new.depot)
            self.depot.delete_all()
        elif self.folder.is_dir() and not new.folder.exists():
            self.folder.rename(new.folder)

    def copy_to(self, new: Checkpoints) -> None:
        """Put a copy of all checkpoints into another place."""
        if self.depot is not None and new.depot is not None:
            self.depot.copy_to(new.depot)
        elif self.folder.is_dir() and self.folder != new.folder:
            _copy_folder(self.folder, new.folder)


def _copy_folder(folder: Path, new: Path) -> None:
    try:
        shutil.copytree(folder, new, dirs_exist_ok=True)
    except OSError as error:  # of copytree itself: a list of what it could not copy
        reason = error.strerror or "some files could not be copied"
        what = Said(
            "the study is copied, but not its checkpoints to {new!r} ({reason})", new=str(new), reason=reason
        )
        raise UsageError(
            what, "a folder that can be written", Said("type: cp -r {folder} {new}", folder=folder, new=new)
        ) from error
