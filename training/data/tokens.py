"""Text to tokens: conversations with places for media, and which of their tokens are learned."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mmdata.errors import DataError, UserError

MEDIUM = "\ue000"  # stands for one medium in a text; a private-use character, taken out of data before
IGNORED = -100  # the label that no loss is computed on


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says; each MEDIUM in the text is the next of the example's media."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example in tokens.

    Args:
        ids: token ids; at media's places there is nothing yet.
        labels: as long as `ids`; IGNORED where nothing is learned.
        media_at: for each medium the index in `ids` before which it stands.
    """

    ids: list[int]
    labels: list[int]
    media_at: list[int] = field(default_factory=list)


class TextCodec:
    """A Hugging Face tokenizer, and how a conversation is written with it.

    Args:
        tokenizer: with a chat template, turns are written by it; without, as `User: …` and `Assistant: …`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        if tokenizer.eos_token_id is None:
            raise UserError("the LLM's tokenizer has no end-of-text token, so no answer could end")
        self.eos = int(tokenizer.eos_token_id)
        self.start = int(tokenizer.bos_token_id if tokenizer.bos_token_id is not None else self.eos)
        self.pad = int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.eos)
        special = sorted((token for token in tokenizer.all_special_tokens if len(token) > 1), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, special)) or "(?!)")

    def caption(self, text: str, media: int) -> Encoded:
        """Media, a token to begin with, then a caption, which is learned to its end-of-text token."""
        ids = [*self._ids(self._harmless(clean(text))), self.eos]
        return Encoded([self.start, *ids], [IGNORED, *ids], [0] * media)

    def conversation(self, turns: Sequence[Turn]) -> Encoded:
        """Turns; the assistant's words are learned, to their end-of-turn.

        Raises:
            DataError: the chat template rewrites earlier turns, so that answers cannot be told from prompts.
        """
        encoded = Encoded([], [])
        for text, learned in self._spans([Turn(turn.role, self._harmless(turn.text)) for turn in turns]):
            for at, piece in enumerate(text.split(MEDIUM)):
                if at:
                    encoded.media_at.append(len(encoded.ids))
                ids = self._ids(piece)
                encoded.ids.extend(ids)
                encoded.labels.extend(ids if learned else [IGNORED] * len(ids))
        return encoded

    def prompt(self, turns: Sequence[Turn]) -> Encoded:
        """Turns up to where the assistant begins to answer."""
        encoded = self.conversation([*turns, Turn("assistant", "")])
        end = len(encoded.labels)
        while end and encoded.labels[end - 1] != IGNORED:
            end -= 1
        return Encoded(encoded.ids[:end], encoded.labels[:end], encoded.media_at)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated tokens, up to the end-of-text token."""
        stop = list(ids).index(self.eos) if self.eos in ids else len(ids)
        return str(self.tokenizer.decode(list(ids)[:stop], skip_special_tokens=True)).strip()

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def _harmless(self, text: str) -> str:
        """Data's text with a space in what spells a special token: no caption ends an answer or forges a turn."""
        return self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def _spans(self, turns: Sequence[Turn]) -> list[tuple[str, bool]]:
        if not getattr(self.tokenizer, "chat_template", None):
            end = self.tokenizer.eos_token
            return [
                (f"User: {turn.text}\nAssistant:", False) if turn.role == "user" else (f" {turn.text}{end}", True)
                for turn in turns
            ]
        spans, written = [], ""
        for at, turn in enumerate(turns):
            messages = [{"role": one.role, "content": one.text} for one in turns[: at + 1]]
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=turn.role == "user"
            )
            if not text.startswith(written):
                raise DataError(
                    "the tokenizer's chat template writes earlier turns differently once a later one follows; "
                    "answers cannot be told from prompts. Remedy: a tokenizer with another template."
                )
            spans.append((text[len(written) :], turn.role == "assistant"))
            written = text
        return spans


def clean(text: str) -> str:
    """Data's text without the character that stands for media."""
    return text.replace(MEDIUM, "")


def cut(encoded: Encoded, tokens: int) -> Encoded:
    """The first so many tokens; media that stood behind them stand at the end."""
    if len(encoded.ids) <= tokens:
        return encoded
    return Encoded(encoded.ids[:tokens], encoded.labels[:tokens], [min(at, tokens) for at in encoded.media_at])


def load_tokenizer(name: str, **options: Any) -> Any:
    """A tokenizer by hub id or folder; `bytes` is ByT5's, one token a UTF-8 byte (Xue et al. 2021), without any file.

    Raises:
        UserError: it cannot be loaded.
    """
    if name == "bytes":
        from transformers import ByT5Tokenizer

        return ByT5Tokenizer(extra_ids=0)
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        raise UserError(f"tokenizer {name}: cannot be loaded: {str(error).splitlines()[0]}") from error
