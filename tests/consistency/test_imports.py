"""What is imported, where and when: nothing pays for a library it does not use."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import pytest

HEAVY = {"airflow", "data_profiling", "dvc", "lightgbm", "matplotlib", "mlflow", "pandas", "sklearn", "ydata_profiling"}


def test_heavy_libraries_are_imported_inside_the_functions_that_need_them(sources) -> None:
    found = [
        f"{source.name}:{line} imports {module}"
        for source in sources
        for module, line in source.imports(top_level_only=True)
        if module.split(".")[0] in HEAVY
    ]
    assert found == []


@pytest.mark.parametrize("module", ["forecastle.serving.app", "forecastle.cli", "forecastle.pipeline"])
def test_importing_a_door_loads_no_heavy_library(module: str) -> None:
    program = f"import sys, json, {module}; print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert HEAVY.intersection(json.loads(answer.stdout)) == set()


def test_airflow_is_imported_nowhere(sources) -> None:
    assert [
        source.name for source in sources for module, _ in source.imports() if module.split(".")[0] == "airflow"
    ] == []


def test_only_settings_reads_the_environment(sources) -> None:
    readers = {
        source.name
        for source in sources
        for node in ast.walk(source.tree)
        if (isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv", "environb"})
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and {"environ", "getenv"} & _names(node))
    }
    assert readers <= {"settings.py"}


def test_only_doors_read_the_clock(sources) -> None:
    doors = ("cli/", "demo/", "serving/", "notebook.py")
    found = [
        f"{source.name}:{node.lineno}"
        for source in sources
        if not source.name.startswith(doors)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and _reads_the_clock(node)
    ]
    assert found == []


def _names(node: ast.ImportFrom) -> set[str]:
    return {alias.name for alias in node.names}


def _reads_the_clock(call: ast.Call) -> bool:
    return ast.unparse(call.func) in {
        "datetime.now",
        "datetime.datetime.now",
        "datetime.utcnow",
        "datetime.today",
        "date.today",
        "time.time",
        "time.time_ns",
    }
