"""What tests of web_demo's page have in common: a server, a browser, a tab for each test, and what people do there."""

import json
import time
import unittest
import urllib.error
import urllib.request

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from web_demo_process import WebDemo, start_browser

PATIENCE = 90  # seconds; a picture takes one or two on a free machine

# Keeps what the page shows while it draws: the bar's values and the previews, and what breaks the page's rules.
RECORDER = """
window.seen = {bars: [], previews: [], marks: []};
window.violations = [];
document.addEventListener("securitypolicyviolation", event => window.violations.push(event.violatedDirective));
new MutationObserver(changes => {
  for (const {target} of changes) {
    const {bars, previews} = window.seen;
    const keep = (list, value) => list.at(-1) === value || list.push(value);
    if (target.nodeName === "PROGRESS" && target.hasAttribute("value")) keep(bars, target.value);
    if (target.nodeName === "IMG" && target.src.startsWith("data:")) keep(previews, target.src);
  }
  const mark = document.querySelector("#panel-noise .mark")?.getAttribute("x1") ?? null;
  if (mark !== null && window.seen.marks.at(-1) !== mark) window.seen.marks.push(mark);
}).observe(document, {subtree: true, attributes: true, attributeFilter: ["value", "src"]});
"""


class PageCase(unittest.TestCase):
    """Each test has a tab of its own, and with it a session of its own."""

    PROGRAM = None  # of the server

    @classmethod
    def setUpClass(cls):
        cls.server = WebDemo(cls.PROGRAM)
        cls.addClassCleanup(cls.server.stop)
        cls.browser = start_browser()
        cls.addClassCleanup(cls.browser.quit)
        cls.home = cls.browser.current_window_handle

    def setUp(self):
        self.expected = []  # parts of console messages that belong to the test
        self.open_tab()

    def tearDown(self):
        messages = []
        for handle in self.browser.window_handles:
            if handle == self.home:
                continue
            self.browser.switch_to.window(handle)
            messages += [entry["message"] for entry in self.browser.get_log("browser")
                         if entry["level"] in ("SEVERE", "WARNING")]
            self.assertEqual([], self.script("return window.violations"))
            self.cancel_all()
            self.browser.close()
        self.browser.switch_to.window(self.home)
        self.assertEqual([], [text for text in messages if not any(part in text for part in self.expected)])

    # --- what tests do ---

    def open_tab(self, url=None):
        self.browser.switch_to.new_window("tab")
        self.browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": RECORDER})
        self.browser.get(url or self.server.url)
        self.wait_ready()
        return self.browser.current_window_handle

    def wait_ready(self):
        self.until(lambda: self.script("return document.documentElement.dataset.ready") == "yes", "the page is ready")

    def script(self, text, *given):
        return self.browser.execute_script(text, *given)

    def find(self, name):
        return self.browser.find_element(By.ID, name)

    def text(self, selector):
        """The text of the first such element, or None."""
        return self.script("return document.querySelector(arguments[0])?.textContent ?? null", selector)

    def texts(self, selector):
        return self.script("return [...document.querySelectorAll(arguments[0])].map(one => one.textContent)", selector)

    def count(self, selector):
        return self.script("return document.querySelectorAll(arguments[0]).length", selector)

    def until(self, test, what):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if test():
                return
            time.sleep(0.02)
        self.fail("never came true: " + what)

    def put(self, name, value):
        field = self.find(name)
        field.clear()
        field.send_keys(str(value))

    def settings(self, steps, seed=None, **others):
        if not self.script("return document.getElementById('settings').open"):
            self.script("document.getElementById('settings').open = true")
        self.put("setting-num_inference_steps", steps)
        if seed is not None:
            self.find("seed-fixed").click()
            self.put("setting-seed", seed)
        for name, value in others.items():
            self.put("setting-" + name, value)

    def start(self, prompt):
        """Draws; the id of the job."""
        before = self.job_id()
        self.put("prompt", prompt)
        self.find("draw").click()
        self.until(lambda: self.job_id() != before, "the job is there")
        return self.job_id()

    def job_id(self):
        return json.loads(self.script("return sessionStorage.getItem('mdm.shown')") or "null")

    def status(self):
        return self.text(".status") or ""

    def wait_done(self):
        self.until(lambda: self.status() in ("Done", "Failed", "Cancelled"), "the job ends")
        self.assertEqual("Done", self.status(), self.text(".stage .refusal"))
        loaded = "return [...document.querySelectorAll('img.final')].every(one => one.complete && one.naturalWidth)"
        self.until(lambda: self.script(loaded), "the pictures are loaded")

    def picture(self):
        """The bytes of the picture that is shown."""
        url = self.script("return document.querySelector('img.final').getAttribute('src')")
        return self.server.get(url)

    def wait_running(self):
        self.until(lambda: self.status().startswith("Step"), "the job runs")

    def open_part(self, name):
        self.find("tab-" + name).click()

    def canvas_colours(self, selector):
        """How many colours each such canvas has."""
        return self.script("""
            return [...document.querySelectorAll(arguments[0])].map(canvas => {
              const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
              const words = new Uint32Array(pixels.buffer);
              return new Set(words).size;
            });""", selector)

    def assert_no_sideways_scroll(self, where):
        wide, room = self.script("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        self.assertLessEqual(wide, room, where)

    def keys(self, text):
        if text.startswith(Keys.CONTROL):
            ActionChains(self.browser).key_down(Keys.CONTROL).send_keys(text[1:]).key_up(Keys.CONTROL).perform()
        else:
            ActionChains(self.browser).send_keys(text).perform()

    def tab_to(self, name):
        """Tabs until that element has the focus; every stop on the way must be seen to have it."""
        for _ in range(80):
            self.keys(Keys.TAB)
            at, outline = self.script("""
                const at = document.activeElement;
                return [at.id, at === document.body ? "solid" : getComputedStyle(at).outlineStyle];""")
            self.assertNotEqual("none", outline, at)
            if at == name:
                return
        self.fail("Tab never comes to " + name)

    def cancel_all(self):
        """Ends all jobs of the tab, so that the next test does not wait for them. Finished ones stay as they are."""
        for job in json.loads(self.script("return sessionStorage.getItem('mdm.jobs')") or "[]"):
            url = f"{self.server.url}mdm/v1/jobs/{job['id']}"
            try:
                urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=30).close()
            except urllib.error.HTTPError as error:
                self.assertEqual(404, error.code)  # a job of another server
