#!/usr/bin/env python3
"""Write the Grafana files: three dashboards, and the alerts of prometheus/rules.yml.

Usage: generate.py [FOLDER]. FOLDER is ``grafana`` beside this file where not given. Run it
after a change here, in dashboards.py, panels.py or rules.yml; a test compares its output with
what is committed.
"""

import json
import sys
from pathlib import Path
from typing import Any, Dict

import yaml
from dashboards import dashboards

HERE = Path(__file__).resolve().parent
Json = Dict[str, Any]


def main(folder: Path) -> None:
    """Write all files below ``folder``."""
    for name, board in dashboards().items():
        text = json.dumps(board, indent=2, ensure_ascii=False) + "\n"
        (folder / "dashboards" / f"{name}.json").write_text(text, encoding="utf-8")
    rules = yaml.safe_load((HERE / "prometheus" / "rules.yml").read_text(encoding="utf-8"))
    alerts = "# Made from prometheus/rules.yml by generate.py; do not edit.\n" + yaml.safe_dump(
        alerting(rules), sort_keys=False, allow_unicode=True, width=100
    )
    target = folder / "provisioning" / "alerting" / "edgecount.yml"
    target.write_text(alerts, encoding="utf-8")


def alerting(rules: Json) -> Json:
    """The alert rules of a Prometheus rule file as Grafana provisions them."""
    return {
        "apiVersion": 1,
        "groups": [
            {
                "orgId": 1,
                "name": group["name"],
                "folder": "edgecount",
                "interval": "10s",
                "rules": [alert(rule) for rule in group["rules"] if "alert" in rule],
            }
            for group in rules["groups"]
            if any("alert" in rule for rule in group["rules"])
        ],
    }


def alert(rule: Json) -> Json:
    """One alert: it fires for every series that the query returns, whatever its value."""
    exists = "is_number($query) || is_nan($query) || is_inf($query)"
    return {
        "uid": rule["alert"].lower(),
        "title": rule["alert"],
        "condition": "fires",
        "for": rule.get("for", "0s"),
        "noDataState": "OK",
        "execErrState": "Error",
        "labels": rule["labels"],
        "annotations": {
            # Grafana's $value is a text of all queries; $values.query.Value is the number.
            key: text.replace("$value ", "$values.query.Value ")
            for key, text in rule["annotations"].items()
        },
        "data": [
            {
                "refId": "query",
                "datasourceUid": "prometheus",
                "relativeTimeRange": {"from": 600, "to": 0},
                "model": {"refId": "query", "expr": rule["expr"].strip(), "instant": True},
            },
            {
                "refId": "fires",
                "datasourceUid": "__expr__",
                "relativeTimeRange": {"from": 0, "to": 0},
                "model": {"refId": "fires", "type": "math", "expression": exists},
            },
        ],
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "grafana")
