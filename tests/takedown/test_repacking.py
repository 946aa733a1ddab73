"""A tar that is packed again holds the other samples' bytes, and none of those that were left out."""

from __future__ import annotations

import numpy as np

from mmdata.storage.tables import read_table
from mmdata.takedown.parts import slice_names
from mmdata.takedown.repacking import repacked_media
from tests.support.published import Web, pairs
from tests.support.takedowns import CorpusOn

PART = "web-000000"


def test_only_the_remaining_members_are_in_the_new_tar(corpus_on: CorpusOn, web: Web) -> None:
    built = corpus_on()
    built.write("a", pairs(web, range(4)))
    built.build()
    workspace = built.workspace
    name = slice_names(workspace, PART, "media")[0]
    media = read_table(workspace.table(PART, "media", name))
    old = workspace.media_tar(PART, name, media.schema.metadata).read_bytes()
    chosen = np.arange(media.num_rows) == 0
    nothing = np.zeros(media.num_rows, bool)
    assert repacked_media(workspace, PART, name, media, nothing, nothing).equals(media), "there is nothing to remove"
    new = repacked_media(workspace, PART, name, media, chosen, nothing)
    tar = workspace.media_tar(PART, name, new.schema.metadata).read_bytes()
    assert tar != old
    for number, (before, after) in enumerate(zip(media.to_pylist(), new.to_pylist(), strict=True)):
        data = old[before["offset"] : before["offset"] + before["length"]]
        if number == 0:
            assert (after["offset"], after["status"]) == (None, "refused")
            assert data not in tar
        else:
            assert tar[after["offset"] : after["offset"] + after["length"]] == data
