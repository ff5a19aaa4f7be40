"""Zip files that are the same bytes whenever and wherever the same contents are packed."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a zip file can hold


def packed(files: Iterable[tuple[str, Path]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Pack files under the names that they get in the archive."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, path in files:
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type, entry.external_attr = method, 0o644 << 16
            archive.writestr(entry, path.read_bytes())
    return target.getvalue()
