"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const overlay = document.getElementById("overlay");
const marks = window.CSS && CSS.highlights ? new Highlight() : null;
if (marks) CSS.highlights.set("chosen", marks);

const numbers = (element) => element.dataset.k.split(" ").filter(Boolean).map(Number);
const section = (element) => element.closest(".program");

// Lines of a <pre> that hold one of the names, or a name that begins with it: `relu`, `relu_local_1`.
function linesOf(pre, names) {
  const text = pre.firstChild;
  if (!text || !names.length) return [];
  const wanted = new RegExp("\\b(" + names.join("|") + ")(_\\w+)?\\b");
  const found = [];
  let at = 0;
  for (const line of text.data.split("\n")) {
    if (wanted.test(line)) {
      const range = new Range();
      range.setStart(text, at);
      range.setEnd(text, at + line.length);
      found.push(range);
    }
    at += line.length + 1;
  }
  return found;
}

// Shows the kernels of `ks` in all panes of a program, and in them the statements that are called `names`.
// `from`: what was clicked; its pane stays where it is.
function choose(program, ks, names, from) {
  const wanted = new Set(ks);
  const bare = new Set(names.map((name) => name.replace(/\d+$/, "")));
  program.querySelectorAll(".chosen-k, .chosen-s").forEach((e) => e.classList.remove("chosen-k", "chosen-s"));
  if (marks) marks.clear();
  for (const e of program.querySelectorAll("[data-k]")) {
    if (numbers(e).some((k) => wanted.has(k))) e.classList.add("chosen-k");
  }
  for (const line of program.querySelectorAll(".chosen-k [data-s]")) {
    if (line.dataset.s.split(" ").some((s) => names.includes(s))) line.classList.add("chosen-s");
  }
  for (const line of program.querySelectorAll(".graph .chosen-k[data-s]")) {
    if (bare.has(line.dataset.s)) line.classList.add("chosen-s");
  }
  for (const pane of program.querySelectorAll(".pane")) {
    let first = pane.querySelector(".chosen-s") || pane.querySelector(".chosen-k");
    let place = first;
    for (const pre of pane.querySelectorAll(".chosen-k pre.text")) {
      const lines = linesOf(pre, names);
      if (marks) lines.forEach((range) => marks.add(range));
      if (lines.length && pane.classList.contains("code") && place === first) place = lines[0];
    }
    if (place && !(from && pane.contains(from))) show(pane.querySelector(".body"), first, place);
  }
  const row = program.querySelector("tr.chosen-k");
  if (row && !(from && row.contains(from))) show(row.closest(".wide"), row, row);
  tell(program, ks, row);
}

// Scrolls a pane, and nothing around it; twice, for what is far away is laid out only when it comes near.
function show(body, element, place) {
  const move = (to) => {
    const top = to.getBoundingClientRect().top - body.getBoundingClientRect().top;
    body.scrollTop += top - Math.min(60, body.clientHeight / 4);
  };
  move(element);
  setTimeout(() => move(place), 80);
}

function tell(program, ks, row) {
  const of = data[program.dataset.p];
  const words = row && row.querySelector(".words");
  const names = ks.map((k) => of.names[k]).join(", ");
  program.querySelector(".chosen").textContent =
    ks.length === 1 && words ? names + ": " + words.textContent : names || "No kernel computes this.";
}

// The kernels of what was clicked: its own, or those of what stands around it.
document.addEventListener("click", (event) => {
  const target = event.target;
  if (target.closest("summary, select, label")) return;
  const holder = target.closest("[data-k]");
  if (!holder || !section(holder)) return;
  if (target.closest("a")) event.preventDefault();
  const line = target.closest("[data-s]");
  let names = line ? line.dataset.s.split(" ") : [];
  if (line && line.closest(".graph")) names = statementsOf(holder, line.dataset.s);
  const pre = target.closest("pre.text");
  if (pre) names = namesAt(pre, event, statementsOf(holder, null));
  choose(section(holder), numbers(holder), names, target);
});

// The statements of a holder's kernels; with an op, those that are called after it.
function statementsOf(holder, op) {
  const found = new Set();
  for (const k of numbers(holder)) {
    const entry = document.getElementById(`p${section(holder).dataset.p}-cascade-${k}`);
    for (const line of entry.querySelectorAll(":scope > [data-s]")) {
      for (const s of line.dataset.s.split(" ")) if (op === null || s.replace(/\d+$/, "") === op) found.add(s);
    }
  }
  return [...found];
}

// Those of the names that stand in the line of text that was clicked.
function namesAt(pre, event, names) {
  const caret = document.caretPositionFromPoint && document.caretPositionFromPoint(event.clientX, event.clientY);
  const range = caret ? null : document.caretRangeFromPoint && document.caretRangeFromPoint(event.clientX, event.clientY);
  const node = caret ? caret.offsetNode : range && range.startContainer;
  if (node !== pre.firstChild) return [];
  const at = caret ? caret.offset : range.startOffset;
  const text = node.data;
  const line = text.slice(text.lastIndexOf("\n", at - 1) + 1, (text.indexOf("\n", at) + text.length + 1) % (text.length + 1));
  return names.filter((name) => new RegExp("\\b" + name + "(_\\w+)?\\b").test(line));
}

// How much of the colour each value gets, from 0 to 1; errors and bytes by their magnitude.
function heats(what, values) {
  const known = values.filter((v) => v !== null && v !== undefined);
  const most = Math.max(...known), least = Math.min(...known);
  return values.map((v) => {
    if (v === null || v === undefined) return null;
    if (what === "share") return 1 - Math.min(v, 1);
    if (what === "error") {
      const low = Math.log(Math.max(least, most * 1e-4, 1e-30)), high = Math.log(Math.max(most, 1e-30));
      return v <= 0 ? 0 : high > low ? Math.max(0, (Math.log(v) - low) / (high - low)) : 1;
    }
    return most > 0 ? v / most : 0;
  });
}

const legends = {
  time: "the kernel that takes longest is darkest",
  share: "the kernel furthest from what the machine allows is darkest",
  error: "the largest error beside the result's size is darkest, by magnitude",
  bytes: "the kernel that must move most is darkest",
};

function colour() {
  const what = overlay.value;
  let known = false;
  for (const program of document.querySelectorAll(".program")) {
    const values = what ? data[program.dataset.p][what] || [] : [];
    const heat = heats(what, values);
    known = known || heat.some((h) => h !== null);
    for (const e of program.querySelectorAll(".heat")) {
      const found = numbers(e.closest("[data-k]")).map((k) => heat[k]).filter((h) => h !== null && h !== undefined);
      if (found.length) e.style.setProperty("--heat", Math.round(100 * Math.max(...found)) + "%");
      else e.removeAttribute("style");
    }
  }
  document.getElementById("legend").textContent = !what ? "" : known ? legends[what] : "not measured";
}

overlay.addEventListener("change", colour);
colour();

// page.html#p0-k3 opens with the first program's kernel 3 chosen.
const asked = /^#p(\d+)-k(\d+)$/.exec(location.hash);
const program = asked && document.querySelector(`.program[data-p="${asked[1]}"]`);
if (program && data[asked[1]].names[asked[2]]) choose(program, [Number(asked[2])], [], null);
