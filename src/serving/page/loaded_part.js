// A part of the look inside that asks the server for its data once a job, and says what is missing until then.
import {call} from "./api.js";
import {make, reveal} from "./dom.js";

export class LoadedPart {
  // `name`: the last part of the URL, below the job's. A part has a `body`, and `take(data, job)` puts data into it; it
  // sets `data`, or `trouble` where there is nothing to show.
  constructor(inside, name) {
    this.inside = inside;
    this.name = name;
    this.note = make("p", {class: "note"});
    this.reset();
  }

  reset() {
    this.data = null;
    this.asked = null;
    this.trouble = null;
  }

  show() {
    const lack = this.inside.lack(true) ?? this.trouble;
    if (lack === null && this.data === null) this.load();
    const note = lack ?? (this.data === null ? "Asking the server…" : null);
    this.note.textContent = note ?? "";
    reveal(this.note, note !== null);
    reveal(this.body, note === null);
  }

  async load() {
    const {job} = this.inside;
    if (this.asked === job.id) return;
    this.asked = job.id;
    const isLate = () => this.inside.job?.id !== job.id;
    try {
      const data = await call("GET", `/mdm/v1/jobs/${job.id}/${this.name}`);
      if (isLate()) return;
      await this.take(data, job, isLate);
    } catch (error) {
      if (isLate()) return;
      this.trouble = error.message;
    }
    if (!isLate()) this.show();
  }
}
