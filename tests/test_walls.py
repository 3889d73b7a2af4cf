"""Who may import whom, how long files may be, what names must agree: read from the sources, nothing is run."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.protocols import PROTOCOL_NAMES
from backend.registry import strategies

ROOT = Path(__file__).resolve().parent.parent
STRATEGIES = sorted(p for p in (ROOT / "backend" / "strategies").rglob("*.py") if p.name != "__init__.py")
BACKEND = sorted((ROOT / "backend").rglob("*.py"))
DEMOS = sorted((ROOT / "demos").rglob("*.py"))
SOURCES = [*BACKEND, *DEMOS, *sorted((ROOT / "tests").rglob("*.py")), *sorted(ROOT.glob("*.py"))]
ALLOWED = {
    *("__future__", "abc", "bisect", "collections", "collections.abc", "dataclasses", "enum", "functools", "heapq"),
    *("itertools", "math", "operator", "typing", "torch"),
    *(f"backend.{name}" for name in ("types", "protocols", "chance", "sampling", "trees", "unmasking", "couplings")),
    *(f"backend.{name}" for name in ("gaussian", "unrolling", "classical", "denoising", "events")),  # for numbers
    "backend.relaxing",
    "backend.registry",
}
CORE = [
    *(ROOT / "backend" / f"{name}.py" for name in ("chance", "sampling", "trees", "unmasking", "couplings")),
    ROOT / "backend" / "relaxing.py",
    *(ROOT / "backend" / f"{name}.py" for name in ("gaussian", "unrolling", "classical", "denoising", "events")),
    *sorted((ROOT / "backend" / "protocols").glob("*.py")),
]
RANDOM = re.compile(  # attributes of torch and its tensors that draw random numbers
    r"^(rand\w*|multinomial|bernoulli_?|poisson|normal_?|uniform_|exponential_|geometric_|cauchy_|log_normal_"
    r"|manual_seed|seed|Generator|dropout\w*|gumbel_softmax)$"
)


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), short(path))


def imports(path: Path) -> Iterator[str]:
    """Modules that a file imports anywhere, functions and type checking included."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{short(path)}:{node.lineno} has a relative import"
            yield node.module or ""
            if node.module in ("backend", "torch"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names if alias.name.islower())


def roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


# ------------------------------------------------------------------------------------------------------------ imports
@pytest.mark.parametrize("path", STRATEGIES, ids=short)
def test_strategies_import_only_maths_and_what_strategies_share(path: Path) -> None:
    assert set(imports(path)) <= ALLOWED


@pytest.mark.parametrize("path", STRATEGIES, ids=short)
def test_strategies_draw_through_chance_only(path: Path) -> None:
    drawn = [
        node.attr for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute) and RANDOM.match(node.attr)
    ]
    assert drawn == []


@pytest.mark.parametrize("path", [p for p in CORE if p.exists()], ids=short)
def test_shared_maths_knows_no_model(path: Path) -> None:
    ours = {name for name in imports(path) if name.startswith("backend.")}
    assert not any(name.startswith(("backend.models", "backend.strategies", "backend.codecs")) for name in ours)
    assert "backend.run" not in ours
    assert "backend.catalog" not in ours


def test_backend_never_imports_the_screen() -> None:
    for path in BACKEND:
        assert not roots(path) & {"gradio", "demos", "plotly", "app", "tests"}, short(path)


def test_demos_never_import_torch() -> None:
    for path in DEMOS:
        assert not roots(path) & {"torch", "transformers", "safetensors"}, short(path)


def test_only_training_imports_training() -> None:
    for path in [*BACKEND, *DEMOS]:
        if "train" not in path.relative_to(ROOT).parts:
            assert not [name for name in imports(path) if name.startswith("backend.train")], short(path)


@pytest.mark.parametrize("module", ["backend", "backend.types", "backend.trace", "backend.errors"])
def test_values_and_traces_need_no_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'gradio', 'numpy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -------------------------------------------------------------------------------------------------------- files, names
@pytest.mark.parametrize("path", STRATEGIES, ids=short)
def test_a_strategy_is_one_file_of_its_name(path: Path) -> None:
    """File = function = id, in the folder of its protocol."""
    found = strategies().get(path.stem)
    assert found is not None, f"{short(path)} registers no strategy {path.stem!r}"
    assert found.run.__name__ == path.stem
    assert found.run.__module__ == ".".join(path.relative_to(ROOT).with_suffix("").parts)
    assert path.parent.name == PROTOCOL_NAMES[found.base]


def test_every_strategy_has_a_file() -> None:
    assert set(strategies()) == {path.stem for path in STRATEGIES}


@pytest.mark.parametrize("path", STRATEGIES, ids=short)
def test_a_strategy_reads_on_one_screen(path: Path) -> None:
    tree = tree_of(path)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 130
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is too long"
    assert re.match(r"[A-Z][^:.\n]*: \S", ast.get_docstring(tree) or ""), "the docstring starts with `Title: sentence`"
    assert re.search(r"^Show: ", ast.get_docstring(tree) or "", re.M), "the docstring says what the demo shows"


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_no_file_is_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 450


# --------------------------------------------------------------------------------------------------------- leftovers
def committed_texts() -> Iterator[tuple[str, str]]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 4_000_000:
            raw = path.read_bytes()
            if b"\0" not in raw[:8_000]:
                yield name, raw.decode("utf-8", errors="replace")


def test_no_committed_text_tells_of_the_machine_it_was_written_on() -> None:
    """Absolute paths of this checkout and this user, and package mirrors other than the public ones."""
    root, home = str(ROOT), str(Path.home())
    words = [f"/{name}/" for name in ("work",)] + [word for word in (root, home) if word.count("/") > 1]
    mirrors = re.compile(
        r"(?:index-url|find-links|trusted-host)[= ]+(?!https://(?:pypi\.org|download\.pytorch\.org)/)\S"
    )
    host = os.uname().nodename
    if len(host) > 8:
        words.append(host)
    found = [
        f"{name}: {word}"
        for name, text in committed_texts()
        for word in [w for w in words if w in text] + [m.group() for m in mirrors.finditer(text)]
    ]
    assert found == []
