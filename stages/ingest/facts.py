"""Facts of published corpora, for documentation and for `melmill fetch`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Download(NamedTuple):
    """Hold a file of a corpus that has a public address.

    Parameters
    ----------
    name : str
        Of the file.
    url : str
    n_bytes : int
        0 where its publisher says none: then the server's answer counts.
    sha256, md5 : str
        The publisher's checksum, in hexadecimal; empty where it says none.
    part : str
        What one asks for to get it (``dev-clean``).
    """

    name: str
    url: str
    n_bytes: int = 0
    sha256: str = ""
    md5: str = ""
    part: str = ""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """State what is known of a published corpus, for documentation and for `melmill fetch`.

    Parameters
    ----------
    url : str
        Page of the corpus.
    licence : str
    language : str
        Tags of its languages, or words where there are many.
    rate : str
        Rates of its recordings, Hz.
    layout : str
        Where its files lie, in a few words of code.
    texts : str
        Where its texts are.
    quirks : str
        What is odd about it, in a sentence or two.
    downloads : tuple of Download
        Files that have public addresses; empty if one must register, or ask.
    """

    url: str
    licence: str
    language: str
    rate: str
    layout: str
    texts: str
    quirks: str = ""
    downloads: tuple[Download, ...] = ()
