"""`python -m fuzz.worker TARGET [libFuzzer's flags and folders]`: mutates one target in this process until the time is
over or something is found. `campaign` starts it.

The server's own modules are instrumented while they are imported, so that libFuzzer sees which lines an input reaches.
"""

from __future__ import annotations

import random
import sys

import atheris

from fuzz.mutate import GRAMMARS, Mutator
from fuzz.targets import TARGETS


def mutator(change: Mutator) -> object:
    """Half of the inputs by the grammar, half by libFuzzer."""

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            changed = change(data, rng)
            if changed is not None and len(changed) <= most:
                return changed
        return bytes(atheris.Mutate(data, len(data)))

    return mutate


def main() -> None:
    target = TARGETS[sys.argv[1]]
    # libFuzzer starts itself again to make a corpus small, through a shell and by what it takes for its program.
    sys.argv[:2] = [f"{sys.executable} -m fuzz.worker {target.name}"]
    with atheris.instrument_imports(include=["modelpier_server"]):
        check = target.make()
    change = {"custom_mutator": mutator(GRAMMARS[target.grammar])} if target.grammar else {}
    atheris.Setup(sys.argv, check, **change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
