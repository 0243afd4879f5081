"""A report as one HTML page: the paper's table, ROC, reliability, robustness, and the worst mistakes with pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tellsign.errors import TellsignError
from tellsign.report.html import escaped, opening, write_whole
from tellsign.report.page import thumbnail

from .dataset import Dataset
from .figures import Curve, figure
from .run import Preparation, picture_of
from .table import NAMES, OVERALL, comparison_rows, number

THUMB = 220
"""Pixels along the longer side of a thumbnail."""
_STYLE = """
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(18rem,1fr));gap:1.2rem}
.plot{max-width:27rem}tbody tr+tr th{border-top:1px solid var(--line)}
.plot svg{display:block;width:100%;height:auto}.plot text{fill:currentColor;font-size:12px}
.plot .grid{stroke:var(--line);stroke-width:1}.plot .even{stroke:var(--muted);stroke-width:1;stroke-dasharray:4 3}
.legend-list{list-style:none;margin:.2rem 0;padding:0;font-size:.85rem}
.legend-list svg{width:30px;height:8px;display:inline-block;margin-right:.4rem;vertical-align:middle}
.thumbs{display:grid;grid-template-columns:repeat(auto-fill,minmax(10rem,1fr));gap:.9rem}
.thumbs img{width:100%;height:9rem;object-fit:contain;background:var(--track);border-radius:6px;display:block}
.thumbs .none{height:9rem;display:grid;place-items:center;background:var(--track);border-radius:6px;color:var(--muted)}
.thumbs figcaption{overflow-wrap:anywhere;font-size:.82rem}
.card{--c:var(--line)}td.ci{color:var(--muted);font-size:.85em;white-space:nowrap}tr.mean td,tr.mean th{font-weight:700}
tbody th{font-weight:400}.loud{color:var(--tampered);font-weight:600}
"""


def page(report: Mapping[str, Any], pictures: Mapping[int, tuple[str, tuple[int, int]]] | None = None) -> str:
    """The whole page.

    Parameters
    ----------
    report : mapping
        As `tellsign.evaluation.run.evaluate` gives it, or read back from its JSON.
    pictures : mapping, optional
        Thumbnails by the place that `report["mistakes"]` names, as data addresses with their sizes.
    """
    settings, overall = report["settings"], report["overall"]
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    first = next(iter(settings["conditions"]))
    what = "AI" if settings["asks"] == "ai" else "tampered"
    title = f"tellsign on {settings['data']}"
    about = (
        f"{overall['n_ai']} {what}, {overall['n_real']} real, {overall['groups']} groups; read as "
        f"{settings['layout']}; {settings['pipeline']}, {settings['conditions'][first]}; "
        f"data {report['data_hash'][:12]}; {made}"
    )
    parts = [
        opening(title, style=_STYLE),
        f'<header class="top"><h1>{escaped(title)}</h1><p class="muted">{escaped(about)}</p>',
        _protocol(settings),
        _warnings(report["warnings"]),
        "</header><main>",
        _card("Overall", _overall(report)),
        _card("By row of the benchmark", paper_table(report)),
        _card("Curves", _curves(report)),
        _card("Under damage", _damage(report)) if len(report["by_condition"]) > 1 else "",
        _card("Pixels", _pixels(report)) if report.get("pixels") else "",
        _card("Beside other detectors", _peers(report)) if report.get("comparisons") else "",
        _card("Worst mistakes", _mistakes(report["mistakes"], pictures or {}, what)),
        _card("What looks at nothing", _audit(report)),
        _card("Files that could not be scored", _errors(report["errors"])) if report["errors"]["files"] else "",
        _card("Versions", _versions(report["versions"])),
        "</main></body></html>\n",
    ]
    return "".join(parts)


def save(path: str | os.PathLike[str], report: Mapping[str, Any], dataset: Dataset | None = None) -> None:
    """Write the page, with thumbnails where the data set is at hand; whole or not at all."""
    write_whole(path, page(report, {} if dataset is None else thumbnails(report, dataset)))


def thumbnails(report: Mapping[str, Any], dataset: Dataset) -> dict[int, tuple[str, tuple[int, int]]]:
    """The pictures of the worst mistakes, decoded again, small; those that have gone are left out."""
    out = {}
    for one in (m for kind in report["mistakes"].values() for m in kind):
        item = dataset.items[one["place"]]
        try:
            picture = picture_of(item, "", Preparation())
        except TellsignError:
            continue
        out[one["place"]] = thumbnail(picture.pixels, THUMB)
    return out


def _card(title: str, body: str) -> str:
    return f'<section class="card"><h2>{escaped(title)}</h2>{body}</section>' if body else ""


def _protocol(settings: Mapping[str, Any]) -> str:
    protocol = settings.get("protocol")
    return f"<p><b>{escaped(protocol['title'])}.</b> {escaped(protocol['says'])}</p>" if protocol else ""


def _warnings(sentences: Sequence[str]) -> str:
    rows = "".join(f"<li>{escaped(s)}</li>" for s in sentences)
    return f'<div class="warnings" role="note"><h3>Read this first</h3><ul>{rows}</ul></div>' if rows else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, mean: bool = False) -> str:
    """Cells are HTML already; the last row stands out where it is a mean."""
    top = "".join(f'<th scope="col"{"" if n == 0 else " class=n"}>{escaped(name)}</th>' for n, name in enumerate(head))
    body = ""
    for k, row in enumerate(rows):
        cells = "".join(f'<td class="n">{c}</td>' for c in row[1:])
        last = ' class="mean"' if mean and k == len(rows) - 1 else ""
        body += f'<tr{last}><th scope="row">{row[0]}</th>{cells}</tr>'
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _with(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" + (
        f' <span class="muted small">[{interval[0]:.3f}, {interval[1]:.3f}]</span>' if interval else ""
    )


def _overall(report: Mapping[str, Any]) -> str:
    names = {"tellsign": report["overall"]} | {
        name: block["overall"] for name, block in report.get("peers", {}).items() if block["overall"]
    }
    rows = [
        [escaped(words), *(_with(block.get(key), block.get(f"{key}_ci")) for block in names.values())]
        for words, key in OVERALL
    ]
    return _table(["", *names], rows)


def paper_table(report: Mapping[str, Any]) -> str:
    """Methods by rows of the benchmark, one table per column that the protocol prints."""
    protocol = report["settings"].get("protocol")
    columns = protocol["columns"] if protocol else ["accuracy", "ap", "auc"]
    methods = {"tellsign": report["paper"]} | {
        name: block["paper"] for name, block in report.get("peers", {}).items() if block.get("paper")
    }
    rows = list(dict.fromkeys(r for block in methods.values() for r in block["rows"]))
    if not rows:
        return ""
    head = ["", "real", "AI", *(f"{NAMES[c]}{'' if len(methods) == 1 else f', {m}'}" for c in columns for m in methods)]
    lines = []
    for name in rows:
        own = report["paper"]["rows"].get(name) or next(b["rows"][name] for b in methods.values() if name in b["rows"])
        cells = [
            _with(b["rows"][name][c], b["rows"][name].get(f"{c}_ci")) if name in b["rows"] else "-"
            for c in columns
            for b in methods.values()
        ]
        lines.append([escaped(name), str(own["n_real"]), str(own["n_fake"]), *cells])
    means = [number(b["mean"][c]) for c in columns for b in methods.values()]
    lines.append([f"mean of {len(rows)}", "", "", *means])
    one = report["paper"]["one_class"]
    note = "Accuracy at .5 is the mean of both classes' accuracies"
    note += f"; of {', '.join(one[:6])} one class is missing and it is the other's alone." if one else "."
    return f'{_table(head, lines, mean=True)}<p class="muted small">{escaped(note)}</p>'


def _curves(report: Mapping[str, Any]) -> str:
    plots = []
    lines = {"tellsign": report} | dict(report.get("peers", {}).items())
    drawn = [
        Curve(name=f"{name}, AUC {number(block['overall']['auc'])}", x=block["roc"]["fpr"], y=block["roc"]["tpr"])
        for name, block in lines.items()
        if block.get("roc")
    ]
    if drawn:
        plots.append(figure(drawn, title="ROC", x_name="false positives", y_name="found", diagonal=True))
    bins = report["reliability"]
    if bins:
        share = Curve(
            name=f"share in {len(bins)} bins of equal mass, 95 % intervals",
            x=[b["p"] for b in bins],
            y=[b["share"] for b in bins],
            low=[b["share_ci"][0] for b in bins],
            high=[b["share_ci"][1] for b in bins],
            dots=True,
        )
        plots.append(
            figure([share], title="Reliability", x_name="stated probability", y_name="share of label 1", diagonal=True)
        )
    curve = report["risk_coverage"]
    if curve["coverage"]:
        top = max(0.05, *curve["risk"])
        plots.append(
            figure(
                [Curve(name="most confident answers first", x=curve["coverage"], y=curve["risk"])],
                title="Risk and coverage",
                x_name="answered",
                y_name="errors among them",
                y_range=(0.0, min(1.0, round(top + 0.05, 1) or 0.1)),
            )
        )
    return f'<div class="plots">{"".join(plots)}</div>'


def _damage(report: Mapping[str, Any]) -> str:
    rows = [
        [
            escaped(name),
            str(b["n"]),
            _with(b["auc"], b["auc_ci"]),
            number(b["balanced_accuracy"]),
            number(b["ece"]),
            number(b["uncertain"]),
            number(b["false_accusation_rate"]),
        ]
        for name, b in report["by_condition"].items()
    ]
    table = _table(["", "n", "AUC", "bal. acc.", "ECE", "uncertain", "accused"], rows)
    return f'<div class="plots">{_robustness(report)}</div>{table}'


def _robustness(report: Mapping[str, Any]) -> str:
    """A figure per kind of damage: the AUC as it gets stronger."""
    families: dict[str, list[tuple[float, str]]] = {}
    for name, (family, strength) in report["settings"].get("curves", {}).items():
        families.setdefault(family, []).append((strength, name))
    out = []
    for family, points in families.items():
        if len(points) < 2:
            continue
        points.sort()
        methods = {"tellsign": report["by_condition"]} | {
            name: block["by_condition"] for name, block in report.get("peers", {}).items()
        }
        curves = []
        for name, blocks in methods.items():
            have = [(s, blocks[c]) for s, c in points if c in blocks and blocks[c]["auc"] is not None]
            if have:
                curves.append(
                    Curve(
                        name=name,
                        x=[s for s, _ in have],
                        y=[b["auc"] for _, b in have],
                        low=[b["auc_ci"][0] if b["auc_ci"] else None for _, b in have],
                        high=[b["auc_ci"][1] if b["auc_ci"] else None for _, b in have],
                        dots=True,
                    )
                )
        if curves:
            lowest = min((v for c in curves for v in c.y if v is not None), default=0.5)
            strengths = [s for s, _ in points]
            out.append(
                figure(
                    curves,
                    title=f"AUC by {family}",
                    x_name=family,
                    y_name="AUC",
                    x_range=(min(strengths), max(strengths)),
                    y_range=(0.0 if lowest < 0.4 else 0.4, 1.0),
                    level=0.5,
                )
            )
    return "".join(out)


def _pixels(report: Mapping[str, Any]) -> str:
    rows = []
    for name, block in report["by_condition"].items():
        found = block.get("pixels")
        if not found:
            continue
        for words, key in (("pooled", "pooled"), ("pooled, edited only", "pooled_edited"), ("mean", "per_picture")):
            part = found[key]
            if part:
                rows.append(
                    [
                        escaped(f"{name}: {words}"),
                        str(found["n"] if key == "pooled" else found["n_edited"]),
                        _with(part["f1"], part["f1_ci"]),
                        _with(part["iou"], part["iou_ci"]),
                        number(part.get("precision")),
                        number(part.get("recall")),
                    ]
                )
    note = "Heat map at least .5. Papers on tampering print the mean over pictures, X-AIGD pools the counts."
    return _table(["", "n", "F1", "IoU", "precision", "recall"], rows) + f'<p class="muted small">{note}</p>'


def _peers(report: Mapping[str, Any]) -> str:
    first = next(iter(report["settings"]["conditions"]))
    rows = []
    for name, by_condition in report["comparisons"].items():
        if first in by_condition:
            rows += [
                [escaped(f"tellsign less {name}: {words}"), *map(escaped, cells)]
                for words, cells in comparison_rows(by_condition[first])
            ]
    note = (
        "On the pictures that both scored. p by paired bootstrap over groups; DeLong and McNemar only where every "
        "picture stands alone."
    )
    head = ["", "peer", "tellsign", "difference", "interval", "p"]
    return _table(head, rows) + f'<p class="muted small">{note}</p>'


def _mistakes(mistakes: Mapping[str, Any], pictures: Mapping[int, tuple[str, tuple[int, int]]], what: str) -> str:
    out = ""
    for words, key in ((f"Real, called {what}", "real_called_fake"), (f"{what}, called real", "fake_called_real")):
        cells = ""
        for one in mistakes[key]:
            found = pictures.get(one["place"])
            image = (
                f'<img src="{found[0]}" width="{found[1][0]}" height="{found[1][1]}" alt="" loading="lazy">'
                if found
                else '<div class="none">no picture</div>'
            )
            cells += (
                f"<figure>{image}<figcaption><b>{one['p']:.3f}</b> {escaped(one['verdict'])}<br>"
                f"{escaped(one['source'])}<br><span class=muted>{escaped(one['name'])}</span></figcaption></figure>"
            )
        out += f"<h3>{escaped(words)}</h3>" + (f'<div class="thumbs">{cells}</div>' if cells else "<p>None.</p>")
    return out


def _audit(report: Mapping[str, Any]) -> str:
    from tellsign.data.trivial import GATED, LIMIT

    rows = []
    for name, value in report["trivial_rules"].items():
        loud = name in GATED and value > LIMIT
        rows.append([escaped(name), f'<span class="loud">{value:.3f}</span>' if loud else number(value)])
    audit = report["audit"]
    lines = []
    for name in ("real", "fake"):
        part = audit[name]
        formats = ", ".join(f"{k} {v:.0%}" for k, v in part["formats"].items())
        quality, size = part["quality"], part["megapixels"]
        lines.append(
            [
                name,
                escaped(formats),
                "-" if not quality["quartiles"] else " / ".join(f"{q:.0f}" for q in quality["quartiles"]),
                "-" if not size else " / ".join(f"{m:.2f}" for m in size),
            ]
        )
    png = audit["png_means_fake"]
    note = f"The rule PNG means AI has a balanced accuracy of {number(png)}." if png is not None else ""
    return (
        "<p>AUC of rules that do not look at what is in a picture. Above .55 a result may be the rule's.</p>"
        f"{_table(['rule', 'AUC'], rows)}"
        f"{_table(['class', 'formats', 'JPEG quality, quartiles', 'megapixels, quartiles'], lines)}"
        f'<p class="muted small">{note}</p>'
    )


def _errors(errors: Mapping[str, Any]) -> str:
    files = errors["files"]
    rows = "".join(
        f"<dt>{escaped(f['path'])}</dt><dd>{escaped(f['message'])}"
        f"{escaped(' (' + f['condition'] + ')') if f['condition'] else ''} <code>{escaped(f['code'])}</code></dd>"
        for f in files[:200]
    )
    more = f"<p>and {len(files) - 200} more in the JSON</p>" if len(files) > 200 else ""
    return f"<details><summary>{len(files)} files</summary><dl>{rows}</dl>{more}</details>"


def _versions(versions: Mapping[str, str]) -> str:
    rows = "".join(f"<dt>{escaped(k)}</dt><dd>{escaped(v)}</dd>" for k, v in sorted(versions.items()))
    return f"<details><summary>{len(versions)} names</summary><dl>{rows}</dl></details>"
