"""Tab completion in bash for one script, in place of Hydra's.

Hydra's own is called for every `python FILE` and runs that file to ask it for completions, whatever
it is. This one runs nothing but the script that it was installed for, with the Python that
installed it, and leaves all other commands to the completion that was there before.
"""

import hashlib
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.errors import Refusal

BASH = r"""
NAME() {
    local line="${COMP_LINE:0:COMP_POINT}" cut="" file="" rest="" word choice
    local -a words choices
    COMPREPLY=()
    read -ra words <<< "$line"
    for word in "${words[@]:1}"; do
        if [[ -z $file ]]; then
            [[ $word == -* ]] || file="${word/#\~/$HOME}"
        else
            [[ $word == -* ]] || rest+=" $word"
        fi
    done
    if [[ ! "$file" -ef SCRIPT || ( -z $rest && $line != *[[:space:]] ) ]]; then
        [[ -z $NAME_before ]] || "$NAME_before" "$@"
        return
    fi
    word=""
    [[ $line == *[[:space:]] ]] && rest+=" " || word="${words[${#words[@]} - 1]}"
    read -ra choices <<< "$(
        COMP_LINE="python script.py$rest" PYTHON SCRIPT -sc query=bash 2> /dev/null < /dev/null)"
    # Readline replaces only what follows the last = or : of a word.
    [[ $COMP_WORDBREAKS == *=* && $word == *=* ]] && cut="${word%=*}="
    [[ $COMP_WORDBREAKS == *:* && $word == *:* ]] && cut="${word%:*}:"
    for choice in "${choices[@]}"; do
        [[ $choice == "$word"* ]] && COMPREPLY+=("${choice#"$cut"}")
    done
    [[ ${#COMPREPLY[@]} == 1 && $COMPREPLY == *[=./] ]] && compopt -o nospace 2> /dev/null
    return 0
}
NAME_before="$(complete -p python 2> /dev/null)"
[[ $NAME_before =~ ' -F '([^ ]+) ]] && NAME_before="${BASH_REMATCH[1]}" || NAME_before=""
[[ $NAME_before == NAME ]] && NAME_before=""
complete -o bashdefault -o default -F NAME python python3
"""
UNINSTALL = """
complete -r python python3
[[ -z $NAME_before ]] || complete -o bashdefault -o default -F "$NAME_before" python python3
unset -f NAME; unset NAME_before
"""


def instead_of(original: Callable[..., None]) -> Callable[..., None]:
    """Hydra's method that answers `-sc`, except that it installs and removes this completion."""

    def shell_completion(self: Any, config_name: str | None, overrides: list[str]) -> None:
        texts = {"install=bash": BASH, "uninstall=bash": UNINSTALL}
        if overrides and overrides[0] in texts:
            print(_filled(texts[overrides[0]]))
        elif overrides and "install=" in overrides[0]:
            raise Refusal(
                "Tab completion works in bash alone: "
                'eval "$(python script.py -sc install=bash)" installs it.'
            )
        else:
            original(self, config_name, overrides)

    return shell_completion


def _filled(text: str) -> str:
    script = str(Path(sys.argv[0]).resolve())
    name = f"_complete_{Path(script).stem}_{hashlib.sha256(script.encode()).hexdigest()[:8]}"
    words = {"NAME": name, "SCRIPT": shlex.quote(script), "PYTHON": shlex.quote(sys.executable)}
    for word, value in words.items():
        text = text.replace(word, value)
    return text
