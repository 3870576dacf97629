"""Which bytes an object of a store were when it was last read: by its entity tag, a model that nobody has pinned yet is
found in the cache again after a restart, without being downloaded.
"""

from __future__ import annotations

import json
from pathlib import Path


class Known:
    """Notes in `folder`, one per uri and credentials. They save a download and decide nothing: what is found is hashed
    anew.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: str) -> tuple[str, str] | None:
        """(entity tag, digest); None when nothing usable is noted."""
        try:
            note = json.loads((self._folder / key).read_text())
            return str(note["tag"]), str(note["digest"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def note(self, key: str, tag: str, digest: str) -> None:
        """Best effort: a cache that cannot be written to has been reported by the download itself."""
        new = self._folder / f"{key}.new"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps({"tag": tag, "digest": digest}))
            new.replace(self._folder / key)
        except OSError:
            return
