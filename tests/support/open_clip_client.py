"""What a user of open_clip runs: its own trainer, with a small model. It knows the shards' paths and nothing of mmdata.

usage: open_clip_client.py MODEL.json TRAINER-ARGUMENTS...
"""

from __future__ import annotations

import functools
import inspect
import sys

import open_clip
from open_clip_train import data
from open_clip_train.main import main

if __name__ == "__main__":
    # open_clip 3.3 asks for webdataset <= 0.2.86: later ones mark a shard's end, which its reader takes for a member
    # (github.com/mlfoundations/open_clip/issues/935). The fix given there: no mark.
    if "eof_value" in inspect.signature(data.tar_file_expander).parameters:
        data.tar_file_expander = functools.partial(data.tar_file_expander, eof_value=None)
    open_clip.add_model_config(sys.argv[1])
    main(sys.argv[2:])
