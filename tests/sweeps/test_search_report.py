import json

from sweeps.search_report import table
from sweeps.trial import Trial


def test_a_trial_whose_process_died_has_a_reason(tmp_path):
    results = [
        {"status": "running", "epochs": 2},  # by no process that is alive
        {"status": "failed", "reason": "the loss became nan"},
        {"status": "interrupted"},  # that of another command may still finish it
    ]
    for number, result in enumerate(results):
        folder = tmp_path / f"trial={number}"
        folder.mkdir()
        (folder / "result.json").write_text(
            json.dumps({"overrides": [], **result}), encoding="utf-8"
        )
    trials = [Trial(0, {}, "failed"), Trial(1, {}, "failed"), Trial(2, {}, "running")]
    head, *rows = table(tmp_path, ["val_accuracy"], [], trials)
    assert [dict(zip(head, row, strict=True))["reason"] for row in rows] == [
        "its process ended without a word: it was killed, or a library failed",
        "the loss became nan",
        "",
    ]
