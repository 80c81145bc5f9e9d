"""A bucket on a server of this machine, and a copy of it on the disk that can be looked at."""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from benchmarks.faults.processes import Process, wait_for
from benchmarks.faults.proxy import free_port
from melmill.storage.files import objects
from melmill.storage.files.location import Location

ROOT = Path(__file__).parents[2]


class Server:
    """A server of objects, as a process of its own.

    Parameters
    ----------
    folder : Path
        Gets its log.
    """

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.environment: Mapping[str, str] = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "faults",
            "AWS_SECRET_ACCESS_KEY": "faults",
        }
        command = [sys.executable, "-m", "tests.objects.moto_process", str(port)]
        self.process = Process(command, ROOT, folder / "objects.log", os.environ)
        # Its own environment too: it looks at the buckets and resumes runs.
        os.environ.update(self.environment)
        objects.forget_clients()
        wait_for(self._answers, lambda: self.process.said)

    def _answers(self) -> bool:
        import boto3
        from botocore.exceptions import BotoCoreError

        try:
            boto3.client("s3").list_buckets()
        except BotoCoreError:
            return False
        return True

    def bucket(self) -> Location:
        """Return a folder in a new bucket."""
        import boto3

        name = f"faults-{uuid.uuid4().hex}"
        boto3.client("s3").create_bucket(Bucket=name)
        return Location(f"s3://{name}/store")

    def freeze(self, duration_s: float) -> None:
        """Let it answer nothing for a time, s."""
        self.process.signal(signal.SIGSTOP)
        time.sleep(duration_s)
        self.process.signal(signal.SIGCONT)

    def end(self) -> None:
        """End it, and all its buckets."""
        self.process.end()


class Mirror:
    """A copy of a folder of a bucket on the disk.

    Parameters
    ----------
    place : Location
    folder : Path
        The copy.
    """

    def __init__(self, place: Location, folder: Path) -> None:
        self.place = place
        self.folder = folder
        self._tags: dict[str, str] = {}

    def refresh(self) -> None:
        """Copy what is new or has changed, and remove what is gone."""
        tags = self.place.tags()
        for name, tag in tags.items():
            if self._tags.get(name) != tag:
                path = self.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                # It may be gone since it was listed: records are packed, and then removed.
                with suppress(FileNotFoundError):
                    path.write_bytes(self.place.read(name))
        for name in self._tags.keys() - tags.keys():
            (self.folder / name).unlink(missing_ok=True)
        self._tags = dict(tags)
