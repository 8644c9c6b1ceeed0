"""One process at a time on a folder: a lock that its owner's end releases, and that says who has it."""

from __future__ import annotations

import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tensorprog.errors import TensorProgramError

__all__ = ["FolderLock"]


class FolderLock:
    """Holds a folder for this call, or refuses.

    The lock is the system's (`flock`): it ends with the process that has it, killed or not, so that there are no stale
    ones. Where a file system has none, a file created exclusively stands for it; one that its owner left behind is taken
    over if that process ran on this machine and is gone, and explained otherwise.

    Args:
        folder: It exists.
        what: The option that named it, for messages.

    Raises:
        TensorProgramError: somebody has it: who, where and since when.
    """

    def __init__(self, folder: Path, what: str) -> None:
        self.path, self.what = folder / "lock", what
        self._descriptor: int | None = None
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            held = _system_lock(descriptor)
            if held is None:
                held = self._by_file(descriptor)
            if not held:
                raise self._refusal(_owner(self.path))
            owner = {
                "process": os.getpid(),
                "host": socket.gethostname(),
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Lets others have the folder."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)  # an empty file is nobody's, also where the system has no locks
            os.close(self._descriptor)
            self._descriptor = None

    def _by_file(self, descriptor: int) -> bool:
        """Without the system's locks: an owner written in the file has it, unless it is known to be gone."""
        owner = _owner(self.path)
        return not owner or (owner.get("host") == socket.gethostname() and not _runs(owner.get("process")))

    def _refusal(self, owner: dict[str, Any]) -> TensorProgramError:
        folder = str(self.path.parent)
        who = (
            f"process {owner.get('process')} on {owner.get('host')}, since {owner.get('since')}"
            if owner
            else "another process"
        )
        return TensorProgramError(
            f"{self.what}={folder!r} is in use by {who}",
            why="two that write to one folder would overwrite each other's numbers",
            fix=f"wait until it has finished, or give another folder; if that process is gone, delete {self.path.name!r} there",
        )


def _system_lock(descriptor: int) -> bool | None:
    """Takes the system's lock; False if somebody has it, None if there are none here."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def _owner(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text() or "{}")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _runs(process: Any) -> bool:
    """Is there a process of that number on this machine?"""
    if not isinstance(process, int) or process <= 0:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True
