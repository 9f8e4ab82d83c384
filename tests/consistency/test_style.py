"""The linter sees what it is meant to see: a folder that is left out by its name may be one of the code's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_no_module_is_kept_from_the_linter(root: Path) -> None:
    everything = [sys.executable, "-m", "flake8", "--select=E501", "--max-line-length=1", "--format=%(path)s", "src"]
    said = subprocess.run(everything, cwd=root, capture_output=True, text=True, timeout=120).stdout
    seen = {Path(line) for line in said.splitlines()}
    there = {
        path.relative_to(root) for path in (root / "src").rglob("*.py") if path.read_text(encoding="utf-8").strip()
    }
    assert len(there) > 200 and sorted(there - seen) == []
