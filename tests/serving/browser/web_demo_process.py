"""The program web_demo on a free port, a line to it that can be cut, and a chromium without a screen."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import urllib.request

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
CHECKPOINT = os.path.join(ROOT, "configs", "demo", "shapes_32.pth")


class WebDemo:
    """A running server. Its log goes to a file, which stands in the error when it does not start."""

    def __init__(self, program, *flags, key=None):
        environment = {name: value for name, value in os.environ.items() if name != "MDM_API_KEY"}
        environment["OMP_WAIT_POLICY"] = "passive"  # threads that wait leave the processor to the browser
        if key is not None:
            environment["MDM_API_KEY"] = key
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [program, "--port", "0", "--model", "shapes_32=" + CHECKPOINT, "--max-posts-per-minute", "100000", *flags],
            stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment)
        self.url = self.process.stdout.readline().strip()
        if not self.url.startswith("http://"):
            self.stop()
            raise RuntimeError("web_demo did not start:\n" + self.log_text)

    def get(self, path):
        with urllib.request.urlopen(self.url.rstrip("/") + path, timeout=30) as answer:
            return answer.read()

    def json(self, path):
        return json.loads(self.get(path))

    def stop(self):
        """Ends the server as a service manager would; its exit code. What it logged is in log_text then."""
        self.process.terminate()
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.process.stdout.close()
        self.log.seek(0)
        self.log_text = self.log.read()
        self.log.close()
        return code


class Relay:
    """A port of its own that leads to the server's until it is cut, and again when it is mended."""

    def __init__(self, url):
        self.target = int(url.rstrip("/").rsplit(":", 1)[1])
        self.whole = True
        self.open = set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if not self.whole:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self.target))
            self.open |= {near, far}
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self.carry, args=(one, other), daemon=True).start()

    def carry(self, one, other):
        try:
            while data := one.recv(65536):
                other.sendall(data)
        except OSError:
            pass
        for end in (one, other):
            self.hang_up(end)

    def hang_up(self, end):
        self.open.discard(end)
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        end.close()

    def cut(self):
        self.whole = False
        for end in list(self.open):
            self.hang_up(end)

    def mend(self):
        self.whole = True

    def stop(self):
        self.cut()
        self.listener.close()


def start_browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,1000"):
        options.add_argument(flag)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # chromium refuses to start for root otherwise
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(service=Service(DRIVER), options=options)
    browser.set_script_timeout(60)
    return browser
