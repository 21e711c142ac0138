"""Drives the dashboard in a real Chromium, and takes the pictures beside this file.

    python take.py QBUS FOLDER [--quick]

QBUS is the command, FOLDER is where the pictures go. It needs Chromium and the package
websocket-client. Whatever the page's console complains of, or a key does not do, fails. With
--quick it does not wait until there is something to see in the pictures.
"""

import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import websocket

LIMIT = 30
GPU = """driver = 580.82.07
count = 2
0.uuid = GPU-4f1c
0.name = NVIDIA H100
0.memory = 85899345920 1073741824 44294967296
0.utilization = 71 38
0.power = 452500
0.power_limit = 700000
0.temperature0 = 64
1.uuid = GPU-8a02
1.name = NVIDIA H100
1.memory = 85899345920 1073741824 1294967296
1.utilization = 2 0
1.power = 71500
1.power_limit = 700000
1.temperature0 = 34
"""


class Page:
    """A page of a Chromium of its own, by its remote debugging protocol."""

    def __init__(self, folder: Path, width: int, height: int) -> None:
        self.process = subprocess.Popen(
            ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={folder}",
             f"--window-size={width},{height}", "about:blank"],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        assert self.process.stderr is not None
        said = next(line for line in self.process.stderr if "DevTools listening on" in line)
        port = said.split("127.0.0.1:")[1].split("/")[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=LIMIT) as answer:
            pages = [one for one in json.load(answer) if one["type"] == "page"]
        self.socket = websocket.create_connection(pages[0]["webSocketDebuggerUrl"], timeout=LIMIT)
        self.number = 0
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.size(width, height)

    def call(self, method: str, **parameters: object) -> dict:
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            said = json.loads(self.socket.recv())
            if said.get("id") == self.number:
                assert "error" not in said, (method, said["error"])
                return said["result"]
            event = said.get("method")
            if event == "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(said["params"]["exceptionDetails"])[:500])
            elif event == "Log.entryAdded" and said["params"]["entry"]["level"] in (
                "error",
                "warning",
            ):
                self.complaints.append(said["params"]["entry"]["text"])

    def value(self, expression: str) -> object:
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, (expression, found)
        return found["result"].get("value")

    def until(self, expression: str) -> None:
        end = time.monotonic() + LIMIT
        while not self.value(expression):
            assert time.monotonic() < end, f"waited {LIMIT} s for {expression}"
            time.sleep(0.05)

    def key(self, name: str) -> None:
        codes = {"Enter": (13, "\r"), "Escape": (27, None), "Tab": (9, None)}
        code, text = codes.get(name, (0, name))
        more = {"text": text} if text else {}
        self.call(
            "Input.dispatchKeyEvent", type="keyDown", key=name, windowsVirtualKeyCode=code, **more
        )
        self.call("Input.dispatchKeyEvent", type="keyUp", key=name, windowsVirtualKeyCode=code)

    def size(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)

    def ground(self, scheme: str) -> None:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def picture(self, path: Path) -> None:
        self.value("document.activeElement.blur()")
        # Two ticks, so that what was asked for is drawn.
        time.sleep(2.2)
        path.write_bytes(
            base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        )

    def close(self) -> None:
        self.call("Browser.close")
        self.process.wait(LIMIT)


# What the page has of a family in the seconds that it knows.
RATES = """import("/dashboard/store.js").then(({ families, state, KEPT }) => {
  const family = [...families.values()].find((family) => family.name === "jobs_total");
  const rates = [];
  for (let s = Math.max(state.first, state.second - 20); family?.ring && s < state.second; s++) {
    rates.push(family.ring[s % KEPT]);
  }
  return rates.filter((rate) => !Number.isNaN(rate));
})"""


def emit_steadily(out: TextIO) -> None:
    """Counts 2 each second in one series, and 6 each third in another."""
    for second in itertools.count():
        # Well within a second, so that none has two or none.
        time.sleep((1.3 - time.time()) % 1)
        try:
            for at, often, more in (("a", 1, 2), ("b", 3, 6)):
                if second % often == 0:
                    labels = {"at": at}
                    line = {
                        "name": "jobs_total",
                        "type": "counter",
                        "value": more,
                        "labels": labels,
                        "description": "Jobs done.",
                    }
                    out.write(json.dumps(line) + "\n")
            out.flush()
        except (BrokenPipeError, ValueError):
            return
        time.sleep(0.1)


# Starts the command on the bus.
Start = Callable[..., subprocess.Popen]


def drive(page: Page, url: str, folder: Path, seconds: float) -> None:
    cards = "[...document.querySelectorAll('.card .name')].map((name) => name.textContent)"
    page.ground("light")
    page.call("Page.navigate", url=url)
    page.until(f"{cards}.includes('demo_request_seconds')")
    # What was before it was opened is drawn as it was: a step there would be nobody's.
    page.until(f"{RATES}.then((rates) => rates.filter((rate) => rate > 0).length >= 9)")
    rates = page.value(f"{RATES}.then((rates) => rates.slice(-9))")
    assert isinstance(rates, list) and 3 <= sum(rates) / len(rates) <= 5, rates
    time.sleep(seconds)
    page.key("w")
    page.until("location.hash.includes('span=900')")
    page.key("w")
    page.until("location.hash.includes('span=60')")
    page.picture(folder / "application.png")

    # A filter leaves what it takes, and its text comes to the address.
    page.key("/")
    for letter in "tokens":
        page.key(letter)
    page.until(f"{cards}.length === 1 && location.hash.includes('filter=tokens')")
    page.value("document.getElementById('filter').value = ''")
    page.value("document.getElementById('filter').dispatchEvent(new Event('input'))")
    page.key("Escape")
    page.until(f"{cards}.length >= 5")

    # A card opens with the keyboard: its series, then one of them, its traces, and back.
    page.value(
        "[...document.querySelectorAll('.card')]"
        ".find((card) => card.textContent.includes('demo_request_seconds')).focus()"
    )
    page.key("Enter")
    page.until("document.querySelectorAll('#drawer tr.open').length === 1")
    page.until("document.querySelector('#drawer table.small td').textContent.endsWith('/s')")
    page.value("document.querySelector('#drawer tr.open').focus()")
    page.key("Enter")
    page.until("/[0-9a-f]{32}/.test(document.getElementById('drawer').textContent)")
    page.ground("dark")
    page.picture(folder / "histogram.png")
    page.key("Escape")
    page.key("Escape")
    page.until("document.getElementById('drawer').hidden")

    page.key("3")
    page.until("[...document.querySelectorAll('h2')].some((title) => title.textContent === 'GPUs')")
    page.picture(folder / "machine.png")
    page.ground("light")
    page.key("2")
    page.until("document.querySelectorAll('#above tbody tr').length >= 4")
    page.picture(folder / "workers.png")
    page.key("4")
    page.until("document.getElementById('above').textContent.includes('delivered')")
    page.picture(folder / "bus.png")
    page.key("p")
    page.until("document.getElementById('age').textContent.includes('(paused)')")
    page.key("p")
    narrow(page, folder)


def narrow(page: Page, folder: Path) -> None:
    """On a telephone nothing lies beyond the edge."""
    page.size(390, 844)
    for view, title in (("2", "Attached"), ("3", "GPUs"), ("4", "Ledger"), ("1", "demo_tokens")):
        page.key(view)
        page.until(f"document.getElementById('main').textContent.includes('{title}')")
        wide = page.value("document.documentElement.scrollWidth")
        assert isinstance(wide, int) and wide <= 390, (view, wide)
    page.picture(folder / "narrow.png")
    page.size(1280, 860)


def incident(page: Page, folder: Path, aggregator: subprocess.Popen, start: Start) -> None:
    """The aggregator stops, records are lost, it goes on, and is gone: each is said."""
    page.ground("dark")
    aggregator.send_signal(signal.SIGSTOP)
    load = start("load", "--producers", "2", "--records", "300000", "--kind", "summary",
                 "--series", "1000", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    page.until("document.getElementById('age').className === 'old'")
    load.wait(LIMIT)
    aggregator.send_signal(signal.SIGCONT)
    banner = "document.getElementById('banner')"
    page.until(f"!{banner}.hidden && /[0-9,]+ records lost \\(full/.test({banner}.textContent)")
    page.until("document.getElementById('age').className === ''")
    page.picture(folder / "incident.png")
    aggregator.kill()
    page.until("document.getElementById('age').textContent.includes('the aggregator is gone')")
    page.until("document.getElementById('rate').textContent === ''")
    assert not page.complaints, page.complaints


def many(page: Page, folder: Path, start: Start) -> None:
    """With ten thousand series."""
    page.ground("light")
    load = start("load", "--series", "10000", "--rate", "5000", "--records", "100000000",
          stdout=subprocess.DEVNULL)
    count = "Number(document.getElementById('count').textContent.replace(/[^0-9]/g, ''))"
    page.until(f"{count} > 10000")
    time.sleep(15)
    page.picture(folder / "many.png")
    load.terminate()
    load.wait(LIMIT)
    page.until(f"{count} < 5000")


def main() -> None:
    program, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    seconds = 1.0 if "--quick" in sys.argv else 75.0
    folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="qbus-screenshots-"))
    bus = f"screenshots-{os.getpid()}"
    started: list[subprocess.Popen] = []

    def start(*arguments: str, **more: object) -> subprocess.Popen:
        process = subprocess.Popen(
            [str(program), *arguments, "--bus", bus], stdin=subprocess.DEVNULL, **more
        )
        started.append(process)
        return process

    page = None
    try:
        # Built beside the command for its tests; without it there is no GPU.
        library = program.parent / "deps" / "libfake_nvml.so"
        gpu: list[str] = []
        if library.exists():
            shutil.copy(library, scratch / "libnvidia-ml.so.1")
            (scratch / "values.txt").write_text(GPU)
            gpu = ["--nvml", str(scratch / "libnvidia-ml.so.1")]
        aggregator = start("agg", *gpu, stderr=subprocess.DEVNULL)
        while not Path(f"/dev/shm/qbus.{bus}").exists():
            assert aggregator.poll() is None, "the aggregator has ended"
            time.sleep(0.01)
        server = start("serve", "--listen", "127.0.0.1:0", stderr=subprocess.PIPE, text=True)
        assert server.stderr is not None
        said = next(line for line in server.stderr if "http://" in line)
        url = "http://" + said.split("http://")[1].strip()
        steady = subprocess.Popen(
            [str(program), "emit", "--stdin", "--bus", bus], stdin=subprocess.PIPE, text=True)
        started.append(steady)
        threading.Thread(target=emit_steadily, args=(steady.stdin,), daemon=True).start()
        time.sleep(9)
        for worker in range(3):
            start("demo", "--worker", str(worker), "--seconds", "1000")
        page = Page(scratch / "chromium", 1280, 860)
        drive(page, url, folder, seconds)
        if "--quick" not in sys.argv:
            many(page, folder, start)
        incident(page, folder, aggregator, start)
        print(f"{len(list(folder.glob('*.png')))} pictures in {folder}; nothing to complain of")
    finally:
        if page is not None:
            page.close()
        for process in reversed(started):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(LIMIT)
        subprocess.run(
            [str(program), "rm", "--force", "--bus", bus], check=False, stderr=subprocess.DEVNULL
        )
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
