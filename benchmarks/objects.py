"""Measure object stores: ``python -m benchmarks.objects [--bucket s3://BUCKET]``.

Without a bucket the benchmark starts a server on this machine. The figures then compare clients and
request patterns, not services. With a bucket, endpoint and credentials come from the environment
(docs/stores.md), and everything below ``melmill-benchmark/`` in it is removed at the end. The client
s3fs is measured too if it is installed.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import click

from benchmarks.figure import Figure, table
from benchmarks.object_work import clients, emptied, resume, tasks
from melmill.storage.files.location import Location


@click.command()
@click.option("--bucket", metavar="URL", help="Measure this one (s3://BUCKET).")
@click.option("--records", default=10_000, show_default=True, help="Records to resume from.")
def main(bucket: str | None, records: int) -> None:
    """Print one table: figure and measured value."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    figures: list[Figure] = []
    with _place(bucket) as place:
        for part in (clients, tasks, lambda place: resume(place, records)):
            figures += part(place)
            print(f"{len(figures)} figures", flush=True)
        print(table(figures), flush=True)


@contextmanager
def _place(bucket: str | None) -> Iterator[Location]:
    """Yield a folder of a bucket that is emptied at the end."""
    if bucket is None:
        with _served() as own:
            yield own
        return
    place = Location(bucket) / "melmill-benchmark"
    try:
        yield place
    finally:
        emptied(place)


@contextmanager
def _served() -> Iterator[Location]:
    """Yield a bucket of a local server, whose process ends with the benchmark."""
    import boto3

    from tests.objects.serving import served

    with served() as port:
        credentials = {"AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark"}
        os.environ |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1", **credentials}
        boto3.client("s3").create_bucket(Bucket="benchmark")
        yield Location("s3://benchmark/melmill-benchmark")


if __name__ == "__main__":
    main()
