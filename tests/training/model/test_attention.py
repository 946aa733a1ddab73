"""No sample of a packed row sees another, with any kernel; windows hold; under bf16 autocast all is bf16."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from mmdata.errors import UserError
from tests.support import fake_flash
from tests.support.tiny_run import LLM
from training.model.attention import PackedAttention, has_own_windows, is_bf16, keep_dtype_in_norms
from training.model.llm import load_llm
from training.model_config import Llm

DOCUMENTS = [[7, 1, 11, 5], [13, 3, 8]]  # tokens of the documents of each row
LENGTH = 24
KERNELS = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3")
WINDOWED = [(kernel, window) for kernel in KERNELS for window in (None, 4) if not (window and "flash" in kernel)]
QWEN3 = {**LLM, "model_type": "qwen3", "head_dim": 8, "tie_word_embeddings": True}
MISTRAL = {**LLM, "model_type": "mistral", "sliding_window": 4}


def language_model(**config: Any) -> Any:
    torch.manual_seed(0)
    llm, _ = load_llm(Llm(kind="config", config={**LLM, **config}, tokenizer="bytes"))
    keep_dtype_in_norms(llm)
    return llm.eval()


@pytest.fixture
def with_kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[PackedAttention, Any]]]:
    """Make a kernel run on a CPU: flash attention as a stand-in, in bf16; flex attention's own code, not compiled."""

    def make(kernel: str, window: int | None = None) -> tuple[PackedAttention, Any]:
        if kernel.startswith("flash"):
            fake_flash.install(monkeypatch)
            return PackedAttention(kernel, window), torch.autocast("cpu", torch.bfloat16)
        if kernel == "flex_attention":  # torch's eager code has a backward pass, which torch refuses on a CPU
            monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *_: None)
            monkeypatch.setattr("torch.nn.attention.flex_attention._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
            monkeypatch.setattr(PackedAttention, "kernel", lambda *_: kernel)
        return PackedAttention(kernel, window), nullcontext()

    with torch.compiler.set_stance("force_eager"):
        yield make


def packed(documents: list[list[int]] = DOCUMENTS) -> Tensor:
    """Position ids of packed rows; the rest of each row is padding."""
    rows = [torch.cat([torch.arange(n) for n in (*row, LENGTH - sum(row)) if n]) for row in documents]
    return torch.stack(rows)


def columns(row: int, document: int) -> slice:
    begin = sum(DOCUMENTS[row][:document])
    return slice(begin, begin + DOCUMENTS[row][document])


PLACES = [(row, document) for row, lengths in enumerate(DOCUMENTS) for document in range(len(lengths))]


def outcome(
    attention: PackedAttention, llm: Any, embeds: Tensor, learned: Tensor
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Logits, the gradient by the embeddings, and that of the weights, of a loss over the learned positions."""
    embeds = embeds.clone().requires_grad_()
    logits = llm.get_output_embeddings()(attention.hidden(llm, embeds, packed(), len(PLACES) + len(DOCUMENTS)))
    llm.zero_grad()
    logits.float()[learned].square().sum().backward()
    assert embeds.grad is not None
    return logits.detach(), embeds.grad, [p.grad.clone() for p in llm.parameters() if p.grad is not None]


@pytest.mark.parametrize(("kernel", "window"), WINDOWED)
def test_another_document_changes_no_bit_of_logits_and_gradients(
    with_kernel: Callable[..., Any], kernel: str, window: int | None
) -> None:
    llm = language_model()
    attention, autocast = with_kernel(kernel, window)
    embeds = torch.randn(len(DOCUMENTS), LENGTH, LLM["hidden_size"])
    for row, document in PLACES:
        others = torch.ones(embeds.shape[:2], dtype=torch.bool)
        others[row, columns(row, document)] = False
        changed = embeds.clone()
        changed[row, columns(row, document)] += 1.0
        with autocast:
            before, by_input, by_weight = outcome(attention, llm, embeds, others)
            after, _, by_weight_after = outcome(attention, llm, changed, others)
        assert torch.equal(before[others], after[others])
        assert not torch.equal(before[~others], after[~others])
        assert not by_input[~others].any() and by_input[others].abs().amax(1).min() > 0
        assert all(torch.equal(one, two) for one, two in zip(by_weight, by_weight_after, strict=True))


def alone(llm: Any, embeds_LD: Tensor, window: int | None) -> Tensor:
    """Last hidden states of one document, by a dense mask that is written out here."""
    length = len(embeds_LD)
    seen = torch.tensor([[0 <= q - k < (window or length) for k in range(length)] for q in range(length)])
    llm.config._attn_implementation = "eager"
    added = torch.zeros(1, 1, length, length).masked_fill(~seen, -1e30)
    outputs = llm.base_model(inputs_embeds=embeds_LD[None], attention_mask=added, use_cache=False)
    return outputs.last_hidden_state[0]


@pytest.mark.parametrize(("kernel", "window"), WINDOWED)
def test_a_packed_document_is_computed_as_if_alone(
    with_kernel: Callable[..., Any], kernel: str, window: int | None
) -> None:
    llm = language_model()
    attention, autocast = with_kernel(kernel, window)
    embeds = torch.randn(len(DOCUMENTS), LENGTH, LLM["hidden_size"])
    with torch.no_grad(), autocast:
        together = attention.hidden(llm, embeds, packed(), len(PLACES) + len(DOCUMENTS)).float()
    for row, document in PLACES:
        with torch.no_grad():
            expected = alone(llm, embeds[row, columns(row, document)], window)
        tolerance = 0.1 if "flash" in kernel else 2e-5  # of bf16, and of fp32
        torch.testing.assert_close(together[row, columns(row, document)], expected, rtol=0, atol=tolerance)


def generated(attention: PackedAttention, llm: Any, embeds_RLD: Tensor) -> Tensor:
    """Last hidden states of prompts of seven tokens, and of the tokens after them one by one."""
    from transformers import DynamicCache

    rows, length = embeds_RLD.shape[:2]
    cache, positions_RL = DynamicCache(config=llm.config), torch.arange(length).expand(rows, -1)
    parts = [slice(0, 7), *(slice(at, at + 1) for at in range(7, length))]
    steps = [attention.next_hidden(llm, embeds_RLD[:, part], positions_RL[:, part], cache) for part in parts]
    return torch.cat(steps, 1).float()


@pytest.mark.parametrize(("kernel", "window"), WINDOWED)
def test_generation_with_a_cache_is_the_dense_computation(
    with_kernel: Callable[..., Any], kernel: str, window: int | None
) -> None:
    llm = language_model()
    attention, autocast = with_kernel(kernel, window)
    embeds = torch.randn(2, 12, LLM["hidden_size"])
    changed = torch.stack([embeds[0] + 1.0, embeds[1]])
    with torch.no_grad(), autocast:
        cached, after = generated(attention, llm, embeds), generated(attention, llm, changed)
    assert torch.equal(cached[1], after[1]) and not torch.equal(cached[0], after[0])
    for row in range(2):
        with torch.no_grad():
            expected = alone(llm, embeds[row], window)
        torch.testing.assert_close(cached[row], expected, rtol=0, atol=0.1 if "flash" in kernel else 2e-5)


def test_flex_attention_leaves_a_model_its_own_windows(with_kernel: Callable[..., Any], monkeypatch: Any) -> None:
    llm = language_model(**MISTRAL)
    assert has_own_windows(llm) and not has_own_windows(language_model())
    monkeypatch.setattr("transformers.masking_utils.create_block_mask", _eager_block_mask)
    attention, _ = with_kernel("flex_attention")
    embeds = torch.randn(1, LENGTH, LLM["hidden_size"])
    with torch.no_grad():
        ours = attention.hidden(llm, embeds, torch.arange(LENGTH)[None], 1)[0]
        torch.testing.assert_close(ours, alone(llm, embeds[0], 4), rtol=0, atol=2e-5)


def _eager_block_mask(*args: Any, **options: Any) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    return create_block_mask(*args, **{**options, "_compile": False})


@pytest.mark.slow
def test_compiled_flex_attention_keeps_documents_apart() -> None:
    """On a CPU torch compiles its forward pass only."""
    llm = language_model(hidden_size=64)
    embeds = torch.randn(len(DOCUMENTS), LENGTH, 64)
    attention = PackedAttention("sdpa", 4)
    with torch.no_grad():
        expected = attention.hidden(llm, embeds, packed(), 9)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PackedAttention, "kernel", lambda *_: "flex_attention")
            torch.testing.assert_close(attention.hidden(llm, embeds, packed(), 9), expected, rtol=0, atol=2e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the GPU's own kernels need CUDA")
@pytest.mark.parametrize("setting", ["auto", "flex_attention", "flash_attention_2", "flash_attention_3"])
def test_the_kernels_of_a_gpu_keep_documents_apart(setting: str) -> None:
    from training.model.attention import FLASH, _is_installed

    if setting in FLASH and not _is_installed(setting):
        pytest.skip(f"{setting} is not installed")
    llm = language_model(hidden_size=64).cuda()
    embeds = torch.randn(len(DOCUMENTS), LENGTH, 64)
    attention = PackedAttention(setting, None)
    with torch.no_grad():
        with torch.autocast("cuda", torch.bfloat16):
            ours = attention.hidden(llm, embeds.cuda(), packed().cuda(), 9).float().cpu()
        for row, document in PLACES:
            expected = alone(llm.cpu(), embeds[row, columns(row, document)], None)
            torch.testing.assert_close(ours[row, columns(row, document)], expected, rtol=0, atol=0.1)


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., torch.device]:
    """Autocast as it is on a GPU, and which flash attention is installed there."""

    def make(dtype: torch.dtype | None, *installed: str) -> torch.device:
        monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: dtype is not None)
        monkeypatch.setattr(torch, "get_autocast_dtype", lambda _: dtype)
        monkeypatch.setattr("training.model.attention._is_installed", lambda flash: flash in installed)
        return torch.device("cuda")

    return make


WIDE = {"hidden_size": 64}  # heads of 16


@pytest.mark.parametrize(
    ("dtype", "installed", "window", "llm", "expected"),
    [
        (torch.bfloat16, (), None, WIDE, "flex_attention"),
        (torch.bfloat16, (), 8, WIDE, "flex_attention"),
        (torch.bfloat16, (), None, LLM, "sdpa"),  # heads of 8
        (torch.bfloat16, ("flash_attention_2",), None, WIDE, "flash_attention_2"),
        (torch.bfloat16, ("flash_attention_2", "flash_attention_3"), None, WIDE, "flash_attention_3"),
        (torch.bfloat16, ("flash_attention_2",), 8, WIDE, "flex_attention"),
        (torch.float16, ("flash_attention_2",), None, WIDE, "flash_attention_2"),
        (torch.float16, (), None, WIDE, "sdpa"),
        (None, ("flash_attention_2",), None, WIDE, "sdpa"),
    ],
)
def test_auto_is_the_fastest_kernel_that_a_gpu_can_run(
    on_a_gpu: Callable[..., torch.device],
    dtype: torch.dtype | None,
    installed: tuple[str, ...],
    window: int | None,
    llm: dict[str, Any],
    expected: str,
) -> None:
    model = language_model(**llm)
    assert PackedAttention("auto", window).kernel(model, on_a_gpu(dtype, *installed)) == expected


def test_sdpa_stands_in_where_a_kernel_is_missing(on_a_gpu: Callable[..., torch.device]) -> None:
    llm, cpu = language_model(), torch.device("cpu")
    for setting in ("auto", "flex_attention", "flash_attention_2", "flash_attention_3", "sdpa"):
        assert PackedAttention(setting, None).kernel(llm, cpu) == "sdpa"
    assert PackedAttention("eager", None).kernel(llm, cpu) == "eager"
    assert PackedAttention("flash_attention_2", None).kernel(llm, on_a_gpu(None, "flash_attention_2")) == "sdpa"
    with pytest.raises(UserError, match=r"flash_attention_2 needs a package .* Remedy: .*model\.llm\.attention=auto"):
        PackedAttention("flash_attention_2", None).kernel(llm, on_a_gpu(torch.bfloat16))


@pytest.mark.parametrize("config", [LLM, QWEN3], ids=["llama", "qwen3"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_residual_stream_queries_and_keys_are_bf16_under_autocast(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], dtype: torch.dtype
) -> None:
    """The weights stay fp32, and so do their gradients. fp16 has too small a range for a residual stream."""
    fake_flash.install(monkeypatch)
    llm = language_model(**config)
    given: list[torch.dtype] = []
    for module in llm.modules():
        if type(module).__name__.endswith("DecoderLayer") or isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(lambda _module, inputs: given.append(inputs[0].dtype) if inputs else None)
    embeds = torch.randn(len(DOCUMENTS), LENGTH, LLM["hidden_size"])
    with torch.autocast("cpu", dtype):
        assert is_bf16(torch.device("cpu")) == (dtype == torch.bfloat16)
        logits = llm.get_output_embeddings()(
            PackedAttention("flash_attention_2", None).hidden(llm, embeds, packed(), 9)
        )
    logits.float().square().mean().backward()
    assert len(fake_flash.DTYPES) >= 3 and set(fake_flash.DTYPES) == {dtype}
    assert len(given) >= LLM["num_hidden_layers"] * 8
    assert set(given) == ({torch.bfloat16} if dtype == torch.bfloat16 else {torch.float32, torch.float16})
    assert {(p.dtype, p.grad.dtype) for p in llm.parameters() if p.grad is not None} == {(torch.float32, torch.float32)}
