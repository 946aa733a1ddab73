"""The processor of an exported LLaVA: tokenizer with an image token, chat template, and preprocessing of pictures."""

from __future__ import annotations

import copy
from typing import Any

from mmdata.errors import UserError
from mmdata.score.preprocess import Preprocess
from training.data.text_codec import TextCodec

IMAGE_TOKEN = "<image>"

# Turn a message's parts into one text, a picture into the image token and a line break, as this trainer reads them.
_FLATTEN = """\
{%- set flat = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- set flat_text = namespace(value='') -%}
{%- if message['content'] is string -%}
{%- set flat_text.value = message['content'] -%}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] in ('image', 'image_url') -%}
{%- set flat_text.value = flat_text.value + '<image>\\n' -%}
{%- elif part['type'] == 'text' -%}
{%- set flat_text.value = flat_text.value + part['text'] -%}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- set flat.messages = flat.messages + [dict(message, content=CONTENT)] -%}
{%- endfor -%}
{%- set messages = flat.messages -%}
"""

# What TextCodec writes with a tokenizer that has no template.
_PLAIN = """\
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}{{ ' ' + message['content'] + eos_token }}
{%- else -%}{{ 'User: ' + message['content'] + '\\nAssistant:' }}
{%- endif -%}
{%- endfor -%}"""

# A model that captions reads pictures and then a start token; it has not learned to read questions.
_CAPTION = """\
{%- for message in messages -%}
{%- for part in message['content'] if part is mapping and part['type'] in ('image', 'image_url') -%}
{{ '<image>' }}
{%- endfor -%}
{%- endfor -%}{{ START }}"""


def chat_template(codec: TextCodec, stage: str) -> str:
    """A template that writes conversations with pictures as `TextCodec` does."""
    if stage == "joint":
        return _CAPTION.replace("START", repr(codec.tokenizer.convert_ids_to_tokens(codec.start)))
    template = codec.tokenizer.chat_template
    reads_parts = template is not None and codec.template_reads_parts
    content = "[{'type': 'text', 'text': flat_text.value}]" if reads_parts else "flat_text.value"
    return _FLATTEN.replace("CONTENT", content) + (template or _PLAIN)


def with_image_token(tokenizer: Any) -> tuple[Any, int, bool]:
    """A copy of a tokenizer that has the image token and adds no other token by itself.

    Returns: the copy, the id of the image token, and whether it is new.
    """
    from tokenizers import AddedToken, processors

    copied = copy.deepcopy(tokenizer)
    for name in ("add_bos_token", "add_eos_token"):
        if getattr(copied, name, None):
            setattr(copied, name, False)
    if hasattr(copied, "backend_tokenizer"):
        copied.backend_tokenizer.post_processor = processors.Sequence([])
    is_new = IMAGE_TOKEN not in copied.get_vocab()
    copied.add_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)], special_tokens=True)
    return copied, int(copied.convert_tokens_to_ids(IMAGE_TOKEN)), is_new


def picture_processor(preprocess: Preprocess) -> Any:
    """A CLIPImageProcessor that prepares pictures as mmdata does. Raises UserError if there is none."""
    from PIL import Image
    from transformers import CLIPImageProcessor

    height, width = preprocess.size
    if preprocess.resize_mode == "longest":
        raise UserError(
            "export as LLaVA: the image tower takes padded pictures (resize_mode `longest`), which CLIPImageProcessor "
            "does not make. Remedy: train with an image tower whose pictures are cropped or squashed."
        )
    crops = preprocess.resize_mode == "shortest"
    return CLIPImageProcessor(
        size={"shortest_edge": height} if crops else {"height": height, "width": width},
        do_center_crop=crops,
        crop_size={"height": height, "width": width},
        resample=Image.Resampling.BILINEAR if preprocess.interpolation == "bilinear" else Image.Resampling.BICUBIC,
        image_mean=list(preprocess.mean),
        image_std=list(preprocess.std),
    )
