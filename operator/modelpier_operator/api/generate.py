"""Writes what is made from the types: `python -m modelpier_operator.api.generate [--check] [ROOT]`, or `make generate`.

With --check nothing is written: status 1 and the names of the files that differ.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from modelpier_operator.api import crd, reference

FILES: Mapping[str, Callable[[], str]] = {
    f"crds/{crd.FILE}": crd.render,
    f"charts/modelpier/files/crds/{crd.FILE}": crd.render,
    "docs/reference/modeldeployment.md": reference.modeldeployment,
    "docs/reference/conditions.md": reference.conditions,
}
"""Path below the repository's root -> what is in it."""


def stale(root: Path) -> list[str]:
    """Files that differ from what the types make of them."""
    return [name for name, make in FILES.items() if not (root / name).exists() or (root / name).read_text() != make()]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m modelpier_operator.api.generate", description=__doc__)
    parser.add_argument("root", type=Path, nargs="?", default=Path())
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file differs")
    options = parser.parse_args(arguments)
    names = stale(options.root)
    for name in names if not options.check else ():
        path = options.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FILES[name]())
    for name in names:
        print(f"{name}: {'differs, run make generate' if options.check else 'written'}")
    return 1 if options.check and names else 0


if __name__ == "__main__":
    raise SystemExit(main())
