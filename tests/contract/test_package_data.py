"""Templates, SQL and Lua reach an installed Groundswell (so every container), not only the source tree."""

import fnmatch
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONTAINER_FILES = {"Dockerfile", "compose.yaml", ".env", ".env.example", ".gitignore", "prometheus"}
"""In `deploy/`, but read from the repository only: by Docker, Compose and Prometheus."""


def test_the_wheel_takes_every_data_file_along() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    globs = project["tool"]["setuptools"]["package-data"]["*"]
    forgotten = [
        str(path.relative_to(ROOT))
        for package in ("services", "shared", "deploy")
        for path in sorted((ROOT / package).rglob("*"))
        if path.is_file()
        and path.suffix not in {".py", ".pyc"}
        and not (package == "deploy" and path.relative_to(ROOT / "deploy").parts[0] in CONTAINER_FILES)
        and not any(fnmatch.fnmatch(path.name, glob) for glob in globs)
    ]
    assert not forgotten, "no glob of [tool.setuptools.package-data] names these"
