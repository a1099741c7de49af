"""An inspection as one HTML file that needs nothing else."""

from html import escape
from typing import Dict, List

from edgecount.toolchain.build.inspection import Inspection, Row

_COLOURS = {
    "int8": "#1b7f5c",
    "fp8": "#3d9970",
    "fp16": "#2b6cb0",
    "bf16": "#4a90d9",
    "fp32": "#b7791f",
    "?": "#8a8f98",
}
_OTHER = "#6b7280"
_STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8882; }
body { font: 15px/1.45 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0 0 .2rem; } p.sub { margin: 0 0 1.2rem; opacity: .75; }
dl { display: grid; gap: .5rem 1.5rem; }
dl { grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
dt { font-size: .8rem; opacity: .7; } dd { margin: 0; overflow-wrap: anywhere; }
.bar { display: flex; height: 2rem; border-radius: .3rem; overflow: hidden; margin: 1rem 0 .4rem; }
.bar span { color: #fff; font-size: .8rem; line-height: 2rem; }
.bar span { text-align: center; overflow: hidden; }
ul { padding-left: 1.2rem; } li { margin: .3rem 0; }
input { font: inherit; padding: .3rem .6rem; width: 20rem; max-width: 100%; margin: .6rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; }
th, td { border-bottom: 1px solid var(--line); }
td.name { overflow-wrap: anywhere; } td.n { text-align: right; }
td small { display: block; opacity: .7; }
tr.reformat, tr.left-over { background: #d9770633; } tr.siblings { background: var(--soft); }
b.p { color: #fff; border-radius: .25rem; padding: 0 .4rem; font-weight: 600; font-size: .8rem; }
"""
_SCRIPT = """
const box = document.querySelector('input'), rows = [...document.querySelectorAll('tbody tr')];
box.addEventListener('input', () => {
  const wanted = box.value.toLowerCase();
  for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
});
"""


def render(inspection: Inspection) -> str:
    """The page."""
    title = f"{_title(inspection)} – layers"
    kind = "layers" if inspection.layers_of == "engine" else "layers before fusion"
    return "\n".join(
        [
            "<!doctype html><html lang='en'><meta charset='utf-8'>",
            "<meta name='viewport' content='width=device-width, initial-scale=1'>",
            f"<title>{escape(title)}</title><style>{_STYLE}</style>",
            f"<h1>{escape(_title(inspection))}</h1>",
            f"<p class='sub'>{len(inspection.rows)} {kind}</p>",
            _facts(inspection),
            _bar(inspection.precisions()),
            "<ul>",
            *(f"<li>{escape(finding)}</li>" for finding in inspection.findings),
            "</ul>",
            "<input placeholder='show only layers with …' aria-label='filter'>",
            "<table><thead><tr><th>#<th>layer<th>kind<th>precision<th>inputs → outputs",
            "<tbody>",
            *(_row(number, row) for number, row in enumerate(inspection.rows, 1)),
            f"</table><script>{_SCRIPT}</script></html>\n",
        ]
    )


def _title(inspection: Inspection) -> str:
    manifest = inspection.manifest
    if manifest is None:
        return inspection.engine.name
    return f"{manifest.key.model} {manifest.key.precision} {manifest.key.profile.text}"


def _facts(inspection: Inspection) -> str:
    manifest = inspection.manifest
    if manifest is None:
        return f"<dl><div><dt>engine<dd>{escape(str(inspection.engine))}</div></dl>"
    key = manifest.key
    facts = {
        "built with": key.version.label,
        "for": "no GPU" if key.sm == "none" else f"{key.device} (SM {key.sm})",
        "driver, CUDA": f"{key.driver}, {key.cuda}",
        "built": f"{manifest.built_at}, in {manifest.build_seconds:.1f} s",
        "size": f"{manifest.engine_bytes / 2**20:.1f} MiB",
        "workspace": f"{manifest.workspace_used / 2**20:.0f} MiB",
        "ONNX file (SHA-256)": key.model_sha256[:16],
        "engine": inspection.engine.name,
    }
    items = (f"<div><dt>{escape(k)}<dd>{escape(v)}</div>" for k, v in facts.items())
    return f"<dl>{''.join(items)}</dl>"


def _bar(precisions: Dict[str, int]) -> str:
    total = sum(precisions.values()) or 1
    spans = (
        f"<span style='width:{100 * n / total:.2f}%;background:{_colour(name)}' "
        f"title='{n} {escape(name)}'>{n} {escape(name)}</span>"
        for name, n in precisions.items()
    )
    return f"<div class='bar'>{''.join(spans)}</div>"


def _row(number: int, row: Row) -> str:
    layer = row.layer
    name = layer.precision or "?"
    remark = f"<small>{escape(row.remark)}</small>" if row.remark else ""
    flow = f"{_tensors(list(layer.inputs))} → {_tensors(list(layer.outputs))}"
    fused = f"<small>{len(row.fused)} nodes fused</small>" if row.fused else ""
    return (
        f"<tr class='{row.remark}'><td class='n'>{number}<td class='name'>{escape(layer.name)}"
        f"{fused}<td>{escape(layer.kind)}{remark}"
        f"<td><b class='p' style='background:{_colour(name)}'>{escape(name)}</b>"
        f"<td class='name'>{flow}</tr>"
    )


def _tensors(names: List[str]) -> str:
    return escape(", ".join(names)) or "–"


def _colour(precision: str) -> str:
    return _COLOURS.get(precision, _OTHER)
