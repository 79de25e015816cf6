// The job that is looked at: its place in the queue, its progress, its previews, its pictures and their settings.
import {kFinished} from "./api.js";
import {announce, crispUpTo, find, make, ownUrl, reveal} from "./dom.js";
import {linkTo} from "./link.js";
import {duration, plural, titleOf, valueText} from "./words.js";

const kFrame = 512;  // pixels; the largest that a single picture is shown
const kTold = 25;  // percent of progress between two things said to a screen reader

function statusText(job) {
  if (job.state === "queued") {
    if (!job.position) return "Next in the queue";
    return `Waiting: ${plural(job.position, "picture is", "pictures are")} before yours`;
  }
  if (job.state === "running") return job.steps ? `Step ${job.step} of ${job.steps}` : "Starting";
  if (job.state === "done") return "Done";
  if (job.state === "cancelled") return "Cancelled";
  if (job.state === "gone") return "No longer there";
  return "Failed";
}

function timeText(job) {
  if (job.state === "running" && job.step > 0 && Number.isFinite(job.seconds_left)) {
    return `about ${duration(job.seconds_left)} left`;
  }
  if (job.state !== "done") return "";
  const parts = [];
  if (Number.isFinite(job.seconds)) parts.push(`drawn in ${duration(job.seconds)}`);
  if (job.waited >= 0.5) parts.push(`after ${duration(job.waited)} of waiting`);
  if (job.batched_with > 0) parts.push(`together with ${plural(job.batched_with, "other request", "other requests")}`);
  return parts.join(", ");
}

export class Stage {
  /// actions: cancel(job), reuse(job), again(job)
  constructor(actions) {
    this.actions = actions;
    this.job = null;
    this.previews = [];
    this.lastTold = 0;
  }

  /// Looks at another job, or at none.
  show(job) {
    this.job = null;
    this.previews = [];
    this.lastTold = 0;
    reveal(find("stage-empty"), job === null);
    if (!reveal(find("stage-job"), job !== null)) return;
    this.build();
    this.update(job);
  }

  build() {
    this.status = make("p", {class: "status"});
    this.time = make("p", {class: "hint"});
    this.bar = make("progress", {max: 1, "aria-label": "Progress"});
    this.cancel = make("button", {type: "button", id: "cancel", onclick: () => {
      this.cancel.disabled = true;
      this.actions.cancel(this.job);
    }}, "Cancel");
    this.lost = make("p", {class: "hint warning", hidden: true}, "The connection is lost; trying again…");
    this.pictures = make("div", {class: "pictures"});
    this.words = make("div", {class: "words"});
    this.error = make("p", {class: "refusal", hidden: true});
    find("stage-job").replaceChildren(
        make("div", {class: "stage-head"}, make("div", {}, this.status, this.time), this.cancel), this.bar, this.lost,
        this.error, make("div", {class: "stage-body"}, this.pictures, this.words));
  }

  /// A new state of the job that is shown.
  update(job) {
    const before = this.job?.state ?? null;
    this.job = job;
    const finished = kFinished.includes(job.state);
    this.progressed();
    reveal(this.bar, !finished);
    if (finished && document.activeElement === this.cancel) find("draw").focus();
    reveal(this.cancel, !finished);
    if (finished) reveal(this.lost, false);
    const message = job.error?.message ?? (job.state === "failed" ? "The server gives no reason." : null);
    this.error.textContent = message ?? "";
    reveal(this.error, message !== null);
    if (before === job.state && before !== "done") return;
    this.showPictures();
    this.showWords();
    if (before !== null) this.tell();
  }

  tell() {
    const {state, error} = this.job;
    if (state === "running") announce("Drawing has begun.");
    if (state === "done") announce(plural(this.job.pictures.length, "picture is", "pictures are") + " done.");
    if (state === "cancelled") announce("Cancelled.");
    if (state === "failed") announce(`Failed: ${error?.message ?? ""}`);
  }

  /// Numbers of progress, as events bring them between two states.
  progress(data) {
    if (this.job === null || this.job.state !== "running") return;
    Object.assign(this.job, data);
    this.progressed();
    const told = Math.floor((100 * this.job.step) / this.job.steps / kTold);
    if (told > this.lastTold && told * kTold < 100) announce(`${told * kTold} percent drawn.`);
    this.lastTold = Math.max(told, this.lastTold);
  }

  progressed() {
    const job = this.job;
    this.status.textContent = statusText(job);
    this.time.textContent = timeText(job);
    const share = job.steps ? job.step / job.steps : 0;
    if (job.state === "queued") this.bar.removeAttribute("value");
    else this.bar.value = share;
    const running = job.state === "running";
    document.title = `${running ? `${Math.round(100 * share)} % · ` : ""}Matryoshka Diffusion`;
  }

  connection(up) {
    reveal(this.lost, !up);
  }

  preview(data) {
    if (this.job === null || kFinished.includes(this.job.state)) return;
    this.previews = data.pictures;
    this.pictures.querySelectorAll("img").forEach((image, i) => {
      const url = data.pictures[i];
      if (typeof url !== "string" || !url.startsWith("data:image/png;base64,")) return;
      image.src = url;
      image.dataset.step = String(data.step);
      image.hidden = false;
    });
  }

  showPictures() {
    const job = this.job;
    const number = job.state === "done" ? job.pictures.length : Number(job.settings.num_samples) || 1;
    const few = Math.max(1, Math.min(number, 64));
    this.pictures.classList.toggle("one", few === 1);
    const figures = [];
    for (let i = 0; i < few; ++i) figures.push(job.state === "done" ? this.finished(i) : this.awaited(i));
    const none = kFinished.includes(job.state) && job.state !== "done";
    this.pictures.replaceChildren(...(none ? [] : figures));
  }

  awaited(i) {
    const image = crispUpTo(256, make("img", {alt: `Preview ${i + 1}`, hidden: true}));
    if (this.previews[i] !== undefined) {
      image.src = this.previews[i];
      image.hidden = false;
    }
    return make("figure", {}, make("div", {class: "frame waiting"}, image));
  }

  finished(i) {
    const picture = this.job.pictures[i];
    const url = ownUrl(picture.url);
    const name = `${this.job.model}_${picture.seed}`;
    const image = make("img", {width: picture.width, height: picture.height, class: "final",
      alt: `Picture ${i + 1}: ${this.job.settings.prompt || "no prompt"}`,
      onerror: () => image.replaceWith(missing())});
    crispUpTo(256, image).src = url;
    const levels = (picture.levels ?? []).map(ownUrl).slice(1).filter(level => level !== null);
    const caption = make("figcaption", {}, make("span", {}, `seed ${picture.seed}`),
        make("a", {href: url, download: `${name}.png`, "aria-label": `Download picture ${i + 1}`}, "Download"));
    const inner = make("div", {class: "levels", hidden: levels.length === 0},
        make("span", {class: "hint"}, "Inner levels"),
        levels.map((level, k) => make("a", {href: level, download: `${name}_level_${k + 1}.png`},
            crispUpTo(88, make("img", {src: level, alt: `Inner level ${k + 1} of picture ${i + 1}`})))));
    // What is larger than its frame can be looked at in full.
    const frame = picture.width <= kFrame ? make("div", {class: "frame"}, image) :
        make("a", {class: "frame", href: url, target: "_blank", rel: "noopener",
          "aria-label": `Picture ${i + 1} in full size`}, image);
    return make("figure", {}, frame, caption, inner);
  }

  showWords() {
    const job = this.job;
    const {prompt, negative_prompt: negative, ...rest} = job.settings;
    const rows = [["model", job.model], ...Object.entries(rest)].filter(([, value]) => (value ?? null) !== null);
    const list = make("dl", {class: "parameters"}, rows.map(([name, value]) => make("div", {},
        make("dt", {}, titleOf(name)), make("dd", {}, valueText(value)))));
    const done = kFinished.includes(job.state);
    const link = make("button", {type: "button", class: "quiet", onclick: () => this.copyLink(link)}, "Copy link");
    const button = (text, act) => make("button", {type: "button", class: "quiet", onclick: () => act(this.job)}, text);
    const actions = make("div", {class: "actions"}, button("Use these settings", this.actions.reuse),
                         done ? button("Draw another", this.actions.again) : null, link);
    this.words.replaceChildren(make("p", {class: "quote"}, prompt === "" ? "(no prompt)" : prompt),
        negative ? make("p", {class: "hint"}, `Not: ${negative}`) : "", actions, list);
  }

  async copyLink(button) {
    const url = linkTo(this.job.model, this.job.settings);
    let copied = false;
    try {
      await navigator.clipboard.writeText(url);
      copied = true;
    } catch {
      // Not allowed here: the link is shown to be copied by hand.
    }
    this.words.querySelector(".link")?.remove();
    if (copied) {
      announce("The link is copied.");
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy link"; }, 2000);
      return;
    }
    const box = make("input", {class: "link", readonly: true, "aria-label": "Link to these settings"});
    box.value = url;
    button.parentElement.after(box);
    box.select();
    box.focus();
  }
}

function missing() {
  return make("p", {class: "hint missing"}, "The server no longer has this picture.");
}
