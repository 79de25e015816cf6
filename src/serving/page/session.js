// The jobs of this tab: which there were, which is shown, how those are doing that are not shown.
import {ApiError, call, kFinished} from "./api.js";
import {crispUpTo, find, make, ownUrl, reveal} from "./dom.js";
import {remember, remembered} from "./store.js";

const kMostJobs = 40;
const kLookAgain = 2500;  // ms between two looks at jobs that are not shown

const kStates = {queued: "waiting", running: "drawing", done: "done", failed: "failed", cancelled: "cancelled",
                 gone: "no longer on the server"};

export class Session {
  /// chosen(job): someone wants to see that job.
  constructor(chosen) {
    this.chosen = chosen;
    this.jobs = remembered("jobs", []).filter(job => typeof job?.id === "string" && typeof job.settings === "object");
    this.shown = remembered("shown", null);
    find("forget").addEventListener("click", () => this.forget());
    setInterval(() => this.lookAgain(), kLookAgain);
    this.render();
  }

  get shownJob() {
    return this.jobs.find(job => job.id === this.shown) ?? null;
  }

  add(job) {
    this.jobs.unshift(job);
    this.jobs.length = Math.min(this.jobs.length, kMostJobs);
    this.choose(job.id);
  }

  choose(id) {
    this.shown = id;
    remember("shown", id);
    this.keep();
  }

  /// Takes over a job's new state.
  update(job) {
    const at = this.jobs.findIndex(one => one.id === job.id);
    if (at < 0) return;
    const changed = this.jobs[at].state !== job.state;
    this.jobs[at] = job;
    if (changed) this.keep();
  }

  gone(id) {
    const job = this.jobs.find(one => one.id === id);
    if (job !== undefined) this.update({...job, state: "gone", pictures: []});
  }

  keep() {
    while (!remember("jobs", this.jobs) && this.jobs.length > 1) this.jobs.pop();
    this.render();
  }

  forget() {
    this.jobs = this.jobs.filter(job => job.id === this.shown);
    this.keep();
    find("prompt").focus();
  }

  async lookAgain() {
    if (document.hidden) return;
    for (const job of this.jobs) {
      if (job.id === this.shown || job.state === "gone" || kFinished.includes(job.state)) continue;
      try {
        this.update(await call("GET", `/mdm/v1/jobs/${job.id}`));
      } catch (error) {
        if (error instanceof ApiError && (error.status === 404 || error.status === 410)) this.gone(job.id);
        else return;
      }
    }
  }

  render() {
    const held = find("history").contains(document.activeElement) ? document.activeElement.dataset.job : null;
    reveal(find("history-box"), this.jobs.length > 1);
    find("history").replaceChildren(...this.jobs.map(job => this.item(job)));
    if (held) find("history").querySelector(`[data-job="${CSS.escape(held)}"]`)?.focus();
  }

  item(job) {
    const prompt = String(job.settings.prompt ?? "");
    const state = kStates[job.state] ?? job.state;
    const picture = job.state === "done" ? ownUrl(job.pictures?.[0]?.url) : null;
    const image = picture === null ? make("span", {class: `thumb ${job.state}`}) :
        crispUpTo(96, make("img", {class: "thumb", src: picture, alt: "", loading: "lazy",
          onerror: () => image.replaceWith(make("span", {class: "thumb gone"}))}));
    return make("li", {}, make("button", {type: "button", "data-job": job.id, class: "past",
      "aria-current": job.id === this.shown ? "true" : null, title: prompt,
      "aria-label": `${prompt === "" ? "no prompt" : prompt} (${state})`, onclick: () => this.chosen(job)}, image,
      make("span", {class: "past-words"}, prompt === "" ? "(no prompt)" : prompt)));
  }
}
