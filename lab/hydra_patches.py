"""What this project changes in Hydra 1.3, and why. Importing this module applies the changes."""

from typing import Any

from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus

from lab import completion


def _return_itself(self: Any, _: dict[int, Any]) -> Any:
    return self


def _return_value(job: JobReturn) -> Any:
    assert job.status != JobStatus.UNKNOWN, "return_value not yet available"
    if job.status == JobStatus.COMPLETED:
        return job._return_value
    raise job._return_value


# --help lists the options of every group, and Hydra copies its whole store of configs for each of
# them, although what it takes out of the store is a copy already. The copies take half of the time.
ConfigStore.__deepcopy__ = _return_itself

# Hydra prints "Error executing job with overrides" before it raises the exception of a job. A run
# has already told its reason by then.
JobReturn.return_value = property(_return_value, JobReturn.return_value.fset)

# Hydra's tab completion runs every script whose name is completed.
Hydra.shell_completion = completion.instead_of(Hydra.shell_completion)
