import json
from pathlib import Path

import pytest
from conftest import composed

from lab import schema
from lab.errors import ConfigError

TINY = ("dataset=digits", "debug=profile", "model=linear", "hydra.run.dir=run")


def test_the_costliest_operations_and_a_trace(script, capfd):
    # Wide, so that products cost most, whatever else the machine does.
    assert script(*TINY, "limit=600", "model=mlp", "model.hidden_sizes=[1024,1024]") == 0
    lines = capfd.readouterr().out.splitlines()
    (start,) = (n for n, line in enumerate(lines) if "costliest operations of 10 steps" in line)
    rows = [line.split() for line in lines[start + 1 :] if "×" in line]
    assert len(rows) == 10 and "aten::addmm" in [row[-1] for row in rows]
    shares = [float(row[0].rstrip("%")) for row in rows]
    assert shares == sorted(shares, reverse=True) and 50 < sum(shares) <= 100.5
    assert max(map(len, lines[start:])) <= 90
    # What ui.perfetto.dev and chrome://tracing read:
    events = json.loads(Path("run/trace.json").read_text())["traceEvents"]
    steps = {event["name"] for event in events if event["name"].startswith("ProfilerStep#")}
    assert len(steps) == 10
    assert any(event["name"] == "aten::addmm" and event["ph"] == "X" for event in events)


@pytest.mark.slow
def test_a_run_that_is_too_short_says_so(script, capfd):
    assert script(*TINY, "limit=64", "batch_size=64") == 0
    assert "nothing is profiled: the run has 3 steps, and needs 4" in capfd.readouterr().out
    assert not Path("run/trace.json").exists()


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_values_that_are_refused(steps):
    with pytest.raises(ConfigError, match=f"profile={steps} is not allowed"):
        schema.check(composed(f"profile={steps}", "name=x"))
