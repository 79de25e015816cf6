// Three views of the denoising path: the pictures of each level, what guidance does to them, and the noise schedule.
import {make, reveal} from "./dom.js";
import {plot} from "./plot.js";
import {duration} from "./words.js";

// Slider and play button; each view has its own, all of them move the same frame.
class FrameControl {
  constructor(inside, name) {
    this.path = inside.path;
    this.play = make("button", {type: "button", class: "play", onclick: () => {
      if (this.path.playing) this.path.pause();
      else this.path.play();
    }});
    this.slider = make("input", {type: "range", min: 0, step: 1, id: `frame-${name}`, oninput: () => {
      this.path.pause();
      this.path.select(Number(this.slider.value));
    }});
    this.words = make("p", {class: "hint frame-words"});
    this.root = make("div", {class: "frame-control"}, this.play,
                     make("label", {class: "unseen", for: `frame-${name}`}, "Frame of the denoising path"), this.slider,
                     this.words);
  }

  update() {
    const {path} = this;
    const frame = path.frame;
    if (!reveal(this.root, frame !== null)) return;
    this.slider.max = String(path.frames.length - 1);
    this.slider.value = String(path.index);
    const noise = frame.log_snr.map(value => (Number.isFinite(value) ? value.toFixed(1) : "∞")).join(" and ");
    const steps = path.job?.steps ? ` of ${path.job.steps}` : "";
    const words = `Step ${frame.step}${steps} · time ${frame.time} · logSNR ${noise} · ${duration(frame.seconds)}`;
    this.slider.setAttribute("aria-valuetext", words);
    this.words.textContent = words;
    this.play.textContent = path.playing ? "❚❚" : "▶";
    this.play.setAttribute("aria-label", path.playing ? "Pause" : "Play the path");
  }
}

// A canvas that a picture of the path is drawn into, so that nothing flickers between frames.
class Panel {
  constructor(title, note) {
    this.canvas = make("canvas", {width: 1, height: 1, role: "img", class: "crisp"});
    this.title = title;
    this.root = make("figure", {class: "panel-picture"}, this.canvas,
                     make("figcaption", {}, make("strong", {}, title), make("span", {class: "hint"}, note)));
  }

  async draw(path, kind, level) {
    const index = path.index;
    const id = path.job.id;
    let image = null;
    try {
      image = await path.picture(kind, level);
    } catch {
      return null;  // the frame is gone with its job, or not there yet; the next change asks again
    }
    if (path.job?.id !== id || path.index !== index) return null;
    this.canvas.width = image.naturalWidth;
    this.canvas.height = image.naturalHeight;
    const pixels = this.canvas.getContext("2d", {willReadFrequently: true});
    pixels.drawImage(image, 0, 0);
    this.canvas.setAttribute("aria-label", `${this.title}, step ${path.frame.step}`);
    this.canvas.dataset.drawn = `${kind}/${level}/${index}`;
    return pixels.getImageData(0, 0, this.canvas.width, this.canvas.height);
  }
}

// What all views of frames share: the text that stands there while there are none.
class FrameView {
  constructor(inside, name, ...explained) {
    this.inside = inside;
    this.path = inside.path;
    this.note = make("p", {class: "note"});
    this.control = new FrameControl(inside, name);
    this.body = make("div", {class: "frame-view"});
    this.root = make("div", {}, make("p", {class: "explained"}, ...explained), this.note, this.control.root, this.body);
  }

  lack() {
    const lack = this.inside.lack(false) ?? this.path.trouble;
    if (lack !== null) return lack;
    return this.path.frames.length === 0 ? "No step has been made yet." : null;
  }

  show() {
    this.moved();
  }

  moved() {
    const lack = this.lack();
    this.note.textContent = lack ?? "";
    reveal(this.note, lack !== null);
    reveal(this.body, lack === null);
    reveal(this.control.root, lack === null);
    if (lack !== null) return;
    this.control.update();
    this.drawFrame();
  }
}

export class PathPart extends FrameView {
  constructor(inside) {
    super(inside, "path", "Left what the model gets at each step, picture and noise; right what it expects to be ",
          "under the noise. Nested models do this at several sizes at once.");
    this.rows = [];
  }

  reset() {
    this.rows = [];
    this.body.replaceChildren();
  }

  drawFrame() {
    const {path} = this;
    if (this.rows.length !== path.levels.length) {
      this.rows = path.levels.map(side => [new Panel(`x\u209c at ${side} pixels`, "noisy"),
                                           new Panel(`x\u2080 at ${side} pixels`, "as predicted")]);
      this.body.classList.toggle("single", this.rows.length === 1);
      this.body.replaceChildren(...this.rows.map(row => make("div", {class: "pair"}, row.map(panel => panel.root))));
    }
    this.rows.forEach(([noisy, predicted], level) => {
      noisy.draw(path, "noisy", level);
      predicted.draw(path, "predicted", level);
    });
  }
}

const kGain = 4;  // how much the difference is strengthened, to be seen

export class GuidancePart extends FrameView {
  constructor(inside) {
    super(inside, "guidance", "Each step asks the model twice: with the prompt, and with the negative prompt or none. ",
          "Guidance goes from the second answer past the first. The last picture shows where both differ.");
    this.reset();
  }

  reset() {
    this.panels = null;
    this.level = 0;
    this.body.replaceChildren();
  }

  lack() {
    const lack = super.lack();
    if (lack !== null) return lack;
    return this.path.guided ? null : "Nothing to compare: this picture was drawn without guidance (a guidance of 1).";
  }

  build() {
    this.panels = {
      unconditional: new Panel("Without the prompt", "unconditional"),
      conditional: new Panel("With the prompt", "conditional"),
      predicted: new Panel("Guided", "what the step uses"),
      difference: new Panel("Difference", `with − without, ${kGain} times as strong; grey: none`),
    };
    const levels = this.path.levels;
    const choice = make("select", {id: "guidance-level", onchange: () => {
      this.level = choice.selectedIndex;
      this.moved();
    }}, levels.map(side => make("option", {}, `${side} pixels`)));
    const row = make("div", {class: "inline-field"}, make("label", {for: "guidance-level"}, "Level"), choice);
    reveal(row, levels.length > 1);
    this.body.replaceChildren(row, make("div", {class: "four"}, Object.values(this.panels).map(panel => panel.root)));
  }

  async drawFrame() {
    if (this.panels === null) this.build();
    const {path, panels, level} = this;
    const index = path.index;
    if (!reveal(this.body, path.frame.guided !== false)) {
      this.note.textContent = "Guidance does not act at this step.";
      reveal(this.note, true);
      return;
    }
    panels.predicted.draw(path, "predicted", level);
    const [without, having] = await Promise.all([panels.unconditional.draw(path, "unconditional", level),
                                                 panels.conditional.draw(path, "conditional", level)]);
    if (without === null || having === null || path.index !== index || this.panels !== panels) return;
    const canvas = panels.difference.canvas;
    canvas.width = having.width;
    canvas.height = having.height;
    const mixed = new ImageData(having.width, having.height);
    for (let i = 0; i < mixed.data.length; ++i) {
      mixed.data[i] = i % 4 === 3 ? 255 : 128 + kGain * (having.data[i] - without.data[i]);
    }
    canvas.getContext("2d").putImageData(mixed, 0, 0);
    canvas.setAttribute("aria-label", `Difference between with and without the prompt, step ${path.frame.step}`);
    canvas.dataset.drawn = `difference/${level}/${index}`;
  }
}

// Needs only the model; a job adds the mark of the step and the points that were visited.
export class NoisePart {
  constructor(inside) {
    this.inside = inside;
    this.note = make("p", {class: "note"});
    this.control = new FrameControl(inside, "noise");
    this.charts = [
      plot({title: "logSNR: signal against noise, logarithmic", x: "time", y: "logSNR"}),
      plot({title: "gamma: the picture's share in x\u209c", x: "time", y: "gamma"}),
    ];
    this.root = make("div", {}, make("p", {class: "explained"}, "Drawing goes from right (noise only) to left ",
        "(picture only). Where levels differ, the smaller ones are ahead. The line marks the step above."), this.note,
        this.control.root, make("div", {class: "charts"}, this.charts.map(chart => chart.root)));
  }

  show() {
    const lack = this.inside.modelLack("schedule");
    this.note.textContent = lack ?? "";
    reveal(this.note, lack !== null);
    for (const chart of this.charts) reveal(chart.root, lack === null);
    if (lack === null) {
      const {levels, times} = this.inside.detail.schedule;
      ["log_snr", "gamma"].forEach((what, i) => this.charts[i].setSeries(levels.map(level => (
        {name: `${level.side} pixels`, x: times, y: level[what]}))));
    }
    this.moved();
  }

  moved() {
    this.control.update();
    const {path, job, detail} = this.inside;
    const frame = path.frame;
    const visited = path.levels.map((_, level) => path.frames.map(one => [one.time, one.log_snr[level]]));
    // Without a look inside, the time of a running job's step follows from how far it is.
    const running = job?.state === "running" && job.steps > 0 && detail?.schedule;
    const time = frame?.time ?? (running ? Math.round(detail.schedule.steps * (1 - job.step / job.steps)) : null);
    this.charts[0].setMark(time, visited);
    this.charts[1].setMark(time, []);
  }
}
