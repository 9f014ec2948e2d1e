"""The command line of results.py."""

import argparse
from pathlib import Path
from typing import NoReturn

from lab.errors import Refusal, errors_as_sentences
from lab.hints import nearest
from sweeps.drawing import Draw
from sweeps.summary import summarise


class Parser(argparse.ArgumentParser):
    """Refuses in a sentence, where argparse prints its usage."""

    def error(self, message: str) -> NoReturn:
        raise Refusal(f"{message[0].upper()}{message[1:]}. {self.format_usage().strip()}")


def main(words: list[str], draw: Draw, doc: str) -> None:
    with errors_as_sentences():
        arguments = parsed(words, doc)
        if arguments.watch:
            from sweeps.watch import watch  # not at the top: few need it

            watch(arguments.folders)
            print()
        summarise(arguments.folders, draw)


def parsed(words: list[str], doc: str) -> argparse.Namespace:
    """The folders and `watch`. Raises Refusal for an option that does not exist, and without any
    folder."""
    parser = Parser(
        prog="python results.py", description=doc, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="searched for runs")
    watch = "show what is running until nothing is, and keep rewriting the page; Ctrl-C ends it"
    parser.add_argument("--watch", action="store_true", help=watch)
    known, unknown = parser.parse_known_args(words)
    if unknown:
        options = ("--watch", "--help")
        raise Refusal(
            f"{unknown[0]} is not an option of results.py: it has {' and '.join(options)}."
            f"{nearest(unknown[0], options)}"
        )
    if not known.folders:
        raise Refusal("Give a folder with run folders below it, like runs/NAME; see --help.")
    return known
