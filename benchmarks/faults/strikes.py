"""How each kind of fault strikes, and how it ends."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.faults import damage, pruning
from benchmarks.faults.cluster import SILENCE_S, Worker
from benchmarks.faults.orders import Orders
from benchmarks.faults.processes import Process
from benchmarks.faults.scene import Scene
from benchmarks.faults.schedule import Fault, Kind

# Long enough for a scheduler that looks every two seconds to be sure that a worker is dead.
_DEAD_S = 2 * SILENCE_S
# How long writes fail where nobody notices.
_FAILING_S = 3.0
# How long a task may wait to be begun by another worker.
_NEVER_S = 120.0
_DAY_S = 86_400
# How long a worker raises at every task.
_SICK_S = 10.0


def _nothing() -> None:
    return


@dataclass
class Strike:
    """A fault that has struck.

    Parameters
    ----------
    says : str
        Description of the target.
    over : callable
        Tells whether it has lasted long enough.
    end : callable
        Undoes it. Faults that nothing undoes end by themselves.
    met : callable
        Tells at the end whether it struck at all: the run may have passed its target.
    worker : str
        Name of the worker that it occupies.
    missed : bool
        The negation of `met`.
    """

    fault: Fault
    says: str
    over: Callable[[], bool] = lambda: True
    end: Callable[[], None] = _nothing
    met: Callable[[], bool] = lambda: True
    worker: str = ""
    missed: bool = False


def strike(scene: Scene, fault: Fault) -> Strike | None:
    """Let a fault strike. Return None if it has no target now."""
    return _STRIKES[fault.kind](scene, fault)


def _kill_worker(scene: Scene, fault: Fault) -> Strike | None:
    found = _at_work(scene)
    if not found:
        return None
    worker, process = fault.of(found)
    process.kill()
    return Strike(fault, worker.name)


def _kill_nanny(scene: Scene, fault: Fault) -> Strike | None:
    free = _free(scene)
    # One must stay: nobody starts a nanny again.
    if len(free) < 2:
        return None
    worker = fault.of(free)
    worker.nanny.signal(signal.SIGKILL)
    return Strike(fault, worker.name)


def _kill_scheduler(scene: Scene, fault: Fault) -> Strike | None:
    scene.cluster.scheduler.signal(signal.SIGKILL)
    return Strike(fault, "")


def _kill_client(scene: Scene, fault: Fault) -> Strike | None:
    scene.client.signal(signal.SIGKILL)
    return Strike(fault, "")


def _freeze_worker(scene: Scene, fault: Fault) -> Strike | None:
    found = _at_work(scene)
    if not found:
        return None
    worker, process = fault.of(found)
    _signal(process, signal.SIGSTOP)
    return Strike(fault, worker.name, _after(_DEAD_S), lambda: _signal(process, signal.SIGCONT), worker=worker.name)


def _freeze_scheduler(scene: Scene, fault: Fault) -> Strike | None:
    return _frozen(fault, scene.cluster.scheduler)


def _freeze_client(scene: Scene, fault: Fault) -> Strike | None:
    return _frozen(fault, scene.client)


def _frozen(fault: Fault, process: Process) -> Strike:
    process.signal(signal.SIGSTOP)

    def awake() -> None:
        if process.returncode is None:
            process.signal(signal.SIGCONT)

    return Strike(fault, "", _after(_DEAD_S), awake)


def _think_dead(scene: Scene, fault: Fault) -> Strike | None:
    """Stop a worker and its nanny during a task, until another worker has begun the task too."""
    begun = scene.workshop.touchy.seen_by()
    waiting = set(scene.unfinished("touchy"))
    for worker, process in _at_work(scene):
        if any(begun.get(name) == {process.pid} for name in waiting):
            worker.nanny.signal(signal.SIGSTOP, tree=True)
            return _thought_dead(scene, fault, worker, process.pid)
    return None


def _thought_dead(scene: Scene, fault: Fault, worker: Worker, pid: int) -> Strike:
    late = _after(_NEVER_S)

    def again() -> bool:
        return any(pid in pids and len(pids) > 1 for pids in scene.workshop.touchy.seen_by().values())

    ran_twice = []

    def awake() -> None:
        ran_twice.append(again())
        worker.nanny.signal(signal.SIGCONT, tree=True)

    return Strike(fault, worker.name, lambda: again() or late(), awake, lambda: any(ran_twice), worker=worker.name)


def _cut_off(scene: Scene, fault: Fault) -> Strike | None:
    free = _free(scene)
    if not free:
        return None
    worker = fault.of(free)
    worker.cable.cut()
    return Strike(fault, worker.name, _after(_DEAD_S), worker.cable.mend, worker=worker.name)


def _sicken(scene: Scene, fault: Fault) -> Strike | None:
    """Let a worker raise at every utterance, or let it open no more files."""
    found = _at_work(scene)
    # Another must do what it fails.
    if len(found) < 2:
        return None
    worker, process = fault.of(found)
    over = _after(_SICK_S)
    if fault.pick < 0.5:
        scene.sicken(worker.name, sick=True)
        return Strike(
            fault,
            f"{worker.name} raises",
            over,
            lambda: scene.sicken(worker.name, sick=False),
            lambda: scene.workshop.touchy.was_sick(worker.name),
            worker.name,
        )
    _, most = _limit_open(process, process.num_fds())

    def well() -> None:
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            _limit_open(process, most)

    return Strike(fault, f"{worker.name} opens no files", over, well, worker=worker.name)


def _limit_open(process: psutil.Process, n_files: int) -> tuple[int, int]:
    """Limit how many files a process may have open; return the limits before."""
    before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (min(n_files, before[1]), before[1]))
    return before


def _take_cache(scene: Scene, fault: Fault) -> Strike | None:
    """Put another worker in the place of one, from an installation without room for a cache."""
    found = _free(scene)
    if not found:
        return None
    worker = fault.of(found)
    worker.replace(scene.workshop.bare)
    return Strike(fault, worker.name, met=lambda: "numba has no folder where it may keep" in worker.nanny.said)


def _fill_disk(scene: Scene, fault: Fault) -> Strike | None:
    scene.workshop.disk.fill()
    return Strike(fault, "", _noticed(scene), scene.workshop.disk.empty)


def _lock_disk(scene: Scene, fault: Fault) -> Strike | None:
    if not scene.workshop.disk.lock():
        return None
    return Strike(fault, "", _noticed(scene), scene.workshop.disk.unlock)


def _limit_files(scene: Scene, fault: Fault) -> Strike | None:
    processes = [worker.process for worker in scene.cluster.workers]
    pids = [process.pid for process in processes if process is not None]

    def limit(n_bytes: int) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))

    limit(1000)
    return Strike(fault, "", _noticed(scene), lambda: limit(resource.RLIM_INFINITY)) if pids else None


def _fail_writes(scene: Scene, fault: Fault) -> Strike | None:
    free = _free(scene)
    if not free:
        return None
    worker = fault.of(free)
    worker.orders.give(fsync_fails=True)
    return Strike(fault, worker.name, _noticed(scene), worker.orders.give, worker=worker.name)


def _truncate(scene: Scene, fault: Fault) -> Strike | None:
    path = _data_file(scene, fault)
    if path is None:
        return None
    (damage.cut if fault.pick < 0.5 else damage.empty)(path)
    return Strike(fault, _name(scene, path))


def _delete(scene: Scene, fault: Fault) -> Strike | None:
    path = _data_file(scene, fault)
    if path is None:
        return None
    path.unlink()
    return Strike(fault, _name(scene, path))


def _tear_record(scene: Scene, fault: Fault) -> Strike | None:
    records = scene.records()
    if not records:
        return None
    path = fault.of(records)
    damage.cut(path)
    return Strike(fault, _name(scene, path))


def _flip_bit(scene: Scene, fault: Fault) -> Strike | None:
    # All but what nobody claims, and the catalogue, which nobody can make anew.
    files = [path for path in scene.store.rglob("*") if path.is_file() and not path.name.startswith(".")]
    path = fault.of(sorted(path for path in files if path.parent.name != "catalogue"))
    damage.flip(path, where=(fault.pick * 997) % 1)
    scene.damage(path)
    return Strike(fault, _name(scene, path))


def _skew_worker(scene: Scene, fault: Fault) -> Strike | None:
    free = _free(scene)
    if not free:
        return None
    worker = fault.of(free)
    off_s = round((2 * fault.pick - 1) * 3 * _DAY_S)
    worker.orders.give(clock_off_s=off_s)
    says = f"{worker.name} by {off_s / 3600:+.0f} h"
    return Strike(fault, says, _after(_FAILING_S), worker.orders.give, worker=worker.name)


def _skew_client(scene: Scene, fault: Fault) -> Strike | None:
    """Run another pipeline with a clock two days ahead.

    The names of this pipeline must not be looked up in that run.
    """
    orders = Orders(scene.workshop.library, scene.workshop.folder / "client.orders")
    orders.give(clock_off_s=2 * _DAY_S)
    before = set((scene.store / "speech").iterdir())
    other = ["--set", "speech.sr=8000", "--until", "speech", "--executor", "serial"]
    done = scene.workshop.client(scene.url, *other, environment=orders.environment)
    code = done.exit_code()
    scene.strays |= set((scene.store / "speech").iterdir()) - before
    return Strike(fault, "another run, two days ahead" + (f", exit code {code}" if code else ""))


def _crash(scene: Scene, fault: Fault) -> Strike | None:
    return _poison(scene, fault, "crashes")


def _hang(scene: Scene, fault: Fault) -> Strike | None:
    return _poison(scene, fault, "hangs" if fault.pick < 0.5 else "hangs in C")


def _poison(scene: Scene, fault: Fault, mood: str) -> Strike | None:
    names = scene.untouched()
    if not names:
        return None
    name = fault.of(names)
    scene.feed({name: mood})
    return Strike(fault, f"{name} {mood}", met=lambda: name in scene.caught)


def _change_corpus(scene: Scene, fault: Fault) -> Strike | None:
    """Replace two files of the corpus, remove one and add one. What the next runs do about it is the scene's."""
    if scene.story.told:
        return None
    chosen = random.Random(fault.pick).sample(scene.workshop.files(), 3)
    scene.story.change(chosen)
    other, backwards, gone = (path.stem for path in chosen)
    return Strike(fault, f"{other} replaced, {backwards} reversed, {gone} renamed")


def _kill_prune(scene: Scene, fault: Fault) -> Strike | None:
    struck = pruning.strike(scene, fault.pick)
    return None if struck is None else Strike(fault, struck.says, met=lambda: struck.met)


def _freeze_objects(scene: Scene, fault: Fault) -> Strike | None:
    # Other faults are not looked at meanwhile, as the store can't be either.
    scene.workshop.objects.freeze(_DEAD_S)
    return Strike(fault, "")


def _free(scene: Scene) -> list[Worker]:
    """Return the workers that no other fault occupies."""
    workers = scene.cluster.workers
    return [worker for worker in workers if worker.nanny.returncode is None and worker.name not in scene.held]


def _at_work(scene: Scene) -> list[tuple[Worker, psutil.Process]]:
    """Return the free workers whose process runs, with that process."""
    found = [(worker, worker.process) for worker in _free(scene)]
    return [(worker, process) for worker, process in found if process is not None]


def _signal(process: psutil.Process, number: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _after(lasting_s: float) -> Callable[[], bool]:
    until = time.monotonic() + lasting_s
    return lambda: time.monotonic() > until


def _noticed(scene: Scene) -> Callable[[], bool]:
    """Return a function that tells whether the run has ended because of the fault, or will not."""
    client, late = scene.client, _after(_FAILING_S)
    return lambda: client.returncode is not None or late()


def _data_file(scene: Scene, fault: Fault) -> Path | None:
    """Return a file that a record lists."""
    files = scene.claimed()
    return fault.of(files) if files else None


def _name(scene: Scene, path: Path) -> str:
    return os.fspath(path.relative_to(scene.store))


_STRIKES: Mapping[Kind, Callable[[Scene, Fault], Strike | None]] = {
    Kind.WORKER_KILLED: _kill_worker,
    Kind.NANNY_KILLED: _kill_nanny,
    Kind.SCHEDULER_KILLED: _kill_scheduler,
    Kind.CLIENT_KILLED: _kill_client,
    Kind.WORKER_FROZEN: _freeze_worker,
    Kind.SCHEDULER_FROZEN: _freeze_scheduler,
    Kind.CLIENT_FROZEN: _freeze_client,
    Kind.THOUGHT_DEAD: _think_dead,
    Kind.CUT_OFF: _cut_off,
    Kind.SICK: _sicken,
    Kind.NO_CACHE: _take_cache,
    Kind.DISK_FULL: _fill_disk,
    Kind.READ_ONLY: _lock_disk,
    Kind.QUOTA: _limit_files,
    Kind.WRITES_FAIL: _fail_writes,
    Kind.TRUNCATED: _truncate,
    Kind.DELETED: _delete,
    Kind.RECORD_TORN: _tear_record,
    Kind.BIT_FLIPPED: _flip_bit,
    Kind.WORKER_CLOCK: _skew_worker,
    Kind.CLIENT_CLOCK: _skew_client,
    Kind.POISON_CRASHES: _crash,
    Kind.POISON_HANGS: _hang,
    Kind.CORPUS_CHANGED: _change_corpus,
    Kind.PRUNE_KILLED: _kill_prune,
    Kind.OBJECTS_WORKER_KILLED: _kill_worker,
    Kind.OBJECTS_NANNY_KILLED: _kill_nanny,
    Kind.OBJECTS_SCHEDULER_KILLED: _kill_scheduler,
    Kind.OBJECTS_CLIENT_KILLED: _kill_client,
    Kind.OBJECTS_FROZEN: _freeze_objects,
    Kind.OBJECTS_PRUNE_KILLED: _kill_prune,
}
