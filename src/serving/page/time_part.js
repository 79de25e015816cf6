// Where the time of a picture went, block by block.
import {bar} from "./bar.js";
import {breakable, make} from "./dom.js";
import {LoadedPart} from "./loaded_part.js";
import {duration, percent} from "./words.js";

export class TimePart extends LoadedPart {
  constructor(inside) {
    super(inside, "time");
    this.order = make("select", {id: "time-order", onchange: () => this.list()},
                      make("option", {}, "as in the model"), make("option", {}, "longest first"));
    this.total = make("p", {class: "explained"});
    this.rows = make("tbody");
    this.body = make("div", {}, this.total,
        make("div", {class: "inline-field"}, make("label", {for: "time-order"}, "Order"), this.order),
        make("table", {class: "bars"}, make("thead", {}, make("tr", {}, make("th", {scope: "col"}, "Block"),
            make("th", {scope: "col"}, "Share"), make("th", {scope: "col", class: "number"}, "Time"))), this.rows));
    this.root = make("div", {}, this.note, this.body);
  }

  take(data) {
    this.data = data;
    this.list();
  }

  list() {
    const parts = [...this.data.parts];
    if (this.order.selectedIndex === 1) parts.sort((a, b) => b.seconds - a.seconds);
    const sum = parts.reduce((total, part) => total + part.seconds, 0);
    const longest = Math.max(...parts.map(part => part.seconds), 1e-9);
    const {seconds} = this.data;
    this.total.textContent = `The model computed for ${duration(seconds)}. Bars compare with the longest block.`;
    this.rows.replaceChildren(...parts.map(part => make("tr", {}, make("th", {scope: "row"}, breakable(part.name)),
        make("td", {}, make("div", {class: "bar-cell"}, bar(part.seconds / longest),
                            make("span", {class: "number"}, percent(part.seconds / (sum || 1))))),
        make("td", {class: "number"}, duration(part.seconds)))));
  }
}
