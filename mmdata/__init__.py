"""From web metadata to balanced, deduplicated multimodal training shards."""

import logging

__version__ = "0.1.0"

# with torchao installed, every import of torch would log a warning
logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
