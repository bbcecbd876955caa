"""The verbs of make that are programs: ``python -m lib.grid VERB NAME=VALUE …``, with make's own words.

Each is a function ``make_VERB`` of these words. Why one cannot be done is one sentence on standard error.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

MODULES = {"shelve": "publish", "unpack": "pack"}
"""Where a verb is, unless in the module of its name."""


def main(argv: Sequence[str]) -> int:
    """Do what a verb says; the exit status."""
    verb, *words = argv
    module = importlib.import_module(f"lib.grid.{MODULES.get(verb, verb)}")
    try:
        return getattr(module, f"make_{verb}")(dict(word.split("=", 1) for word in words)) or 0
    except (OSError, ValueError) as error:
        print(f"{verb}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
