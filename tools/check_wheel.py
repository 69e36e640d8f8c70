"""Build the wheel, unpack it elsewhere, and run the demo job, the app's first page and the version from there.

Dependencies come from the environment that runs this; the package, the app and the assets from the wheel alone.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIRST_PAGE = """
from pathlib import Path
import pruning
from pruning.paths import PROJECT
from streamlit.testing.v1 import AppTest
assert Path(pruning.__file__).is_relative_to({place!r}) and PROJECT.is_relative_to({place!r})
at = AppTest.from_file(str(PROJECT / "app.py"), default_timeout=120).run()
assert not at.exception and at.title, at.exception
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        place, elsewhere = Path(folder, "installed"), Path(folder, "elsewhere")
        elsewhere.mkdir()
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
        subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
        (wheel,) = Path(folder).glob("*.whl")
        zipfile.ZipFile(wheel).extractall(place)
        environment = {**os.environ, "PYTHONPATH": str(place), "PRUNESCOPE_CACHE": str(Path(folder, "cache"))}
        module = [sys.executable, "-m", "pruning"]
        quick = ["--calibration-blocks", "2", "--iterations", "1", "--eval-blocks", "1"]
        for command in (
            [*module, "--version"],
            [*module, "prune", *quick],
            [*module, "runs", "list"],
            [sys.executable, "-c", FIRST_PAGE.format(place=str(place))],
        ):
            subprocess.run(command, cwd=elsewhere, env=environment, check=True)
        print(f"{wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB: works in another folder")


if __name__ == "__main__":
    main()
