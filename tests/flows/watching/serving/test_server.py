"""The status page as a process, asked over HTTP."""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile

from melmill.flows.runs.usage import size, usage
from melmill.storage.store import Store
from tests.flows.conftest import Project, add_chapter, flac, make_project, voice
from tests.flows.processes import running

PATIENCE_S = 120


class Served:
    """A server in a process, and a client of it."""

    def __init__(self, url: str) -> None:
        self.url = urlsplit(url)

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of an answer."""
        client = http.client.HTTPConnection(self.url.hostname or "", self.url.port, timeout=PATIENCE_S)
        client.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = client.getresponse()
        data = answer.read()
        client.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, data

    def page(self, path: str) -> str:
        """Return a page that must be there."""
        status, headers, data = self.ask(path)
        assert status == 200, data
        assert headers["content-type"].startswith("text/html")
        return data.decode()


@contextmanager
def serving(project: Project, *arguments: str, **environment: str) -> Iterator[Served]:
    """Serve on a free port as long as the block lasts; the server must end in peace."""
    process = subprocess.Popen(
        project.command("serve", *arguments, "--port", "0"),
        env={**project.environment(), **environment},
        cwd=project.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.match(r"serving (https?://\S+/) ", line)
        assert found, process.communicate()[1]
        yield Served(found[1])
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, corpus_files: dict[str, list[bytes]]) -> Project:
    """Return a project with a bad file, an utterance that is too short for a mel, and two runs."""
    made = make_project(tmp_path_factory.mktemp("served"), corpus_files)
    add_chapter(made.root, "dev-clean", "33", [b"no audio at all", flac(voice(0.02, 150.0, 1))])
    allowed = ("--set", "mel.center=false", "--set", "max_quarantined=0.5")
    for n_iter in (1, 2):
        made.run("--executor", "serial", "--set", f"gla.n_iter={n_iter}", *allowed)
    return made


@pytest.fixture(scope="module")
def served(project: Project, finished: Project) -> Iterator[Served]:
    """Return a server of two stores."""
    with serving(project, str(project.store), str(finished.store)) as server:
        yield server


def test_pages_show_the_stores(served: Served, project: Project, finished: Project) -> None:
    front = served.page("/")
    for shown in (project, finished):
        assert str(shown.store) in front
    runs = Store.open(str(project.store)).runs()
    store = served.page("/0/")
    for run in runs:
        assert run.run_id in store
    first = served.page(f"/0/run/{runs[0].run_id}")
    for text in ("gla", runs[0].manifest.nodes["gla"].key, "SCM", "--set gla.n_iter=1"):
        assert text in first


def test_every_link_of_every_page_leads_somewhere(served: Served) -> None:
    seen, waiting = set[str](), ["/"]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        status, headers, data = served.ask(path)
        assert status == 200, path
        if headers["content-type"].startswith("text/html") and "/files/" not in path:
            base = path.rpartition("/")[0]
            links = re.findall(r'(?:href|src|data-source)="([^"#]+)"', data.decode())
            waiting += [link if link.startswith("/") else f"{base}/{link}".replace("/./", "/") for link in links]
    assert sum("/files/" in path for path in seen) == 3  # the reports of three runs
    assert sum("/audio/" in path for path in seen) >= 1
    assert {"/0/trends", "/1/quarantine", "/own/site.js"} <= seen


def test_reports_and_trends_are_served(served: Served) -> None:
    trends = served.page("/0/trends")
    links = re.findall(r'href="(files/[^"]+)"', trends)
    assert len(set(links)) == 2
    status, headers, data = served.ask(f"/0/{links[0]}")
    assert status == 200
    assert b"SCM" in data
    # The report of the second run leads to the page of trends, by where that is in a store.
    pages = [served.ask(f"/0/{link}")[2] for link in set(links)]
    assert sum(b'href="../../../../runs/trends.html"' in page for page in pages) == 1
    moved = served.ask("/0/files/runs/trends.html")
    assert (moved[0], moved[1]["location"]) == (302, "/0/trends")
    assert served.ask("/2/files/runs/trends.html")[0] == 404
    # A report's script can't read what else is served.
    assert headers["content-security-policy"].startswith("sandbox allow-scripts")
    assert "allow-same-origin" not in headers["content-security-policy"]


def test_disk_usage_is_that_of_the_command(served: Served, project: Project) -> None:
    page = served.page("/0/disk")
    used = usage(Store.open(str(project.store)))
    rows = {name: re.findall("<td>([^<]*)", row) for name, row in re.findall(r'<th scope="row">(\w+)</th>(.*)', page)}
    assert {name: row[1] for name, row in rows.items()} == {one.name: size(one.n_bytes) for one in used.by_node()}
    for one in used.by_run():
        assert f'href="/0/run/{one.name}"' in page
        assert f"<td>{size(one.exclusive_bytes)}</td>" in page
    assert f"<dd>{used.n_files}</dd>" in page


def test_quarantine_has_players(served: Served, project: Project) -> None:
    page = served.page("/0/quarantine")
    assert "33-1-0000" in page
    assert "The store has no recording of it." in page  # it could not be read
    (player,) = set(re.findall(r'src="(/0/audio/[^"]+)"', page))
    status, headers, data = served.ask(player)
    assert (status, headers["content-type"]) == (200, "audio/wav")
    y, sr = soundfile.read(io.BytesIO(data), dtype="int16")
    assert sr == 16000
    np.testing.assert_array_equal(y, Store.open(str(project.store))["speech"]["33-1-0001"])
    status, headers, part = served.ask(player, Range="bytes=10-19")
    assert (status, part) == (206, data[10:20])
    assert headers["content-range"] == f"bytes 10-19/{len(data)}"
    assert served.ask(player, Range=f"bytes={len(data)}-")[0] == 416
    assert "Nothing is in quarantine" in served.page("/1/quarantine")


def test_nothing_else_is_served_and_nothing_is_written(served: Served, project: Project) -> None:
    before = sorted(project.store.rglob("*"))
    key = Store.open(str(project.store)).nodes["speech"].key
    for path in (
        "/0/files/melmill.json",
        f"/0/files/speech/{key}/node.json",
        f"/0/files/speech/{key}/records/000000.json",
        "/0/files/runs/../melmill.json",
        f"/0/files/report/{key}/report/../../../melmill.json",
        "/0/files//etc/passwd",
        "/0/files/%2e%2e/pipeline.yaml",
        "/0/audio/speech/nobody.wav",
        "/0/audio/nothing/33-1-0001.wav",
        "/0/run/20200101T000000000000",
        "/2/",
        "/own/server.py",
        "/nothing",
    ):
        assert served.ask(path)[0] == 404, path
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert served.ask("/0/", method)[0] == 405
    status, headers, data = served.ask("/0/", "HEAD")
    assert (status, data) == (200, b"")
    assert served.ask("/", Host="evil.example")[0] == 421
    assert sorted(project.store.rglob("*")) == before
    for name, value in (
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
    ):
        assert headers[name] == value
    assert headers["content-security-policy"].startswith("default-src 'none'")


def test_progress_is_live(served: Served, project: Project, finished: Project, tmp_path: Path) -> None:
    now = json.loads(served.ask("/0/progress.json")[2])
    assert (now["state"], now["share"]) == ("done", 1.0)
    other = Project(tmp_path)
    other.root = finished.root
    other.write()
    with running(other, "--executor", "serial", "--set", f"admm.n_iter={10**6}") as client:
        client.until(lambda: bool(list(other.store.glob("mel/*/records/*"))))
        with serving(other, str(other.store)) as server:
            now = json.loads(server.ask("/0/progress.json")[2])
            assert now["state"] == "running"
            assert 0 < now["share"] < 1
            assert {node["node"]: node["done"] > 0 for node in now["nodes"]}["speech"]
            assert "tasks" in now["line"]
            assert "running" in server.page("/0/")


def test_an_empty_store_is_shown(project: Project, tmp_path: Path) -> None:
    Store.create(str(tmp_path / "empty"), "empty")
    with serving(project, str(tmp_path / "empty")) as server:
        for path in ("/", "/0/", "/0/trends", "/0/disk", "/0/quarantine"):
            assert server.page(path)
        assert "no runs yet" in server.page("/0/")


def test_a_password_is_asked_for(project: Project, tmp_path: Path) -> None:
    word = tmp_path / "word"
    word.write_text("a long word\n")
    ours = {"Authorization": f"Basic {base64.b64encode(b'x:a long word').decode()}"}
    with serving(project, str(project.store), "--host", "0.0.0.0", "--password-file", str(word)) as server:
        server.url = server.url._replace(netloc=f"127.0.0.1:{server.url.port}")
        for path in ("/", "/0/progress.json", "/own/site.js"):
            status, headers, _ = server.ask(path)
            assert (status, headers["www-authenticate"][:5]) == (401, "Basic")
            assert server.ask(path, **ours)[0] == 200
    with serving(project, str(project.store), MELMILL_SERVE_PASSWORD="a long word") as server:
        assert server.ask("/")[0] == 401


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{store}x",), "is not a store"),
        (("{store}", "--host", "0.0.0.0"), "needs a password there: give --password-file FILE"),
        (("{store}", "--password-file", "{store}x"), "can't be read"),
        (("{store}", "--key", "{store}/melmill.json"), "expected the certificate of the key"),
        (("{store}", "--certificate", "{store}/melmill.json"), "can't use"),
        (("{store}", "--host", "192.0.2.1", "--password-file", "{word}"), "can't listen at 192.0.2.1"),
    ],
)
def test_wrong_arguments_get_one_line(
    project: Project, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "word").write_text("a long word")
    answer = project.called("serve", *(one.format(store=project.store, word=tmp_path / "word") for one in arguments))
    assert (answer.returncode, answer.stdout) == (2, "")
    assert message in answer.stderr
    assert answer.stderr.splitlines()[-1].startswith("error:")


def test_pages_are_encrypted_by_a_certificate(project: Project, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    from melmill.cluster.authority import temporary

    made = temporary()
    (tmp_path / "cert.pem").write_text(made.cert)
    (tmp_path / "key.pem").write_text(made.key)
    files = ("--certificate", str(tmp_path / "cert.pem"), "--key", str(tmp_path / "key.pem"))
    with serving(project, str(project.store), *files) as server:
        assert server.url.scheme == "https"
        trusting = ssl.create_default_context(cadata=made.ca)
        trusting.check_hostname = False  # the certificate names no machine
        client = http.client.HTTPSConnection("127.0.0.1", server.url.port, context=trusting, timeout=PATIENCE_S)
        client.request("GET", "/")
        assert client.getresponse().status == 200
        client.close()
