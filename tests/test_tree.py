"""The tree keeps its shape: a test file for each module, and no file name twice."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("mmdata", "pipelines", "training")
MODULES = sorted(
    path.relative_to(ROOT) for top in PACKAGES for path in (ROOT / top).rglob("*.py") if path.name != "__init__.py"
)


def place_of_tests(module: Path) -> Path:
    """`mmdata/select/dedup.py` -> `tests/select/test_dedup.py`; a `stage.py` is tested as `test_<folder>_stage.py`."""
    folder = Path(*module.parts[1:-1]) if module.parts[0] == "mmdata" else Path(*module.parts[:-1])
    name = f"{module.parent.name}_stage" if module.name == "stage.py" and folder.parts else module.stem.strip("_")
    if folder == Path("cli"):
        name = f"cli_{name}"  # these files are named as the commands are, and other tests may have the same name
    return Path("tests") / folder / f"test_{name}.py"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_each_module_has_a_test_file_of_its_name(module: Path) -> None:
    assert (ROOT / place_of_tests(module)).exists()


def test_a_file_name_is_used_once() -> None:
    """Except `stage.py`, the entry of each stage, and the files of the command line, named as the commands are."""
    places: dict[str, list[str]] = defaultdict(list)
    for module in MODULES:
        if module.name != "stage.py" and module.parts[:2] != ("mmdata", "cli"):
            places[module.name].append(str(module))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_a_test_file_name_is_used_once() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []
