"""What `import sabir` and `sabir --help` cost, beside `import httpx`: CPU time of fresh processes; asserts nothing.

CPU time is user + system of the child, by `wait4`, so it needs a POSIX system. The contenders take turns, the first
round warms the caches and is not counted, and each figure is the median of the rest, less a bare interpreter's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

ROUNDS = 15
COUNT = "import sys; before = set(sys.modules); import {0}; print(len(set(sys.modules) - before))"


def cpu_ms(arguments):
    """Milliseconds of CPU that one process took; its output is dropped."""
    silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    process = os.posix_spawn(arguments[0], arguments, os.environ, file_actions=silent)
    _, status, used = os.wait4(process, 0)
    if status:
        sys.exit(f"{' '.join(arguments)} failed with {os.waitstatus_to_exitcode(status)}")
    return 1e3 * (used.ru_utime + used.ru_stime)


def modules(name):
    """How many modules an import loads beyond a bare interpreter."""
    done = subprocess.run([sys.executable, "-c", COUNT.format(name)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def main():
    contenders = {
        "bare": [sys.executable, "-c", "pass"],
        "import sabir": [sys.executable, "-c", "import sabir"],
        "import httpx": [sys.executable, "-c", "import httpx"],
    }
    script = shutil.which("sabir", path=Path(sys.executable).parent)
    if script:
        contenders["sabir --help"] = [script, "--help"]

    samples = {name: [] for name in contenders}
    for turn in range(ROUNDS + 1):
        for name, arguments in contenders.items():
            spent = cpu_ms(arguments)
            if turn:
                samples[name].append(spent)
    cost = {name: median(spent) for name, spent in samples.items()}
    bare = cost.pop("bare")

    print(f"Python {sys.version.split()[0]}, {sys.platform}; bare interpreter {bare:.1f} ms, median of {ROUNDS}")
    print(f"{'':14}{'CPU ms':>8}{'÷ httpx':>9}{'modules':>9}")
    for name, total in cost.items():
        own = total - bare
        count = modules(name.removeprefix("import ")) if name.startswith("import ") else ""
        print(f"{name:14}{own:8.1f}{own / (cost['import httpx'] - bare):9.2f}{count:>9}")


if __name__ == "__main__":
    main()
