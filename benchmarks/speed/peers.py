"""The peers: the loop of open_clip's trainer on its own loader, and a plain transformers Trainer."""

from __future__ import annotations

import json
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks.speed.sizes import Size, Speed


def measure_open_clip(workspace: str, size: Size, out: str) -> float:
    """Stage 1 as open_clip does it: its webdataset pipeline, its model, its loss, AdamW, bf16 autocast on a GPU."""
    import open_clip
    import torch
    from open_clip_train.params import get_default_params  # type: ignore[import-untyped]

    device = torch.device(size.device)
    model, preprocess, tokenize = _open_clip(size)
    model = model.to(device).train()
    if size.compile:
        model = torch.compile(model)
    loss = open_clip.ClipLoss()
    defaults = get_default_params(size.model)
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    undecayed = {name for name, p in named if p.ndim < 2 or "bn" in name or "ln" in name or "bias" in name}
    groups = [
        {"params": [p for name, p in named if (name in undecayed) is free], "weight_decay": 0.0 if free else 0.2}
        for free in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(defaults["beta1"], defaults["beta2"]), eps=defaults["eps"])
    autocast: Any = (lambda: torch.autocast("cuda", torch.bfloat16)) if device.type == "cuda" else nullcontext
    batches = _shards(workspace, size, preprocess, tokenize)
    waited = begun = 0.0
    for step in range(size.warm + size.steps):
        if step == size.warm:
            _finish(device)
            begun, waited = time.monotonic(), 0.0
        wait_started = time.monotonic()
        images, texts = next(batches)
        waited += time.monotonic() - wait_started
        images, texts = images.to(device, non_blocking=True), texts.to(device, non_blocking=True)
        optimizer.zero_grad()
        with autocast():
            image_features, text_features, scale = model(images, texts)[:3]
            total = loss(image_features, text_features, scale)
        total.backward()
        optimizer.step()
        with torch.no_grad():
            _inner(model).logit_scale.clamp_(0, 4.6052)
    _finish(device)
    seconds = time.monotonic() - begun
    speed = Speed(size.steps * size.batch, seconds, data_wait=waited / seconds)
    speed.write(out)
    return speed.work


def _open_clip(size: Size) -> tuple[Any, Any, Any]:
    import open_clip
    from open_clip.transform import image_transform

    if size.clip is None:
        model, preprocess, _ = open_clip.create_model_and_transforms(size.model)
        return model, preprocess, open_clip.get_tokenizer(size.model)
    model = open_clip.CLIP(**size.clip)
    preprocess = image_transform(size.clip["vision_cfg"]["image_size"], is_train=True)
    return model, preprocess, open_clip.SimpleTokenizer(context_length=size.clip["text_cfg"]["context_length"])


def _shards(workspace: str, size: Size, preprocess: Any, tokenize: Any) -> Iterator[Any]:
    """Batches without an end from the release's shards, by open_clip's own pipeline, shards drawn with replacement."""
    import functools
    import inspect

    from open_clip_train import data  # type: ignore[import-untyped]

    # open_clip 3.3 asks for webdataset <= 0.2.86: later ones mark a shard's end, which its reader takes for a member
    # (github.com/mlfoundations/open_clip/issues/935). The fix given there: no mark.
    if "eof_value" in inspect.signature(data.tar_file_expander).parameters:
        data.tar_file_expander = functools.partial(data.tar_file_expander, eof_value=None)
    arguments = Namespace(
        train_data="::".join(map(str, shard_paths(workspace))),
        train_num_samples=size.batch * (size.warm + size.steps + 2 * size.workers),
        train_data_upsampling_factors=None,
        dataset_resampled=True,
        seed=0,
        batch_size=size.batch,
        workers=size.workers,
        world_size=1,
    )
    return iter(data.get_wds_dataset(arguments, preprocess, True, tokenizer=tokenize).dataloader)


def shard_paths(workspace: str) -> list[Path]:
    """The shards of a local workspace's latest release, in the manifest's order."""
    releases = Path(workspace) / "releases"
    manifest = json.loads((releases / (releases / "latest").read_text().strip() / "manifest.json").read_text())
    return [Path(workspace) / "shards" / shard["name"] for shard in manifest["shards"]]


def measure_trainer(workspace: str, size: Size, picture_tokens: int, out: str) -> float:
    """Stage 2 as a plain Trainer would: the captions, each behind as many stand-in tokens as ours has for a picture.

    It is spared the pictures: it reads, decodes and encodes none. Samples are tokenized before the clock starts, and
    padded to the longest of their batch, as the Trainer does by default.
    """
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainingArguments,
    )

    from training.data.text_codec import TextCodec, load_tokenizer

    codec = TextCodec(load_tokenizer("bytes"))
    rows = [_row(codec, caption, picture_tokens, size.pack_length) for caption in captions(workspace)]
    special = {"vocab_size": len(codec.tokenizer), "pad_token_id": codec.pad, "eos_token_id": codec.eos}
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**{**special, "bos_token_id": codec.start, **size.llm}), attn_implementation="sdpa"
    )
    collate = DataCollatorForLanguageModeling(codec.tokenizer, mlm=False)
    clock = _Clock(size, torch.device(size.device))

    def counted(features: list[dict[str, Any]]) -> Any:
        batch = collate(features)
        batch["real"] = torch.tensor([len(one["input_ids"]) for one in features])
        return batch

    class Counting(Trainer):
        """Tells the clock what a step holds; everything else is the Trainer's."""

        def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
            clock.count(int(inputs.pop("real").sum()), inputs["input_ids"].numel())
            return super().compute_loss(model, inputs, *arguments, **options)

    with tempfile.TemporaryDirectory(prefix="mmdata-speed-") as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=size.peer_micro,
            gradient_accumulation_steps=size.batch // size.peer_micro,
            max_steps=size.warm + size.steps,
            bf16=size.device == "cuda",
            use_cpu=size.device == "cpu",
            torch_compile=size.compile,
            dataloader_num_workers=size.workers,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            remove_unused_columns=False,
            disable_tqdm=True,
        )
        trainer = Counting(
            model=model, args=arguments, train_dataset=rows, data_collator=counted, callbacks=[clock.callback()]
        )
        trainer.train()
    speed = Speed(clock.real, clock.seconds, clock.padded)
    speed.write(out)
    return speed.work


def captions(workspace: str) -> list[str]:
    """Every caption of a release, read through webdataset."""
    import webdataset as wds

    shards = [str(path) for path in shard_paths(workspace)]
    dataset = wds.WebDataset(shards, shardshuffle=False, select_files=lambda name: name.endswith(".txt"))
    return [sample["txt"].decode() for sample in dataset]


def _row(codec: Any, caption: str, picture_tokens: int, longest: int) -> dict[str, list[int]]:
    ids = codec.caption(caption, 1).ids
    return {"input_ids": ([codec.pad] * picture_tokens + ids)[:longest]}  # padding's own token is never learned


class _Clock:
    """Counts tokens, and seconds from the end of the last warm step to the end of the last."""

    def __init__(self, size: Size, device: Any) -> None:
        self._size, self._device = size, device
        self.real = self.padded = self.seconds = 0.0
        self._begun: float | None = None

    def count(self, real: int, padded: int) -> None:
        if self._begun is not None:
            self.real += real
            self.padded += padded

    def callback(self) -> Any:
        from transformers import TrainerCallback

        clock = self

        class OnStep(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if state.global_step == clock._size.warm:
                    _finish(clock._device)
                    clock._begun = time.monotonic()
                elif state.global_step == clock._size.warm + clock._size.steps:
                    _finish(clock._device)
                    assert clock._begun is not None
                    clock.seconds = time.monotonic() - clock._begun

        return OnStep()


def _finish(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def _inner(model: Any) -> Any:
    return getattr(model, "_orig_mod", model)
