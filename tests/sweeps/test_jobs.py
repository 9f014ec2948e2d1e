import json
import os
import re
from pathlib import Path

import numpy
import pytest
import torch
from hydra.core.utils import JobReturn, JobStatus

from lab.errors import Refusal, RunFailed
from sweeps import jobs


def test_progress_counts_jobs_and_estimates_the_time_left(monkeypatch):
    now = 100.0
    monkeypatch.setattr(jobs.time, "monotonic", lambda: now)
    progress = jobs.Progress(4)
    lines = []
    for seconds, running in ((60, 2), (60, 2), (20, 1), (10, 0)):
        now += seconds
        lines.append(progress.line("a job", running))
    assert lines == [
        "1 of 4 (2 running, about 3 min left): a job",
        "2 of 4 (2 running, about 2 min left): a job",
        "3 of 4 (1 running, about 47 s left): a job",
        "4 of 4: a job",
    ]


@pytest.mark.parametrize(
    ("status", "returned", "line"),
    [
        (JobStatus.COMPLETED, 0.97531, "a finished: 97.53% on validation"),
        (JobStatus.COMPLETED, (1.0, 2), r"a finished: \(1.0, 2\)"),
        (JobStatus.FAILED, RunFailed("the reason"), "a failed: the reason"),
        (JobStatus.FAILED, KeyError("x"), "a failed: KeyError: 'x'."),
    ],
)
def test_the_outcome_of_a_job_is_one_line(status, returned, line):
    answer = JobReturn(status=status, _return_value=returned)
    assert re.fullmatch(line, jobs.outcome("a", answer))


def test_a_new_sweep_folder_is_made_and_an_own_one_entered(tmp_path):
    for _ in range(2):
        jobs.enter(tmp_path / "a/b", [tmp_path / "a/b/job"])
    (tmp_path / "a/b/job").mkdir()
    (tmp_path / "a/b/.printed").mkdir()
    (tmp_path / "a/b/results.csv").write_text("")
    jobs.enter(tmp_path / "a/b", [tmp_path / "a/b/job"])


@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        ("multirun.yaml", lambda path: path.symlink_to("/etc/passwd"), "is a link"),
        ("results.csv", os.mkfifo, "is a named pipe"),
        ("results.png", Path.mkdir, "a folder, but must be a file"),
        ("search.json", lambda path: path.symlink_to("/dev/zero"), "is a link"),
        ("search.journal", os.mkfifo, "is a named pipe"),
        (".lock", Path.mkdir, "a folder, but must be a file"),
        (".printed", lambda path: path.symlink_to("/tmp"), "is a link"),
        (".printed", Path.touch, "is a file, but must be a folder"),
        (".printed/job.txt", lambda path: path.symlink_to("/tmp/x"), "is a link"),
        (".submitit", lambda path: path.symlink_to("/tmp"), "is a link"),
        (".submitit/1", lambda path: path.symlink_to("/tmp"), "is a link"),
        (".code", lambda path: path.symlink_to("/tmp"), "is a link"),
        (".results.csv.partial", lambda path: path.symlink_to("/tmp/x"), "is a link"),
        ("job", lambda path: path.symlink_to("/tmp"), "is a link"),
        ("job", Path.touch, "is a file, but must be the folder of a job"),
        ("job/.hydra", lambda path: path.symlink_to("/tmp"), "is a link"),
        ("job/script.log", os.mkfifo, "is a named pipe"),
        ("job/notes", lambda path: path.symlink_to("/tmp/x"), "is a link"),
    ],
)
def test_a_sweep_folder_that_leads_elsewhere_is_not_entered(tmp_path, name, make, sentence):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    make(path)
    with pytest.raises(Refusal, match=sentence):
        jobs.enter(tmp_path, [tmp_path / "job"])


@pytest.mark.parametrize("whose", ["sweep", "job"])
def test_a_folder_of_another_user_is_not_entered(tmp_path, monkeypatch, whose):
    (tmp_path / "job").mkdir()
    if os.geteuid() == 0 and whose == "job":
        os.chown(tmp_path / "job", 12345, -1)
        name = "number 12345"
    else:
        monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
        name = r"\w+"
    with pytest.raises(Refusal, match=rf"belongs to another user \({name}\)"):
        jobs.enter(tmp_path, [tmp_path / "job"])


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (0.5, 0.5),
        (None, None),
        ((1, 2.5), [1, 2.5]),
        (numpy.float32(0.5), 0.5),
        (torch.tensor(2.0), 2.0),
        ("text", "text"),
        ({"a": 1}, "{'a': 1}"),
    ],
)
def test_the_answer_of_a_job_goes_through_json(value, plain):
    answer = JobReturn(status=JobStatus.COMPLETED, _return_value=value)
    found = jobs.unpacked(json.loads(json.dumps(jobs.packed(answer))))
    assert found.status == JobStatus.COMPLETED and found.return_value == plain


@pytest.mark.parametrize(
    ("error", "reason"),
    [(RunFailed("the reason"), "the reason"), (KeyError("x"), "KeyError: 'x'.")],
)
def test_the_reason_of_a_failure_goes_through_json(error, reason):
    answer = JobReturn(status=JobStatus.FAILED, _return_value=error)
    found = jobs.unpacked(json.loads(json.dumps(jobs.packed(answer))))
    assert jobs.outcome("a", found) == jobs.outcome("a", answer) == f"a failed: {reason}"
