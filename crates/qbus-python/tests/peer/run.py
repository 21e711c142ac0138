"""Runs prometheus_client's own tests over `qbus.prometheus_client`, or over the shim.

    run.py SDIST          over the module, whose name replaces prometheus_client's in the tests
    run.py SDIST --shim   unmodified, with the shim in place

The tests that fail are those of `expected.txt`, each with its reason, and no others: a new failure
fails.
"""

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).parent


def expected() -> dict[str, str]:
    listed = {}
    for line in (HERE / "expected.txt").read_text().splitlines():
        test, _, reason = line.partition(" # ")
        if test and not test.startswith("#"):
            assert reason, f"{test} is listed without a reason"
            listed[test.strip()] = reason
    return listed


def tests(sdist: str, folder: Path, is_shim: bool) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.glob("prometheus_client-*")
    if not is_shim:
        for file in (unpacked / "tests").rglob("*.py"):
            text = re.sub(r"\bprometheus_client\b", "qbus.prometheus_client", file.read_text())
            file.write_text(text)
    return unpacked / "tests"


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        return run(sys.argv[1], Path(folder), "--shim" in sys.argv)


def run(sdist: str, folder: Path, is_shim: bool) -> int:
    where = tests(sdist, folder, is_shim)
    report = folder / "report.xml"
    environment = {name: value for name, value in os.environ.items() if name != "QBUS"}
    if is_shim:
        import qbus.shim

        environment["PYTHONPATH"] = qbus.shim.FOLDER
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
    ]
    with subprocess.Popen(
        [*command, *map(str, sorted(where.glob("test_*.py")))],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
    ) as process:
        try:
            process.wait(600)
        finally:
            process.kill()
            # A bus for each folder that the tests make their own; the next process would sweep
            # them.
            for path in Path("/dev/shm").glob(f"qbus.embedded-{process.pid}-*"):
                path.unlink(missing_ok=True)
    known, wrong = expected(), []
    counts: dict[str, tuple[int, int]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        module = case.get("classname", "").split(".tests.")[-1].split(".")
        file = next((part for part in module if part.startswith("test_")), module[0])
        name = f"{file}::{module[-1]}::{case.get('name')}"
        passed, total = counts.get(file, (0, 0))
        if case.find("skipped") is not None:
            continue
        is_failed = case.find("failure") is not None or case.find("error") is not None
        counts[file] = (passed + (not is_failed), total + 1)
        if is_failed:
            if name not in known:
                wrong.append(f"fails: {name}")
        elif name in known:
            print(f"passes, and need not be listed: {name}")
    for file, (passed, total) in counts.items():
        print(f"{file}: {passed} of {total}")
    if not counts:
        wrong.append("no test ran")
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
