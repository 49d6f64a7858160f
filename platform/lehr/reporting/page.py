"""The page of every report: one self-contained file, light and dark, for a phone as for a wide screen.

A report is `page(title, lead, sections)`. The content of its sections comes from the functions below: `chart`, `table`,
`finding`, `paragraph`, `text`. Each returns HTML in which everything that users wrote is escaped; the page shows
control characters instead of holding them.
"""

from __future__ import annotations

import base64
import functools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from lehr.printing import printable, printable_tree
from lehr.reporting import drawing


@dataclass(frozen=True)
class Section:
    """A card of the page.

    Attributes:
        heading: its title; empty for none.
        body: its content.
        folded: whether it is folded at first; None: it cannot be folded.
    """

    heading: str
    body: Markup
    folded: bool | None = None


def page(title: str, lead: str, sections: Sequence[Section], facts: Sequence[tuple[str, str]] = ()) -> str:
    """A whole page.

    Args:
        title: the heading.
        lead: half a line under the title that says what the page is about.
        sections: its cards, from the top.
        facts: (name, value) of the few figures that matter most.
    """
    shown = [replace(each, heading=printable(each.heading), body=Markup(printable(each.body))) for each in sections]
    figures = [(printable(name), printable(value)) for name, value in facts]
    content: dict[str, Any] = {"title": printable(title), "lead": printable(lead), "sections": shown, "facts": figures}
    scripts = {"library": chart_library(), "themes": _script({"light": drawing.LIGHT, "dark": drawing.DARK})}
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_PAGE).render(**content, **{name: Markup(each) for name, each in scripts.items()})


# ── the content of a section ─────────────────────────────────────────────────────────────────────────────────────


def chart(drawn: Any, longest: int = 0, least: int = 260) -> Markup:
    """An Altair chart as wide as the page: one panel, panels one below the other (`vconcat`), or in columns (`concat`).

    Args:
        longest: characters of the longest label left of a plot. Labels at the ends of its lines get their room unasked.
        least: minimum width of a panel of a `concat`, in pixels: a narrower page gets fewer columns.
    """
    margin = 72 + 6.6 * min(longest, drawing.LONGEST_LABEL + 5)
    about = {"wide": margin, "narrow": min(margin, 196), "least": least}
    spec = printable_tree(drawn.to_dict(validate=False))
    inner = Markup('<script type="application/json">{}</script>').format(Markup(_script([spec, about])))
    return Markup('<div class="chart">{}</div>').format(inner)


def table(rows: Sequence[Sequence[Any]], head: Sequence[str] = ()) -> Markup:
    """A table of numbers under a `head`, else of a name and its text in each row. A cell may itself be HTML."""
    return _render(_TABLE, rows=rows, head=head)


def finding(
    title: str, *sentences: str, tone: str = "", tag: str = "", command: str = "", footnote: str = ""
) -> Markup:
    """A prominent sentence, its evidence, and what to do about it.

    Args:
        tone: its colour: `good`, `warn`, `bad`, or none.
        tag: a few words beside the title.
        command: a command to copy.
    """
    return _render(_FINDING, title=title, sentences=sentences, tone=tone, tag=tag, command=command, footnote=footnote)


def gallery(pictures: Sequence[tuple[bytes, Sequence[str]]]) -> Markup:
    """Pictures side by side.

    Args:
        pictures: PNG files, each with the lines below it; the first one stands out.
    """
    shown = [(base64.b64encode(png).decode(), lines) for png, lines in pictures]
    return _render(_GALLERY, pictures=shown, wide=all(_is_wide(png) for png, _ in pictures))


def _is_wide(png: bytes) -> bool:
    """Whether a picture is two beside each other, by the sizes at the start of a PNG file."""
    width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
    return width > 1.5 * height


def small_curves(lines: Sequence[tuple[str, str, Sequence[tuple[float, float]]]]) -> Markup:
    """Small pictures side by side, each with one curve whose axes go from 0 to 1.

    Args:
        lines: the name of each, a few words about it, and its points (x, y).
    """
    drawn = []
    for name, about, points in lines:
        drawn.append((name, about, " ".join(f"{100 * x:.1f},{100 - 100 * y:.1f}" for x, y in points)))
    return _render(_CURVES, curves=drawn)


def heat(shares: Sequence[Sequence[float]], cells: Sequence[Sequence[str]], head: Sequence[str], corner: str) -> Markup:
    """A square table whose cells are the darker, the larger their share, from 0 to 1.

    Args:
        head: the name of each row and column.
        corner: what rows and columns are.
    """
    rows = [(name, list(zip(line, words, strict=True))) for name, line, words in zip(head, shares, cells, strict=True)]
    return _render(_HEAT, rows=rows, head=head, corner=corner)


def paragraph(words: str, soft: bool = False) -> Markup:
    """A paragraph; `soft` is for less important text, such as the caption of a chart."""
    return Markup('<p class="{}">{}</p>').format("soft" if soft else "", words)


def text(body: str) -> Markup:
    """Preformatted text, such as a job file."""
    return Markup("<pre>{}</pre>").format(body)


def _render(template: str, **content: Any) -> Markup:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return Markup(environment.from_string(template).render(**content))


def _script(value: Any) -> str:
    """JSON that is safe inside a script element."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("</", "<\\/").replace("<!--", "<\\!--")


@functools.cache
def chart_library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, cached in the user's cache folder since bundling takes seconds."""
    import vl_convert

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lehr"
    kept = cache / f"vega-{version('vl-convert-python')}.js"
    try:
        return kept.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        pass
    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub lacks the default
    script = bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}")
        part.write_text(script, encoding="utf-8")
        part.replace(kept)
    except OSError:
        pass  # without a writable cache every report takes those seconds longer
    return script


# ── templates ─────────────────────────────────────────────────────────────────────────────────────────────────────

_TABLE = """<div class="scroll"><table>
  {% if head %}<tr>{% for cell in head %}<th class="number">{{ cell }}</th>{% endfor %}</tr>{% endif %}
  {% for row in rows %}<tr>{% for cell in row -%}
    {% if head %}<td class="number">{{ cell }}</td>{% elif loop.first %}<th>{{ cell }}</th>
    {%- else %}<td>{{ cell }}</td>{% endif %}
  {%- endfor %}</tr>{% endfor %}
</table></div>"""

_CURVES = """<div class="gallery">
  {% for name, about, points in curves -%}
  <figure><svg viewBox="-2 -2 104 104" role="img" aria-label="{{ name }}"><path d="M0 0V100H100"/>
    <polyline points="{{ points }}"/></svg><figcaption><div>{{ name }}</div><div class="soft">{{ about }}</div>
  </figcaption></figure>
  {%- endfor %}
</div>"""

_GALLERY = """<div class="gallery{% if wide %} wide{% endif %}">
  {% for png, lines in pictures -%}
  <figure><img alt="" src="data:image/png;base64,{{ png }}"><figcaption>
    {%- for line in lines %}<div{% if not loop.first %} class="soft"{% endif %}>{{ line }}</div>{% endfor -%}
  </figcaption></figure>
  {%- endfor %}
</div>"""

_HEAT = """<div class="scroll"><table class="heat">
  <tr><th>{{ corner }}</th>{% for name in head %}<th class="number">{{ name }}</th>{% endfor %}</tr>
  {% for name, cells in rows %}<tr><th>{{ name }}</th>{% for share, words in cells -%}
    <td class="number" style="--share:{{ '%.0f' % (100 * share) }}%">{{ words }}</td>
  {%- endfor %}</tr>{% endfor %}
</table></div>"""

_FINDING = """<div class="finding {{ tone }}">
  <h2>{{ title }}{% if tag %}<span class="tag">{{ tag }}</span>{% endif %}</h2>
  {% for sentence in sentences if sentence %}<p>{{ sentence }}</p>{% endfor %}
  {% if command %}<pre class="command">{{ command }}</pre>{% endif %}
  {% if footnote %}<p class="soft">{{ footnote }}</p>{% endif %}
</div>"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="lehr">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:;
  style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>
  :root { --ink: #1d2733; --soft: #5c6873; --line: #dfe4e8; --page: #f6f7f9; --card: #ffffff; --code: #f1f3f5;
          --good: #2f7d4f; --warn: #b35c12; --bad: #c03636; --heat: #9cc3ea; }
  @media (prefers-color-scheme: dark) {
    :root { --ink: #e6eaee; --soft: #9aa6b2; --line: #2f3841; --page: #12161a; --card: #1a2026; --code: #232b33;
            --good: #6cc28e; --warn: #eba55c; --bad: #f08080; --heat: #2d5f94; } }
  * { box-sizing: border-box; }
  body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI",
         Roboto, "Helvetica Neue", Arial, sans-serif; }
  main { max-width: 960px; margin: 0 auto; padding: 28px 16px 64px; }
  h1 { font-size: 24px; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
  h2 { font-size: 16px; margin: 0 0 12px; }
  section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px;
            margin-top: 16px; }
  section p { margin: 0 0 12px; } section p:last-child { margin-bottom: 0; }
  .soft { color: var(--soft); }
  .facts { display: flex; flex-wrap: wrap; gap: 4px 28px; margin: 12px 0 0; padding: 0; }
  .facts div { min-width: 90px; } .facts dt { color: var(--soft); font-size: 13px; }
  .facts dd { margin: 0; font-size: 17px; font-variant-numeric: tabular-nums; }
  .finding + .finding { border-top: 1px solid var(--line); margin-top: 14px; padding-top: 14px; }
  .finding h2 { margin: 0; font-size: 19px; } .finding p { margin: 4px 0 0; }
  .good h2 { color: var(--good); } .warn h2 { color: var(--warn); } .bad h2 { color: var(--bad); }
  .finding ~ .finding h2 { font-size: 16px; }
  .tag { font-size: 12px; font-weight: normal; color: var(--soft); border: 1px solid var(--line); border-radius: 99px;
         padding: 1px 8px; margin-left: 6px; white-space: nowrap; }
  code, pre { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
  code { background: var(--code); border-radius: 4px; padding: 2px 5px; overflow-wrap: anywhere; }
  pre { background: var(--code); border-radius: 8px; padding: 12px 14px; margin: 8px 0 0; overflow-x: auto; }
  pre.command { white-space: pre-wrap; overflow-wrap: anywhere; }
  .chart { width: 100%; overflow: hidden; } .chart .vega-embed { display: block; width: 100%; }
  .chart summary { opacity: .35; } .chart + *, * + .chart { margin-top: 12px; }
  .bar { display: flex; height: 14px; border-radius: 7px; overflow: hidden; background: var(--code); }
  .legend { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 10px 0 0; padding: 0; list-style: none; }
  .legend i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 6px; }
  .scroll { overflow-x: auto; }
  table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; font-size: 14px; }
  th, td { text-align: left; padding: 4px 14px 4px 0; vertical-align: top; border-bottom: 1px solid var(--line); }
  th { color: var(--soft); font-weight: normal; } tr:last-child > * { border-bottom: 0; }
  .gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); gap: 14px; }
  .gallery.wide { grid-template-columns: repeat(auto-fill, minmax(216px, 1fr)); }
  .gallery.wide img { aspect-ratio: auto; }
  figure svg { width: 100%; fill: none; stroke-width: 2; } figure svg path { stroke: var(--soft); stroke-width: 1; }
  figure svg polyline { stroke: var(--heat); }
  figure { margin: 0; } figcaption { font-size: 13px; line-height: 1.35; overflow-wrap: anywhere; margin-top: 4px; }
  figure img { width: 100%; aspect-ratio: 1; object-fit: contain; background: var(--code); border-radius: 6px;
               image-rendering: pixelated; }
  .scroll + .scroll { margin-top: 14px; } table.heat { width: auto; }
  table.heat td, table.heat th { padding: 4px 8px; border: 0; }
  table.heat td { background: color-mix(in srgb, var(--heat) var(--share), transparent); min-width: 44px; }
  table.heat tr:first-child th { white-space: nowrap; }
  @media (max-width: 560px) {
    th.number, table.heat tr:first-child th { white-space: normal; } th, td { font-size: 12px; }
    table.heat td, table.heat th { padding: 4px 2px; min-width: 22px; font-size: 12px; }
  }
  td.number, th.number { text-align: right; white-space: nowrap; }
  summary { cursor: pointer; } details > summary h2 { display: inline; }
  details[open] > summary { margin-bottom: 10px; }
</style>
</head>
<body>
<main>
  <header>
    <h1>{{ title }}</h1>
    <div class="soft">{{ lead }}</div>
    <dl class="facts">
    {%- for name, value in facts %}<div><dt>{{ name }}</dt><dd>{{ value }}</dd></div>{% endfor -%}
    </dl>
  </header>
  {% for section in sections %}
  <section{% if section.heading %} aria-label="{{ section.heading }}"{% endif %}>
    {% if section.folded is none -%}
    {% if section.heading %}<h2>{{ section.heading }}</h2>{% endif %}
    {{ section.body }}
    {%- else -%}
    <details{% if not section.folded %} open{% endif %}><summary><h2>{{ section.heading }}</h2></summary>
    {{ section.body }}</details>
    {%- endif %}
  </section>{% endfor %}
  <noscript>The charts need JavaScript.</noscript>
</main>
<script>{{ library }}</script>
<script>
  const themes = {{ themes }}, dark = matchMedia("(prefers-color-scheme: dark)");
  const charts = [...document.querySelectorAll(".chart")].map(element => {
    const [spec, margin] = JSON.parse(element.querySelector("script").textContent);
    return {element, spec, margin, drawn: 0, view: null};
  });
  function ends(spec, data) {  // the rows of all labels at the ends of lines
    const found = (spec.layer || []).flatMap(layer => {
      const mark = layer.mark || {}, rows = layer.data && (layer.data.values || data[layer.data.name]) || [];
      return mark.type == "text" && mark.align == "left" && mark.dx == 8 ? rows : ends(layer, data);
    });
    return found.concat(...[spec.vconcat, spec.concat].map(parts => (parts || []).flatMap(part => ends(part, data))));
  }
  function shorten(text, most) {  // the number at its end stays
    const [, name, number] = text.match(/^(.*?)((?: -?[0-9.]+)?)$/s);
    return text.length <= most ? text : name.slice(0, Math.max(3, most - number.length - 1)) + "…" + number;
  }
  function fit(spec, margin, width, narrow) {  // margin: the width of axis and labels beside a plot
    const labels = ends(spec, spec.datasets || {});
    let beside = narrow ? margin.narrow : margin.wide;
    if (labels.length) {
      const room = Math.max(8, Math.floor((width - 140 - 64) / 7.3));
      for (const label of labels) label.text = shorten(label.text, narrow ? room : 40);
      beside = Math.max(beside, 64 + 7.3 * Math.max(...labels.map(label => label.text.length)));
    }
    if (spec.vconcat) {
      for (const panel of spec.vconcat) {
        panel.width = Math.max(160, width - beside);
        if (narrow && typeof panel.title == "string") panel.title = panel.title.split(":")[0];
      }
    } else if (spec.concat) {
      spec.columns = Math.max(1, Math.min(spec.columns || 3, spec.concat.length, Math.floor(width / margin.least)));
      for (const panel of spec.concat) panel.width = Math.max(120, width / spec.columns - beside);
    } else {
      spec.width = Math.max(160, width - beside);
      if (narrow && typeof spec.title == "string") spec.title = spec.title.split(":")[0];
    }
  }
  async function draw(chart) {
    const width = chart.element.clientWidth;
    if (!width || width === chart.drawn) return;
    chart.drawn = width;
    const narrow = width < 560, spec = structuredClone(chart.spec);
    fit(spec, chart.margin, width, narrow);
    if (chart.view) chart.view.finalize();
    const options = {actions: !narrow && {export: true, source: false, compiled: false, editor: false},
                     config: dark.matches ? themes.dark : themes.light,
                     tooltip: {theme: dark.matches ? "dark" : "light"}};
    if (narrow) { options.config = structuredClone(options.config); options.config.axisX.tickCount = 5; }
    chart.view = await vegaEmbed(chart.element, spec, options);
  }
  const drawAll = () => charts.forEach(draw);
  drawAll();
  dark.addEventListener("change", () => { charts.forEach(chart => chart.drawn = 0); drawAll(); });
  document.addEventListener("toggle", drawAll, true);  // a folded section has no width to draw in
  let waiting = 0;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(drawAll, 150); });
</script>
</body>
</html>
"""
