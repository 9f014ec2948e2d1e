"""What a terminal, a shell or an operating system may lack: nothing of it fails a command."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT, run_folders

from lab import provenance

SCRIPT = f"{sys.executable} {PROJECT}/script.py"
SMALL = "dataset=digits debug=smoke model=linear"
ASCII = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
needs_bash = pytest.mark.skipif(not shutil.which("bash"), reason="this machine has no bash")

# Runs a script without what Windows does not have, and with the errors that it has instead.
WINDOWS = """
import multiprocessing, os, pathlib, runpy, signal, sys
lacking = {
    signal: "SIGUSR1 SIGUSR2 SIGHUP SIGKILL SIGALRM SIGQUIT SIGCHLD SIGPIPE pthread_sigmask alarm",
    os: "setsid sched_getaffinity sched_setaffinity fork forkpty killpg getpgid mkfifo getloadavg",
}
for module, names in lacking.items():
    for name in names.split():
        vars(module).pop(name, None)
multiprocessing.get_all_start_methods = lambda: ["spawn"]
unlink = pathlib.Path.unlink
def unlink_closed(path, missing_ok=False):
    if path.name == ".lock":
        raise PermissionError(13, "The file is being used by another process", str(path))
    unlink(path, missing_ok)
pathlib.Path.unlink = unlink_closed
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def shell(folder: Path, command: str, **variables: str) -> subprocess.CompletedProcess:
    """Run a line of bash; its exit code is that of the first command that fails in it."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder, env=environment | variables, capture_output=True, encoding="utf-8",
    )  # fmt: skip


def results(root: Path) -> list[dict]:
    return [json.loads((folder / "result.json").read_text("utf-8")) for folder in run_folders(root)]


def windows(root: Path, arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """Run script.py without the names that Windows lacks, and with an ASCII locale."""
    (root / "windows.py").write_text(WINDOWS, encoding="utf-8")
    command = f"{sys.executable} -P windows.py {PROJECT}/script.py {arguments}"
    return shell(root, command, **ASCII, **variables)


@needs_bash
@pytest.mark.slow
def test_a_sweep_and_its_summary_need_neither_a_reader_nor_what_windows_lacks(tmp_path, data_dir):
    grid = "-m name=mine debug=smoke model=linear seed=0,1 | head -1"
    done = windows(tmp_path, grid, DATA_DIR=str(data_dir))
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 jobs: 2 new\n", "")
    assert [run["status"] for run in results(tmp_path)] == ["finished"] * 2
    for folder in run_folders(tmp_path):
        assert "mnist with adam → runs/" in (folder / "script.log").read_text("utf-8")
    tables = [tmp_path / "runs/mine" / f"results.{kind}" for kind in ("csv", "md", "png")]
    for path in tables:
        path.unlink()
    summary = f"{sys.executable} {PROJECT}/results.py runs/mine | head -1"
    done = shell(tmp_path, summary, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout[:6], done.stderr) == (0, "| runs", "")
    assert all(path.exists() for path in tables)


@needs_bash
@pytest.mark.slow
def test_a_local_sweep_needs_nothing_that_windows_lacks(tmp_path):
    done = windows(tmp_path, f"-m {SMALL} seed=0,1 hydra/launcher=local")
    assert (done.returncode, done.stderr) == (0, "")
    assert [run["status"] for run in results(tmp_path)] == ["finished"] * 2


def test_every_text_file_is_opened_with_an_encoding():
    """Windows opens text files in the encoding of the region."""
    for path in (p for p in PROJECT.rglob("*.py") if "tests" not in p.parts):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            words = {keyword.arg for keyword in node.keywords}
            modes = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            is_text = name in ("read_text", "write_text") and not isinstance(
                getattr(node.func, "value", None), ast.Name | type(None)
            )
            if name == "open" and not any("b" in str(mode) for mode in modes):
                is_text = ast.unparse(node.func) in ("open", "path.open", "Path.open", "io.open")
            assert not is_text or "encoding" in words or "utf-8" in modes, f"{path}:{node.lineno}"


PRINT = f"""{sys.executable} -c '
import logging, sys
sys.path.insert(0, "{PROJECT}/lab")  # without the package, which imports Hydra
from terminal import unbreakable_output
with unbreakable_output():
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    for number in range(9000):
        print("a → b")
        logging.warning("→ %d", number)
    open("done", "w").close()
'"""


@needs_bash
@pytest.mark.parametrize(
    ("redirection", "told"),
    [
        ("| head -1", ""),
        ("2>&1 | true", ""),
        (">&-", ""),
        (">&- 2>&- <&-", ""),
        ("2>&-", ""),
        ("> /dev/full 2> /dev/full", ""),
        ("> /dev/full", "Standard output cannot be written to (No space left on device): "),
    ],
)
def test_output_that_cannot_be_written_is_discarded(tmp_path, redirection, told):
    done = shell(tmp_path, f"{PRINT} {redirection}")
    assert done.returncode == 0 and (tmp_path / "done").exists()
    assert done.stderr.startswith(told) and done.stderr.count("\n") == bool(told)
    assert (tmp_path / "done").read_bytes() == b""  # no output went into a file that was opened


@needs_bash
def test_characters_that_the_encoding_lacks_are_escaped(tmp_path):
    done = shell(tmp_path, f"{PRINT} | tail -2", PYTHONIOENCODING="ascii")
    assert done.stdout == "a \\u2192 b\n\\u2192 8999\n" and done.stderr == ""


@needs_bash
def test_a_log_file_on_a_full_disk_is_reported_once(tmp_path):
    to_file = PRINT.replace("stream=sys.stdout", 'filename="log"')
    done = shell(tmp_path, f"ulimit -f 4; {to_file} | tail -1")
    assert done.stdout == "a → b\n" and (tmp_path / "done").exists()
    sentence = f"{tmp_path}/log cannot be written to (File too large): it is incomplete.\n"
    assert done.stderr == sentence


@needs_bash
@pytest.mark.slow
@pytest.mark.parametrize("redirection", [">&- 2>&-", "> /dev/full", "2>&1 | true"])
@pytest.mark.parametrize("more", ["", "-m seed=0,1", "-m seed=0,1 hydra/launcher=local"])
def test_every_kind_of_run_finishes_without_output(tmp_path, redirection, more):
    done = shell(tmp_path, f"{SCRIPT} {more} {SMALL} {redirection}")
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert {run["status"] for run in results(tmp_path)} == {"finished"}


@pytest.mark.parametrize("name", ["script.py", "evaluate.py", "results.py"])
def test_python_may_leave_out_the_folder_of_the_script(tmp_path, name):
    command = [sys.executable, "-P", PROJECT / name, "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout


def test_the_working_directory_of_a_job_may_be_its_run_folder(
    script, tmp_path, monkeypatch, data_dir, capfd
):
    (tmp_path / "images").symlink_to(data_dir)
    monkeypatch.setenv("DATA_DIR", "images")
    arguments = ("hydra.job.chdir=true", "debug=smoke", "model=linear", "hydra.run.dir=mine")
    assert script(*arguments) == 0
    assert capfd.readouterr().out.endswith("\nfinished: mine\n")
    assert f"data_dir: {tmp_path}/images\n" in (tmp_path / "mine/config.yaml").read_text("utf-8")


@needs_bash
@pytest.mark.skipif(not Path("/proc").exists(), reason="uses /proc, where nobody can write")
@pytest.mark.slow
def test_a_current_folder_that_is_gone_or_read_only_is_refused_in_a_sentence(tmp_path):
    gone = shell(tmp_path, f"mkdir x; cd x; rmdir ../x; {SCRIPT} {SMALL}")
    assert gone.stderr.startswith("The current folder no longer exists: change to another")
    for more in ("", "-m seed=0,1"):
        done = shell(Path("/proc"), f"{SCRIPT} {more} {SMALL}")
        assert done.stderr.startswith("/proc/runs cannot be read or written (No such file")
        assert (gone.returncode, done.returncode) == (1, 1)
        assert "Traceback" not in gone.stderr + done.stderr


def test_variables_that_another_program_left_do_not_change_the_recorded_command(
    script, tmp_path, monkeypatch
):
    for name in ("TRAINING_COMMAND", "SWEEP_COMMAND", "COMMAND"):
        monkeypatch.setenv(name, "make train")
    monkeypatch.setattr(provenance, "collect", provenance.collect.__wrapped__)
    assert script("debug=smoke", "model=linear") == 0
    assert results(tmp_path)[0]["command"] == ["script.py", "debug=smoke", "model=linear"]


@pytest.mark.slow
def test_names_of_folders_stay_below_255_bytes(script, tmp_path, capfd):
    classes = ",".join(f"'{'汉' * 100}{number}'" for number in range(10))
    grid = f"dataset.classes=[{classes}],[a,b,c,d,e,f,g,h,i,j]"
    assert script("-m", "name=mine", "debug=smoke", "model=linear", grid) == 0
    assert all(len(folder.name.encode()) < 128 for folder in run_folders(tmp_path))
    for argument in (f"hydra.run.dir={'a' * 300}", f"resume={'a' * 300}"):
        assert script(argument) == 1
        assert "… is too long: the name of a file or folder has at most 255 bytes" in (
            capfd.readouterr().err
        )


COMPLETE = """
complete_line() { COMP_LINE="$1"; COMP_POINT=${#1}; COMPREPLY=(); $function python; }
source <($PYTHON $SCRIPT -sc install=bash)
[[ $(complete -p python) =~ ' -F '([^ ]+) ]] && function=${BASH_REMATCH[1]}
for line in "python $SCRIPT model=c" "python3 -u script.py model=vit model.dep"; do
    complete_line "$line"; echo "${COMPREPLY[*]}"
done
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete_line "python $SCRIPT model=c"; echo "${COMPREPLY[*]}"
cd "$ELSEWHERE"
for line in "python script.py mod" "python ./other.py mod" "python scr" "python" \
    'python script.py $(touch ran) `touch ran` mod'; do
    complete_line "$line"; echo "${COMPREPLY[*]}"
done
source <($PYTHON $SCRIPT -sc uninstall=bash)
complete -p python 2> /dev/null || echo removed
"""


@needs_bash
@pytest.mark.slow
def test_tab_completion_runs_this_script_alone(tmp_path):
    for name in ("script.py", "other.py"):
        (tmp_path / name).write_text("# @hydra.main\nopen('ran', 'w')\n", encoding="utf-8")
    paths = {"PYTHON": sys.executable, "SCRIPT": str(PROJECT / "script.py")}
    done = shell(PROJECT, COMPLETE, **paths, ELSEWHERE=str(tmp_path))
    assert done.stdout.splitlines() == ["cnn", "model.depth=", "model=cnn", *[""] * 5, "removed"]
    assert done.stderr == "" and not (tmp_path / "ran").exists()


def test_tab_completion_of_other_shells_is_refused(script, capfd):
    assert script("-sc", "install=fish") == 1
    assert capfd.readouterr().err.startswith("Tab completion works in bash alone: eval ")
