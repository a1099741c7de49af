from edgecount.toolchain.doctor.finding import Finding, worst


def test_the_gravest_state_of_all():
    def of(*states):
        return worst([Finding("x", state, "") for state in states])

    assert of() == "ok"
    assert of("ok", "skip") == "ok"
    assert of("ok", "warn", "skip") == "warn"
    assert of("warn", "fail", "ok") == "fail"
