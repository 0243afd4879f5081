"""What a user holds: a Detector with its plugins, models and fusion."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from tellsign.schemas import Declaration, Evidence, Picture, Verdict

from .errors import SettingError, TellsignError
from .guard import Answer
from .host import PluginRecord
from .loading import load_guards, not_loaded
from .pipeline import Fusion, Gathered, Pipeline, Prepared, versions_of
from .runtime import DeviceRuntime
from .stability import ORIGINAL
from .stream import OnError, Progress, Unreadable, check_sources, run_ahead

if TYPE_CHECKING:
    from .decoding import Limits, Source

R = TypeVar("R")

SMALLEST_PRIOR = 1e-6
"""Beyond it a prior would outweigh any evidence."""


class Detector:
    """Holds plugins, loaded models and the fusion. Thread-safe; one per application is enough.

    Parameters
    ----------
    plugins : collection of str, optional
        Names of the plugins to use; by default all that are installed. The environment variables `TELLSIGN_PLUGINS`
        and `TELLSIGN_DISABLED_PLUGINS` narrow the choice further. A path, or text that ends in .py, is a plugin in
        one file (see `tellsign.onefile`).
    deny : collection of str
        Names of plugins not to use.
    commercial_only : bool
        Use no plugin whose declaration, or the licence of weights that it shares with others (`tellsign models list`),
        does not allow commercial use. `TELLSIGN_COMMERCIAL_ONLY=1` does the same.
    isolate : collection of str
        Names of plugins that get a process of their own, which is ended and started again where it crashes, hangs or
        fills the memory; "*" stands for all. `TELLSIGN_ISOLATE` adds to them. Costs a process start and the memory
        of what it imports.
    isolate_memory : int, optional
        Bytes that the process of an isolated plugin may have in memory (watched on Linux only); by default half of
        the machine's.
    device : str
        "auto", "cpu", "cuda", "cuda:<n>" or "mps".
    fusion : path or bundle, optional
        A fusion bundle's folder, or an object with its `fuse`; by default the bundle that is shipped.
    settings : mapping, optional
        Settings per plugin name.
    limits : Limits, optional
        What the decoder accepts.
    time_limit : float or mapping, optional
        Seconds that each plugin may take per picture, or seconds by plugin name; by default what it declares.
        Building a model and waiting for the device do not count.
    error_rate : float, optional
        Share of wrong prediction sets to accept, in (0, 1); by default the bundle's.
    stability_probe : bool
        Also look at the picture saved again, and abstain where the verdict flips. Costs two more forward passes.
    prior : float
        Share of AI pictures to expect, in [1e-6, 1 - 1e-6].
    strict : bool
        Raise `PluginError` where a plugin fails, instead of a warning in the verdict.
    memory_budget : int, optional
        Bytes that models may fill on the device.

    Raises
    ------
    SettingError
        A parameter that is not allowed.
    PluginLoadError
        Only when `strict`: a plugin cannot be loaded.

    Examples
    --------
    >>> with Detector() as detector:  # doctest: +SKIP
    ...     verdict = detector.detect("photo.jpg")
    """

    def __init__(
        self,
        *,
        plugins: Collection[str | os.PathLike[str]] | None = None,
        deny: Collection[str] = (),
        commercial_only: bool = False,
        isolate: Collection[str] = (),
        isolate_memory: int | None = None,
        device: str = "auto",
        fusion: str | os.PathLike[str] | Fusion | None = None,
        settings: Mapping[str, Mapping[str, object]] | None = None,
        limits: Limits | None = None,
        time_limit: float | Mapping[str, float] | None = None,
        error_rate: float | None = None,
        stability_probe: bool = True,
        prior: float = 0.5,
        strict: bool = False,
        memory_budget: int | None = None,
    ) -> None:
        for parameter, names in (("plugins", plugins), ("deny", deny), ("isolate", isolate)):
            if isinstance(names, str):
                raise SettingError(parameter, "a list of names, or None", names)
        for seconds in time_limit.values() if isinstance(time_limit, Mapping) else [time_limit]:
            if seconds is not None and not (_is_number(seconds) and seconds > 0):
                raise SettingError("time_limit", "seconds above 0, such seconds by plugin name, or None", seconds)
        if isolate_memory is not None and not (isinstance(isolate_memory, int) and isolate_memory > 0):
            raise SettingError("isolate_memory", "bytes above 0, or None", isolate_memory)
        if fusion is not None and not isinstance(fusion, str | os.PathLike) and not hasattr(fusion, "fuse"):
            raise SettingError("fusion", "the folder of a bundle, an object with a method `fuse`, or None", fusion)
        if error_rate is not None and not (_is_number(error_rate) and 0 < error_rate < 1):
            raise SettingError("error_rate", "a number between 0 and 1, both excluded, or None", error_rate)
        self._prior, self._error_rate = _checked_prior(prior), error_rate
        self._fusion_given = fusion
        self._fusion_loaded: tuple[Fusion, dict[str, str]] | None = None
        self._fusion_lock = threading.Lock()
        self._closed = False

        runtime = DeviceRuntime(device, memory_budget=memory_budget)
        if device not in ("auto", "cpu"):
            _ = runtime.device  # one that is not there is the caller's mistake, not some plugin's failure
        guards, self._records = load_guards(
            runtime,
            plugins,
            settings or {},
            time_limit=time_limit,
            strict=strict,
            deny=deny,
            isolate=isolate,
            isolate_memory=isolate_memory,
            commercial_only=commercial_only,
        )
        self._pipeline = Pipeline(
            guards=guards,
            runtime=runtime,
            limits=limits,
            stability_probe=stability_probe,
            strict=strict,
            notices=not_loaded(self._records),
        )

    @property
    def records(self) -> tuple[PluginRecord, ...]:
        """Every installed plugin with what became of it, sorted by name."""
        return self._records

    @property
    def declarations(self) -> dict[str, Declaration]:
        """Of the plugins that take part, by name."""
        return self._pipeline.declarations

    @property
    def versions(self) -> dict[str, str]:
        """Of tellsign, its schema, every plugin that takes part, and the fusion bundle."""
        return dict(self._fusion()[1])

    @property
    def limits(self) -> Limits | None:
        """What the decoder accepts, None for its default."""
        return self._pipeline.limits

    @property
    def runtime(self) -> DeviceRuntime:
        """The object that owns the device; its `counters` say what was built and computed."""
        return self._pipeline.runtime

    def detect(self, source: Source | Picture, *, prior: float | None = None) -> Verdict:
        """Say what a picture is.

        Parameters
        ----------
        source : path, bytes, binary file object, PIL.Image.Image, numpy array or Picture
            An array is RGB or grey uint8, (H, W, 3), (H, W, 4) or (H, W).
        prior : float, optional
            Share of AI pictures to expect, in [1e-6, 1 - 1e-6], for this picture only.

        Raises
        ------
        DecodeError
            The picture cannot be read.
        """
        self._check_open()
        conclude, pipeline = self._conclude(prior), self._pipeline
        (gathered,) = pipeline.run([pipeline.prepare(source, probe=pipeline.stability_probe)])
        (verdict,) = conclude([gathered])
        return verdict

    @overload
    def detect_many(
        self,
        sources: Iterable[Source | Picture],
        *,
        prior: float | None = None,
        batch_size: int | None = None,
        progress: Progress = False,
        on_error: Literal["raise"] = "raise",
    ) -> Iterator[Verdict]: ...
    @overload
    def detect_many(
        self,
        sources: Iterable[Source | Picture],
        *,
        prior: float | None = None,
        batch_size: int | None = None,
        progress: Progress = False,
        on_error: OnError,
    ) -> Iterator[Verdict | Unreadable]: ...
    def detect_many(
        self,
        sources: Iterable[Source | Picture],
        *,
        prior: float | None = None,
        batch_size: int | None = None,
        progress: Progress = False,
        on_error: OnError = "raise",
    ) -> Iterator[Verdict | Unreadable]:
        """Say what many pictures are: one item per source, in their order, lazily.

        Pictures are decoded in threads while the device works on those before them. At most two batches are in
        memory, whatever the number of sources.

        Parameters
        ----------
        sources : iterable
            Of what `detect` takes. Read one batch ahead.
        prior : float, optional
            As in `detect`.
        batch_size : int, optional
            Pictures per batch; by default the device's.
        progress : bool or callable
            True shows a bar; a callable is given (pictures done, pictures in all or None).
        on_error : "raise" or "return"
            For a picture that cannot be read: raise its `DecodeError` when its turn comes (and end), or yield
            `Unreadable` in its place.
        """
        conclude, pipeline = self._conclude(prior), self._pipeline

        def finish(batch: Sequence[Prepared]) -> list[Verdict]:
            return conclude(pipeline.run(batch))

        return self._many(sources, finish, pipeline.stability_probe, batch_size, progress, on_error)

    def collect(self, source: Source | Picture) -> tuple[Evidence, ...]:
        """What the plugins say about a picture, without fusion: what a fusion is trained on.

        Raises
        ------
        DecodeError
            The picture cannot be read.
        """
        self._check_open()
        (gathered,) = self._pipeline.run([self._pipeline.prepare(source)])
        return gathered.evidence

    def conclude(self, evidence: Iterable[Evidence], *, width: int, height: int, prior: float | None = None) -> Verdict:
        """The verdict on what `collect` gave, no plugin being asked again and no copy looked at.

        Parameters
        ----------
        evidence : iterable of Evidence
            Of plugins that take part, in any order; leave out a plugin's, and the verdict is the one without it.
        width, height : int
            Of the picture, in pixels.
        prior : float, optional
            As in `detect`.

        Raises
        ------
        SettingError
            Evidence of a plugin that does not take part.
        """
        self._check_open()
        answers: dict[str, list[Evidence]] = {name: [] for name in self.declarations}
        for one in evidence:
            if one.plugin not in answers:
                raise SettingError("evidence", f"evidence of {', '.join(answers)}", one.plugin)
            answers[one.plugin].append(one)
        seen = Prepared(source=None, width=width, height=height, views={}, broken={}, timings={}, key="0", picture=None)
        said = Gathered(seen)
        said.answers[ORIGINAL] = {name: Answer(tuple(found)) for name, found in answers.items()}
        (verdict,) = self._conclude(prior)([said])
        return verdict

    @overload
    def collect_many(
        self,
        sources: Iterable[Source | Picture],
        *,
        batch_size: int | None = None,
        progress: Progress = False,
        on_error: Literal["raise"] = "raise",
    ) -> Iterator[tuple[Evidence, ...]]: ...
    @overload
    def collect_many(
        self,
        sources: Iterable[Source | Picture],
        *,
        batch_size: int | None = None,
        progress: Progress = False,
        on_error: OnError,
    ) -> Iterator[tuple[Evidence, ...] | Unreadable]: ...
    def collect_many(
        self,
        sources: Iterable[Source | Picture],
        *,
        batch_size: int | None = None,
        progress: Progress = False,
        on_error: OnError = "raise",
    ) -> Iterator[tuple[Evidence, ...] | Unreadable]:
        """`collect` for many pictures, with the parameters of `detect_many`."""

        def finish(batch: Sequence[Prepared]) -> list[tuple[Evidence, ...]]:
            return [one.evidence for one in self._pipeline.run(batch)]

        return self._many(sources, finish, False, batch_size, progress, on_error)

    def _many(
        self,
        sources: Iterable[Any],
        finish: Callable[[Sequence[Prepared]], Sequence[R]],
        probe: bool,
        batch_size: int | None,
        progress: Progress,
        on_error: OnError,
    ) -> Iterator[R | Unreadable]:
        self._check_open()
        check_sources(sources)
        if on_error not in ("raise", "return"):
            raise SettingError("on_error", "'raise' or 'return'", on_error)
        if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
            raise SettingError("batch_size", "an integer of at least 1, or None", batch_size)
        return run_ahead(
            sources,
            lambda source, key: self._pipeline.prepare(source, key=key, probe=probe),
            finish,
            batch_size=batch_size or self.runtime.batch_size,
            on_error=on_error,
            progress=progress,
        )

    def _fusion(self) -> tuple[Fusion, dict[str, str]]:
        """The fusion and all versions; loaded when first needed: collecting evidence to train one needs none."""
        with self._fusion_lock:
            if self._fusion_loaded is None:
                fusion = self._fusion_given
                if fusion is None or isinstance(fusion, str | os.PathLike):
                    from tellsign.fusion.bundle import Bundle

                    fusion = Bundle.load(None if fusion is None else Path(fusion))
                self._fusion_loaded = fusion, versions_of(self._pipeline.guards, fusion)
            return self._fusion_loaded

    def _conclude(self, prior: float | None) -> Callable[[Sequence[Gathered]], list[Verdict]]:
        """What makes verdicts at this prior, None being the Detector's own."""
        fusion, versions = self._fusion()
        asked = self._prior if prior is None else _checked_prior(prior)

        def conclude(batch: Sequence[Gathered]) -> list[Verdict]:
            return self._pipeline.conclude(batch, fusion, prior=asked, error_rate=self._error_rate, versions=versions)

        return conclude

    def _check_open(self) -> None:
        if self._closed:
            raise TellsignError("this Detector is closed: make a new one")

    def close(self) -> None:
        """Let go of models and threads; the Detector cannot be used again."""
        self._closed = True
        self._pipeline.close()

    def __enter__(self) -> Detector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _checked_prior(prior: float) -> float:
    if not _is_number(prior) or not SMALLEST_PRIOR <= prior <= 1 - SMALLEST_PRIOR:
        raise SettingError("prior", f"a number between {SMALLEST_PRIOR:g} and 1 - {SMALLEST_PRIOR:g}", prior)
    return float(prior)


__all__ = ["Detector"]
