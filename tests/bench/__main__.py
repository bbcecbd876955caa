"""Run one measurement with its peers: ``python -m tests.bench NAME``, or ``make bench-NAME``."""

import argparse
import runpy
import subprocess
import sys
from pathlib import Path

PEERS = Path(__file__).with_name("requirements.txt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(path.stem for path in PEERS.parent.glob("[a-z]*.py")))
    parser.add_argument("--build", default="build")
    given, rest = parser.parse_known_args()
    if given.name in ("attacks", "features"):
        folder = Path(given.build, "bench", "peers")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*pip, "--upgrade", "--target", folder, "-r", PEERS], check=False)
        if done.returncode:
            print(f"bench: not all peers of {PEERS} could be installed", file=sys.stderr)
        sys.path.insert(0, str(folder))
    sys.argv = [f"tests.bench.{given.name}", "--build", given.build, *rest]
    runpy.run_module(f"tests.bench.{given.name}", run_name="__main__")


if __name__ == "__main__":
    main()
