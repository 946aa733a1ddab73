"""No pickle of somebody else's is ever decoded, and no code that lies beside a model ever runs."""

from __future__ import annotations

import ast
import io
import json
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from upath import UPath

from mmdata.config import Score, Source
from mmdata.errors import DataError, UserError
from mmdata.score import pretrained
from mmdata.score.audio_models import ClapScorer, Transcriber
from mmdata.select.clusters import read_clusters
from mmdata.sources.source_files import look_into, read_batches
from mmdata.storage.tables import read_table
from tests.support.hostile_tars import Touch
from tests.support.scoring import TINY
from tests.support.tiny_run import LLM
from training.checkpoint import checkpoints
from training.checkpoint.saver import save
from training.data.text_codec import load_tokenizer
from training.model.encoders import _hf_model, _open_clip
from training.model.llm import load_llm
from training.model_config import Audio, Encoder, Llm

ROOT = Path(__file__).resolve().parents[2]
CODE = """
from pathlib import Path
Path({mark!r}).write_text("ran")
from transformers import LlamaConfig, LlamaForCausalLM, ByT5Tokenizer
class Config(LlamaConfig):
    model_type = "strange"
class Model(LlamaForCausalLM):
    config_class = Config
class Tokenizer(ByT5Tokenizer):
    pass
"""


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """What is written if anything hostile runs; nothing may."""
    path = tmp_path / "mark"
    yield path
    assert not path.exists(), "it ran"


def pickles(mark: Path) -> dict[str, bytes]:
    """The side effect in each form that a weights file may take."""
    zipped, legacy = io.BytesIO(), io.BytesIO()
    torch.save({"state_dict": Touch(mark)}, zipped)
    torch.save({"state_dict": Touch(mark)}, legacy, _use_new_zipfile_serialization=False)
    return {"plain": pickle.dumps(Touch(mark)), "zip": zipped.getvalue(), "legacy": legacy.getvalue()}


def test_the_trap_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Touch(tmp_path / "trap")))
    assert (tmp_path / "trap").exists()


def scorer_folder(folder: Path, **text: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = {**TINY, "text_cfg": {**TINY["text_cfg"], **text}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return folder


def llm_folder(folder: Path) -> Path:
    from transformers import AutoConfig

    AutoConfig.for_model(**LLM, vocab_size=99).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("form", ["plain", "zip", "legacy"])
@pytest.mark.parametrize(
    "name", ["open_clip_pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"]
)
def test_a_scorers_weights(tmp_path: Path, mark: Path, name: str, form: str) -> None:
    folder = scorer_folder(tmp_path / "scorer")
    (folder / name).write_bytes(pickles(mark)[form])
    with pytest.raises(UserError):
        pretrained.load_model(Score(model=f"local-dir:{folder}", device="cpu"))
    with pytest.raises(UserError):
        _open_clip(Encoder(kind="open_clip", model=f"local-dir:{folder}"))


@pytest.mark.parametrize("form", ["plain", "zip", "legacy"])
def test_a_tuned_scorers_weights(tmp_path: Path, mark: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmdata.score.offline.build", lambda: (nn.Linear(1, 1), None, None))
    (tmp_path / "open_clip_config.json").write_text('{"base": "demo"}')
    (tmp_path / "open_clip_model.safetensors").write_bytes(pickles(mark)[form])
    with pytest.raises(UserError):
        pretrained.load_model(Score(model=f"local-dir:{tmp_path}", device="cpu"))


@pytest.mark.parametrize("form", ["plain", "zip", "legacy"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_the_weights_of_models_of_transformers(tmp_path: Path, mark: Path, name: str, form: str) -> None:
    folder = llm_folder(tmp_path / "model")
    (folder / name).write_bytes(pickles(mark)[form])
    readers: list[Callable[[], object]] = [
        lambda: load_llm(Llm(kind="hf", model=str(folder), tokenizer="bytes")),
        lambda: _hf_model(str(folder), None, "model.encoder"),
        lambda: ClapScorer(str(folder)),
        lambda: Transcriber(str(folder)),
    ]
    for read in readers:
        with pytest.raises(UserError):
            read()


def test_the_weights_of_a_sound_tower(tmp_path: Path, mark: Path) -> None:
    from transformers import Wav2Vec2Config

    from training.model.towers import AudioTower

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    Wav2Vec2Config(**small).save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickles(mark)["zip"])
    with pytest.raises(UserError):
        AudioTower(Audio(kind="wav2vec2", model=str(tmp_path)), 8)


@pytest.mark.parametrize("form", ["plain", "zip", "legacy"])
def test_a_gguf_file(tmp_path: Path, mark: Path, form: str) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "model.gguf").write_bytes(pickles(mark)[form])
    with pytest.raises(UserError):
        load_llm(Llm(kind="gguf", model=str(tmp_path / "model.gguf")))


def test_code_beside_a_model_of_transformers(tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda text="": asked.append(text) or "y")
    (tmp_path / "strange.py").write_text(CODE.format(mark=str(mark)))
    own = {"AutoConfig": "strange.Config", "AutoModelForCausalLM": "strange.Model", "AutoModel": "strange.Model"}
    (tmp_path / "config.json").write_text(json.dumps({**LLM, "model_type": "strange", "auto_map": own}))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Tokenizer", "auto_map": {"AutoTokenizer": ["strange.Tokenizer", None]}})
    )
    readers: list[Callable[[], object]] = [
        lambda: load_llm(Llm(kind="hf", model=str(tmp_path), tokenizer="bytes")),
        lambda: _hf_model(str(tmp_path), None, "model.encoder"),
        lambda: load_tokenizer(str(tmp_path)),
        lambda: Transcriber(str(tmp_path)),
    ]
    for read in readers:
        with pytest.raises(UserError):
            read()
    assert asked == [], "and nobody is asked whether it may run"


def test_code_that_a_scorers_own_configuration_asks_for(tmp_path: Path, mark: Path) -> None:
    """open_clip hands `tokenizer_kwargs` of a model's configuration on to transformers, `trust_remote_code` too."""
    import open_clip

    folder = scorer_folder(
        tmp_path / "scorer", hf_tokenizer_name="x", tokenizer_kwargs={"trust_remote_code": True}, tokenizer_mode=None
    )
    torch.save(open_clip.CLIP(**TINY).state_dict(), folder / "open_clip_pytorch_model.bin")
    (folder / "strange.py").write_text(CODE.format(mark=str(mark)))
    (folder / "config.json").write_text(json.dumps({**LLM, "model_type": "llama"}))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Tokenizer", "auto_map": {"AutoTokenizer": ["strange.Tokenizer", None]}})
    )
    with pytest.raises(UserError, match="comes with its own code"):
        pretrained.load_model(Score(model=f"local-dir:{folder}", device="cpu"))
    with pytest.raises(UserError, match="comes with its own code"):
        _open_clip(Encoder(kind="open_clip", model=f"local-dir:{folder}"))


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.zeros(1, 3)).sum().backward()
    optimizer.step()
    progress = checkpoints.Progress("align", 1, 8, "r", "d", {})
    folder = save(tmp_path, model, optimizer, progress, keep=1)
    for digest in folder.glob("*.sha256"):
        digest.unlink()  # whoever changes a file leaves them out, too
    return folder, model, optimizer


def read_all(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    checkpoints.restore(folder, model, optimizer)
    checkpoints.load_weights(folder, model, lambda name: True)


def test_a_checkpoint_of_ours_is_read(saved: tuple[Path, nn.Module, torch.optim.Optimizer]) -> None:
    folder, model, optimizer = saved
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        model.weight.zero_()
    optimizer.param_groups[0]["lr"] = 0.5
    read_all(folder, model, optimizer)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_a_checkpoints_metadata(mark: Path, saved: tuple[Path, nn.Module, torch.optim.Optimizer]) -> None:
    folder, model, optimizer = saved
    (folder / ".metadata").write_bytes(pickle.dumps(Touch(mark)))
    for read in (checkpoints.restore, lambda *args: checkpoints.load_weights(args[0], args[1], lambda name: True)):
        with pytest.raises(DataError, match=r"\.metadata: is not the metadata of a checkpoint"):
            read(folder, model, optimizer)


def test_a_checkpoint_names_no_file_elsewhere(saved: tuple[Path, nn.Module, torch.optim.Optimizer]) -> None:
    folder, model, optimizer = saved
    data = (folder / ".metadata").read_bytes()
    assert b"__0_0.distcp" in data
    (folder / ".metadata").write_bytes(data.replace(b"__0_0.distcp", b"../x/y/z.dis"))
    with pytest.raises(DataError, match="names a file outside the checkpoint"):
        read_all(folder, model, optimizer)


@pytest.mark.parametrize("which", ["tensor", "value"])
def test_what_a_checkpoint_stores(mark: Path, saved: tuple[Path, nn.Module, torch.optim.Optimizer], which: str) -> None:
    folder, model, optimizer = saved
    with (folder / ".metadata").open("rb") as file:
        metadata = pickle.load(file)
    place = next(
        place
        for index, place in metadata.storage_data.items()
        if ("param_groups" in index.fqn and index.fqn.endswith("lr")) == (which == "value")
    )
    data, trap = bytearray((folder / place.relative_path).read_bytes()), pickles(mark)["zip"]
    metadata.storage_data = {index: place if one is place else one for index, one in metadata.storage_data.items()}
    place.offset, place.length = len(data), len(trap)
    (folder / place.relative_path).write_bytes(bytes(data) + trap)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(DataError, match=r"not unpickled|Weights only load failed"):
        checkpoints.restore(folder, model, optimizer)


def test_stored_clusters(tmp_path: Path, mark: Path) -> None:
    held = {name: np.array([Touch(mark)], dtype=object) for name in ("centroids", "scorer", "rows", "configured")}
    np.savez(tmp_path / "clusters.npz", **held)
    with pytest.raises(DataError):
        read_clusters(UPath(tmp_path / "clusters.npz"))


def test_a_table_with_pickles_in_its_metadata(tmp_path: Path, mark: Path) -> None:
    """Arrow's old Python extension types were pickles in a field's metadata."""
    trap = pickle.dumps(Touch(mark))
    own = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": trap}
    fields = [pa.field("url", pa.string(), metadata=own), pa.field("caption", pa.string())]
    schema = pa.schema(fields, metadata={b"pandas": trap, b"mmdata": trap, b"ARROW:schema2": trap})
    table = pa.table({"url": ["https://host/a.jpg"], "caption": ["a"]}, schema=schema)
    path = tmp_path / "source.parquet"
    pq.write_table(table, path)
    source = Source(name="web", kind="pairs", files=str(path), columns={"url": "url", "caption": "caption"})
    assert look_into(source, UPath(path), path.stat().st_size).status == "ok"
    assert len(list(read_batches(source, UPath(path), 0, 1))) == 1
    read_table(UPath(path))


CALLS = {
    **{
        f"{module}.{name}": "unpickles"
        for module in ("pickle", "cPickle", "dill", "cloudpickle", "_pickle")
        for name in ("load", "loads")
    },
    **{"joblib.load": "unpickles", "shelve.open": "unpickles", "marshal.loads": "runs", "marshal.load": "runs"},
    **{f"{name}.read_pickle": "unpickles" for name in ("pd", "pandas")},
    **{f"yaml.{name}": "builds objects" for name in ("unsafe_load", "full_load", "load_all", "full_load_all")},
    **{"eval": "runs", "exec": "runs", "os.system": "a shell", "os.popen": "a shell", "commands.getoutput": "a shell"},
    **{"torch.jit.load": "runs", "torch.hub.load": "runs", "torch.package.PackageImporter": "runs"},
    **{
        "importlib.machinery.SourceFileLoader": "runs",
        "runpy.run_path": "runs",
        "tarfile.TarFile.extractall": "unpacks",
    },
}
UNPICKLERS = {"training/checkpoint/checkpoint_files.py"}  # with a list of what it may name
ARCHIVES = {
    "mmdata/workspace/media_tar.py",
    "mmdata/demo/scorer/clip_art.py",
}  # written; packages of the registry


def faults(path: Path) -> Iterator[str]:
    """What decodes more than data, in one file."""
    name = str(path.relative_to(ROOT))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef) and name not in UNPICKLERS:
            found = "an unpickler" if any("Unpickler" in ast.unparse(base) for base in node.bases) else None
        elif isinstance(node, ast.Import | ast.ImportFrom) and name not in ARCHIVES:
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            found = "tarfile follows what an archive asks for; see mmdata.storage.tar" if "tarfile" in names else None
        elif isinstance(node, ast.Call):
            found = fault_of_call(ast.unparse(node.func), {one.arg: ast.unparse(one.value) for one in node.keywords})
        else:
            continue
        if found is not None:
            yield f"{name}:{node.lineno}: {found}"


def fault_of_call(called: str, given: dict[str | None, str]) -> str | None:
    """Why a call is not made. Args: given: its keywords and their values, as they are written."""
    if called in CALLS:
        return f"{called} {CALLS[called]}"
    loads_auto = called.startswith("Auto") and called.endswith(".from_pretrained")
    faults = {
        "unpickles": given.get("weights_only", "True") != "True" or given.get("allow_pickle", "False") != "False",
        "has no weights_only=True": called == "torch.load" and "weights_only" not in given,
        "has no safe loader": called == "yaml.load" and given.get("Loader") not in ("yaml.SafeLoader", "_PlainLoader"),
        "runs what others wrote": given.get("trust_remote_code", "False") != "False" or "shell" in given,
        "unpacks": called.endswith(("extractall", ".unpack_archive")),
        "has no trust_remote_code=False": loads_auto and not {"trust_remote_code", None} & set(given),
    }
    return next((f"{called} {fault}" for fault, holds in faults.items() if holds), None)


def test_nothing_in_the_code_decodes_more_than_data() -> None:
    files = [path for folder in ("mmdata", "pipelines", "training") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100
    assert [fault for path in files for fault in faults(path)] == []


@pytest.mark.parametrize(
    "line",
    [
        "pickle.loads(b'')",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "yaml.load(f, Loader=yaml.Loader)",
        "yaml.unsafe_load(f)",
        "pd.read_pickle(f)",
        "joblib.load(f)",
        "eval(text)",
        "AutoModel.from_pretrained(name)",
        "AutoTokenizer.from_pretrained(name, trust_remote_code=True)",
        "subprocess.run(text, shell=True)",
        "tar.extractall()",
        "import tarfile",
        "class Mine(pickle.Unpickler): pass",
    ],
)
def test_what_is_looked_for_is_found(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "some.py").write_text(line)
    assert len(list(faults(tmp_path / "some.py"))) == 1
