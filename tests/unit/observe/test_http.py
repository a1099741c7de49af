import json

from edgecount.observe.health import Health
from edgecount.observe.http import routes
from edgecount.observe.metrics import Metrics
from edgecount.redact import Redactor


def table(health=None, state=dict):
    return routes(Metrics().registry, health or Health(), state, Redactor(["hunter2"]))


def test_liveness_and_readiness_have_their_own_answers():
    health = Health()
    health.stage("infer", 60.0)
    answers = table(health)
    assert answers["/healthz"]({}).status == 200
    unready = answers["/readyz"]({})
    assert unready.status == 503
    assert json.loads(unready.body)["ready"] is False
    assert "no camera has reported yet" in json.loads(unready.body)["reasons"]


def test_a_hung_stage_answers_503():
    now = [0.0]
    health = Health(lambda: now[0])
    health.stage("infer", 5.0)
    now[0] = 9.0
    answer = table(health)["/healthz"]({})
    assert answer.status == 503
    assert json.loads(answer.body)["reasons"] == [
        "stage infer has not turned for 9.0 s (limit 5 s)"
    ]


def test_secrets_never_leave_in_a_body():
    health = Health()
    health.camera("door", "offline", "cannot open rtsp://viewer:hunter2@10.0.0.5/1")
    health.broker(False, "password hunter2 refused")
    answers = table(health, lambda: {"cameras": [{"source": "rtsp://a:other@h/1"}]})
    assert b"hunter2" not in answers["/readyz"]({}).body
    assert json.loads(answers["/api/state"]({}).body) == {
        "cameras": [{"source": "rtsp://a:***@h/1"}]
    }


def test_metrics_in_the_format_that_was_asked_for():
    metrics = table()["/metrics"]
    assert metrics({}).content_type.startswith("text/plain; version=")
    asked = {"accept": "application/openmetrics-text; version=1.0.0"}
    answer = metrics(asked)
    assert answer.content_type.startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")


def test_the_first_page_links_to_every_route():
    answers = table()
    page = answers["/"]({}).body.decode()
    for path in answers:
        if path != "/":
            assert f'href="{path}"' in page
