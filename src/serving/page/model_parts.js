// What the model is: its modules as a tree with numbers of parameters, and every setting of its config.
import {bar} from "./bar.js";
import {breakable, debounce, make, reveal} from "./dom.js";
import {count, percent, plural, valueText} from "./words.js";

// One module and, when it is opened for the first time, those inside it.
function branch(node, total, open) {
  const share = total > 0 ? node.parameters / total : 0;
  const words = [make("span", {class: "node-name"}, node.name),
                 node.type ? make("span", {class: "node-type"}, node.type) : null,
                 make("span", {class: "node-count"}, count(node.parameters)), bar(share),
                 make("span", {class: "number"}, percent(share))];
  const children = node.children ?? [];
  if (children.length === 0) return make("li", {class: "leaf"}, words);
  const list = make("ul");
  const box = make("details", {ontoggle: () => {
    if (box.open && list.childElementCount === 0) list.append(...children.map(child => branch(child, total, false)));
  }}, make("summary", {}, words), list);
  box.open = open;
  if (open) list.append(...children.map(child => branch(child, total, false)));
  return make("li", {}, box);
}

export class StructurePart {
  constructor(inside) {
    this.inside = inside;
    this.note = make("p", {class: "note"});
    this.tree = make("ul", {class: "tree"});
    this.root = make("div", {}, make("p", {class: "explained"}, "Modules of the model, each with its parameters and ",
                                     "its share of all. Those with others inside open."), this.note, this.tree);
    this.shown = null;
  }

  show() {
    const lack = this.inside.modelLack("structure");
    this.note.textContent = lack ?? "";
    reveal(this.note, lack !== null);
    reveal(this.tree, lack === null);
    if (lack !== null || this.shown === this.inside.detail) return;
    this.shown = this.inside.detail;
    const {structure} = this.shown;
    this.tree.replaceChildren(branch(structure, structure.parameters, true));
  }
}

export class ConfigPart {
  constructor(inside) {
    this.inside = inside;
    this.note = make("p", {class: "note"});
    this.filter = make("input", {type: "search", id: "config-filter", autocomplete: "off",
      oninput: debounce(() => this.sift(), 120)});
    this.found = make("p", {class: "hint", role: "status"});
    this.sections = make("div");
    this.body = make("div", {}, make("div", {class: "inline-field"}, make("label", {for: "config-filter"}, "Filter"),
                                     this.filter), this.found, this.sections);
    this.root = make("div", {}, make("p", {class: "explained"}, "Every setting that the model was built and trained ",
                                     "with. Those of drawing can be changed in the form."), this.note, this.body);
    this.shown = null;
  }

  show() {
    const lack = this.inside.modelLack("config");
    this.note.textContent = lack ?? "";
    reveal(this.note, lack !== null);
    reveal(this.body, lack === null);
    if (lack !== null || this.shown === this.inside.detail) return;
    this.shown = this.inside.detail;
    this.list = [];
    this.sections.replaceChildren(...(this.shown.config).map(section => this.section(section)));
    this.sift();
  }

  section({path, title, fields}) {
    const rows = fields.map(field => {
      const row = make("tr", {}, make("th", {scope: "row"}, make("code", {}, breakable(field.name))),
          make("td", {class: "value"}, valueText(field.value)),
          make("td", {class: "hint"}, field.help, field.allowed ? ` (${field.allowed})` : null));
      const words = `${path}.${field.name} ${valueText(field.value)} ${field.help ?? ""}`.toLowerCase();
      return {row, words};
    });
    const box = make("details", {class: "inner"}, make("summary", {}, title ?? path,
        path && title !== path ? make("code", {class: "hint"}, ` ${path}`) : null,
        make("span", {class: "hint"}, ` ${fields.length}`)),
        make("table", {class: "config"}, make("thead", {class: "unseen"}, make("tr", {},
            ["Name", "Value", "Meaning"].map(text => make("th", {scope: "col"}, text)))),
            make("tbody", {}, rows.map(one => one.row))));
    this.list.push({box, rows});
    return box;
  }

  sift() {
    const wanted = this.filter.value.trim().toLowerCase().split(/\s+/).filter(word => word !== "");
    let found = 0;
    for (const {box, rows} of this.list) {
      let inBox = 0;
      for (const {row, words} of rows) {
        if (reveal(row, wanted.every(word => words.includes(word)))) inBox += 1;
      }
      reveal(box, inBox > 0);
      box.open = wanted.length > 0;
      found += inBox;
    }
    this.found.textContent = plural(found, "setting", "settings");
  }
}
