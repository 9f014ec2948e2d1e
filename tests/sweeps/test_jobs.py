import re

import pytest
from hydra.core.utils import JobReturn, JobStatus

from lab.errors import RunFailed
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
