"""The README says what is true: its tables are the generated ones, and its code runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from backend import bench_report, findings, forecast_table, image_report, registry
from backend.documents import inside, is_current, marks, write
from backend.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BENCH = ROOT / "assets" / "bench" / "text.json"
IMAGES = ROOT / "assets" / "bench" / "image.json"
STYLED = ROOT / "assets" / "bench" / "image-thumbs.json"
FORECASTS = ROOT / "assets" / "bench" / "forecasting.json"


def code_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)


def test_tables_are_current() -> None:
    assert is_current(README, registry.TABLE, registry.table()), "run python -m backend.registry --write README.md"
    assert is_current(README, bench_report.TABLE, bench_report.report(json.loads(BENCH.read_text(encoding="utf-8"))))
    for part, text in findings.parts().items():
        assert is_current(README, part, text), "run python -m backend.findings --write README.md"
    pictures = image_report.report(json.loads(IMAGES.read_text(encoding="utf-8"))) if IMAGES.is_file() else ""
    assert is_current(README, bench_report.IMAGES, pictures), f"run python -m backend.bench --report {IMAGES} --write"
    styled = image_report.report(json.loads(STYLED.read_text(encoding="utf-8"))) if STYLED.is_file() else ""
    assert is_current(README, bench_report.STYLED, styled), f"run python -m backend.bench --report {STYLED} --write"
    series = forecast_table.report(json.loads(FORECASTS.read_text(encoding="utf-8"))) if FORECASTS.is_file() else ""
    assert is_current(README, bench_report.FORECASTS, series), (
        f"run python -m backend.bench --report {FORECASTS} --write"
    )


def test_findings_are_made_of_the_files_that_are_there(tmp_path: Path) -> None:
    rows = [
        {"strategy": "jacobi", "equal": 9, "total": 10, "differences": [{"prompt": 3, "slot": 2, "gap": 0.004}]},
        {"strategy": "suffix", "equal": 10, "total": 10, "differences": []},
    ]
    result = {"environment": {"dtype": "float32", "new_tokens": 16}, "rows": rows}
    assert findings.table(tmp_path).count("\n") == 1
    (tmp_path / "equality.json").write_text(json.dumps(result), encoding="utf-8")
    (line,) = findings.table(tmp_path).splitlines()[2:]
    assert "19 of 20 texts of 2 strategies are the same; others: `jacobi` 1, the best two" in line
    assert "than 0.004 |" in line


def test_the_strategy_of_the_readme_passes_the_contract(tmp_path: Path) -> None:
    """Put into the folder of a copy, the example is found and its law is the target's."""
    echo = next(block for block in code_blocks() if block.startswith('"""Echo'))
    assert len([line for line in echo.splitlines() if line.strip()]) <= 24
    script = tmp_path / "check.py"
    (tmp_path / "echo.py").write_text(echo, encoding="utf-8")
    script.write_text(
        "import echo\n"
        "from backend.registry import find\n"
        "from backend.types import Sampling\n"
        "from tests.exact import ancestral, total_variation\n"
        "from tests.test_contract_strategies import PROMPTS, strategy_law\n"
        "from tests.toys import causal_pair\n"
        "target, _ = causal_pair()\n"
        "models, warm = {'target': target}, Sampling(temperature=1.0)\n"
        "prompt = target.codec.encode(PROMPTS[target.protocol]).tokens\n"
        "ours = strategy_law(find('echo').run, models, {'length': 2}, warm, 3)\n"
        "assert total_variation(ours, ancestral(target, prompt, 3, warm)) < 1e-9\n"
        "print('same law')\n",
        encoding="utf-8",
    )
    out = subprocess.run(
        [sys.executable, str(script)],
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.stdout.strip() == "same law", out.stderr


def test_pictures_exist() -> None:
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README.read_text(encoding="utf-8")):
        assert (ROOT / path).is_file(), path


def test_short_description_fits_a_space() -> None:
    line = next(x for x in README.read_text(encoding="utf-8").splitlines() if x.startswith("short_description:"))
    assert len(line.removeprefix("short_description:").strip()) <= 60


def test_writing_a_part(tmp_path: Path) -> None:
    file, part = tmp_path / "a.md", marks("x", "make x")
    file.write_text(f"before\n{part[0]}\nold\n{part[1]}\nafter\n", encoding="utf-8")
    write(file, part, "new\n")
    assert inside(file.read_text(encoding="utf-8"), part) == "new"
    assert file.read_text(encoding="utf-8").startswith("before\n")
    assert file.read_text(encoding="utf-8").endswith("after\n")
    file.write_text("nothing\n", encoding="utf-8")
    with pytest.raises(UserError, match="lacks the lines"):
        write(file, part, "new")
    with pytest.raises(UserError, match="There is no file"):
        is_current(tmp_path / "missing.md", part, "new")
