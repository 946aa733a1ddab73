"""`mmdata report` on a real release."""

from __future__ import annotations

from tests.cli.conftest import Mmdata, Released


def test_the_report_is_written_again_and_its_path_printed(released: Released, mmdata: Mmdata) -> None:
    page = released.folder / "report.html"
    page.unlink(missing_ok=True)
    done = mmdata("report", "-c", released.config)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(page)
    assert page.stat().st_size > 1000
