"""Summarise many runs: a table, a CSV file, a figure and a page, made from run folders alone.

python results.py runs/NAME [runs/OTHER …]
python results.py runs/NAME --watch

Works at any time, also while a sweep is running. The files are written into the first folder.
"""

import sys

sys.path.insert(0, __file__.removesuffix("results.py"))  # python -P leaves it out

from sweeps.drawing import drawing_beside

if __name__ == "__main__":
    with drawing_beside() as draw:  # its process imports matplotlib, and this one the rest
        from sweeps.command import main

        main(sys.argv[1:], draw, __doc__)
