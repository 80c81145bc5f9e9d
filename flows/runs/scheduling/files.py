"""The files that call a schedule: a systemd timer, a cron line, a Kubernetes CronJob."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.runs.scheduling.planned import Planned

# Folders of a container. Volumes are at /data in cluster/deploy too.
_MOUNT = "/etc/melmill"
_STORE_OF_IMAGE = "/data/store"


@dataclass(frozen=True, kw_only=True)
class ScheduleFiles:
    """Hold the files of a schedule, and what to do with them.

    Parameters
    ----------
    kind : str
    files : mapping of str to str
        Texts by name.
    notes : tuple of str
        What a person should know, a line each.
    check : callable
        Takes the folder with the files. Returns which programs checked them, a line each; raises
        PipelineError if one finds fault.
    install : callable
        Takes the folder. Returns the commands that install them.
    """

    kind: str
    files: Mapping[str, str]
    notes: tuple[str, ...]
    check: Callable[[Path], list[str]]
    install: Callable[[Path], list[str]]


def has_systemd() -> bool:
    """Return whether systemd runs this machine."""
    return Path("/run/systemd/system").is_dir()


def files_of(schedule: Planned, kind: str, image: str | None = None) -> ScheduleFiles:
    """Return the files of a schedule.

    Raises
    ------
    PipelineError
        A CronJob lacks its image, or the image is for another kind.
    """
    if image is not None and kind != "kubernetes":
        raise PipelineError(f"--image is for --kind kubernetes, and this is {kind}")
    if kind == "kubernetes":
        if image is None:
            raise PipelineError("a CronJob needs --image, the image of a container that has melmill")
        return _kubernetes(schedule, image)
    for text in (*schedule.command, str(schedule.folder)):
        if "\n" in text:
            raise PipelineError(f"an argument of a schedule can't hold line ends, got {text!r}")
    return _systemd(schedule) if kind == "systemd" else _cron(schedule)


# -- systemd


def systemd_quoted(argument: str) -> str:
    r"""Return an argument as a unit file takes it.

    >>> systemd_quoted("50% of $HOME"), systemd_quoted("plain")
    ('"50%% of $$HOME"', 'plain')
    """
    escaped = argument.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    plain = escaped == argument and argument and not set(argument) & set(" \t'*;")
    return escaped if plain else f'"{escaped}"'


def _systemd(schedule: Planned) -> ScheduleFiles:
    unit = f"melmill-{schedule.name}"
    command = " ".join(map(systemd_quoted, schedule.command))
    folder = str(schedule.folder).replace("%", "%%")
    # Exit code 3 is a gate that tripped: the unit fails, so that systemd's own tools show it.
    service = f"""\
[Unit]
Description=melmill schedule {schedule.name}
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
WorkingDirectory={folder}
ExecStart={command}
"""
    calendars = "\n".join(f"OnCalendar={calendar}" for calendar in schedule.times.calendars)
    timer = f"""\
[Unit]
Description=Times of melmill schedule {schedule.name}

[Timer]
{calendars}
Persistent=true

[Install]
WantedBy=timers.target
"""
    files = {f"{unit}.service": service, f"{unit}.timer": timer}

    def check(folder: Path) -> list[str]:
        program = shutil.which("systemd-analyze")
        if program is None:
            return ["systemd-analyze is not there, so the units are unchecked"]
        _checked([program, "calendar", *schedule.times.calendars])
        _checked([program, "verify", "--man=no", *(str(folder / file) for file in files)])
        return ["systemd-analyze calendar and systemd-analyze verify find no fault"]

    def install(folder: Path) -> list[str]:
        return [
            "mkdir -p ~/.config/systemd/user",
            f"cp {' '.join(shlex.quote(str(folder / file)) for file in files)} ~/.config/systemd/user/",
            f"systemctl --user daemon-reload && systemctl --user enable --now {unit}.timer",
            "loginctl enable-linger    # so that it runs while nobody is logged in",
        ]

    return ScheduleFiles(kind="systemd", files=files, notes=(), check=check, install=install)


def _checked(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise PipelineError(f"{' '.join(command[:2])}: {' '.join((done.stderr or done.stdout).split())}")


# -- cron


def _cron(schedule: Planned) -> ScheduleFiles:
    # In a crontab, % ends the command.
    command = shlex.join(schedule.command).replace("%", "\\%")
    folder = shlex.quote(str(schedule.folder)).replace("%", "\\%")
    log = f"melmill-{schedule.name}.log"
    line = f"{schedule.times.cron} cd {folder} && {command} >> {log} 2>&1\n"
    file = f"melmill-{schedule.name}.cron"
    files = {file: f"# melmill schedule {schedule.name}\n{line}"}
    notes = [f"what it prints goes to {schedule.folder / log}"]
    if len(line) > 990:
        raise PipelineError(
            f"the cron line has {len(line)} characters, and cron takes 1000: put the command of --notify into a script"
        )

    def check(folder: Path) -> list[str]:
        program = shutil.which("crontab")
        if program is None:
            return ["crontab is not there, so the line is checked by melmill alone"]
        option = _dry_run(program)
        if option is None:
            return ["this crontab can't check a file, so the line is checked by melmill alone"]
        _checked([program, option, str(folder / file)])
        return [f"crontab {option} finds no fault"]

    def install(folder: Path) -> list[str]:
        return [f"(crontab -l; cat {shlex.quote(str(folder / file))}) | crontab -"]

    return ScheduleFiles(kind="cron", files=files, notes=tuple(notes), check=check, install=install)


def _dry_run(program: str) -> str | None:
    """Return the option by which a crontab only checks a file, None if it has none.

    It is ``-n`` in Debian's and ``-T`` in cronie, where ``-n`` would change something.
    """
    asked = subprocess.run(
        [program, "-?"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
    )
    lines = (asked.stderr + asked.stdout).splitlines()
    return next(
        (option for option in ("-n", "-T") for line in lines if line.split()[:1] == [option] and "syntax" in line), None
    )


# -- Kubernetes


def _kubernetes(schedule: Planned, image: str) -> ScheduleFiles:
    unit = f"melmill-{schedule.name}"
    mounted = {"pipeline.yaml": schedule.pipeline} | ({"gate.yaml": schedule.rules} if schedule.rules else {})
    data = {file: _text(path) for file, path in mounted.items()}
    rules = f"{_MOUNT}/gate.yaml" if schedule.rules else None
    arguments = schedule.arguments(f"{_MOUNT}/pipeline.yaml", rules)
    notes = []
    if "://" not in schedule.store:
        at = arguments.index("--store") + 1
        arguments[at] = _STORE_OF_IMAGE
        notes.append(
            f"the store {schedule.store!r} is on this machine, so the job uses {_STORE_OF_IMAGE}: mount a volume "
            "there, or give --store s3://..."
        )
    container = {
        "name": "melmill",
        "image": image,
        "command": ["melmill"],
        "args": arguments,
        "volumeMounts": [{"name": "files", "mountPath": _MOUNT, "readOnly": True}],
    }
    pod = {
        # A run that fails is told by its command. The next one goes on where it stopped.
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [{"name": "files", "configMap": {"name": unit}}],
    }
    job = {
        "schedule": schedule.times.kubernetes,
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 3600,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 5,
        "jobTemplate": {"spec": {"backoffLimit": 0, "template": {"spec": pod}}},
    }
    documents = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": unit}, "data": data},
        {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": unit}, "spec": job},
    ]
    file = f"{unit}.yaml"
    notes.append("the times are those of the cluster, which are UTC unless it says otherwise")
    notes.append("the corpus and the credentials of the store must reach the container: add volumes and env")

    def check(folder: Path) -> list[str]:
        if list(yaml.safe_load_all(_text(folder / file))) != documents:
            raise PipelineError(f"{folder / file} does not say what it should")
        return [f"{file} reads back; `kubectl apply --dry-run=server -f` has the cluster check it"]

    return ScheduleFiles(
        kind="kubernetes",
        files={file: yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=100)},
        notes=tuple(notes),
        check=check,
        install=lambda folder: [f"kubectl apply -f {shlex.quote(str(folder / file))}"],
    )


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as such."""


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _string)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise PipelineError(f"{str(path)!r} can't be read: {reason}") from error
