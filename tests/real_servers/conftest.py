"""Starts the servers, once, with Pico in each of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from llamas import pico_path
from running import KEY, STARTUP_SECONDS, Served, running


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="session")
def transformers_serve(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transformers")
    checkpoint = folder / "pico"
    writing = [sys.executable, str(Path(__file__).with_name("checkpoint.py")), str(pico_path()), str(checkpoint)]
    subprocess.run(writing, check=True, capture_output=True, timeout=STARTUP_SECONDS)
    program = str(Path(sys.executable).with_name("transformers"))
    command = [program, "serve", str(checkpoint), "--host", "127.0.0.1", "--port", "{port}", "--device", "cpu"]
    with running("transformers-serve", command, folder, "/health") as url:
        yield Served("transformers-serve", f"{url}/v1", str(checkpoint))


def llama_cpp(folder, *options):
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(pico_path()), "--n_ctx", "2048"]
    command += ["--host", "127.0.0.1", "--port", "{port}", "--api_key", KEY, "--verbose", "false", *options]
    return running("llama_cpp.server", command, folder, "/v1/models")


@pytest.fixture(scope="session")
def llama_cpp_server(tmp_path_factory):
    with llama_cpp(tmp_path_factory.mktemp("llama_cpp")) as url:
        yield Served("llama-cpp-python", f"{url}/v1", "pico")


@pytest.fixture(scope="session")
def embedding_server(tmp_path_factory):
    """llama_cpp.server as a server of embeddings: Pico's, the mean of its tokens'."""
    options = ("--embedding", "true", "--kv_overrides", "qwen3.pooling_type=int:1")
    with llama_cpp(tmp_path_factory.mktemp("embeddings"), *options) as url:
        yield Served("llama-cpp-python", f"{url}/v1", "pico")


@pytest.fixture(params=["transformers_serve", "llama_cpp_server"])
def server(request):
    """Each of the servers."""
    return request.getfixturevalue(request.param)
