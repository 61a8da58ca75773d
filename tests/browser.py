"""A browser without a window, driven over the wire: shows pages to the tests and says what it saw."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

WIDTHS = (400, 1400)
SCHEMES = ("light", "dark")


def needed(found: Any, what: str) -> Any:
    """What was found; where nothing was, the test is skipped, or fails where DIVULGE_REQUIRE=all (the full run)."""
    if not found and os.environ.get("DIVULGE_REQUIRE") == "all":
        pytest.fail(f"{what} is missing")
    return found or pytest.skip(f"{what} is missing")


def axe_source() -> str:
    """The text of axe-core, an npm package: the file that DIVULGE_AXE names, or that of node_modules."""
    installed = Path(__file__).parents[1] / "node_modules" / "axe-core" / "axe.min.js"
    path = Path(os.environ.get("DIVULGE_AXE") or installed)
    return path.read_text(encoding="utf-8") if needed(path.is_file(), "axe-core") else ""


def started() -> Any:
    """A selenium driver of Chromium."""
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        needed(None, "selenium")
    chromium = needed(shutil.which("chromium"), "chromium")
    driver = needed(shutil.which("chromedriver"), "chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(driver))


def show(driver: Any, path: Path, *, width: int = 1400, scheme: str = "light") -> None:
    """Load a file at a width, in light or dark."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.get(path.as_uri())


def violations(driver: Any, axe: str) -> list[str]:
    """What axe-core finds wrong on the page shown: rule and place."""
    driver.execute_script(axe)
    found = driver.execute_async_script(
        "const done = arguments[0]; axe.run({resultTypes: ['violations']}).then(r => done(r.violations), done)"
    )
    return [f"{rule['id']}: {node['html'][:200]}" for rule in found for node in rule["nodes"]]


def requests(driver: Any) -> list[str]:
    """Every address that was asked for since this was last called."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


def screenshot(driver: Any) -> bytes:
    """The whole page as PNG."""
    size = driver.execute_script(
        "const d = document.documentElement; return {width: innerWidth, height: d.scrollHeight, x: 0, y: 0, scale: 1}"
    )
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": size})
    return base64.b64decode(shot["data"])


def printed(driver: Any) -> bytes:
    """The page as PDF, on the paper that it asks for."""
    sheet = driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, "printBackground": True})
    return base64.b64decode(sheet["data"])


def contrast(first: Sequence[float], second: Sequence[float]) -> float:
    """WCAG's contrast of two colours, (red, green, blue) of 255 each.

    >>> round(contrast((0, 0, 0), (255, 255, 255)))
    21
    """
    dark, light = sorted(map(_luminance, (first, second)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: Sequence[float]) -> float:
    parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
