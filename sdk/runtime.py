"""The one object that owns the device: which one it is, which models are on it, and who may use it now.

Plugins get it in `setup` and `detect`; importing this module does not import torch.
"""

from __future__ import annotations

import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from .deadline import paused
from .errors import SettingError, TimeLimitError
from .lease import Lease

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

BATCH_SIZE = {"cpu": 8, "mps": 16, "cuda": 64}
"""Pictures or crops per forward pass. On CPUs more than eight gains nothing and costs memory."""

BUDGET_SHARE = 0.8
"""Share of an accelerator's memory that models may fill; the rest is for what they compute."""

BUILD_LIMIT = 600.0
"""Seconds that building one model may take before it counts against the plugin's own limit."""


@attrs.frozen
class Counters:
    """What the runtime did so far."""

    builds: Counter[str]
    """Models built, by key."""
    forwards: Counter[str]
    """Shared forward passes, by key: one per view that was really computed."""
    evictions: int
    """Models that left the device for want of room."""


@attrs.define
class _Model:
    module: torch.nn.Module
    size: int
    on_device: bool = False
    uses: int = 0


class _Scope:
    """Results of shared forward passes within one batch."""

    def __init__(self, runtime: DeviceRuntime) -> None:
        self.runtime = runtime
        self.results: dict[tuple[str, str], Any] = {}


_scope: ContextVar[_Scope | None] = ContextVar("tellsign_scope", default=None)


class DeviceRuntime:
    """Owns the device for one Detector. Thread-safe.

    Parameters
    ----------
    device : str
        "auto" (CUDA where there is one, else MPS, else CPU), "cpu", "cuda", "cuda:<n>" or "mps".
    memory_budget : int, optional
        Bytes that the parameters and buffers of the models on the device may fill. By default four fifths of an
        accelerator's memory, and no limit on a CPU. The least recently used models make room; one model alone may
        pass the budget.
    batch_size : int, optional
        By default `BATCH_SIZE` of the device.
    lock_timeout : float
        Seconds to wait for the device before `TimeLimitError`.

    Raises
    ------
    SettingError
        A parameter that is not allowed. Whether the device exists shows at the first use of `device`.
    """

    def __init__(
        self,
        device: str = "auto",
        *,
        memory_budget: int | None = None,
        batch_size: int | None = None,
        lock_timeout: float = 300.0,
    ) -> None:
        if not isinstance(device, str) or not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
            raise SettingError("device", "'auto', 'cpu', 'cuda', 'cuda:<number>' or 'mps'", device)
        for name, value in (("memory_budget", memory_budget), ("batch_size", batch_size)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise SettingError(name, "an integer of at least 1, or None", value)
        if not lock_timeout > 0:
            raise SettingError("lock_timeout", "seconds above 0", lock_timeout)
        self._asked = device
        self._memory_budget = memory_budget
        self._batch_size = batch_size
        self.lock_timeout = lock_timeout
        self._lease = Lease("the device")
        self._state = threading.Lock()
        self._models: OrderedDict[str, _Model] = OrderedDict()  # least recently used first
        self._builds: Counter[str] = Counter()
        self._forwards: Counter[str] = Counter()
        self._evictions = 0

    @property
    def options(self) -> dict[str, str | int | float | None]:
        """What it was made with: the keywords for another one like it, in another process."""
        return {
            "device": self._asked,
            "memory_budget": self._memory_budget,
            "batch_size": self._batch_size,
            "lock_timeout": self.lock_timeout,
        }

    @cached_property
    def device(self) -> torch.device:
        """The device; found out, and torch imported, on first use.

        Raises
        ------
        SettingError
            The device that was asked for is not on this machine.
        """
        import torch

        cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        if self._asked == "auto":
            return torch.device("cuda" if cuda else "mps" if mps else "cpu")
        device = torch.device(self._asked)
        there = {"cpu": True, "mps": mps, "cuda": cuda and (device.index or 0) < torch.cuda.device_count()}
        if not there[device.type]:
            raise SettingError("device", "a device that torch finds on this machine", self._asked)
        return device

    @property
    def batch_size(self) -> int:
        """How many pictures or crops to put through a model at once."""
        return self._batch_size or BATCH_SIZE[self.device.type]

    @cached_property
    def memory_budget(self) -> int | None:
        """Bytes that models may fill on the device, None where there is no limit."""
        if self._memory_budget is not None or self.device.type == "cpu":
            return self._memory_budget
        import torch

        if self.device.type == "cuda":
            return int(BUDGET_SHARE * torch.cuda.get_device_properties(self.device).total_memory)
        return int(BUDGET_SHARE * torch.mps.recommended_max_memory())

    @property
    def counters(self) -> Counters:
        """A copy of the counts so far."""
        with self._state:
            return Counters(Counter(self._builds), Counter(self._forwards), self._evictions)

    @property
    def resident_bytes(self) -> int:
        """Bytes of the models that are on the device now."""
        with self._state:
            return self._resident_bytes()

    def _resident_bytes(self) -> int:
        return sum(m.size for m in self._models.values() if m.on_device)

    @contextmanager
    def use(self, key: str, build: Callable[[], torch.nn.Module]) -> Iterator[torch.nn.Module]:
        """Hold the device and a model on it for the body of a `with`.

        Parameters
        ----------
        key : str
            Names the model with all that makes it what it is (architecture, weights, adapter). Two plugins that use
            one key get one model.
        build : callable
            Makes the model, on the CPU. Called once per key; again only after a CPU's budget dropped the model.

        Yields
        ------
        torch.nn.Module
            In eval mode and on `device`. Do not keep it, and do not change it: others use it too.

        Raises
        ------
        TimeLimitError
            The device was not free within `lock_timeout`.
        TypeError
            `build` returned something else than a module.
        """
        with paused(self.lock_timeout):
            self._lease.acquire(self.lock_timeout)
        try:
            model = self._bring(key, build)
            try:
                yield model.module
            finally:
                with self._state:
                    model.uses -= 1
        finally:
            self._lease.release()

    def _bring(self, key: str, build: Callable[[], torch.nn.Module]) -> _Model:
        """The model under `key`, on the device and marked as used. The lease is held."""
        with self._state:
            model = self._models.get(key)
        if model is None:
            with paused(BUILD_LIMIT):
                module = build()
            model = self._new(key, module)
        with self._state:
            self._models[key] = model  # again, should `close` have come between
            self._models.move_to_end(key)
            model.uses += 1
            leaving = [] if model.on_device else self._make_room(model.size)
        try:
            for other in leaving:
                other.module.to("cpu")
            if leaving and self.device.type == "cuda":
                import torch

                torch.cuda.empty_cache()
            if not model.on_device:
                with paused(BUILD_LIMIT):
                    model.module.to(self.device)
                model.on_device = True
        except BaseException:
            with self._state:
                model.uses -= 1
            raise
        return model

    def _new(self, key: str, module: object) -> _Model:
        import torch

        if not isinstance(module, torch.nn.Module):
            raise TypeError(f"build of {key!r} must return a torch.nn.Module, got {type(module).__name__}")
        if not self._lease.held():  # given up while it was building; somebody else may have built by now
            raise TimeLimitError(f"building {key!r}")
        tensors = [*module.eval().parameters(), *module.buffers()]
        model = _Model(module, sum(t.numel() * t.element_size() for t in tensors))
        with self._state:
            self._models[key] = model
            self._builds[key] += 1
        return model

    def _make_room(self, size: int) -> list[_Model]:
        """Mark models as gone until `size` more bytes fit, and return those whose memory must be moved."""
        budget = self.memory_budget
        leaving: list[_Model] = []
        if budget is None:
            return leaving
        for key, model in list(self._models.items()):
            if self._resident_bytes() + size <= budget:
                break
            if model.on_device and not model.uses:
                model.on_device = False
                self._evictions += 1
                if self.device.type == "cpu":  # there is nowhere to move it to
                    del self._models[key]
                else:
                    leaving.append(model)
        return leaving

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Remember shared forward passes for the body of a `with`; the pipeline opens one around each batch."""
        token = _scope.set(_Scope(self))
        try:
            yield
        finally:
            _scope.reset(token)

    def shared_forward(self, key: str, view_key: str, compute: Callable[[], T]) -> T:
        """One forward pass per model and view, whoever asks for it.

        Parameters
        ----------
        key : str
            What is computed (model and which of its outputs).
        view_key : str
            The view's `key`.
        compute : callable
            Does it; it is called where nobody did within this batch.
        """
        return self.shared_forwards(key, [view_key], lambda _: [compute()])[0]

    def shared_forwards(
        self, key: str, view_keys: Sequence[str], compute: Callable[[Sequence[int]], Sequence[T]]
    ) -> list[T]:
        """The same for several views, so that those not yet computed go through the model together.

        `compute` is given the indices into `view_keys` that are missing and returns one result for each.

        Raises
        ------
        ValueError
            `compute` returned another number of results.
        """
        scope = _scope.get()
        known = scope.results if scope is not None and scope.runtime is self else {}
        missing = [i for i, view in enumerate(view_keys) if (key, view) not in known and view not in view_keys[:i]]
        if missing:
            results = compute(missing)
            if len(results) != len(missing):
                raise ValueError(f"compute of {key!r} must return {len(missing)} results, got {len(results)}")
            known.update({(key, view_keys[i]): result for i, result in zip(missing, results, strict=True)})
            with self._state:
                self._forwards[key] += len(missing)
        return [known[key, view] for view in view_keys]

    def autocast(self, enabled: bool = True) -> AbstractContextManager[Any]:
        """Half precision where it gains: on CUDA. Never use it for residuals or for rollout."""
        if not enabled or self.device.type != "cuda":
            return nullcontext()
        import torch

        return torch.autocast("cuda", dtype=torch.float16)

    def give_up(self, thread: threading.Thread) -> None:
        """Take the device from a thread that hangs, for good."""
        self._lease.give_up(thread)

    def close(self) -> None:
        """Forget every model; the runtime can be used again and builds them anew."""
        with self._state:
            self._models.clear()
        if self.__dict__.get("device") is not None and self.device.type == "cuda":
            import torch

            torch.cuda.empty_cache()


__all__ = ["BATCH_SIZE", "Counters", "DeviceRuntime"]
