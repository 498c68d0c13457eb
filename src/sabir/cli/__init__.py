"""The command `sabir`. Knows only whether click is there, which the extra `cli` brings; the rest lies behind it."""

from __future__ import annotations

import sys
from importlib import import_module

INTERRUPTED = 130


def main() -> int:
    """Run the command line on `sys.argv` and return the exit code."""
    try:
        commands = import_module(".commands", __package__)
        code: int = commands.run()
    except KeyboardInterrupt:
        return INTERRUPTED
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.stderr.write("sabir's command line needs its extra: pip install 'sabir[cli]'\n")
        return 1
    return code
