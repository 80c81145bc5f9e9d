"""Inputs of every fault that a search is to find; a child of `benchmarks.fuzz` imports them."""

from __future__ import annotations

import os
import signal
import time
from random import Random

from benchmarks.fuzz.contract import Case, Kind, Wrong

FAULTS = ("accepted", "refused", "traceback", "wrong", "hang", "death", "memory")


class Faulty(Kind):
    name = "faulty"

    def case(self, rng: Random) -> Case:
        return Case("a.txt", rng.choice(FAULTS).encode())

    def judge(self, case: Case) -> bool:
        match case.data.decode():
            case "traceback":
                raise ZeroDivisionError("not melmill's")
            case "wrong":
                raise Wrong("another value", f"{case.data!r}")
            case "hang":
                time.sleep(100)
            case "death":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "memory":
                bytearray(4 << 30)
        return case.data == b"accepted"
