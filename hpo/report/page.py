"""A report as one web page that needs nothing but itself: opens from disk, prints, light or dark."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping

from markdown_it import MarkdownIt

from hpo.report.language import Language


def report_page(title: str, markdown: str, pictures: Mapping[str, bytes], language: Language = "en") -> bytes:
    """Return Markdown as a whole page; ``pictures`` (SVG, by name) stand where it shows ``NAME.png``.

    Markdown of the study's own texts is rendered, HTML in it is not.
    """
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    for name, picture in pictures.items():
        inside = base64.b64encode(picture).decode("ascii")
        body = body.replace(f'src="{name}.png"', f'src="data:image/svg+xml;base64,{inside}"')
    for wide in ("<table>", "<p><img "):  # they scroll where the page is narrow: by keyboard too
        body = body.replace(wide, wide.replace(">", ' tabindex="0">', 1))
    return page(title, body, language)


def page(title: str, body: str, language: Language = "en") -> bytes:
    """Return a whole page; ``body`` is HTML already."""
    tag = {"en": "en", "zh": "zh-Hans"}[language]
    return _PAGE.format(tag=tag, title=html.escape(title), style=_STYLE, body=body).encode()


# The policy: a study's own texts may name a picture on somebody's server, which would see who reads and when.
_PAGE = """<!DOCTYPE html>
<html lang="{tag}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
_STYLE = """:root { color-scheme: light dark;
  --ink: #222; --paper: #fff; --line: #ccc; --tint: #f3f3f3; --link: #0b57a4 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ddd; --paper: #16181b; --line: #454a50; --tint: #24282d; --link: #8ab8f0 }
}
body { font: 16px/1.55 system-ui, "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif;
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: var(--ink); background: var(--paper);
  overflow-wrap: anywhere }
h1, h2 { line-height: 1.25 }
h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem }
h2:first-of-type + ul > li:first-child { font-weight: 600 }
a { color: var(--link) }
img { display: block; max-width: 100%; margin: 1rem auto; background: #fff; border-radius: 4px }
table { border-collapse: collapse; display: block; overflow-x: auto;
  overflow-wrap: normal; font-size: .92em }
th, td { border: 1px solid var(--line); padding: .25rem .6rem; text-align: left; vertical-align: top }
th, code { background: var(--tint) }
code { padding: 0 .2em }
@media (max-width: 40rem) {
  p:has(> img) { overflow-x: auto }
  img { max-width: none; width: 30rem }
  th, td { padding: .2rem .35rem }
}
@media print {
  :root { --ink: #000; --paper: #fff; --line: #999; --tint: #eee; --link: #000 }
  body { max-width: none; margin: 0; font-size: 10.5pt }
  table { display: table; overflow: visible }
  img, tr, h2 { break-inside: avoid }
  h2, p:has(+ p > img) { break-after: avoid }
}
"""
