"""Measure how the code is divided: ``python -m benchmarks.structure [FOLDER]``, from a checkout.

FOLDER is another checkout to measure, such as a worktree of an earlier commit.
"""

from __future__ import annotations

import ast
import re
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

LAYERS = ("cluster", "flows", "stages", "storage")


def modules(root: Path) -> dict[str, ast.Module]:
    """Return the syntax trees of all modules of the four layers by their import names."""
    trees = {}
    for layer in LAYERS:
        for path in sorted((root / layer).rglob("*.py")):
            name = ".".join(("melmill", *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
            trees[name] = ast.parse(path.read_text())
    return trees


def imports(name: str, trees: Mapping[str, ast.Module], *, anywhere: bool = True) -> set[str]:
    """Return the modules that a module imports.

    Parameters
    ----------
    anywhere : bool
        Count the imports inside functions, and those for type checkers alone.
    """
    nodes: Iterator[ast.AST] = ast.walk(trees[name]) if anywhere else _at_import(trees[name])
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in trees}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found |= {whole if whole in trees else node.module} & set(trees)
    return found - {name}


def _at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Iterate over what is executed when a module is imported."""
    for node in ast.iter_child_nodes(tree):
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not typing_only:
            yield node
            yield from _at_import(node)


def cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that reach each other (strongly connected components, Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return found


def bodies(tree: ast.AST) -> list[int]:
    """Return the lines of every function's body, without its docstring."""
    sizes = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            sizes.append((body[-1].end_lineno or 0) - body[0].lineno + 1)
    return sizes


def private_functions(trees: Mapping[str, ast.Module]) -> tuple[int, int]:
    """Return how many private functions and methods there are, and how many of them are named in one place alone."""
    n, once = 0, 0
    for tree in trees.values():
        uses = Counter(
            node.id if isinstance(node, ast.Name) else node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Name | ast.Attribute)
        )
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("_") and not node.name.startswith("__"):
                n += 1
                once += uses[node.name] == 1
    return n, once


def percentile(values: list[int], q: int) -> int:
    """Return the `q`-th percentile, 1 to 99."""
    return round(statistics.quantiles(values, n=100, method="inclusive")[q - 1])


def measures(root: Path) -> dict[str, str]:
    """Return what is measured of a checkout, by the name it is printed under."""
    trees = modules(root)
    texts = [path.read_text() for layer in LAYERS for path in (root / layer).rglob("*.py")]
    lines = [text.count("\n") for text in texts]
    sizes = [size for tree in trees.values() for size in bodies(tree)]
    n_private, n_once = private_functions(trees)
    entries: dict[Path, int] = defaultdict(int)
    for layer in LAYERS:
        for path in [root / layer, *(root / layer).rglob("*")]:
            if path.is_dir() and "__pycache__" not in path.parts and any(path.glob("*.py")):
                entries[path] = sum(child.name not in ("__init__.py", "__pycache__") for child in path.iterdir())
    fullest = max(entries, key=lambda path: entries[path])
    importers = Counter(other for name in trees for other in imports(name, trees))
    text = "\n".join(texts)
    at_import = cycles({name: imports(name, trees, anywhere=False) for name in trees})
    anywhere = cycles({name: imports(name, trees) for name in trees})
    return {
        "modules": f"{len(trees)}",
        "lines of a module, median / p90 / max": f"{percentile(lines, 50)} / {percentile(lines, 90)} / {max(lines)}",
        "lines of a body, median / p90 / max": f"{percentile(sizes, 50)} / {percentile(sizes, 90)} / {max(sizes)}",
        "private functions, of which used in one place": f"{n_private}, {n_once}",
        "modules with one importer": f"{sum(n == 1 for n in importers.values())}",
        "folders, entries of the fullest": f"{len(entries)}, {entries[fullest]} ({fullest.relative_to(root)})",
        "import cycles when modules are imported": f"{len(at_import)}",
        "import cycles with imports in functions": f"{len(anywhere)}",
        "NDArray[Any]": f"{text.count('NDArray[Any]')}",
        "Any": f"{len(re.findall(r'(?<![A-Za-z_])Any(?![A-Za-z_])', text)) - len(re.findall(r'import .*Any', text))}",
    }


def main() -> None:
    """Print the measures of a checkout, this one or the one that is named."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    for name, value in measures(root).items():
        print(f"{name:48} {value}")
    trees = modules(root)
    for group in cycles({name: imports(name, trees) for name in trees}):
        print("cycle: " + ", ".join(group))


if __name__ == "__main__":
    main()
