"""Loads a vision-language model by name or from a folder, and refuses what would only seem to work.

Not imported by `tellsign.towers` itself: transformers come with it when a model is loaded.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tellsign.errors import SettingError, WeightsError
from tellsign.plugin import UnavailableError

MODEL_TYPE = "qwen2_5_vl"
"""The model class that this code is written for and tested with (`model_type` in config.json)."""

TOKENS = (256, 1024)
"""Image tokens per picture, fewest and most: 256 to 1024 times 28 x 28 pixels. The paper does not give its budget."""

_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "merges.txt", "vocab.txt"]
"""What is fetched of a repository: neither pickles nor code."""


class Vlm(nn.Module):
    """A model with its processor, as one thing that the device runtime can hold.

    Parameters
    ----------
    model : transformers.Qwen2_5_VLForConditionalGeneration
    processor : transformers.Qwen2_5_VLProcessor
    name : str
        What evidence calls it.
    """

    def __init__(self, model: nn.Module, processor: Any, name: str) -> None:
        super().__init__()
        self.model: Any = model
        self.processor = processor
        self.name = name

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def exact(self) -> bool:
        """Whether it computes in float32, so that a padded batch gives what each picture gives alone."""
        return bool(next(self.model.parameters()).dtype == torch.float32)


def source_of(vlm: str | Path) -> Path | tuple[str, str | None]:
    """Where a model is to come from: a folder, or repository and revision; looks at this machine only.

    Raises
    ------
    SettingError
        Neither a folder that is there nor a repository's name.
    """
    folder = Path(vlm)
    if str(vlm) and folder.is_dir():
        return folder
    match = re.fullmatch(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@([\w./-]+))?", str(vlm))
    if isinstance(vlm, Path) or match is None:
        allowed = "a folder that is there, or a repository such as Qwen/Qwen2.5-VL-7B-Instruct"
        raise SettingError("vlm", allowed, str(vlm))
    return match[1], match[2]


def folder_of(vlm: str | Path, *, download: bool = False) -> Path:
    """The folder with a model's files.

    Parameters
    ----------
    vlm : str or Path
        A folder, or a repository of the model hub: "Qwen/Qwen2.5-VL-7B-Instruct", "...@<revision>" for one commit. A
        folder of that name goes before the hub.
    download : bool
        Fetch the repository when it is not on this machine.

    Raises
    ------
    SettingError
        Neither a folder nor a repository's name.
    UnavailableError
        The repository is not on this machine and `download` is off.
    WeightsError
        It cannot be fetched.
    """
    source = source_of(vlm)
    if isinstance(source, Path):
        return source
    from huggingface_hub import snapshot_download

    repo, revision = source
    asked: dict[str, Any] = {"repo_id": repo, "revision": revision, "allow_patterns": _PATTERNS}
    try:
        return Path(snapshot_download(**asked, local_files_only=True))
    except Exception as error:  # not cached, whatever the hub's library calls that in its present version
        if not download:
            raise UnavailableError(
                f"the vision-language model {vlm} is not on this machine: fetch it with `hf download {repo}`, set vlm "
                "to a folder, or set download=true"
            ) from error
    try:
        return Path(snapshot_download(**asked))
    except Exception as error:
        raise WeightsError(str(vlm), f"cannot be had from the hub ({_first_line(error)})") from error


def load_vlm(
    vlm: str | Path,
    *,
    download: bool = False,
    stored_dtype: bool = False,
    tokens: tuple[int, int] = TOKENS,
) -> Vlm:
    """Build the model and its processor; what the plugin passes to `DeviceRuntime.use`.

    Weights are safetensors or nothing, and no code that comes with a model is run.

    Parameters
    ----------
    vlm, download
        See `folder_of`.
    stored_dtype : bool
        Keep the weights as they are stored, bfloat16 as a rule, which accelerators are made for; float32 otherwise.
    tokens : (int, int)
        Fewest and most image tokens per picture.

    Returns
    -------
    Vlm
        In eval mode, on the CPU.

    Raises
    ------
    SettingError, UnavailableError
        See `folder_of`.
    WeightsError
        A file is missing or damaged, or does not hold what it should; the message names it.
    """
    folder = folder_of(vlm, download=download)
    _check_config(folder)
    for file in _weights_files(folder):
        _check_safetensors(file)
    processor = load_processor(folder, tokens=tokens)
    transformers: Any = importlib.import_module("transformers")
    try:
        model, notes = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype="auto" if stored_dtype else torch.float32,
            ignore_mismatched_sizes=True,  # told below, by name
            output_loading_info=True,
        )
    except Exception as error:  # transformers lets everything through that lies below it
        raise WeightsError(str(folder), f"the weights do not fit config.json ({_first_line(error)})") from error
    _check_tensors(folder, notes)
    token = model.config.image_token_id
    if processor.image_token_id != token:
        raise WeightsError(
            str(folder / "tokenizer.json"),
            f"gives {processor.image_token} the id {processor.image_token_id}, config.json says {token}",
        )
    if (rows := model.get_input_embeddings().num_embeddings) < len(processor.tokenizer):
        raise WeightsError(
            str(folder / "tokenizer.json"), f"has {len(processor.tokenizer)} tokens, the model only {rows}"
        )
    end = model.generation_config.eos_token_id
    # Chat models come with sampling and a repetition penalty switched on, which `generate` would fall back on.
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=processor.tokenizer.eos_token_id if end is None else end,
        pad_token_id=processor.tokenizer.pad_token_id,
    )
    return Vlm(model.eval(), processor, name_of(vlm, folder))


def load_processor(folder: Path, *, tokens: tuple[int, int] = TOKENS) -> Any:
    """The processor of a model's folder, with the picture budget set.

    Raises
    ------
    WeightsError
        A file is missing or is none of this model's.
    """
    for names in (("tokenizer.json", "vocab.json"), ("preprocessor_config.json", "processor_config.json")):
        if not any((folder / n).is_file() for n in names):
            raise WeightsError(str(folder / names[0]), "the file is not there")
    transformers: Any = importlib.import_module("transformers")
    try:
        processor = transformers.Qwen2_5_VLProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        raise WeightsError(str(folder), f"holds no processor that can be read ({_first_line(error)})") from error
    if not processor.chat_template:
        raise WeightsError(
            str(folder / "chat_template.jinja"),
            "the file is not there, nor is there a template in tokenizer_config.json",
        )
    if processor.image_token_id in (None, processor.tokenizer.unk_token_id):
        raise WeightsError(str(folder / "tokenizer.json"), f"has no token {processor.image_token}")
    unit = (processor.image_processor.patch_size * processor.image_processor.merge_size) ** 2
    least, most = tokens
    if not 1 <= least <= most:
        raise SettingError("tokens", "fewest and most image tokens, 1 <= fewest <= most", tokens)
    processor.image_processor.size = {"shortest_edge": least * unit, "longest_edge": most * unit}
    if processor.tokenizer.pad_token_id is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    return processor


def _check_config(folder: Path) -> None:
    file = folder / "config.json"
    if not file.is_file():
        if (folder / "adapter_config.json").is_file():
            raise WeightsError(
                str(folder),
                "holds an adapter and no model: merge the two first (docs/vlm.md)",
            )
        raise WeightsError(str(file), "the file is not there")
    try:
        kind = json.loads(file.read_text(encoding="utf-8"))["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(str(file), f"is no model's configuration ({_first_line(error)})") from error
    if kind != MODEL_TYPE:
        raise WeightsError(str(file), f"is of a model of type {kind!r}; {MODEL_TYPE} is taken")


def _weights_files(folder: Path) -> Iterator[Path]:
    """The safetensors files of a model: one, or those that an index names."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if not index.is_file():
        if not single.is_file():
            others = sorted(p.name for p in folder.glob("*.bin"))
            also = f"; {others[0]} is not read: only safetensors are" if others else ""
            raise WeightsError(str(single), f"the file is not there{also}")
        yield single
        return
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(str(index), f"is no index of weights ({_first_line(error)})") from error
    for name in names:
        file = folder / str(name)
        if file.parent != folder:
            raise WeightsError(str(index), f"names a file outside its folder: {name}")
        if not file.is_file():
            raise WeightsError(str(file), f"the file is not there; {index.name} names it")
        yield file


def _check_safetensors(file: Path) -> None:
    """Read the header, which also says how long the file must be."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise WeightsError(str(file), f"cannot be read as safetensors: {_first_line(error)}") from error


def _check_tensors(folder: Path, notes: dict[str, Any]) -> None:
    """Refuse what transformers only warns of: it fills with random numbers what is missing or of another shape."""
    wrong = [f"{name} has shape {tuple(got)} instead of {tuple(want)}" for name, got, want in notes["mismatched_keys"]]
    wrong += [f"{name} is missing" for name in notes["missing_keys"]]
    wrong += [f"{name} is no part of the model" for name in notes["unexpected_keys"]]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise WeightsError(str(folder), f"the weights do not fit config.json: {min(wrong)}{more}")


def name_of(vlm: str | Path, folder: Path) -> str:
    """The repository with the commit that is cached, or the folder's own name."""
    if Path(vlm).is_dir():
        return f"vlm {folder.resolve().name}"
    return f"vlm {str(vlm).partition('@')[0]} {folder.name[:8]}"  # the cache names its snapshots after their commits


def _first_line(error: BaseException) -> str:
    words = str(error).strip().splitlines()
    return f"{type(error).__name__}: {words[0][:300]}" if words else type(error).__name__
