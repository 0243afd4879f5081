"""ONNX files, run on the CPU by onnxruntime (the extra `forge`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tellsign.errors import WeightsError

from .errors import ForgeError


class Session:
    """A network with one output.

    Parameters
    ----------
    file : Path
    inputs : int
        How many inputs it must have; they are given in the file's order.
    threads : int, default 1
        One thread gives the same bits everywhere and leaves the other cores to other processes.
    """

    def __init__(self, file: Path, *, inputs: int, threads: int = 1) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ForgeError("onnxruntime is not installed; pip install 'tellsign[forge]' brings it") from error
        if not file.is_file():
            raise WeightsError(str(file), "there is no such file")
        self.file = file
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise WeightsError(str(file), f"is no network that onnxruntime reads ({type(error).__name__})") from error
        self._names = [i.name for i in self._session.get_inputs()]
        if len(self._names) != inputs:
            raise WeightsError(str(file), f"takes {len(self._names)} inputs, and {inputs} are given here")

    def run(self, *arrays: NDArray[Any]) -> NDArray[Any]:
        """The first output.

        Raises
        ------
        ForgeError
            The network does not take arrays like these.
        """
        try:
            return np.asarray(self._session.run(None, dict(zip(self._names, arrays, strict=True)))[0])
        except Exception as error:  # onnxruntime's own exceptions share no base class
            shapes = ", ".join(f"{a.dtype} {a.shape}" for a in arrays)
            raise ForgeError(f"the network {self.file.name} does not run on {shapes}") from error
