"""The README's snippets run as they stand, in order, and print what their comments say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from sabir.providers import PROVIDERS

README = Path(__file__).parent.parent / "README.md"


def snippets() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.M | re.S)


def test_the_readme_is_true(pico: str, tmp_path: Path) -> None:
    code = "\n".join(snippets())
    promised = re.findall(r"# → (.*)$", code, re.M)
    assert len(promised) >= 15
    script = tmp_path / "readme.py"
    script.write_text(code, "utf-8")
    command = [sys.executable, "-W", "error", str(script)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == promised
    # The first snippet names no model, and is told whose answer that is; nothing else is said.
    assert len(ran.stderr.splitlines()) == 1
    assert "Pico" in ran.stderr


def test_every_provider_is_in_the_readme() -> None:
    text = README.read_text("utf-8")
    assert [name for name in PROVIDERS if f"`{name}" not in text] == []
    keys = [key for row in PROVIDERS.values() for key in ((row.key,) if isinstance(row.key, str) else row.key or ())]
    assert [key for key in keys if f"`{key}`" not in text] == []
