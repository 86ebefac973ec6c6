"""Kill the builder of regions at random moments, restart it each time, and compare the store with one that was built
without interruption.

    python benchmarks/kill_builder.py DATA [--kills 20] [--seed 0] [-- OPTIONS OF tools/regions.py build]

One kill in four comes before the first image is done. The others come at a random moment after it, drawn so that some
work is left after all kills. Each start reports the number of images that it found finished, which must never decrease.
The exit status is 1 if it does, or if a byte of the stores differs.
"""

import argparse
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOOL = Path(__file__).parents[1] / "tools" / "regions.py"
EARLY = 0.25  # share of the kills before the work begins
USED = 0.3  # share of the work done between all the others
STORE = ("boxes.bin", "index.bin", "paths.bin", "manifest.json")


def start(data: str, out: Path, options: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(TOOL), "build", data, str(out), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    told = process.communicate()[0]
    if process.returncode:
        sys.exit(f"the builder ended with {process.returncode}:\n{told}")
    return told


def journal_bytes(out: Path) -> int:
    journal = out / "journal.bin"
    return journal.stat().st_size if journal.exists() else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments")
    args, options = parser.parse_known_args()
    options = [option for option in options if option != "--"]
    moments = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, out = Path(folder, "whole"), Path(folder, "killed")
        begun = time.monotonic()
        process = start(args.data, whole, options)
        while not (whole / "journal.bin").exists() and process.poll() is None:
            time.sleep(0.01)
        working = time.monotonic()
        print(finish(process).splitlines()[0])
        startup, work = working - begun, time.monotonic() - working
        print(f"in one go: {startup:.1f} s until the first image, {work:.1f} s of work", flush=True)
        before = 0
        for kill in range(args.kills):
            process = start(args.data, out, options)
            early = moments.random() < EARLY
            size = journal_bytes(out)
            while not early and journal_bytes(out) == size and process.poll() is None:
                time.sleep(0.01)
            delay = moments.uniform(0, startup if early else 2 * USED * work / args.kills / (1 - EARLY))
            try:
                process.wait(delay)
                print(f"{kill} kills: the build was finished before the next")
                break
            except subprocess.TimeoutExpired:
                process.kill()
            # The workers hold the pipe open, so communicate() returns only after they have ended.
            found = re.search(r"(\d+) of \d+ images were done before", process.communicate()[0])
            now = int(found.group(1)) if found else before
            if now < before:
                sys.exit(f"{before} images were finished, {now} after kill {kill}")
            before = now
            when = "before the work" if early else f"{delay:.2f} s into it"
            print(
                f"kill {kill + 1}, {when}: {now} images done before, journal {journal_bytes(out):,} bytes", flush=True
            )
        print(finish(start(args.data, out, options)).splitlines()[0])
        differs = [name for name in STORE if (whole / name).read_bytes() != (out / name).read_bytes()]
        extra = sorted({path.name for path in out.iterdir()} - set(STORE))
        shutil.rmtree(out)
    if differs or extra:
        sys.exit(f"not the same: {differs} differ, {extra} are left over")
    print("the same bytes")


if __name__ == "__main__":
    main()
