import threading
import time

import pytest
import torch

from tellsign.errors import SettingError, TimeLimitError
from tellsign.lease import Lease
from tellsign.runtime import DeviceRuntime
from tellsign.worker import QuarantinedError, Worker


def linear(width):
    return lambda: torch.nn.Linear(width, width, bias=False)  # width * width * 4 bytes


def in_threads(count, work):
    """Run `work(number)` in threads that start together; their errors are raised here."""
    errors, barrier = [], threading.Barrier(count)

    def run(number):
        try:
            barrier.wait()
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


# -- models -------------------------------------------------------------------------------------------------------


def test_a_model_is_built_once_under_threads_and_used_by_one_at_a_time():
    runtime, inside, seen = DeviceRuntime("cpu"), [], []

    def build():
        time.sleep(0.05)
        return torch.nn.Linear(4, 4)

    def work(number):
        for _ in range(5):
            with runtime.use("tower", build) as model:
                inside.append(number)
                assert len(inside) == 1
                seen.append(model)
                time.sleep(0.001)
                inside.pop()

    in_threads(8, work)
    assert len({id(m) for m in seen}) == 1
    assert runtime.counters.builds == {"tower": 1}


def test_models_come_in_eval_mode_on_the_device():
    runtime = DeviceRuntime("cpu")
    with runtime.use("drop", lambda: torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(2, 2))) as model:
        assert not any(m.training for m in model.modules())
        assert next(model.parameters()).device == runtime.device


def test_the_least_recently_used_model_leaves_when_the_budget_is_reached():
    runtime = DeviceRuntime("cpu", memory_budget=2 * 4 * 16 * 16)
    for key in ("a", "b", "a", "c"):  # b is the one that nobody asked for lately
        with runtime.use(key, linear(16)):
            pass
    assert runtime.counters.evictions == 1
    assert runtime.resident_bytes == 2 * 4 * 16 * 16
    for key in ("a", "c", "b"):
        with runtime.use(key, linear(16)):
            pass
    assert runtime.counters.builds == {"a": 1, "b": 2, "c": 1}


def test_a_model_in_use_is_not_evicted_and_one_alone_may_pass_the_budget():
    runtime = DeviceRuntime("cpu", memory_budget=1)
    with runtime.use("a", linear(8)) as first:
        with runtime.use("b", linear(8)):
            pass
        with runtime.use("a", linear(8)) as again:
            assert again is first
    assert runtime.counters.builds == {"a": 1, "b": 1}


def test_without_a_budget_nothing_leaves():
    runtime = DeviceRuntime("cpu")
    for n in range(10):
        with runtime.use(f"model {n}", linear(64)):
            pass
    assert runtime.counters.evictions == 0
    assert runtime.memory_budget is None
    assert runtime.resident_bytes == 10 * 4 * 64 * 64
    runtime.close()
    assert runtime.resident_bytes == 0


def test_buffers_count_for_the_budget():
    runtime = DeviceRuntime("cpu")
    with runtime.use("norm", lambda: torch.nn.BatchNorm1d(10)):
        assert runtime.resident_bytes == 4 * 10 * 4 + 8  # weight, bias, mean, variance, and a count


def test_a_build_that_raises_leaves_nothing_behind():
    runtime = DeviceRuntime("cpu")

    def build():
        raise OSError("no weights")

    for _ in range(2):
        with pytest.raises(OSError, match="no weights"), runtime.use("tower", build):
            pass
    words = r"build of 'tower' must return a torch\.nn\.Module, got dict"
    with pytest.raises(TypeError, match=words), runtime.use("tower", dict):
        pass
    with runtime.use("tower", linear(2)):
        pass
    assert runtime.counters.builds == {"tower": 1}


# -- shared forward passes ----------------------------------------------------------------------------------------


def test_a_forward_pass_is_shared_within_a_scope_and_counted_once_per_view():
    runtime = DeviceRuntime("cpu")
    with runtime.scope():
        first = runtime.shared_forward("tower", "1", object)
        assert runtime.shared_forward("tower", "1", object) is first
        assert runtime.shared_forward("tower", "2", object) is not first
        assert runtime.shared_forward("other", "1", object) is not first
    assert runtime.counters.forwards == {"tower": 2, "other": 1}
    with runtime.scope():
        assert runtime.shared_forward("tower", "1", object) is not first
    assert runtime.counters.forwards["tower"] == 3


def test_several_views_go_through_together_and_only_those_that_are_missing():
    runtime, asked = DeviceRuntime("cpu"), []

    def compute(missing):
        asked.append(list(missing))
        return [f"result {i}" for i in missing]

    with runtime.scope():
        runtime.shared_forward("tower", "b", lambda: "known")
        results = runtime.shared_forwards("tower", ["a", "b", "c", "a"], compute)
    assert asked == [[0, 2]]
    assert results == ["result 0", "known", "result 2", "result 0"]
    with pytest.raises(ValueError, match="compute of 'tower' must return 1 results, got 2"):
        runtime.shared_forwards("tower", ["a"], lambda _: [1, 2])


def test_outside_a_scope_nothing_is_remembered():
    runtime = DeviceRuntime("cpu")
    assert runtime.shared_forward("tower", "1", object) is not runtime.shared_forward("tower", "1", object)
    assert runtime.counters.forwards == {"tower": 2}


def test_scopes_of_other_threads_and_runtimes_are_apart():
    runtime, other = DeviceRuntime("cpu"), DeviceRuntime("cpu")
    results = set()

    def work(number):
        with runtime.scope():
            results.add(runtime.shared_forward("tower", "0", lambda: number))

    in_threads(8, work)
    assert results == set(range(8))
    with runtime.scope():
        runtime.shared_forward("tower", "0", lambda: "mine")
        assert other.shared_forward("tower", "0", lambda: "other's") == "other's"


def test_a_scope_reaches_into_a_worker():
    runtime, worker = DeviceRuntime("cpu"), Worker("w")
    with runtime.scope():
        first = runtime.shared_forward("tower", "0", object)
        assert worker.call(lambda: runtime.shared_forward("tower", "0", object), 5).value is first


# -- the device ---------------------------------------------------------------------------------------------------


def test_auto_takes_what_torch_finds(monkeypatch):
    found = DeviceRuntime().device.type
    assert found == ("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert DeviceRuntime().device.type == "cpu"
    with pytest.raises(SettingError, match="device takes a device that torch finds on this machine, got 'cuda:1'"):
        _ = DeviceRuntime("cuda:1").device


def test_batch_size_is_eight_on_cpus_unless_set():
    assert DeviceRuntime("cpu").batch_size == 8
    assert DeviceRuntime("cpu", batch_size=3).batch_size == 3


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"device": "gpu"}, "device"),
        ({"device": None}, "device"),
        ({"batch_size": 0}, "batch_size"),
        ({"memory_budget": 1.5}, "memory_budget"),
        ({"lock_timeout": 0}, "lock_timeout"),
    ],
)
def test_settings_that_are_not_allowed_are_named(options, parameter):
    with pytest.raises(SettingError) as caught:
        DeviceRuntime(**options)
    assert caught.value.parameter == parameter


def test_autocast_changes_nothing_on_a_cpu():
    with DeviceRuntime("cpu").autocast():
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.float32


# -- the lock -----------------------------------------------------------------------------------------------------


def test_the_device_is_waited_for_with_a_deadline():
    runtime, holding, done = DeviceRuntime("cpu", lock_timeout=0.1), threading.Event(), threading.Event()

    def hold():
        with runtime.use("a", linear(2)):
            holding.set()
            done.wait(10)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    assert holding.wait(10)
    with pytest.raises(TimeLimitError, match="waiting for the device"), runtime.use("a", linear(2)):
        pass
    done.set()
    thread.join(10)
    with runtime.use("a", linear(2)):
        pass


def test_a_thread_that_hangs_loses_the_device_for_good():
    runtime, holding, wake, outcome = DeviceRuntime("cpu", lock_timeout=5), threading.Event(), threading.Event(), []

    def hang():
        try:
            with runtime.use("a", linear(2)):
                holding.set()
                wake.wait(10)
            with runtime.use("a", linear(2)):
                outcome.append("got it again")
        except TimeLimitError as error:
            outcome.append(str(error))

    thread = threading.Thread(target=hang, name="sleeper", daemon=True)
    thread.start()
    assert holding.wait(10)
    runtime.give_up(thread)
    with runtime.use("a", linear(2)):  # free at once
        wake.set()
        thread.join(10)  # its late release must not take the device from us
        assert runtime._lease.held()
    assert outcome == ["an earlier call in sleeper, which does not get the device again, did not end in time"]


def test_a_build_that_ends_after_its_thread_was_given_up_is_thrown_away():
    runtime, building, wake = DeviceRuntime("cpu"), threading.Event(), threading.Event()
    raised = []

    def build():
        building.set()
        wake.wait(10)
        return torch.nn.Linear(2, 2)

    def work():
        try:
            with runtime.use("a", build):
                raised.append("used")
        except TimeLimitError:
            raised.append("refused")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert building.wait(10)
    runtime.give_up(thread)
    wake.set()
    thread.join(10)
    assert raised == ["refused"]
    assert runtime.counters.builds == {}


def test_the_lock_is_first_come_first_served():
    lease, order, threads = Lease(), [], []

    def work(number):
        lease.acquire(10)
        order.append(number)
        lease.release()

    lease.acquire(1)
    for number in range(5):
        thread = threading.Thread(target=work, args=(number,), daemon=True)
        thread.start()
        threads.append(thread)
        while len(lease._line) <= number:
            time.sleep(0.001)
    lease.release()
    for thread in threads:
        thread.join(10)
    assert order == [0, 1, 2, 3, 4]


# -- workers and their clock --------------------------------------------------------------------------------------


def test_a_worker_returns_values_errors_and_seconds():
    worker = Worker("w")
    outcome = worker.call(lambda: time.sleep(0.05) or 7, 5)
    assert (outcome.value, outcome.error) == (7, None)
    assert outcome.seconds >= 0.05

    def leave():
        raise SystemExit(3)

    assert isinstance(worker.call(leave, 5).error, SystemExit)
    assert worker.call(lambda: 8, 5).value == 8


def test_a_call_past_its_limit_quarantines_the_worker_and_frees_the_queue():
    worker, results = Worker("w"), []

    def work(number):
        try:
            worker.call(lambda: time.sleep(30), 0.3)
        except (TimeLimitError, QuarantinedError) as error:
            results.append(type(error))

    began = time.monotonic()
    in_threads(4, work)
    assert time.monotonic() - began < 5
    assert sorted(t.__name__ for t in results) == ["QuarantinedError"] * 3 + ["TimeLimitError"]
    assert worker.hung
    with pytest.raises(QuarantinedError):
        worker.call(lambda: 1, 5)


def test_waiting_for_ones_turn_does_not_count():
    worker, results = Worker("w"), []
    in_threads(4, lambda _: results.append(worker.call(lambda: time.sleep(0.2) or 1, 0.5).value))
    assert results == [1, 1, 1, 1]  # the last one waited longer than its limit


def test_waiting_for_the_device_and_building_do_not_count():
    runtime, holding = DeviceRuntime("cpu"), threading.Event()

    def hold():
        with runtime.use("a", linear(2)):
            holding.set()
            time.sleep(0.6)

    def build():
        time.sleep(0.6)
        return torch.nn.Linear(2, 2)

    def use():
        with runtime.use("b", build):
            return "done"

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    assert holding.wait(10)
    assert Worker("w").call(use, 0.3).value == "done"


def test_waiting_for_the_device_counts_after_its_own_deadline():
    from tellsign.deadline import paused

    def wait():
        with paused(0.1):
            time.sleep(30)

    with pytest.raises(TimeLimitError):
        Worker("w").call(wait, 0.2)


def test_a_worker_that_nobody_holds_ends_its_thread():
    worker = Worker("w")
    worker.call(lambda: 1, 5)
    thread = worker.thread
    del worker
    thread.join(10)
    assert not thread.is_alive()
