"""Makes the pictures of this folder: by running the lessons of the course, which draw what they compute, and others.

Run `python examples/pictures/make.py` to make all of them, or with the numbers of lessons to make only theirs. The
diagrams are drawn by `diagrams.py`, the run of the program in the README by `readme.py`, and the plots of benchmarks by
`../benchmarks/plots.py`, from tables.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """Runs what draws."""
    chosen = sys.argv[1:]
    lessons = sorted((HERE.parent / "course").glob("[0-9]*.py"))
    scripts = [lesson for lesson in lessons if not chosen or str(int(lesson.stem[:2])) in chosen]
    others = [HERE / "diagrams.py", HERE / "readme.py", HERE.parent / "benchmarks" / "plots.py"]
    for script in scripts if chosen else [*others, *scripts]:
        print(script.name)
        subprocess.run([sys.executable, str(script)], env={**os.environ, "PICTURES": str(HERE)}, check=True)


if __name__ == "__main__":
    main()
