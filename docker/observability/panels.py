"""The parts of a Grafana dashboard, as its JSON model wants them."""

from typing import Any, Dict, List, Optional, Sequence, Tuple

SOURCE = {"type": "prometheus", "uid": "prometheus"}
Json = Dict[str, Any]
# A curve: expression, legend. A column of a table: name, expression.
Query = Tuple[str, str]


def dashboard(uid: str, title: str, variables: Sequence[Json], panels: Sequence[Json]) -> Json:
    """A dashboard of panels that follow each other."""
    return {
        "uid": uid,
        "title": title,
        "tags": ["edgecount"],
        "schemaVersion": 38,
        "editable": True,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": list(variables)},
        "links": [
            {
                "type": "dashboards",
                "tags": ["edgecount"],
                "title": "edgecount",
                "asDropdown": True,
                "keepTime": True,
            }
        ],
        "panels": placed(panels),
    }


def placed(panels: Sequence[Json]) -> List[Json]:
    """Panels from left to right, row by row, on Grafana's grid of 24 columns."""
    result, x, y, row_height = [], 0, 0, 0
    for number, panel in enumerate(panels, 1):
        at = panel["gridPos"]
        if x + at["w"] > 24:
            x, y, row_height = 0, y + row_height, 0
        result.append({**panel, "id": number, "gridPos": {**at, "x": x, "y": y}})
        x, row_height = x + at["w"], max(row_height, at["h"])
    return result


def stat(
    title: str, expr: str, width: int, bad_from: Optional[float] = None, decimals: int = 0
) -> Json:
    """One number; red from ``bad_from`` on."""
    steps: List[Json] = [{"color": "green" if bad_from else "blue", "value": None}]
    if bad_from:
        steps.append({"color": "red", "value": bad_from})
    defaults = {"decimals": decimals, "thresholds": {"mode": "absolute", "steps": steps}}
    return {
        "type": "stat",
        "title": title,
        "datasource": SOURCE,
        "gridPos": {"w": width, "h": 4},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value"},
        "targets": [target("A", expr, "", instant=True)],
    }


def series(
    title: str,
    queries: Sequence[Query],
    unit: str = "short",
    limit: Optional[float] = None,
    width: int = 12,
) -> Json:
    """Curves over time, with a dashed line at ``limit``."""
    defaults: Json = {"unit": unit, "min": 0, "custom": {"fillOpacity": 8, "lineWidth": 1}}
    if limit is not None:
        defaults["custom"]["thresholdsStyle"] = {"mode": "dashed"}
        defaults["thresholds"] = {
            "mode": "absolute",
            "steps": [{"color": "text", "value": None}, {"color": "orange", "value": limit}],
        }
    return {
        "type": "timeseries",
        "title": title,
        "datasource": SOURCE,
        "gridPos": {"w": width, "h": 8},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": [
            target(chr(ord("A") + i), expr, legend) for i, (expr, legend) in enumerate(queries)
        ],
    }


def table(title: str, columns: Sequence[Query], to: Optional[Json] = None, width: int = 24) -> Json:
    """A row for each set of labels, a column for each query; rows lead to another dashboard."""
    refs = [chr(ord("A") + i) for i in range(len(columns))]
    names = {f"Value #{ref}": name for ref, (name, _) in zip(refs, columns)}
    defaults: Json = {"custom": {"align": "left"}, "decimals": 2}
    if to is not None:
        defaults["links"] = [to]
    return {
        "type": "table",
        "title": title,
        "datasource": SOURCE,
        "gridPos": {"w": width, "h": 7},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"showHeader": True},
        "transformations": [
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {"excludeByName": {"Time": True}, "renameByName": names},
            },
        ],
        "targets": [
            {**target(ref, expr, "", instant=True), "format": "table"}
            for ref, (_, expr) in zip(refs, columns)
        ],
    }


def target(ref: str, expr: str, legend: str, instant: bool = False) -> Json:
    """One query of a panel."""
    return {
        "refId": ref,
        "datasource": SOURCE,
        "expr": expr,
        "legendFormat": legend,
        "instant": instant,
        "range": not instant,
    }


def variable(name: str, label: str, query: str) -> Json:
    """A choice at the top of a dashboard."""
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": False,
        "includeAll": False,
    }


def link(title: str, uid: str, instance: str, of_camera: str = "") -> Json:
    """A link to another dashboard, at the same time range."""
    url = f"/d/{uid}?var-instance={instance}&${{__url_time_range}}"
    return {"title": title, "url": url + (f"&var-camera={of_camera}" if of_camera else "")}
