"""Nothing that a user downloads is unpickled, and no YAML makes objects: every reader says so where it is called."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for layer in ("cluster", "flows", "stages", "storage") for path in (ROOT / layer).rglob("*.py"))

# Who may: the opt-in conversion of WaveGlow in a process of its own, a process's own child, and a worker what its
# client sent, which Dask unpickles anyway.
EXCUSED = {
    "stages/vocode/files/unpickling.py": {"torch.load"},
    "flows/execution/isolation.py": {"pickle.load", "pickle.loads"},
    "flows/tasks/chain.py": {"pickle.loads"},
    # lists the members, and never unpacks one to its own name
    "storage/files/archives.py": {"tarfile.open"},
}

# What reads anything that may be code, and the argument that forbids it; None where there is no such argument.
READERS = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
    "npy.read_array": ("allow_pickle", False),
    "pickle.load": None,
    "pickle.loads": None,
    "pd.read_pickle": None,
    "joblib.load": None,
    "marshal.loads": None,
    "yaml.unsafe_load": None,
    "yaml.full_load": None,
    "shelve.open": None,
    # archives, whose members may have any name
    "tarfile.open": None,
    "shutil.unpack_archive": None,
}
SAFE_LOADERS = {"yaml.SafeLoader", "_PlainLoader"}


def calls(source: str) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def unsafe(source: str) -> set[str]:
    """Return the readers that a module calls without forbidding code."""
    found = set()
    for name, call in calls(source):
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        if name in READERS:
            rule = READERS[name]
            value = given.get(rule[0]) if rule else None
            if rule is None or not isinstance(value, ast.Constant) or value.value is not rule[1]:
                found.add(name)
        elif name in ("yaml.load", "yaml.load_all"):
            loader = given.get("Loader") or (call.args[1] if len(call.args) > 1 else None)
            if loader is None or ast.unparse(loader) not in SAFE_LOADERS:
                found.add(name)
        elif name.endswith((".extractall", ".extract")):
            found.add(name)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_readers_forbid_code(path: Path) -> None:
    assert unsafe(path.read_text()) <= EXCUSED.get(str(path.relative_to(ROOT)), set())


def test_the_excuses_are_needed() -> None:
    for name, readers in EXCUSED.items():
        assert unsafe((ROOT / name).read_text()) == readers


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("torch.load(f)", {"torch.load"}),
        ("torch.load(f, weights_only=False)", {"torch.load"}),
        ("torch.load(f, weights_only=True)", set()),
        ("np.load(f, allow_pickle=True)", {"np.load"}),
        ("yaml.load(f, Loader=yaml.Loader)", {"yaml.load"}),
        ("yaml.load(f, yaml.SafeLoader)", set()),
        ("archive.extractall(folder)", {"archive.extractall"}),
    ],
)
def test_this_test_can_fail(line: str, found: set[str]) -> None:
    assert unsafe(line) == found
