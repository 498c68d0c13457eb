"""Servers in processes of their own, on loopback; knows how to start one, not which there are."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from servers import free_port

KEY = "key-of-the-server"
# Loading torch takes most of it.
STARTUP_SECONDS = 180


class Served(NamedTuple):
    """A server that runs: the row that speaks to it, its address, and its model's name."""

    row: str
    url: str
    model: str

    def client(self, surface, **settings):
        """A client of it; greedy."""
        return surface.client(
            f"{self.row}:{self.model}", base_url=self.url, **{"api_key": KEY, "temperature": 0.0, **settings}
        )


@contextmanager
def running(name: str, command: list[str], folder: Path, path: str) -> Iterator[str]:
    """The address of a server that a command starts, `{port}` in it, as soon as it answers at `path`."""
    port, log = free_port(), folder / f"{name}.log"
    # Nothing is to come from a hub; its folder has to be there.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder), "OMP_NUM_THREADS": "1"}
    (folder / "hub").mkdir(exist_ok=True)
    command = [part.format(port=port) for part in command]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            if not is_up(process, url + path):
                pytest.fail(f"{name} did not start:\n{log.read_text(errors='replace')[-4000:]}")
            yield url
        finally:
            process.kill()


def is_up(process: subprocess.Popen[bytes], url: str) -> bool:
    end = time.monotonic() + STARTUP_SECONDS
    while process.poll() is None and time.monotonic() < end:
        if answers(url):
            return True
        time.sleep(0.1)
    return False


def answers(url: str) -> bool:
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {KEY}"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=1):
            return True
    except (OSError, urllib.error.HTTPError):
        return False
