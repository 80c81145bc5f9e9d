"""Splits of a training set: by the corpus, by a list, or by shares, with speakers kept apart."""

from __future__ import annotations

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from melmill.flows.exchange.sets.layout import Item
from melmill.flows.pipeline.errors import PipelineError

TRAIN = "train"
_NAME = re.compile(r"[\w][\w.-]*")
_SHARE = re.compile(r"(?P<name>[^=,]+)=(?P<share>[^,]*)")


def check_name(name: str) -> None:
    """Raise PipelineError unless files can have the name of a split."""
    if not _NAME.fullmatch(name):
        raise PipelineError(f"a split must have a name of letters, digits, '_', '.' and '-', got {name!r}")


def shares_of(text: str) -> dict[str, float]:
    """Return the share of each split but ``train``, which has the rest.

    >>> shares_of("dev=0.05,test=0.1")
    {'dev': 0.05, 'test': 0.1}
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        match = _SHARE.fullmatch(part.strip())
        try:
            share = float(match["share"]) if match else -1.0
        except ValueError:
            share = -1.0
        if match is None or not 0 < share < 1:
            raise PipelineError(
                f"--split must be subset, or shares such as dev=0.05,test=0.05, got {part!r} in {text!r}; a list of "
                "ids or speakers goes to --split-list"
            )
        check_name(match["name"])
        if match["name"] in shares:
            raise PipelineError(f"--split must say one share for each split, got two for {match['name']!r} in {text!r}")
        shares[match["name"]] = share
    total = sum(shares.values())
    if TRAIN in shares:
        if not math.isclose(total, 1, abs_tol=1e-6):
            raise PipelineError(
                f"--split must sum up to 1 where it names {TRAIN}, got {text!r}, which sums up to {total:g}: leave "
                f"{TRAIN} out, and it has the rest"
            )
        del shares[TRAIN]
    elif total >= 1:
        raise PipelineError(f"--split must leave a share for {TRAIN}, got {text!r}, which sums up to {total:g}")
    return shares


def by_shares(items: Sequence[Item], shares: Mapping[str, float], *, together: bool = True) -> list[Item]:
    """Return utterances with their splits: each speaker is in one, unless `together` is false.

    Groups are taken in an order that their names alone decide. Each goes to the split that lacks most of its
    share of the samples. An utterance without a speaker is a group of its own.

    Raises
    ------
    PipelineError
        There are too few speakers to give each split one.
    """
    groups: dict[str, list[Item]] = defaultdict(list)
    for one in items:
        groups[f"speaker {one.speaker}" if together and one.speaker else f"utterance {one.id}"].append(one)
    if len(groups) <= len(shares):
        raise PipelineError(
            f"--split {','.join(f'{name}={share:g}' for name, share in shares.items())} needs at least "
            f"{len(shares) + 1} speakers to keep them apart, got {len(groups)}: add --share-speakers to split "
            "utterances"
        )
    total = sum(one.n_samples for one in items) or 1
    wanted = {TRAIN: 1 - sum(shares.values()), **shares}
    lacking = {name: share * total for name, share in wanted.items()}
    split_of = {}
    order = sorted(groups, key=lambda name: hashlib.sha256(name.encode()).digest())
    # The smallest shares first, so that none stays empty.
    empty = sorted(shares, key=lambda name: (wanted[name], name))
    for name in order:
        size = sum(one.n_samples for one in groups[name])
        split = empty.pop(0) if empty else max(lacking, key=lambda one: (lacking[one] / wanted[one], one))
        split_of[name] = split
        lacking[split] -= size
    made = {one.id: split_of[name] for name, some in groups.items() for one in some}
    return [one._replace(split=made[one.id]) for one in items]


def by_subset(items: Sequence[Item]) -> list[Item]:
    """Return utterances with the subsets of their corpus as splits."""
    without = next((one for one in items if not one.subset), None)
    if without is not None:
        raise PipelineError(f"--split subset takes utterances with subsets, got {without.id!r} without one: use shares")
    return [one._replace(split=re.sub(r"[^\w.-]+", "_", one.subset)) for one in items]


def by_list(items: Sequence[Item], text: str, path: str) -> list[Item]:
    """Return the utterances that a list names by id or by speaker, with their splits; others are left out."""
    said: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        fields = line.split("\t") if "\t" in line else line.split()
        if len(fields) != 2:
            raise PipelineError(f"{path}:{number} must be an id or a speaker, a tab, and a split, got {line[:60]!r}")
        name, split = (field.strip() for field in fields)
        check_name(split)
        if said.setdefault(name, split) != split:
            raise PipelineError(f"{path}:{number} puts {name!r} in {split!r}, and an earlier line in {said[name]!r}")
    chosen = [
        one._replace(split=said.get(one.id) or said[one.speaker])
        for one in items
        if one.id in said or (one.speaker and one.speaker in said)
    ]
    if not chosen:
        first = items[0].id if items else ""
        raise PipelineError(f"{path} names no utterance and no speaker of the node; ids read like {first!r}")
    return chosen


def check_apart(items: Sequence[Item]) -> None:
    """Raise PipelineError if a speaker is in several splits."""
    of_speaker: dict[str, set[str]] = defaultdict(set)
    for one in items:
        if one.speaker:
            of_speaker[one.speaker].add(one.split)
    shared = {name: splits for name, splits in of_speaker.items() if len(splits) > 1}
    if shared and len(of_speaker) > 1:
        name = min(shared)
        raise PipelineError(
            f"splits share {len(shared):,} of {len(of_speaker):,} speakers, as {name!r} in "
            f"{' and '.join(sorted(shared[name]))}: "
            "move their utterances, or add --share-speakers if that is meant"
        )
