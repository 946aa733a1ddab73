"""Settings by name, and what changed between two states of them."""

from __future__ import annotations

from mmdata.config.setting_changes import changed_settings, flat


def test_sections_become_names() -> None:
    assert flat({"seed": 1, "download": {"threads": 2, "inner": {"x": None}}}) == {
        "seed": 1,
        "download.threads": 2,
        "download.inner.x": None,
    }


def test_changes_name_the_setting_with_its_old_and_new_value() -> None:
    changes = changed_settings({"download.image_size": 256, "seed": 1}, {"download.image_size": 512, "seed": 1})
    assert list(map(str, changes)) == ["download.image_size: 256 -> 512"]


def test_a_setting_that_one_side_lacks_has_its_default_there() -> None:
    assert changed_settings({}, {"download.image_size": 256}) == []
    (change,) = changed_settings({"download.image_size": 128}, {})
    assert (change.old, change.new) == (128, 256)
