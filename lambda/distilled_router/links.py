"""Files of a folder, without links that lead out of it."""

from __future__ import annotations

import errno
from pathlib import Path


def inside(folder: Path, name: str | Path) -> Path:
    """Return the path of a file in a folder.

    A link could publish any file that the caller can read, such as a key, as training data or a prompt.

    Raises:
        PermissionError: A link leads out of the folder.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise PermissionError(errno.EACCES, f"a link leads out of {folder}", str(path))
    return path
