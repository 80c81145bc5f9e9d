"""Faults of single requests: transient ones go unnoticed, lasting ones give one clear error."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from melmill.storage.errors import StoreError, StoreFull, StoreUnwritable
from melmill.storage.files import objects
from melmill.storage.files.location import Location
from melmill.storage.store import Store
from tests.objects.proxy import Fault, Proxy, Request
from tests.objects.serving import ACCESS_KEY, OTHER_SERVER, SECRET_KEY, directly

ROOT = Path(__file__).parents[2]
DATA = os.urandom(300_000)

OPERATIONS: dict[str, Callable[[Location], Any]] = {
    "put": lambda place: place.put("a/new", DATA),
    "replace": lambda place: place.replace("a/held", DATA),
    "read": lambda place: place.read("a/held"),
    "list": lambda place: place.tree(),
    "list a level": lambda place: (place / "a").sizes(),
    "size": lambda place: place.size("a/held"),
    "remove": lambda place: place.remove("a/gone"),
}
AFTER = {"a/held": len(DATA), "a/new": len(DATA)}
ANSWERS = {"put": None, "replace": None, "read": DATA, "list a level": {"gone": 1, "held": len(DATA), "new": len(DATA)}}


@pytest.fixture
def place(bucket: str) -> Location:
    made = Location(bucket) / "store"
    made.put("a/held", DATA)
    made.put("a/gone", b"x")
    return made


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=503),
        Fault("status", status=500),
        Fault("status", status=429),
        # The answer of a server that is busy with another write of the same object.
        Fault("status", status=409, when=lambda request: request.method == "PUT"),
        Fault("reset"),
        # The server has acted, but its answer is lost.
        Fault("lose"),
        Fault("cut"),
        Fault("delay", seconds=0.05),
    ],
    ids=["503", "500", "429", "409", "reset", "answer lost", "body cut", "delay"],
)
def test_what_passes_is_passed_over(place: Location, proxy: Proxy, fault: Fault) -> None:
    for name, operation in OPERATIONS.items():
        with proxy.fault(Fault(fault.do, fault.when, 2, fault.status, fault.seconds)):
            answer = operation(place)
        assert answer == ANSWERS.get(name, answer), name
    assert place.tree() == AFTER
    assert {name: place.read(name) for name in AFTER} == dict.fromkeys(AFTER, DATA)


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (
            Fault("status", status=503),
            StoreUnwritable,
            r"the store answered 503, 13 times\. Run again when it has recovered",
        ),
        (
            Fault("status", status=403),
            StoreUnwritable,
            r"access was refused at http://127.* \(403\)\. Check AWS_ACCESS",
        ),
        (Fault("status", status=507), StoreFull, r"the store is full \(507\)\. Free some room, then run again"),
        (Fault("status", status=400), StoreUnwritable, r": 400\. Check the URL, AWS_ENDPOINT_URL and AWS_REGION"),
        (Fault("reset"), StoreUnwritable, r"no answer at http://127.*\. Check AWS_ENDPOINT_URL and the network"),
    ],
    ids=["503", "403", "507", "400", "reset"],
)
def test_what_stays_is_told_after_few_attempts(
    place: Location, proxy: Proxy, fault: Fault, error: type[StoreError], message: str
) -> None:
    for name, operation in OPERATIONS.items():
        verb = {"put": "write", "replace": "write", "size": "check"}.get(name, name.removesuffix(" a level"))
        with proxy.fault(fault), proxy.counted() as counts, pytest.raises(error, match=message) as told:
            operation(place)
        assert str(told.value).startswith(f"can't {verb} s3://")
        assert "\n" not in str(told.value)
        assert counts.total() <= objects.RETRIES + 1


def test_faults_of_different_kinds_in_a_row(place: Location, proxy: Proxy) -> None:
    # A failure that the client repeats by itself, then one that it does not.
    with proxy.fault(Fault("status", times=2)), proxy.fault(Fault("lose", times=2)), proxy.counted() as counts:
        place.put("a/new", DATA)
    # The last attempt finds the object that the third wrote, and compares it.
    assert counts == {"PUT": 5, "GET": 1}


def test_a_listing_goes_on_where_it_was_cut(bucket: str, proxy: Proxy, object_server: int) -> None:
    place = Location(bucket)
    names = [f"{index:04d}" for index in range(1001)]
    with directly(object_server), ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: place.put(name, b""), names))

    def is_second_page(request: Request) -> bool:
        return bool({"continuation-token", "start-after"} & request.query.keys())

    with proxy.fault(Fault("cut", is_second_page, times=2)), proxy.counted() as counts:
        assert list(place.tree()) == names
    # Two pages. The second is requested three times.
    assert counts == {"LIST": 4}


def test_no_server(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    objects.forget_clients()
    with pytest.raises(StoreUnwritable, match=r"can't read s3://.*/melmill.json: no answer at http://127.0.0.1:9, 13"):
        Store.open(bucket)


def test_no_bucket(proxy: Proxy) -> None:
    place = Location("s3://there-is-no-such-bucket/store")
    for use in (lambda: place.read("a"), lambda: place.put("a", b""), place.tree, place.sizes):
        with pytest.raises(
            StoreUnwritable, match=r"there is no such bucket at http://127.*\. Create it, or check the U"
        ):
            use()


def test_wrong_credentials(bucket: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests' server checks credentials only when told to.
    def check_credentials(from_request: str) -> None:
        if OTHER_SERVER:
            return
        headers = {"Content-Type": "text/plain"}
        url = f"{proxy.url}/moto-api/reset-auth"
        urllib.request.urlopen(urllib.request.Request(url, from_request.encode(), headers)).close()

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOFNOBODY")
    objects.forget_clients()
    check_credentials("0")
    try:
        with pytest.raises(
            StoreUnwritable, match=r"access was refused .* \(403 InvalidAccessKeyId\)\. Check AWS_ACCESS"
        ):
            Store.create(f"{bucket}/store", "test")
    finally:
        check_credentials("inf")


def test_no_credentials(bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    objects.forget_clients()
    with pytest.raises(StoreError, match=r"there are no credentials .*\. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS"):
        Store.open(bucket)


def test_a_profile(bucket: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text(
        f"[there]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_PROFILE", "there")
    objects.forget_clients()
    Location(bucket).put("a", b"x")
    assert Location(bucket).read("a") == b"x"
    monkeypatch.setitem(sys.modules, "obstore.auth.boto3", None)
    objects.forget_clients()
    with pytest.raises(StoreError, match=r"AWS_PROFILE is set, and reading profiles needs the package boto3: pip inst"):
        Location(bucket).read("a")


def test_without_the_package(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    objects.forget_clients()
    with pytest.raises(StoreError, match=r"object stores need the package obstore, .*: pip install 'melmill\[s3\]'"):
        Store.open(bucket)


@pytest.mark.parametrize("url", [f"s3://user:{SECRET_KEY}@bucket/store", "s3:///store"])
def test_a_url_names_a_bucket_and_no_credentials(url: str) -> None:
    with pytest.raises(StoreError, match=r"must be s3://bucket/path without credentials") as told:
        Store.open(url)
    assert SECRET_KEY not in str(told.value)


@pytest.mark.skipif(bool(OTHER_SERVER), reason="a request that the proxy changes is refused where signatures count")
def test_a_store_that_would_let_writers_overwrite_each_other_is_refused(bucket: str, proxy: Proxy) -> None:
    with (
        proxy.fault(Fault("overwrite")),
        pytest.raises(StoreUnwritable, match=r"two writers would destroy each other's data"),
    ):
        Store.create(bucket, "test")


def test_names_that_objects_can_have(bucket: str) -> None:
    place = Location(bucket)
    names = ["a b (1).wav", "a+b&c=d.wav", "ü/日本.wav", "100%.wav", "a[1]~#?*.wav", "a:b\"'<>|.wav"]
    for name in names:
        place.put(name, name.encode())
    assert {name: place.read(name).decode() for name in place.tree()} == {name: name for name in names}
    with pytest.raises(StoreError, match=r"can't write s3://.*: Could not parse path: .* empty path segment"):
        place.put("a//b", b"")


def test_a_forked_process_is_told(bucket: str) -> None:
    # In a child, because a fork of this process would inherit the locks of its threads.
    code = f"""
import os
from melmill.storage.files.location import Location
place = Location({bucket!r})
place.put("a", b"x")
if os.fork() == 0:
    try:
        Location("s3://another-bucket").read("a")
    except ValueError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert "forked from one that uses the store" in done.stdout
