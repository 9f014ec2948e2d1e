"""A real browser, Debian's chromium, that opens pages from the disk and records what they do."""

import base64
import importlib.util
import json
import shutil
from pathlib import Path


def reason_to_skip() -> str | None:
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            return f"{program} is missing: apt-get install chromium chromium-driver"
    if importlib.util.find_spec("selenium") is None:
        return "selenium is missing: pip install -r env/requirements-browser.txt"
    return None


class Browser:
    """`driver` is selenium's, for clicks, keys and scripts; `open` starts each test."""

    def __init__(self, profile: Path):
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for switch in (
            "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
            "disable-background-networking", "disable-component-update", "disable-sync",
            "disable-dev-shm-usage", "hide-scrollbars", f"user-data-dir={profile}",
        ):  # fmt: skip
            options.add_argument(f"--{switch}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))

    def open(self, path: Path, width: int = 1400, colours: str = "light", height: int = 900):
        """Open a file in a window of `width` pixels, where the user prefers `colours`."""
        self.driver.get("about:blank")
        self.driver.get_log("browser"), self.driver.get_log("performance")  # of the page before
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": colours}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get(path.resolve().as_uri())

    def complaints(self) -> list[str]:
        """What the console says since `open`: errors, warnings, and what the page's policy blocks;
        afterwards, the next ones are collected."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses that were asked for since `open`, but for the file itself and `data:`. What
        the page's policy blocks is never sent: it is among the complaints."""
        logged = [json.loads(entry["message"]) for entry in self.driver.get_log("performance")]
        events = [(entry["message"]["method"], entry["message"]["params"]) for entry in logged]
        blocked = {
            params["requestId"]
            for method, params in events
            if method == "Network.loadingFailed" and params.get("blockedReason") == "csp"
        }
        sent = {
            params["request"]["url"]
            for method, params in events
            if method == "Network.requestWillBeSent" and params["requestId"] not in blocked
        }
        own = self.driver.current_url.partition("#")[0]
        return [url for url in sent if url != own and not url.startswith(("data:", "about:"))]

    def is_too_wide(self) -> bool:
        """Whether the page, and not only a part that scrolls, is wider than the window."""
        script = "return document.documentElement.scrollWidth > window.innerWidth"
        return self.driver.execute_script(script)

    def text(self) -> str:
        """All the text that the page shows."""
        return self.driver.execute_script("return document.body.innerText")

    def screenshot(self, path: Path) -> None:
        """The whole page, however long, as a PNG."""
        asked = {"captureBeyondViewport": True}
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", asked)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self.driver.quit()
