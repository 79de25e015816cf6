// The tabs of "A look inside": which is open, and what they all work with. Parts ask the server only while they are
// seen. Tabs follow WAI-ARIA's pattern: arrows, Home and End move, one of them can be tabbed to.
import {AttentionPart} from "./attention.js";
import {call, kFinished} from "./api.js";
import {ConfigPart, StructurePart} from "./model_parts.js";
import {find, make, reveal, steered} from "./dom.js";
import {GuidancePart, NoisePart, PathPart} from "./path_parts.js";
import {PathState} from "./path_state.js";
import {remember, remembered} from "./store.js";
import {TimePart} from "./time_part.js";

const kBetweenLooks = 700;  // ms between two looks at a running job's path

export class Inside {
  constructor() {
    this.job = null;
    this.model = null;   // name
    this.detail = null;  // what the server says about it
    this.path = new PathState();
    this.parts = [
      ["path", "Path", new PathPart(this)],
      ["guidance", "Guidance", new GuidancePart(this)],
      ["noise", "Noise", new NoisePart(this)],
      ["attention", "Attention", new AttentionPart(this)],
      ["time", "Time", new TimePart(this)],
      ["structure", "Structure", new StructurePart(this)],
      ["config", "Configuration", new ConfigPart(this)],
    ].map(([name, title, part]) => ({name, title, part}));
    this.build();
    this.open(remembered("tab", "path"), false);
    this.path.addEventListener("change", () => this.current.part.moved?.());
  }

  build() {
    for (const one of this.parts) {
      one.tab = make("button", {type: "button", role: "tab", id: `tab-${one.name}`,
        "aria-controls": `panel-${one.name}`, onclick: () => this.open(one.name, true)}, one.title);
      one.panel = make("div", {role: "tabpanel", id: `panel-${one.name}`, "aria-labelledby": `tab-${one.name}`,
        tabindex: 0, class: "panel"}, one.part.root);
    }
    find("tabs").append(...this.parts.map(one => one.tab));
    find("panels").append(...this.parts.map(one => one.panel));
    find("tabs").addEventListener("keydown", event => this.steer(event));
  }

  steer(event) {
    const along = !["ArrowUp", "ArrowDown"].includes(event.key);  // these two scroll the page
    const to = along ? steered(event.key, this.parts.indexOf(this.current), this.parts.length) : null;
    if (to === null) return;
    event.preventDefault();
    this.open(this.parts[to].name, true);
    this.current.tab.focus();
  }

  open(name, asked) {
    this.current = this.parts.find(one => one.name === name) ?? this.parts[0];
    for (const one of this.parts) {
      const chosen = one === this.current;
      one.tab.setAttribute("aria-selected", String(chosen));
      one.tab.tabIndex = chosen ? 0 : -1;
      reveal(one.panel, chosen);
    }
    if (asked) remember("tab", this.current.name);
    this.refresh();
  }

  // Brings the open part up to date.
  refresh() {
    if (this.path.wanted(this.current.name)) this.path.refresh();
    this.current.part.show();
  }

  async setModel(name) {
    if (this.model === name) return;
    this.model = name;
    this.detail = null;
    this.current.part.show();
    try {
      const detail = await call("GET", `/mdm/v1/models/${encodeURIComponent(name)}`);
      if (this.model !== name) return;
      this.detail = detail;
    } catch (error) {
      if (this.model === name) this.detail = {error: error.message};
    }
    if (this.model === name) this.current.part.show();
  }

  setJob(job) {
    this.job = job;
    this.path.reset(job);
    for (const {part} of this.parts) part.reset?.();
    this.refresh();
  }

  /// A new state of the same job.
  update(job) {
    if (this.job?.id !== job.id) return;
    const ended = !kFinished.includes(this.job.state) && kFinished.includes(job.state);
    this.job = job;
    this.path.job = job;
    if (ended || job.state === "running") this.refresh();
  }

  progress(data) {
    if (this.job === null) return;
    Object.assign(this.job, data);
    const now = performance.now();
    if (now - (this.looked ?? 0) < kBetweenLooks) return;
    this.looked = now;
    if (!this.path.wanted(this.current.name)) return;
    if (this.job.look_inside) this.path.refresh();
    else this.current.part.moved();
  }

  /// Why there is nothing to see of a job's inside, or null. `finished`: whether it must be done.
  lack(finished) {
    if (this.job === null) return "Draw a picture, and its inside appears here.";
    if (!this.job.look_inside) return "This picture was drawn without “Look inside”.";
    if (this.job.state === "queued") return "It has not begun yet.";
    if (finished && this.job.state !== "done") return "This appears when the picture is done.";
    return null;
  }

  /// Why there is nothing to see of that member of what the server says about the model, or null.
  modelLack(member) {
    if (this.detail === null) return "Asking the server…";
    if (this.detail.error !== undefined) return this.detail.error;
    return this.detail[member] ? null : "The server says nothing about this.";
  }
}
