"""Errors of Hydra and OmegaConf as sentences: what is wrong in which file, or which override."""

import re
from collections.abc import Sequence
from typing import Any

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException, ValidationError

from lab.cause import described, frames

CHOSEN_TWICE = re.compile(r"(\S+) appears more than once in the final defaults list")
SEVERAL_VALUES = re.compile(r"(?:Ambiguous value for argument|Sweep parameters) '(.+?)'", re.DOTALL)
OF_A_GROUP = re.compile(r"In '(?P<group>[^']+)/(?P<option>[^'/]+)'")
HEADLESS = re.compile(  # what it overrides is looked for below its own group
    r"In '(?P<group>[^'/]+)/(?P<option>[^']+)': Could not override '[^'@]+@(?P=group)\."
)
OF_A_FILE = re.compile(r"In '[^']+/[^']+': Could not (find|override)")
ERROR_IN_OVERRIDE = re.compile(r"Error merging override [+]*([\w.@/]+)=")
ERROR_IN_FILE = re.compile(r"In '(.+?)'")
OPTION = re.compile(r"Error resolving interpolation '(.+)', possible interpolation keys: (.+)")
REFERENCE = re.compile(r"Interpolation key '(.+?)' not found")
# Lines of Hydra's and OmegaConf's messages that repeat what is said otherwise.
NOISE = re.compile(r"\s*(full_key:|object_type=|reference_type=|See https?:|\^|$)")
PAIRS = {"[": "]", "{": "}", "(": ")"}
SPAN = re.compile(r"(\d{1,9})(?:-|\.\.|:)(\d{1,9})")
KINDS = {
    "Integer": "a whole number",
    "Float": "a number",
    "bool": "true or false",
    "ListConfig": "a list",
}


def explain(error: BaseException, causes: Sequence[BaseException]) -> str | None:
    """The sentence for an error with these `causes`, itself the first; None if it is another."""
    for cause in causes:
        if file := _local(cause, "full_path"):
            return f"{file} cannot be read as a config: {_of_a_file(causes[-1])}."
        if isinstance(cause, InterpolationResolutionError):
            return _of_a_reference(cause)
    if isinstance(error, OverrideParseException):
        return f"Error parsing override '{error.override}': {_of_a_word(error)}"
    if isinstance(error, HydraException) and (twice := CHOSEN_TWICE.match(str(error))):
        return (
            f"{twice[1]} is chosen twice: by you, and by the defaults or a recipe (sweep=…, "
            f"experiment=…). Write {twice[1]}=… without a +, or leave your own choice out."
        )
    if isinstance(error, HydraException) and (several := SEVERAL_VALUES.match(str(error))):
        return (
            f"{several[1]} gives several values, which needs --multirun (-m): a single run has "
            "one. A list is written in brackets, as in key=[1,2]."
        )
    if headless := HEADLESS.match(str(error)):
        return _needs_header(headless["group"], headless["option"])
    if missing := OPTION.match(str(error)):
        groups = [name for name in re.findall(r"{(\w+)}", missing[1]) if name not in missing[2]]
        return (
            f"{groups[0]} has no option, to which {missing[1]} refers: give one, {groups[0]}=NAME."
        )
    override, repository = _local(error, "override"), _local(error, "repo")
    if hasattr(override, "key_or_group") and repository and isinstance(error, ValueError):
        group = override.key_or_group
        options = ", ".join(repository.get_group_options(group))
        return (
            f"{override.input_line} is not allowed: {group} is a group, whose option must be a "
            f"string, one of {options}."
        )
    if hasattr(override, "input_line") and not isinstance(error, HydraException):
        return f"{override.input_line} is not allowed: {described(error)}."
    return None


def explain_type(error: ValidationError, where: str) -> str:
    """The sentence for a value that the schema does not allow; `where` is Hydra's message."""
    reason = str(error).splitlines()[0].rstrip(".")
    value = f"{error.full_key}={error.value} is not allowed"
    if str(error.full_key).isdigit():  # OmegaConf gives the index of an element alone
        override, file = ERROR_IN_OVERRIDE.match(where), ERROR_IN_FILE.match(where)
        place = f"{override[1]}=" if override else f"{file[1]}.yaml has " if file else ""
        value = f"{place}[…, {error.value}, …] is not allowed"
    allowed = next((f"it must be {KINDS[kind]}" for kind in KINDS if kind in reason), reason)
    if bounds := SPAN.fullmatch(str(error.value)):
        first, last = map(int, bounds.groups())
        allowed += f". For several runs, give range({first},{last + 1}) with --multirun"
    return f"{value}: {allowed}."


def without_header(key: str, where: str) -> str | None:
    """The sentence for a recipe whose keys have ended up below its group, as `experiment.epochs`.

    `where` is Hydra's message for the unknown `key`, which starts with the name of the file.
    """
    found = OF_A_GROUP.match(where)
    if not found or key != found["group"]:
        return None
    return _needs_header(key, found["option"])


def _needs_header(group: str, option: str) -> str:
    return (
        f"{group}/{option}.yaml sets keys of the whole config: its first line must be "
        "'# @package _global_', in a file that is saved as UTF-8 without a byte order mark (BOM)."
    )


def on_one_line(error: BaseException) -> str:
    """The message of Hydra or OmegaConf without what only repeats the config."""
    message = str(error).partition("\n\nConfig search path")[0]
    text = " ".join(line.strip() for line in message.splitlines() if not NOISE.match(line))
    key, text = getattr(error, "full_key", None), text.rstrip(".")
    if isinstance(error.__cause__, OmegaConfBaseException):
        reason = on_one_line(error.__cause__).rstrip(".")
        text = text if reason in text else f"{text}: {reason}" if text else reason
    text = f"{key}: {text}" if key and str(key) not in text else text or type(error).__name__
    text = text if text[-1] in "?!" else f"{text}."
    if OF_A_FILE.match(text):
        text += " In the defaults of a file in a group, it is `override /GROUP: OPTION`."
    return text


def _local(error: BaseException, name: str) -> Any:
    """A local variable of the innermost function of Hydra that has it: Hydra's exceptions do not
    say which file or override it was processing."""
    for frame, _ in reversed(frames(error)):
        if frame.f_globals.get("__name__", "").startswith("hydra.") and name in frame.f_locals:
            return frame.f_locals[name]
    return None


def _of_a_file(error: BaseException) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8. Save it in that encoding, without a byte order mark (BOM)"
    if mark := getattr(error, "problem_mark", None):
        return f"line {mark.line + 1}: {error.problem}"
    return described(error)


def _of_a_reference(error: InterpolationResolutionError) -> str:
    where = error.full_key or "the value"
    if missing := REFERENCE.search(str(error)):
        return (
            f"{missing[1]}, to which {where} refers, is not in the config: add it with "
            f"+{missing[1]}=…, or set {where} itself."
        )
    if missing := re.search(r"Missing mandatory value: (\S+)", str(error)):
        return f"Missing mandatory value: {missing[1]}, to which {where} refers. Set it."
    text = on_one_line(error).rstrip(".")
    advice = "correct it, or give a plain value"
    if variable := re.search(r"Environment variable '(.+?)' not found", text):
        name = variable[1]
        advice = f"set the variable, or give a default as in ${{oc.env:{name},1}}"
    return f"{text}: {advice}."


def _of_a_word(error: OverrideParseException) -> str:
    """What is wrong with a word of the command line, in place of the parser's own terms."""
    word = error.override
    key, equals, value = word.partition("=")
    if not equals and not key.startswith("~"):
        return "it must be key=value, without spaces around the =."
    if value.endswith(","):
        return "several values are written without spaces, as in model=linear,mlp."
    open_brackets: list[str] = []
    plain = re.sub(r"\\.", "", value)  # without what is escaped
    plain = re.sub(r"'[^']*'|\"[^\"]*\"", "", plain)  # and without what is quoted
    if "'" in plain or '"' in plain:
        return (
            "a quotation mark is not closed. If it belongs to the value, put the value in the "
            "other kind."
        )
    for char in plain:
        if char in PAIRS:
            open_brackets.append(PAIRS[char])
        elif char in PAIRS.values() and (not open_brackets or open_brackets.pop() != char):
            return f"no bracket is open for {char}."
    if open_brackets:
        return f"a bracket is not closed: {open_brackets[-1]} is missing."
    reason = next((line for line in error.message.splitlines() if "while evaluating" in line), None)
    if reason:
        return f"{reason.strip().rstrip('.')}."
    return (
        "it must be key=value. A value with spaces or any of ,:=(){}[]$ must be quoted, with "
        """quotes that the shell leaves in place, as in 'key="…"'."""
    )
