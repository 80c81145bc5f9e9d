"""What MkDocs calls while it builds the site: fill in tables, add files and audio, set mathematics."""

from __future__ import annotations

import posixpath
import re
from html import unescape
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docs.generate import gallery, reference

ROOT = Path(__file__).parents[2]
# A link from a page to a file of the repository that is not a page.
_OUTSIDE = re.compile(r"\]\((?P<path>\.\./[^)#]+)\)")
_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<formula>.+?)\\[)\]]</(?P=tag)>', flags=re.DOTALL
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of the repository that pages link to, and the gallery's audio."""
    for page in list(files.documentation_pages()):
        for link in _OUTSIDE.finditer(page.content_string):
            path = _repository_path(page.src_uri, link["path"])
            if not (ROOT / path).is_file():
                raise PluginError(f"{page.src_uri}: {link['path']!r} is not a file of the repository")
            if files.get_file_from_path(f"files/{path}") is None:
                files.append(File.generated(config, f"files/{path}", abs_src_path=str(ROOT / path)))
    try:
        clips = gallery.clips(str(config.extra["gallery"]))
    except gallery.NoRun as error:
        raise PluginError(f"{error}; `make docs` makes it") from error
    for clip in clips:
        files.append(File.generated(config, clip.path, content=clip.mp3))
    config.extra["clips"] = clips
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what the code says, and lead links to files of the repository to their copies."""
    del files
    here = posixpath.dirname(page.file.src_uri)

    def copied(link: re.Match[str]) -> str:
        target = f"files/{_repository_path(page.file.src_uri, link['path'])}"
        return f"]({posixpath.relpath(target, here or '.')})"

    if not page.file.src_uri.startswith("files/"):
        markdown = _OUTSIDE.sub(copied, reference.filled(markdown))
    return markdown.replace("<!-- gallery -->", gallery.page(config.extra["clips"]))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Set formulas as MathML, which browsers show without a script; keep means and intervals in a line."""
    del page, config, files
    return _FORMULA.sub(_mathml, html).replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")


def _mathml(found: re.Match[str]) -> str:
    return convert(unescape(found["formula"]), display="block" if found["tag"] == "div" else "inline")


def _repository_path(page: str, link: str) -> str:
    return posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
