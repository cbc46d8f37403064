"""Private files and locks between runs."""

import fcntl
import os
from pathlib import Path


def write_private(path: Path, content: bytes | str) -> Path:
    """Write a file that only its owner may read, and return its path."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        # An earlier file keeps its mode when it is opened again.
        os.fchmod(descriptor, 0o600)
        file.write(content.encode() if isinstance(content, str) else content)
    return path


class FileLock:
    """An advisory lock that the kernel gives back when its last holder is gone, however it went.

    Its descriptor may be handed to a supervised process: the lock then lasts until that process ended too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1

    def acquire(self, *, wait: bool) -> bool:
        """Take the lock; without `wait`, say False where another holds it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self.descriptor = descriptor
        return True

    def release(self) -> None:
        """Give it back; a second call does nothing."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock of this path."""
    if not path.exists():
        return False
    lock = FileLock(path)
    free = lock.acquire(wait=False)
    lock.release()
    return not free
