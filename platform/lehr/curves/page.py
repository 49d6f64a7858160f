"""The report page as a template: one file, no network, light and dark, from a phone to a wide screen."""

from __future__ import annotations

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:;
  style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>
  :root { --ink: #1d2733; --soft: #5c6873; --line: #dfe4e8; --page: #f6f7f9; --card: #ffffff; --code: #f1f3f5;
          --good: #2f7d4f; --warn: #b35c12; --bad: #c03636; }
  @media (prefers-color-scheme: dark) {
    :root { --ink: #e6eaee; --soft: #9aa6b2; --line: #2f3841; --page: #12161a; --card: #1a2026; --code: #232b33;
            --good: #6cc28e; --warn: #eba55c; --bad: #f08080; } }
  * { box-sizing: border-box; }
  body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI",
         Roboto, "Helvetica Neue", Arial, sans-serif; }
  main { max-width: 960px; margin: 0 auto; padding: 28px 16px 64px; }
  h1 { font-size: 24px; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
  h2 { font-size: 16px; margin: 0 0 12px; }
  section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px;
            margin-top: 16px; }
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
  .chart summary { opacity: .35; }
  .bar { display: flex; height: 14px; border-radius: 7px; overflow: hidden; background: var(--code); }
  .legend { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 10px 0 0; padding: 0; list-style: none; }
  .legend i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 6px; }
  .scroll { overflow-x: auto; }
  table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; font-size: 14px; }
  th, td { text-align: left; padding: 4px 14px 4px 0; vertical-align: top; border-bottom: 1px solid var(--line); }
  th { color: var(--soft); font-weight: normal; } tr:last-child > * { border-bottom: 0; }
  td.number, th.number { text-align: right; white-space: nowrap; }
  summary { cursor: pointer; } details > summary h2 { display: inline; }
  details[open] > summary { margin-bottom: 10px; }
</style>
</head>
<body>
<main>
  <header>
    <h1>{{ title }}</h1>
    <div class="soft">{{ subtitle }}</div>
    <dl class="facts">
    {%- for name, value in facts %}<div><dt>{{ name }}</dt><dd>{{ value }}</dd></div>{% endfor -%}
    </dl>
  </header>

  {% if findings %}<section aria-label="Verdict">
    {% for finding in findings %}<div class="finding {{ finding.tone }}">
      <h2>{{ finding.title }}<span class="tag">{{ finding.confidence }} confidence</span></h2>
      <p>{{ finding.evidence }}.</p>
      <p>{{ finding.advice }}</p>
      {% if finding.command %}<pre class="command">lehr run JOB {{ finding.command }}</pre>{% endif %}
      <p class="soft">Rule: {{ finding.rule }}.</p>
    </div>{% endfor %}
  </section>{% endif %}

  <section aria-label="Curves">
    <div class="chart" id="chart"></div>
    <noscript>The charts need JavaScript; curves.png beside this page holds the same ones.</noscript>
  </section>

  {% if times %}<section>
    <h2>Where the time went</h2>
    <div class="bar">{% for time in times %}<div style="width:{{ time.percent }}%;background:{{ time.color }}"></div>
    {%- endfor %}</div>
    <ul class="legend">{% for time in times %}<li><i style="background:{{ time.color }}"></i>{{ time.name }}
      <span class="soft">{{ time.seconds }} ({{ time.share }})</span></li>{% endfor %}</ul>
  </section>{% endif %}

  {% for table in tables %}<section>
    <details{% if table.open %} open{% endif %}><summary><h2>{{ table.title }}</h2></summary>
    <div class="scroll"><table>
      {% if table.head %}<tr>{% for cell in table.head %}<th class="number">{{ cell }}</th>{% endfor %}</tr>{% endif %}
      {% for row in table.rows %}<tr>{% for cell in row -%}
        {% if table.head %}<td class="number">{{ cell }}</td>{% elif loop.first %}<th>{{ cell }}</th>
        {%- else %}<td>{{ cell }}</td>{% endif %}
      {%- endfor %}</tr>{% endfor %}
    </table></div></details>
  </section>{% endfor %}

  {% for text in texts %}<section>
    <details{% if text.open %} open{% endif %}><summary><h2>{{ text.title }}</h2></summary>
    <pre>{{ text.body }}</pre></details>
  </section>{% endfor %}
</main>
<script>{{ library }}</script>
<script>
  const spec = {{ spec }}, looks = {{ looks }};
  const place = document.getElementById("chart"), dark = matchMedia("(prefers-color-scheme: dark)");
  const room = {{ room }};  // what axis and labels take beside the plot
  let drawn = 0, view = null;
  async function draw() {
    const width = place.clientWidth;
    if (!width) return;
    drawn = width;
    const narrow = width < 560, copy = structuredClone(spec);
    for (const panel of copy.vconcat) {
      panel.width = Math.max(160, width - (narrow ? room.narrow : room.wide));
      if (narrow) panel.title = panel.title.split(":")[0];
    }
    if (view) view.finalize();
    const options = {actions: !narrow && {export: true, source: false, compiled: false, editor: false},
                     config: dark.matches ? looks.dark : looks.light,
                     tooltip: {theme: dark.matches ? "dark" : "light"}};
    if (narrow) { options.config = structuredClone(options.config); options.config.axisX.tickCount = 5; }
    view = await vegaEmbed(place, copy, options);
  }
  draw();
  dark.addEventListener("change", draw);
  let waiting = 0;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { if (place.clientWidth !== drawn) draw(); }, 150);
  });
</script>
</body>
</html>
"""
