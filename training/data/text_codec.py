"""Conversations as tokens: which of the tokens are learned, and where the media belong among them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from mmdata.errors import DataError, UserError

MEDIA_PLACEHOLDER = "\ue000"  # stands for one medium in a text; a private-use character that is removed from data
IGNORED = -100  # the label of tokens that are not learned
_ANSWER = "mmdata"  # what the assistant says when the chat template is asked how it ends a turn

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Turn:
    """A message of one side; each MEDIA_PLACEHOLDER in the text stands for the next of the example's media."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Encoded:
    """An example in tokens."""

    ids: list[int]  # token ids, without columns for media
    labels: list[int]  # as long as `ids`; IGNORED where nothing is learned
    media_at: list[int] = field(default_factory=list)  # for each medium the index in `ids` that it comes before


class TextCodec:
    """Writes conversations with a Hugging Face tokenizer.

    Args: tokenizer: its chat template writes the turns; without one they become `User: …` and `Assistant: …`.
    Raises UserError: the tokenizer has no end-of-text token.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        if tokenizer.eos_token_id is None:
            raise UserError(
                "the LLM's tokenizer has no end-of-text token, so no answer could end. Remedy: another tokenizer."
            )
        self.eos = int(tokenizer.eos_token_id)
        self.start = int(tokenizer.bos_token_id if tokenizer.bos_token_id is not None else self.eos)
        self.pad = int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.eos)
        added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        special = sorted({*tokenizer.all_special_tokens, *added}, key=len, reverse=True)
        self._special = re.compile("|".join(re.escape(token) for token in special if len(token) > 1) or "(?!)")
        self._template_ends_turns = True
        self._closing = self._closing_of_template()
        self._template_ends_turns = bool(self._closing.strip())
        special_ids = set(tokenizer.convert_tokens_to_ids(special))
        closing_ids = self._ids(self._closing) if self._template_ends_turns else [self.eos]
        self.end_of_turn = next((token for token in closing_ids if token in special_ids), None)

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that end what is generated: the template's end of turn, and the end-of-text token."""
        return frozenset({self.eos, self.eos if self.end_of_turn is None else self.end_of_turn})

    @property
    def ending_problem(self) -> str | None:
        """Why the model may not know how to end an answer: its end-of-text token is not the template's end of turn."""
        if self.end_of_turn in (self.eos, None):
            return None
        end, eos = (self.tokenizer.convert_ids_to_tokens(number) for number in (self.end_of_turn, self.eos))
        return (
            f"the LLM's end-of-text token is {eos}, but its chat template ends a turn with {end}. This stage trains "
            f"answers to end with {end}, and generation stops at either. The model may have seen little of {end} so "
            "far. Remedy, if answers do not end: the LLM's instruction-tuned variant, whose end-of-text token is "
            f"{end}, or instruct.method = full."
        )

    def caption(self, text: str, media: int) -> Encoded:
        """Media, the start token, and then a caption, which is learned up to and with its end-of-text token."""
        ids = [*self._ids(self._without_special_tokens(without_placeholders(text))), self.eos]
        return Encoded([self.start, *ids], [IGNORED, *ids], [0] * media)

    def document(self, text: str) -> Encoded:
        """The start token and a document, all of whose text is learned, up to and with its end-of-text token.

        Args: text: each MEDIA_PLACEHOLDER in it stands for the next picture.
        """
        encoded = Encoded([self.start], [IGNORED])
        for number, piece in enumerate(self._without_special_tokens(text).split(MEDIA_PLACEHOLDER)):
            if number:
                encoded.media_at.append(len(encoded.ids))
            said = piece.strip()
            encoded.ids.extend(self._ids(f" {said}" if said and len(encoded.ids) > 1 else said))
        encoded.ids.append(self.eos)
        encoded.labels.extend(encoded.ids[1:])
        return encoded

    def conversation(self, turns: Sequence[Turn]) -> Encoded:
        """A conversation. What the assistant says is learned, up to and with the end of its turns.

        Raises DataError: the chat template rewrites earlier turns, so that answers cannot be told from prompts.
        Raises UserError: the chat template ends a turn with nothing that is a token of its own.
        """
        if self.end_of_turn is None:
            raise UserError(
                f"the LLM's chat template ends a turn with {self._closing!r}, in which its tokenizer has no special "
                f"token (its end-of-text token is {self.tokenizer.eos_token}), so no answer could end. "
                "Remedy: model.llm.tokenizer, one that has it as a special token."
            )
        encoded = Encoded([], [])
        for text, learned in self._spans([Turn(turn.role, self._without_special_tokens(turn.text)) for turn in turns]):
            for number, piece in enumerate(text.split(MEDIA_PLACEHOLDER)):
                if number:
                    encoded.media_at.append(len(encoded.ids))
                ids = self._ids(piece)
                encoded.ids.extend(ids)
                encoded.labels.extend(ids if learned else [IGNORED] * len(ids))
        return encoded

    def prompt(self, turns: Sequence[Turn]) -> Encoded:
        """A conversation up to the point where the assistant begins to answer."""
        encoded = self.conversation([*turns, Turn("assistant", "")])
        end = len(encoded.labels)
        while end and encoded.labels[end - 1] != IGNORED:
            end -= 1
        return Encoded(encoded.ids[:end], encoded.labels[:end], encoded.media_at)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated tokens, up to the end-of-text token."""
        stop = list(ids).index(self.eos) if self.eos in ids else len(ids)
        return str(self.tokenizer.decode(list(ids)[:stop], skip_special_tokens=True)).strip()

    def _closing_of_template(self) -> str:
        """What stands after an answer; empty if the template cannot write a conversation of two turns."""
        from jinja2 import TemplateError

        try:
            text, _ = self._spans([Turn("user", _ANSWER), Turn("assistant", _ANSWER)])[-1]
        except (DataError, TemplateError):
            return ""
        return text.rpartition(_ANSWER)[2]

    @cached_property
    def _template_takes_system(self) -> bool:
        """Whether the chat template has a system turn; some have none, and raise an error."""
        from jinja2 import TemplateError

        messages = [{"role": role, "content": "x"} for role in ("system", "user")]
        try:
            return bool(self.tokenizer.apply_chat_template(messages, tokenize=False))
        except TemplateError:
            return False

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def _without_special_tokens(self, text: str) -> str:
        """Break special tokens in data with a space, so that no caption can end an answer or forge a turn."""
        return self._special.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)

    def _spans(self, turns: Sequence[Turn]) -> list[tuple[str, bool]]:
        """The conversation in pieces, each with whether it is learned."""
        if not getattr(self.tokenizer, "chat_template", None):
            end = self.tokenizer.eos_token
            forms = {"system": "{}\n", "user": "User: {}\nAssistant:", "assistant": f" {{}}{end}"}
            return [(forms[turn.role].replace("{}", turn.text), turn.role == "assistant") for turn in turns]
        if turns[0].role == "system" and not self._template_takes_system:
            turns = [Turn("user", "\n".join(turn.text for turn in turns[:2])), *turns[2:]]
        spans, written = [], ""
        for at, turn in enumerate(turns):
            messages = [self._message(earlier) for earlier in turns[: at + 1]]
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=turn.role == "user"
            )
            if not text.startswith(written):
                raise DataError(
                    "the tokenizer's chat template writes earlier turns differently once a later one follows; "
                    "answers cannot be told from prompts. Remedy: a tokenizer with another template."
                )
            is_answer = turn.role == "assistant"
            end = self.tokenizer.eos_token if is_answer and not self._template_ends_turns else ""
            spans.append((text[len(written) :] + end, is_answer))
            written = text
        return spans

    def _message(self, turn: Turn) -> dict[str, Any]:
        content = [{"type": "text", "text": turn.text}] if self.template_reads_parts else turn.text
        return {"role": turn.role, "content": content}

    @cached_property
    def template_reads_parts(self) -> bool:
        """Whether the chat template loses a text that is not in a list of parts, as many vision-language models' do."""
        from jinja2 import TemplateError

        try:
            messages = [{"role": "user", "content": MEDIA_PLACEHOLDER}]
            return MEDIA_PLACEHOLDER not in self.tokenizer.apply_chat_template(messages, tokenize=False)
        except TemplateError:
            return True


def without_placeholders(text: str) -> str:
    """Text of data without the character that stands for media."""
    return text.replace(MEDIA_PLACEHOLDER, "")


def truncated(encoded: Encoded, tokens: int) -> Encoded:
    """The first `tokens` tokens; media that came after them move to the end."""
    if len(encoded.ids) <= tokens:
        return encoded
    return Encoded(encoded.ids[:tokens], encoded.labels[:tokens], [min(at, tokens) for at in encoded.media_at])


def load_tokenizer(name: str, **options: Any) -> Any:
    """A tokenizer by hub id or folder; `bytes` is ByT5's, with a token for each UTF-8 byte (Xue et al. 2021).

    Args: options: of AutoTokenizer.from_pretrained, such as `gguf_file`.
    Raises UserError: the tokenizer cannot be loaded.
    """
    if name == "bytes":
        from transformers import ByT5Tokenizer

        return ByT5Tokenizer(extra_ids=0)
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        raise UserError(
            f"tokenizer {name}: cannot be loaded: {str(error).splitlines()[0]}. Remedy: a hub id, a folder, or `bytes`."
        ) from error
