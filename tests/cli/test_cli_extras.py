"""An installation without an extra: a light one works without Dagster and torch, and what it lacks has a remedy."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mmdata.cli.extras import PACKAGES_OF_EXTRA, remedy_for

ROOT = Path(__file__).resolve().parents[2]
WITHOUT = "import sys; sys.modules.update(dict.fromkeys({packages!r}))\n"
HEAVY = ["dagster", "img2dataset", "open_clip", "torch", "torchvision", "transformers", "webdataset", "cv2", "av"]


def python(code: str, *arguments: str, without: list[str]) -> subprocess.CompletedProcess[str]:
    """Run code in a process in which some packages cannot be imported."""
    command = [sys.executable, "-c", WITHOUT.format(packages=without) + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)


def test_releases_are_selected_written_read_and_verified_without_dagster_and_torch(tmp_path: Path) -> None:
    code = """
from mmdata.publish.verify import verify_release
from mmdata.report.stage import report_release
from mmdata.select.stage import select_samples
from tests.support.workspaces import build, release
built = build(sys.argv[1], {"web-000000": range(12)})
report_release(built.workspace.release_dir(release(built)))
print(verify_release(sys.argv[1]).counts["samples"])
"""
    ended = python(code, str(tmp_path), without=HEAVY)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout.split()[-1]) == 12


@pytest.mark.parametrize("command", ["build", "ui"])
def test_a_command_that_lacks_a_package_names_the_extra_and_ends_as_a_mistake_of_the_request(
    tmp_path: Path, command: str
) -> None:
    config = tmp_path / "corpus.yaml"
    config.write_text("workspace: ./workspace\nsources: [{name: web, kind: laion, files: inbox/*.parquet}]\n")
    ended = python("from mmdata.cli.main import run; run()", command, "-c", str(config), without=["dagster"])
    assert ended.returncode == 2, ended.stderr
    assert "error: this needs the package dagster, which is not installed" in ended.stderr
    assert "Remedy: pip install 'mmdata[build]'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_module_inside_a_package_counts_as_the_package() -> None:
    assert "mmdata[build]" in (remedy_for(ModuleNotFoundError(name="torch.nn.attention")) or "")
    assert remedy_for(ModuleNotFoundError(name="mmdata.nothing")) is None


def test_each_named_extra_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert PACKAGES_OF_EXTRA.keys() <= project["optional-dependencies"].keys()
