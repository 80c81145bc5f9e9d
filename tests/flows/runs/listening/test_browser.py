"""Whole tests, clicked through in Chromium: from a disk and from the server, by mouse and by keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from melmill.flows.runs.listening.results import import_results, results_of
from melmill.stages.score.listeners.design import Design
from melmill.stages.score.listeners.kinds import REFERENCE
from melmill.storage.store import Store
from tests.flows.runs.listening.browser import CHROMIUM, DESK, PHONE, Browser
from tests.flows.runs.listening.conftest import Listening
from tests.flows.runs.listening.test_serving import served

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, which runs the page")

SOUNDS = "[...document.querySelectorAll('[data-sound]')].map((one) => one.dataset.sound)"
SLIDERS = "[...document.querySelectorAll('[data-rating]')].map((one) => one.dataset.rating)"


def begin(browser: Browser, url: str, listener: str) -> None:
    browser.open(url)
    browser.type("#listener", listener)
    browser.click("#begin")
    browser.click("#sample")
    browser.wait("document.querySelector('#sample').getAttribute('aria-pressed') === 'true'")
    browser.click("#start")
    browser.wait("document.querySelector('#next')")


def page_number(browser: Browser) -> str:
    return str(browser.value("document.querySelector('.progress span')?.textContent ?? ''"))


def hear_all(browser: Browser) -> None:
    for name in browser.value(SOUNDS):
        button = f'[data-sound="{name}"]'
        browser.click(button)
        browser.wait(f"document.querySelector('{button}').getAttribute('aria-pressed') === 'true'")


def on(browser: Browser, number: str) -> None:
    browser.wait(f"(document.querySelector('.progress span')?.textContent ?? 'end') === {json.dumps(number)}")


def outcome(listening: Listening, file: Path) -> dict[str, Any]:
    store = Store.open(str(listening.store))
    (done,) = import_results(store, [str(file)])
    assert done.is_new
    manifest = store.latest_manifest()
    assert manifest is not None
    (made,) = results_of(store, manifest, done.test_id)
    return made.as_dict()


def saved(browser: Browser) -> tuple[Path, list[dict[str, Any]]]:
    browser.wait("document.querySelector('#save')")
    browser.click("#save")
    path = browser.downloaded()
    return path, json.loads(path.read_text())["answers"]


def fits(browser: Browser) -> bool:
    """Return whether nothing is wider than the screen."""
    return bool(browser.value("document.documentElement.scrollWidth <= window.innerWidth"))


def systems(design: Design) -> Mapping[str, str]:
    return {token: system for trial in design.trials for token, system in trial.stimuli.items()}


def test_mushra_from_a_disk_on_a_phone(listening: Listening) -> None:
    design = listening.make("mushra", n=2)
    expected: dict[str, list[int]] = {}
    with Browser(listening.folder / "browser", PHONE) as browser:
        begin(browser, listening.page("mushra"), "anna")
        for number in ("1 of 2", "2 of 2"):
            on(browser, number)
            assert fits(browser)
            browser.key("Enter")  # too early
            assert "Listen to Reference, 1, 2, 3, 4, 5 first." in browser.text()
            hear_all(browser)
            browser.click("#next")
            assert "Rate 1, 2, 3, 4, 5 first." in browser.text()
            for at, token in enumerate(browser.value(SLIDERS)):
                # One click hits the middle, where the slider stands already.
                share = 0.995 if systems(design)[token] == REFERENCE else (0.5, 0.2, 0.35, 0.7, 0.8)[at]
                browser.click(f'[data-rating="{token}"]', (share, 0.5))
                rating = int(browser.value(f"document.getElementById('out-{token}').textContent"))
                expected.setdefault(systems(design)[token], []).append(rating)
            browser.click("#next")
        path, answers = saved(browser)
        assert browser.errors == []
    assert [answer["trial"] for answer in answers] == ["0001", "0002"]
    made = outcome(listening, path)
    assert {row["system"]: row["mean"] for row in made["systems"]} == {
        system: sum(ratings) / 2 for system, ratings in expected.items()
    }
    assert set(expected) == {"gla", "admm", REFERENCE, "low anchor", "mid anchor"}


def test_abx_by_keys_alone(listening: Listening) -> None:
    design = listening.make("abx", n=3)
    with Browser(listening.folder / "browser", DESK) as browser:
        begin(browser, listening.page("abx"), "bert")
        for number in ("1 of 3", "2 of 3", "3 of 3"):
            on(browser, number)
            assert fits(browser)
            for key in "abx":
                browser.key(key)
                browser.wait(f"document.querySelector('[data-sound={key}]').getAttribute('aria-pressed') === 'true'")
            browser.key(" ")
            browser.wait("!document.querySelector('[aria-pressed=true]')")
            browser.key("2")
            browser.key("Enter")
        path, answers = saved(browser)
        assert browser.errors == []
    assert [answer["answer"] for answer in answers] == ["b"] * 3
    assert all(answer["plays"] == {"a": 1, "b": 1, "x": 1} for answer in answers)
    made = outcome(listening, path)
    assert made["listeners"][0]["n_correct"] == sum(answer["x"] == answer["b"] for answer in answers)
    assert {one.name for one in design.systems} == {row["system"] for row in made["systems"]}


def test_cmos_from_the_server_arrives_there(listening: Listening) -> None:
    design = listening.make("cmos", n=2)
    with served(listening.folder / "cmos") as (url, _), Browser(listening.folder / "browser", PHONE) as browser:
        begin(browser, url, "carl")
        for number, key in (("1 of 2", "7"), ("2 of 2", "3")):
            on(browser, number)
            assert fits(browser)
            hear_all(browser)
            browser.key(key)
            browser.click("#next")
        browser.wait("document.querySelector('#sent')?.textContent === 'Your answers have arrived.'")
        assert browser.errors == []
    (path,) = (listening.folder / "cmos" / "results").iterdir()
    answers = json.loads(path.read_text())["answers"]
    assert sorted(answer["answer"] for answer in answers) == [-1, 3]
    made = outcome(listening, path)
    better = {row["system"]: row["mean"] for row in made["systems"]}
    named = systems(design)
    of_admm = [answer["answer"] * (1 if named[answer["b"]] == "admm" else -1) for answer in answers]
    assert better == {"admm": sum(of_admm) / 2, "gla": -sum(of_admm) / 2}


def test_preference_goes_on_where_it_stopped(listening: Listening) -> None:
    listening.make("preference", n=3)
    with Browser(listening.folder / "browser", PHONE) as browser:
        begin(browser, listening.page("preference"), "dora")
        hear_all(browser)
        browser.key("1")
        browser.click("#next")
        on(browser, "2 of 3")
        first = browser.value("Object.keys(localStorage).filter((key) => key.endsWith('/dora')).length")
        assert first == 1
        browser.open(listening.page("preference"))  # the page is closed and opened again
        assert browser.value("document.querySelector('#listener').value") == "dora"
        assert browser.value("document.querySelector('#begin').textContent") == "Continue"
        browser.click("#begin")
        for number, key in (("2 of 3", "3"), ("3 of 3", "2")):
            on(browser, number)
            hear_all(browser)
            browser.key(key)
            browser.click("#next")
        path, answers = saved(browser)
        assert browser.errors == []
    assert sorted(answer["answer"] for answer in answers) == ["a", "b", "none"]
    made = outcome(listening, path)
    assert sum(row["mean"] for row in made["systems"]) == pytest.approx(1)


def test_listeners_have_orders_of_their_own_and_all_controls_have_names(listening: Listening) -> None:
    listening.make("mushra", n=4)
    orders = []
    with Browser(listening.folder / "browser", PHONE) as browser:
        for listener in ("anna", "bert", "anna"):
            begin(browser, listening.page("mushra"), listener)
            orders.append(browser.value(SLIDERS))
            unnamed = browser.value(
                "[...document.querySelectorAll('button, input')].filter((one) => !(one.textContent.trim()"
                " || one.labels?.length || one.getAttribute('aria-label'))).length"
            )
            assert unnamed == 0
        small = browser.value(
            "[...document.querySelectorAll('button')].filter((one) => one.getBoundingClientRect().height < 44).length"
        )
        assert small == 0
    assert orders[0] == orders[2] != orders[1]


def test_sounds_that_are_gone_are_said_and_can_be_tried_again(listening: Listening) -> None:
    listening.make("abx", n=1)
    sounds = listening.folder / "abx" / "trials" / "0001.js"
    kept = sounds.read_bytes()
    sounds.unlink()
    with Browser(listening.folder / "browser", PHONE) as browser:
        browser.open(listening.page("abx"))
        browser.click("#begin")
        browser.wait("document.body.innerText.includes('The sounds could not be loaded')")
        sounds.write_bytes(kept)
        browser.click("button.main")
        browser.wait("document.querySelector('#sample')")
