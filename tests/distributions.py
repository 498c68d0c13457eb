"""Distributions as pip would leave them, in a folder on the path, for tests of what they add."""

from __future__ import annotations

from pathlib import Path


def install(folder: Path, name: str, code: str, points: str) -> None:
    """A module of this name, and the metadata of a distribution that brings it and these entry points."""
    (folder / f"{name}.py").write_text(code, "utf-8")
    told = folder / f"{name}-1.5.dist-info"
    told.mkdir()
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    (told / "entry_points.txt").write_text(points)
