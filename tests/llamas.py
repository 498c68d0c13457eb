"""Pico in other clothes, for tests: with a longer context, or behind llama.cpp's own HTTP server."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from sabir.engines.llama_cpp import pico_path

# What makes Pico go on until its context is full.
ENDLESS = {"ignore_eos": True, "max_tokens": -1}

_SERVER = """
import os, sys, xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path = sys.argv[1]
settings.hostnames, settings.port, settings.api_keys = ["127.0.0.1"], 0, [sys.argv[2]]
settings.n_ctx, settings.n_parallel, settings.kv_unified = 0, 4, False
settings.n_batch = settings.n_ubatch = 512
settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
settings.verbosity, settings.warmup, settings.ui, settings.endpoint_slots = -1, False, False, True
if "embedding" in sys.argv[3:]:
    # With a cache for each sequence, means of a batch would differ from those of its texts alone.
    settings.embedding, settings.kv_unified = True, True
    settings.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
if "rerank" in sys.argv[3:]:
    settings.embedding, settings.kv_unified = True, True
    settings.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
if "no-jinja" in sys.argv[3:]:
    settings.use_jinja, settings.chat_template = False, "chatml"
server = xllamacpp.Server(settings)
print(server.listening_address, flush=True)
sys.stdin.read()
os._exit(0)
"""


def skip_without_llama() -> None:
    """Skip a whole test module where there is no llama.cpp; fail where there has to be."""
    if find_spec("xllamacpp") is None:
        assert not os.environ.get("CI"), "xllamacpp is missing, so that nothing here would be tested"
        pytest.skip("xllamacpp is not installed: pip install 'sabir[local]'", allow_module_level=True)


def with_context(folder: Path, length: int) -> Path:
    """Pico, said to have another length of context."""
    data = bytearray(pico_path().read_bytes())
    at = data.index(b"qwen3.context_length") + len(b"qwen3.context_length") + 4
    data[at : at + 4] = struct.pack("<I", length)
    path = folder / f"context-{length}.gguf"
    path.write_bytes(data)
    return path


@contextmanager
def llama_server(path: Path, key: str, *switches: str) -> Iterator[str]:
    """The address of llama.cpp's HTTP server, in a process of its own, on loopback and behind a key.

    With the switch "embedding" it makes embeddings instead of answers, with "rerank" it ranks documents,
    and with "no-jinja" it knows no tools and no thinking.
    """
    command = [sys.executable, "-c", _SERVER, str(path), key, *switches]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().strip()
            assert address, "llama.cpp's server did not start"
            yield address
        finally:
            process.kill()
