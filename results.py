"""Summarise many runs: a table, a CSV file and a figure, made from run folders alone.

python results.py runs/NAME [runs/OTHER …]

Works at any time, also while a sweep is running. The files are written into the first folder.
"""

import sys

sys.path.insert(0, __file__.removesuffix("results.py"))  # python -P leaves it out

from pathlib import Path

from lab.errors import errors_as_sentences
from sweeps import figure
from sweeps.summary import summarise

if __name__ == "__main__":
    with errors_as_sentences():
        if {"-h", "--help"} & set(sys.argv):
            print(__doc__)
        elif len(sys.argv) < 2:
            sys.exit(__doc__)
        else:
            with figure.drawing_beside() as draw:
                summarise([Path(name) for name in sys.argv[1:]], draw)
