// The denoising path of a job: its frames, the one that is looked at, and their pictures. Parts that show it listen
// to "change".
import {call} from "./api.js";

const kShownBy = ["path", "guidance", "noise"];
const kFrameTime = 160;  // ms of a frame while it plays

export class PathState extends EventTarget {
  constructor() {
    super();
    this.reset(null);
  }

  reset(job) {
    this.pause();
    this.job = job;
    this.levels = [];
    this.frames = [];
    this.guided = false;
    this.index = 0;
    this.following = true;
    this.trouble = null;
    this.asking = false;
    this.pictures = new Map();
    this.changed();
  }

  wanted(part) {
    return kShownBy.includes(part);
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }

  get frame() {
    return this.frames[this.index] ?? null;
  }

  /// Fetches the frames there are by now.
  async refresh() {
    const job = this.job;
    if (job === null || !job.look_inside || job.state === "queued" || this.asking || this.complete) return;
    this.asking = true;
    const state = job.state;
    try {
      const path = await call("GET", `/mdm/v1/jobs/${job.id}/path`);
      if (this.job?.id !== job.id) return;
      this.levels = path.levels;
      this.frames = path.frames;
      this.guided = path.guided;
      this.trouble = null;
      this.complete = state === "done" && this.frames.length > 0;
      if (this.following) this.index = Math.max(0, this.frames.length - 1);
    } catch (error) {
      if (this.job?.id !== job.id) return;
      this.trouble = error.status === 409 ? null : error.message;
    } finally {
      if (this.job?.id === job.id) this.asking = false;
    }
    this.changed();
    if (this.job?.id === job.id && this.job.state !== state) this.refresh();
  }

  get complete() {
    return this.completeFor === this.job?.id && this.job !== null;
  }

  set complete(yes) {
    this.completeFor = yes ? this.job.id : null;
  }

  select(index) {
    this.index = Math.max(0, Math.min(index, this.frames.length - 1));
    this.following = this.index === this.frames.length - 1;
    this.changed();
  }

  url(kind, level) {
    return `/mdm/v1/jobs/${this.job.id}/path/${this.index}/${kind}/${level}.png`;
  }

  /// The picture of the present frame, decoded; asked for once.
  picture(kind, level) {
    const url = this.url(kind, level);
    if (!this.pictures.has(url)) {
      const image = new Image();
      image.src = url;
      const decoded = image.decode().then(() => image);
      decoded.catch(() => this.pictures.delete(url));
      this.pictures.set(url, decoded);
    }
    return this.pictures.get(url);
  }

  get playing() {
    return this.timer !== undefined && this.timer !== null;
  }

  play() {
    if (this.frames.length < 2) return;
    if (this.index === this.frames.length - 1) this.index = 0;
    this.timer = setInterval(() => {
      if (this.index >= this.frames.length - 1) this.pause();
      else this.select(this.index + 1);
    }, kFrameTime);
    this.changed();
  }

  pause() {
    if (!this.playing) return;
    clearInterval(this.timer);
    this.timer = null;
    this.changed();
  }
}
