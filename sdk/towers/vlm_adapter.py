"""Low-rank updates of a vision-language model's language part: where they go, and writing them into the weights.

Training them needs the extra `train-vlm` (trl, peft); a merged model needs nothing but transformers.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from tellsign.errors import SettingError, TellsignError

from .vlm import folder_of, load_vlm

LANGUAGE_ATTENTION = r".*language_model\..*\.(q_proj|k_proj|v_proj|o_proj)"
"""The linear maps of attention in the language model, as peft's `target_modules`; the image encoder is left alone."""


class MissingExtraError(TellsignError):
    """Training a vision-language model needs packages that only the extra `train-vlm` brings."""


def check_extra() -> None:
    """See that trl, peft and datasets are installed.

    Raises
    ------
    MissingExtraError
        One of them is not.
    """
    try:
        for name in ("datasets", "peft", "trl"):
            importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f'training a vision-language model needs `pip install "tellsign[train-vlm]"` ({error})'
        ) from error


def merge_adapter(vlm: str | Path, adapter: Path, out: Path, *, download: bool = False) -> Path:
    """Write a model with its updates inside the weights: a folder that `load_vlm` takes, without peft.

    Parameters
    ----------
    vlm : str or Path
        The model that the adapter was trained on.
    adapter : Path
        Folder with `adapter_model.safetensors`.
    out : Path
        A new folder.
    download : bool
        See `load_vlm`.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    SettingError
        The adapter is not there, or the folder is not empty.
    MissingExtraError
        peft is not installed.
    """
    check_extra()
    peft: Any = importlib.import_module("peft")
    if not (adapter / "adapter_model.safetensors").is_file():
        raise SettingError("adapter", "a folder with adapter_model.safetensors", str(adapter))
    if out.exists() and any(out.iterdir()):
        raise SettingError("out", "a new folder", str(out))
    loaded = load_vlm(vlm, download=download, stored_dtype=True)
    merged = peft.PeftModel.from_pretrained(loaded.model, str(adapter), local_files_only=True).merge_and_unload()
    merged.save_pretrained(out)
    loaded.processor.save_pretrained(out)
    licence = folder_of(vlm) / "LICENSE"
    if licence.is_file():
        (out / "LICENSE").write_bytes(licence.read_bytes())
    return out
