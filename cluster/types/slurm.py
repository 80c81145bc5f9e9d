"""Workers as jobs of a Slurm cluster, a job each."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from melmill.cluster.contract import ClusterSpec, Listening, Pool, RunningCluster
from melmill.cluster.credentials import Credentials, Tls
from melmill.cluster.errors import ClusterError
from melmill.cluster.workers import worker_arguments, worker_environment

# A worker that never sees the scheduler gives its job back.
DEATH_TIMEOUT_S = 120

_NAME = re.compile(r"[A-Za-z0-9][\w.,@+:/-]*")
_WALLTIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<numbers>\d+(?::\d+){0,2})")


@dataclass(frozen=True, kw_only=True)
class SlurmOptions(Listening):
    """How workers run as Slurm jobs.

    Parameters
    ----------
    log_folder : str
        Folder for the output of the jobs. All nodes must see it.
    python : str or None
        Interpreter on the nodes that has melmill. None for the path of this one.
    prologue : tuple of str
        Lines of shell before a worker starts (``module load cuda``).
    """

    log_folder: str = "slurm-logs"
    python: str | None = None
    prologue: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SlurmPoolOptions:
    """What the jobs of a pool ask Slurm for. Each job is one worker.

    Parameters
    ----------
    walltime : str
        Time limit of a job as Slurm writes it (``08:00:00``, ``2-00:00:00``, ``90`` minutes). A
        worker ends shortly before, and another job takes its place.
    partition, account : str or None
        None for Slurm's own default.
    directives : tuple of str
        Further options of ``sbatch`` (``--gres=gpu:1``).
    """

    walltime: str
    partition: str | None = None
    account: str | None = None
    directives: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that Slurm can read the fields and that none of them adds lines to a job script."""
        if not _WALLTIME.fullmatch(self.walltime) or not self.walltime_s:
            raise ClusterError(
                f"slurm: walltime must be a time such as '08:00:00' or '2-00:00:00', got {self.walltime!r} "
                "(in quotes, or YAML reads it as a number)",
                "walltime",
            )
        for name, value in (("partition", self.partition), ("account", self.account)):
            if value is not None and not _NAME.fullmatch(value):
                raise ClusterError(f"slurm: {name} must be a name that Slurm knows, got {value!r}", name)
        for directive in self.directives:
            if not directive.startswith("-") or "\n" in directive:
                raise ClusterError(
                    f"slurm: a directive is an option of sbatch such as '--gres=gpu:1', got {directive!r}", "directives"
                )

    @property
    def walltime_s(self) -> int:
        """Time limit in seconds, by Slurm's rules: m, m:s, h:m:s, d-h, d-h:m or d-h:m:s."""
        match = _WALLTIME.fullmatch(self.walltime)
        if match is None:
            return 0
        numbers = [int(number) for number in match["numbers"].split(":")]
        if match["days"] is not None:
            hours, minutes, seconds = (*numbers, 0, 0)[:3]
            return int(match["days"]) * 86400 + hours * 3600 + minutes * 60 + seconds
        if len(numbers) == 3:
            return numbers[0] * 3600 + numbers[1] * 60 + numbers[2]
        return numbers[0] * 60 + (numbers[1] if len(numbers) > 1 else 0)


@dataclass(frozen=True, kw_only=True)
class SlurmPool(Pool):
    """A pool whose workers are Slurm jobs.

    Parameters
    ----------
    slurm : SlurmPoolOptions
    """

    slurm: SlurmPoolOptions = field(metadata={"example": "{walltime: '08:00:00'}"})


@dataclass(frozen=True, kw_only=True)
class Slurm(ClusterSpec):
    """A scheduler on this machine, and workers as Slurm jobs.

    Parameters
    ----------
    slurm : SlurmOptions
    """

    type: ClassVar[str] = "slurm"
    encrypted: ClassVar[bool] = True
    adaptive: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("dask_jobqueue", "cryptography")
    requirement: ClassVar[str] = "melmill[slurm]"

    slurm: SlurmOptions = field(default_factory=SlurmOptions)
    pools: Mapping[str, SlurmPool] = field(metadata={"example": "{cpu: {memory: 4GiB, slurm: {walltime: '08:00:00'}}}"})

    @contextmanager
    def launch(self, credentials: Credentials | None) -> Iterator[RunningCluster]:
        """Start a scheduler here and submit the pools' jobs; yield the cluster, cancel its jobs.

        Raises
        ------
        ClusterError
            ``sbatch`` is not on the PATH or refuses a job, or the log folder can't be written.
        """
        from melmill.cluster.launchers.slurm import launch  # needs dask-jobqueue

        assert credentials is not None
        with credentials.files(self._log_folder()) as tls:
            options = {name: self.job_options(name, tls) for name in self.pools}
            with launch(self, self.slurm, credentials, options) as cluster:
                yield cluster

    def job_options(self, name: str, tls: Tls) -> dict[str, object]:
        """Return the options from which dask-jobqueue makes the job scripts of a pool."""
        pool = self.pools[name]
        asked = pool.slurm
        # Before its time is over, a worker hands back what it has not begun. Not all do so at once.
        margin_s = min(300, asked.walltime_s // 10)
        arguments = [
            *worker_arguments(name, pool),
            *("--tls-ca-file", tls.ca, "--tls-cert", tls.cert, "--tls-key", tls.key),
            *("--lifetime", f"{asked.walltime_s - 2 * margin_s}s", "--lifetime-stagger", f"{margin_s}s"),
        ]
        exports = [f"export {variable}={shlex.quote(value)}" for variable, value in worker_environment().items()]
        return {
            "job_name": f"melmill-{name}",
            "cores": pool.threads,
            "processes": 1,
            "memory": pool.memory,
            "python": shlex.quote(self.slurm.python or sys.executable),
            "queue": asked.partition,
            "account": asked.account,
            "walltime": asked.walltime,
            "job_extra_directives": list(asked.directives),
            "job_script_prologue": [*exports, *self.slurm.prologue],
            "worker_extra_args": [shlex.quote(argument) for argument in arguments],
            "log_directory": str(self._log_folder()),
            "death_timeout": DEATH_TIMEOUT_S,
        }

    def _log_folder(self) -> Path:
        folder = Path(self.slurm.log_folder).expanduser().absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ClusterError(f"cluster: slurm: log_folder {str(folder)!r} can't be made: {error.strerror}") from error
        return folder
