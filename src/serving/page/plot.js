// A line plot as SVG: axes with round numbers, a legend, a mark. It is drawn anew in the width that it gets, so that
// its words stay readable on a phone.
import {make, makeSvg} from "./dom.js";

const kHeight = 240;
const kLeft = 46;
const kRight = 20;
const kTop = 10;
const kBottom = 40;

// Round numbers from low to high, about `wanted` of them.
function ticks(low, high, wanted) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(one => one * power).find(one => one >= rough) ?? 10 * power;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; ++i) {
    found.push(Number((i * step).toPrecision(12)));
  }
  return found;
}

function bounds(values) {
  const finite = values.filter(Number.isFinite);
  if (finite.length === 0) return [0, 1];
  const low = Math.min(...finite);
  const high = Math.max(...finite);
  return low === high ? [low - 0.5, high + 0.5] : [low, high];
}

class Plot {
  constructor({title, x, y}) {
    this.title = title;
    this.names = {x, y};
    this.series = [];
    this.mark = null;
    this.points = [];
    this.svg = makeSvg("svg", {class: "plot", role: "img"});
    this.legend = make("ul", {class: "legend"});
    this.root = make("figure", {class: "chart"}, make("figcaption", {}, make("strong", {}, title)), this.svg,
                     this.legend);
    this.width = 0;
    new ResizeObserver(() => {
      const width = Math.floor(this.svg.clientWidth);
      if (width > 0 && width !== this.width) {
        this.width = width;
        this.draw();
      }
    }).observe(this.svg);
  }

  setSeries(series) {
    this.series = series;
    this.legend.replaceChildren(...series.map((one, i) => make("li", {},
        makeSvg("svg", {viewBox: "0 0 28 8", width: 28, height: 8, "aria-hidden": "true"},
                makeSvg("line", {x1: 0, x2: 28, y1: 4, y2: 4, class: `line series-${i % 5}`})), one.name)));
    this.draw();
  }

  /// A vertical line at x (or null), and points per series.
  setMark(x, points) {
    this.mark = x;
    this.points = points;
    this.draw();
  }

  draw() {
    if (this.width === 0 || this.series.length === 0) return;
    const [lowX, highX] = bounds(this.series.flatMap(one => one.x));
    const [lowY, highY] = bounds(this.series.flatMap(one => one.y));
    const atX = value => kLeft + ((value - lowX) / (highX - lowX)) * (this.width - kLeft - kRight);
    const atY = value => kHeight - kBottom - ((value - lowY) / (highY - lowY)) * (kHeight - kTop - kBottom);
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${kHeight}`);
    this.svg.setAttribute("height", kHeight);
    this.svg.setAttribute("aria-label", this.summary());
    this.svg.replaceChildren(this.axes(lowX, highX, lowY, highY, atX, atY),
                             ...this.series.map((one, i) => this.line(one, i, atX, atY)),
                             ...this.points.map((some, i) => this.dots(some, i, atX, atY)),
                             ...(this.mark === null ? [] : [this.markLine(atX)]));
  }

  summary() {
    const parts = this.series.map(one => {
      const [low, high] = bounds(one.y);
      return `${one.name} between ${low.toPrecision(3)} and ${high.toPrecision(3)}`;
    });
    const mark = this.mark === null ? "" : `; marked at ${this.names.x} ${this.mark}`;
    return `${this.title}: ${parts.join("; ")}${mark}`;
  }

  axes(lowX, highX, lowY, highY, atX, atY) {
    const group = makeSvg("g", {class: "axes"});
    const bottom = kHeight - kBottom;
    for (const value of ticks(lowY, highY, 5)) {
      group.append(makeSvg("line", {x1: kLeft, x2: this.width - kRight, y1: atY(value), y2: atY(value), class: "rule"}),
                   makeSvg("text", {x: kLeft - 6, y: atY(value) + 4, "text-anchor": "end"}, String(value)));
    }
    for (const value of ticks(lowX, highX, this.width > 420 ? 8 : 4)) {
      group.append(makeSvg("line", {x1: atX(value), x2: atX(value), y1: bottom, y2: bottom + 4, class: "rule"}),
                   makeSvg("text", {x: atX(value), y: bottom + 17, "text-anchor": "middle"}, String(value)));
    }
    group.append(makeSvg("text", {x: this.width - kRight, y: kHeight - 5, "text-anchor": "end"}, this.names.x));
    return group;
  }

  line({x, y}, i, atX, atY) {
    let path = "";
    let down = false;
    x.forEach((value, k) => {
      if (!Number.isFinite(y[k])) {
        down = false;
        return;
      }
      path += `${down ? "L" : "M"}${atX(value).toFixed(1)} ${atY(y[k]).toFixed(1)}`;
      down = true;
    });
    return makeSvg("path", {d: path, class: `line series-${i % 5}`});
  }

  dots(points, i, atX, atY) {
    return makeSvg("g", {class: `dots series-${i % 5}`}, points.filter(([, y]) => Number.isFinite(y)).map(([x, y]) => (
      makeSvg("circle", {cx: atX(x).toFixed(1), cy: atY(y).toFixed(1), r: 2.6}))));
  }

  markLine(atX) {
    return makeSvg("line", {x1: atX(this.mark), x2: atX(this.mark), y1: kTop, y2: kHeight - kBottom, class: "mark"});
  }
}

export function plot(options) {
  return new Plot(options);
}
