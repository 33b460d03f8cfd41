"""Pictures of a comparison in MLflow's own user interface: docs/images/mlflow_*.png.

    python docs/screenshots.py --store sqlite:///mlflow.db --experiment compare_gym

Needs Chromium and its driver (Debian: apt install chromium chromium-driver). Shows a copy of the store, so that
neither a comparison in progress nor the store can be disturbed. The pictures are those of docs/tracking.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from trex_ds.tracking.settings import sqlite_file

IMAGES = Path(__file__).parent / "images"
WIDTH = 1600
SECONDS = 300  # for anything to appear, on a busy machine
COLUMNS = {  # of docs/tracking.md, with widths
    "params.`training.learning_rate`": 165,
    "metrics.`system/trainable_parameters`": 160,
    "metrics.`eval/mean/accuracy`": 160,
    "metrics.`system/median_step_seconds`": 150,
    "metrics.`system/training/peak_bytes`": 205,
}
TAGS = {"tags.`method`": 120, "tags.`stage`": 80}
FIRST = {"attributes.`Run Name`": 240, "runDateAndNestInfo": 130, "duration": 75}
# Of a device with a mouse; for fingers, charts would show their buttons all the time.
MOUSE = "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4"
# How the interface keeps a view: JSON in a tag of the experiment, which its "Share" button makes, too.
VIEW_TAG = "mlflow.sharedViewState."
FINAL = {"searchFilter": "tags.stage = 'final'", "orderByKey": "metrics.`eval/mean/accuracy`", "orderByAsc": False}
BY_METHOD = {"groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "method"}]}}


class Browser:
    """A headless Chromium, driven through the W3C WebDriver protocol that chromedriver speaks."""

    def __init__(self, driver: str, chromium: str):
        arguments = ["--headless=new", "--no-sandbox", "--hide-scrollbars", MOUSE]
        options = {"binary": chromium, "args": arguments}
        capabilities = {"alwaysMatch": {"goog:chromeOptions": options}}
        wait_for(lambda: call(f"{driver}/status")["ready"], "chromedriver")
        self._session = f"{driver}/session/{call(f'{driver}/session', capabilities=capabilities)['sessionId']}"

    def open(self, address: str, height: int) -> None:
        """Load a page into a window of the pictures' width."""
        call(f"{self._session}/window/rect", width=WIDTH, height=height)
        call(f"{self._session}/url", url="about:blank")  # else a change behind the # alone loads nothing
        call(f"{self._session}/url", url=address)

    def run(self, script: str) -> Any:
        """What the body of a JavaScript function returns on the page."""
        return call(f"{self._session}/execute/sync", script=script, args=[])

    def wait_for_text(self, text: str) -> None:
        """Wait until the page shows it."""
        wait_for(lambda: self.run(f"return document.body.innerText.includes({json.dumps(text)})"), repr(text))

    def click(self, component: str) -> None:
        """Click the first button whose name in MLflow's source ends so, as soon as it is there."""
        button = f"document.querySelector('button[data-component-id$=\"{component}\"]')"
        wait_for(lambda: self.run(f"const button = {button}; button?.click(); return button !== null"), component)

    def save(self, name: str) -> None:
        """The window as docs/images/`name`.png, once it has not changed for a while."""
        before, after = None, self._picture()
        while before != after:
            time.sleep(3)
            before, after = after, self._picture()
        IMAGES.mkdir(exist_ok=True)
        file = IMAGES / f"{name}.png"
        file.write_bytes(after)
        print(f"{file}: {len(after) / 1000:.0f} kB")

    def close(self) -> None:
        """End Chromium."""
        call(self._session, method="DELETE")

    def _picture(self) -> bytes:
        return b64decode(call(f"{self._session}/screenshot"))


def call(address: str, method: str | None = None, **body: Any) -> Any:
    """The value that a WebDriver answers with."""
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return json.load(answer)["value"]


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """The first value of `condition` that is true."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            if found := condition():
                return found
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.5)
    sys.exit(f"{what} did not appear within {SECONDS} s")


@contextmanager
def server(*command: str) -> Iterator[str]:
    """The address of a server on a free port, which `{port}` in its command stands for."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [part.format(port=port) for part in command],
            stdout=log,
            stderr=log,
            env=os.environ | quiet,
            start_new_session=True,  # with the processes that it starts
        )
        try:
            yield f"http://127.0.0.1:{port}"
        except SystemExit:
            log.seek(0)
            print(log.read().decode(errors="replace"), file=sys.stderr)
            raise
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def needed(program: str) -> str:
    """Path of an installed program; exits where it is missing."""
    return shutil.which(program) or sys.exit(
        f"{program} is not installed; on Debian: apt install chromium chromium-driver"
    )


def table(columns: Mapping[str, int]) -> dict[str, Any]:
    """The columns of a table of runs."""
    widths = FIRST | dict(columns)
    return {"selectedColumns": list(columns), "columnOrder": list(widths), "columnWidths": widths}


def charts(tasks: list[str]) -> dict[str, Any]:
    """Two sections: accuracies, and what training was like."""
    metrics = {
        "accuracy": [("BAR", f"eval/{task}/accuracy") for task in ("mean", *tasks)],
        "training": [
            ("LINE", "train/loss"),
            ("BAR", "system/median_step_seconds"),
            ("BAR", "system/training/peak_bytes"),
        ],
    }
    return {
        "compareRunSections": [
            {"uuid": s, "name": s, "display": True, "columns": 3, "cardHeight": 300} for s in metrics
        ],
        "compareRunCharts": [
            {"uuid": name, "type": kind, "metricKey": name, "metricSectionId": section}
            for section, found in metrics.items()
            for kind, name in found
        ],
    }


def take_pictures(browser: Browser, client: Any, address: str, experiment: str, runs: list[Any]) -> None:
    """All of them. `runs` are the final ones, the best first."""
    tasks = [name.split("/")[1] for name in runs[0].data.metrics if name.startswith("eval/") and name.endswith("/n")]
    methods = dict.fromkeys(run.data.tags["method"] for run in runs)
    closed = {"groupsExpanded": {f"tag.method.{method}": False for method in list(methods)[1:]}}
    views = {  # window heights and states of the interface
        "mlflow_methods": ("TABLE", 900, table(COLUMNS) | FINAL | BY_METHOD | closed),
        "mlflow_runs": ("TABLE", 900, table(TAGS | COLUMNS)),
        "mlflow_charts": ("CHART", 1500, charts(sorted(set(tasks) - {"mean"})) | FINAL | BY_METHOD | closed),
    }
    browser.open(f"{address}/favicon.ico", 900)
    settings = {
        "mlflow.workflowType_v1": "machine_learning",
        "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,
        "mlflow.assistant.panelOpen_v1": False,
    }
    for key, value in settings.items():
        browser.run(f"localStorage.setItem({json.dumps(key)}, {json.dumps(json.dumps(value))})")
    for name, (mode, height, state) in views.items():
        client.set_experiment_tag(experiment, VIEW_TAG + name, json.dumps(state))
        page = f"{address}/#/experiments/{experiment}/runs?viewStateShareKey={name}&compareRunsMode={mode}"
        browser.open(page, height)
        browser.click("mlflow.experiment_page.shared_view.dismiss")
        browser.click("mlflow_header.toggle_sidebar_button")
        if "groupBy" not in state:
            browser.click("runnamecellrenderer.tsx_46")  # the + of the parent
        browser.wait_for_text(runs[0].info.run_name)
        browser.save(name)
    browser.open(f"{address}/#/experiments/{experiment}/runs/{runs[0].info.run_id}", 1300)
    browser.click("mlflow_header.toggle_sidebar_button")
    browser.wait_for_text("recipe_hash")
    browser.save("mlflow_run")


def main() -> None:
    """Read the command line and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, help="as sqlite:///mlflow.db")
    parser.add_argument("--experiment", required=True, help="its name")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # the servers end, too
    driver, chromium, mlflow = needed("chromedriver"), needed("chromium"), str(Path(sys.executable).with_name("mlflow"))
    file = sqlite_file(options.store)
    if file is None or not file.is_file():
        sys.exit(f"{options.store} is not the SQLite file of an MLflow store; write sqlite:///path/to/mlflow.db")

    from mlflow import MlflowClient

    with tempfile.TemporaryDirectory() as folder:
        copy = f"{folder}/mlflow.db"
        source, target = sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True), sqlite3.connect(copy)
        with closing(source), closing(target):
            source.backup(target)
        client = MlflowClient(f"sqlite:///{copy}")
        experiment = client.get_experiment_by_name(options.experiment)
        if experiment is None:
            names = ", ".join(found.name for found in client.search_experiments())
            sys.exit(f"{options.store} has no experiment {options.experiment!r}; it has: {names}")
        number = experiment.experiment_id
        order = [f"{FINAL['orderByKey']} DESC"]
        runs = client.search_runs(
            [number], f"{FINAL['searchFilter']} AND attributes.status = 'FINISHED'", order_by=order
        )
        if not runs:
            sys.exit(f"no final run of a comparison has finished in the experiment {options.experiment!r}")
        ui = ("ui", "--backend-store-uri", f"sqlite:///{copy}", "--port", "{port}", "--workers", "1")
        with server(mlflow, *ui) as address, server(driver, "--port={port}") as driver_address:
            wait_for(lambda: urllib.request.urlopen(f"{address}/health").status == 200, "mlflow ui")
            browser = Browser(driver_address, chromium)
            try:
                take_pictures(browser, client, address, number, runs)
            finally:
                browser.close()


if __name__ == "__main__":
    main()
