"""What a store takes: by product, and summed up by node, key, run and tag."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from melmill.storage.errors import StoreError
from melmill.storage.product import Address, ProductFolder
from melmill.storage.runs import Manifest, RunRecord
from melmill.storage.store import Store


def size(n_bytes: float) -> str:
    """Return a size for people.

    >>> size(0), size(1536), size(3 * 2**30)
    ('0 B', '1.5 KiB', '3.0 GiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.1f} {unit}" if unit != "B" else f"{n_bytes:.0f} B"
        n_bytes /= 1024
    return f"{n_bytes:.1f} TiB"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductUsage:
    """What one product takes, and what it takes to make it again.

    Parameters
    ----------
    node, key : str
        Its folder is ``<store>/<node>/<key>``.
    stage : str
        Stage that made it. Empty where the description is missing or damaged.
    names : tuple of str
        What runs call its node. A node that was fanned out shares its folder with others.
    runs : tuple of str
        Runs that mean it or read its catalogue, the oldest first.
    n_bytes, n_files : int
        All files of its folder, half-made ones too.
    n_records, n_utterances : int
        Whole shards, and the utterances that have data in them.
    audio_s, compute_s : float
        Audio of those shards, and the time that stages took for them, s.
    made_at : str
        When its last task began, ISO 8601, UTC. Empty without records.
    n_elsewhere : int
        Further records whose files another store has. They are counted nowhere else.
    """

    node: str
    key: str
    stage: str
    names: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    n_bytes: int = 0
    n_files: int = 0
    n_records: int = 0
    n_utterances: int = 0
    audio_s: float = 0.0
    compute_s: float = 0.0
    made_at: str = ""
    n_elsewhere: int = 0

    @property
    def address(self) -> Address:
        """Node and key."""
        return self.node, self.key


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """Sum up products.

    `shared_bytes` and `exclusive_bytes` are of products that other runs reach too, and of those that
    only this run reaches, or only runs of this tag. The latter are freed if nobody needs it.
    """

    name: str
    products: int
    n_bytes: int
    n_files: int
    n_utterances: int
    compute_s: float
    shared_bytes: int = 0
    exclusive_bytes: int = 0
    exclusive_compute_s: float = 0.0
    tags: tuple[str, ...] = ()
    state: str = ""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a store takes.

    Parameters
    ----------
    store : str
    products : tuple of ProductUsage
        In order of node and key.
    runs : tuple of RunRecord
        The oldest first.
    other_bytes, other_files : int
        Of what is no product: records of runs, tags, the mark of the store.
    reach : mapping of str to frozenset of (str, str)
        By run: the products that it means, and those whose catalogues it reads.
    """

    store: str
    products: tuple[ProductUsage, ...]
    runs: tuple[RunRecord, ...]
    other_bytes: int
    other_files: int
    reach: Mapping[str, frozenset[Address]] = field(default_factory=dict)

    @property
    def n_bytes(self) -> int:
        """Size of all files."""
        return self.other_bytes + sum(product.n_bytes for product in self.products)

    @property
    def n_files(self) -> int:
        """Number of all files."""
        return self.other_files + sum(product.n_files for product in self.products)

    @property
    def compute_s(self) -> float:
        """Time that stages took for all that is stored, s."""
        return sum(product.compute_s for product in self.products)

    def by_node(self) -> list[Total]:
        """Return a total for each node that a product belongs to, in order of name."""
        groups: dict[str, list[ProductUsage]] = defaultdict(list)
        for product in self.products:
            groups[product.node].append(product)
        return [_total(name, products) for name, products in sorted(groups.items())]

    def by_run(self) -> list[Total]:
        """Return a total for each run, the oldest first."""
        n_reached = Counter(address for reached in self.reach.values() for address in reached)
        return [
            _total(
                run.run_id,
                self._of(self.reach[run.run_id]),
                only={one for one in self.reach[run.run_id] if n_reached[one] == 1},
                tags=run.tags,
                state=run.state,
            )
            for run in self.runs
        ]

    def by_tag(self) -> list[Total]:
        """Return a total for each tag, in order of name."""
        tagged = {tag: run for run in self.runs for tag in run.tags}
        totals = []
        for tag, run in sorted(tagged.items()):
            others = [self.reach[other.run_id] for other in self.runs if other.run_id != run.run_id]
            only = self.reach[run.run_id].difference(*others)
            totals.append(_total(tag, self._of(self.reach[run.run_id]), only=only, state=run.run_id))
        return totals

    @property
    def unreached(self) -> Total:
        """Total of the products that no run reaches."""
        return _total("no run", [product for product in self.products if not product.runs])

    def _of(self, addresses: Collection[Address]) -> list[ProductUsage]:
        return [product for product in self.products if product.address in addresses]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "store": self.store,
            "bytes": self.n_bytes,
            "files": self.n_files,
            "compute_s": self.compute_s,
            "other": {"bytes": self.other_bytes, "files": self.other_files},
            "products": [as_plain(product) for product in self.products],
            "nodes": [{"node": one.name, **_plain_total(one)} for one in self.by_node()],
            "runs": [
                {"run": one.name, "state": one.state, "tags": list(one.tags), **_plain_total(one, parts=True)}
                for one in self.by_run()
            ],
            "tags": [{"tag": one.name, "run": one.state, **_plain_total(one, parts=True)} for one in self.by_tag()],
            "no_run": _plain_total(self.unreached),
        }


def as_plain(product: ProductUsage) -> dict[str, Any]:
    """Return the fields of a product as plain values, for JSON."""
    fields = asdict(product)
    renamed = {
        "n_bytes": "bytes",
        "n_files": "files",
        "n_records": "records",
        "n_utterances": "utterances",
        "n_elsewhere": "elsewhere",
    }
    plain = {renamed.get(name, name): value for name, value in fields.items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def _plain_total(total: Total, *, parts: bool = False) -> dict[str, Any]:
    fields = {
        "products": total.products,
        "bytes": total.n_bytes,
        "files": total.n_files,
        "utterances": total.n_utterances,
        "compute_s": total.compute_s,
    }
    if parts:
        fields |= {
            "shared_bytes": total.shared_bytes,
            "exclusive_bytes": total.exclusive_bytes,
            "exclusive_compute_s": total.exclusive_compute_s,
        }
    return fields


def _total(
    name: str,
    products: Iterable[ProductUsage],
    *,
    only: Collection[Address] = (),
    tags: tuple[str, ...] = (),
    state: str = "",
) -> Total:
    products = list(products)
    own = [product for product in products if product.address in only]
    n_bytes, own_bytes = (sum(product.n_bytes for product in some) for some in (products, own))
    return Total(
        name=name,
        products=len(products),
        n_bytes=n_bytes,
        n_files=sum(product.n_files for product in products),
        n_utterances=sum(product.n_utterances for product in products),
        compute_s=sum(product.compute_s for product in products),
        shared_bytes=n_bytes - own_bytes,
        exclusive_bytes=own_bytes,
        exclusive_compute_s=sum(product.compute_s for product in own),
        tags=tags,
        state=state,
    )


def reached_by(manifest: Manifest) -> frozenset[Address]:
    """Return what must stay so that all that a manifest names can be read.

    These are the products that it names, and those whose catalogues list their utterances.
    """
    return frozenset(
        address for entry in manifest.nodes.values() for address in ((entry.folder, entry.key), *entry.catalogues)
    )


def runs_by_product(runs: Iterable[RunRecord]) -> dict[Address, list[RunRecord]]:
    """Return the runs that reach each product, in their order."""
    found: dict[Address, list[RunRecord]] = defaultdict(list)
    for run in runs:
        for address in reached_by(run.manifest):
            found[address].append(run)
    return dict(found)


def product_usage(
    folder: ProductFolder, address: Address, files: Mapping[str, int], runs: Iterable[RunRecord] = ()
) -> ProductUsage:
    """Return what a product takes.

    Parameters
    ----------
    folder : ProductFolder
    address : (str, str)
        Node and key.
    files : mapping of str to int
        Sizes of its files.
    runs : iterable of RunRecord
        Those that reach it, the oldest first.
    """
    node, key = address
    runs = list(runs)
    entries = [pair for run in runs for pair in run.manifest.nodes.items()]
    names = dict.fromkeys(name for name, entry in entries if (entry.folder, entry.key) == address)
    try:
        stage = folder.description.stage
    except StoreError:
        stage = ""
    everywhere = folder.records().values()
    records = [record for record in everywhere if not record.at]
    return ProductUsage(
        node=node,
        key=key,
        stage=stage,
        names=tuple(names),
        runs=tuple(run.run_id for run in runs),
        n_bytes=sum(files.values()),
        n_files=len(files),
        n_records=len(records),
        n_utterances=sum(record.n_utterances - len(record.absent) for record in records),
        audio_s=sum(record.duration_s for record in records),
        compute_s=sum(record.compute_s for record in records),
        made_at=max((record.started_at for record in everywhere), default=""),
        n_elsewhere=len(everywhere) - len(records),
    )


def files_by_product(store: Store) -> tuple[dict[Address, dict[str, int]], dict[str, int]]:
    """Return the sizes of the files of each product, and those of all other files, by one listing.

    A product without files is none.
    """
    products: dict[Address, dict[str, int]] = {address: {} for address, _ in store.products()}
    others = {}
    for name, n_bytes in store.location.everything().items():
        node, _, rest = name.partition("/")
        key, _, below = rest.partition("/")
        if below and (node, key) in products:
            products[node, key][below] = n_bytes
        else:
            others[name] = n_bytes
    return {address: files for address, files in sorted(products.items()) if files}, others


def usage(store: Store) -> Usage:
    """Return what a store takes.

    Every record is read, and every file is looked at for its size.

    Raises
    ------
    DamagedData
        The record of a run or a tag is damaged.
    """
    runs = store.runs()
    files, others = files_by_product(store)
    users = runs_by_product(runs)
    return Usage(
        store=store.location.url,
        products=tuple(product_usage(store.product(*one), one, files[one], users.get(one, ())) for one in files),
        runs=tuple(runs),
        other_bytes=sum(others.values()),
        other_files=len(others),
        reach={run.run_id: reached_by(run.manifest) for run in runs},
    )
