"""Find the objects of one kind by name: melmill's own, and those that other packages install."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import TypeGuard, TypeVar

from melmill.stages.numeric.errors import StageError

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """Map names to objects of one kind.

    A new object needs no entry in a table. Melmill's own are whatever the modules of one folder
    define. Those of other packages are found by their entry points, and each is imported when it is
    first asked for. Where both have a name, melmill's own is meant.

    Parameters
    ----------
    what : str
        A word for one object, for messages: ``"metric"``.
    package : str
        Package whose modules define melmill's own objects.
    group : str
        Entry-point group of those of other packages.
    is_one : callable
        Tells whether a value is such an object.
    name_of : callable
        Returns the name of an object; an entry point must have the same name.
    order : callable
        Returns what melmill's own objects are sorted by. Those of other packages follow by name.
    nested : bool
        Whether the folders in the folder hold modules of such objects too.
    """

    def __init__(
        self,
        what: str,
        *,
        package: str,
        group: str,
        is_one: Callable[[object], TypeGuard[T]],
        name_of: Callable[[T], str],
        order: Callable[[T], tuple[int, str]],
        nested: bool = False,
    ) -> None:
        self.what, self.package, self.group = what, package, group
        self._is_one, self._name_of, self._order, self._nested = is_one, name_of, order, nested
        self._loaded: dict[str, T] = {}

    def __getitem__(self, name: str) -> T:
        """Return the object called `name`.

        Raises
        ------
        KeyError
            There is none.
        StageError
            It can't be loaded, or is none.
        """
        if name in self._built_in:
            return self._built_in[name]
        if name not in self._loaded:
            entry = self._installed[name]
            where = f"the entry point {entry.name!r} = {entry.value!r} of group {self.group!r}"
            try:
                loaded = entry.load()
            except Exception as error:
                raise StageError(
                    f"{where} can't be loaded: {type(error).__name__}: {error}; mend or remove its package"
                ) from error
            if not self._is_one(loaded):
                raise StageError(f"{where} must be a {self.what}, got {loaded!r}")
            if self._name_of(loaded) != entry.name:
                raise StageError(f"{where} must have the name of its {self.what}, which is {self._name_of(loaded)!r}")
            self._loaded[name] = loaded
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names: melmill's own in order, then those of other packages."""
        yield from self._built_in
        yield from sorted(self._installed.keys() - self._built_in.keys())

    def __len__(self) -> int:
        """Return how many names there are."""
        return len(self._built_in.keys() | self._installed.keys())

    def unknown(self, name: str) -> str:
        """Return what a message says of a name that nothing has: the nearest name, and all names.

        The text continues a sentence: ``no metric 'stoy'; did you mean 'stoi'? (metrics: ...)``.
        """
        near = difflib.get_close_matches(name, self, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"no {self.what} {name!r}{hint} ({self.what}s: {', '.join(self)})"

    @cached_property
    def _built_in(self) -> dict[str, T]:
        package = importlib.import_module(self.package)
        found = pkgutil.walk_packages if self._nested else pkgutil.iter_modules
        names = [module.name for module in found(package.__path__, f"{self.package}.")]
        modules = [importlib.import_module(name) for name in names]
        objects = [value for module in modules for value in vars(module).values() if self._is_one(value)]
        return {self._name_of(value): value for value in sorted(objects, key=self._order)}

    @cached_property
    def _installed(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=self.group)}
