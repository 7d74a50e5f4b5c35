"use strict";
// Texts and messages only ever go into textContent: a corpus may hold anything.
const $ = (id) => document.getElementById(id);
const FIELDS = ["q", "dim", "precision", "task", "depth"];
const WHAT_PRECISIONS_ARE = {
  float: "4 bytes a dim, compared by cosine",
  int8: "1 byte a dim on both sides; timed as floats here",
  binary: "1 bit a dim on both sides, compared by Hamming distance",
  asymmetric: "documents are sign bits, the query stays floats; timed as floats here",
  rescored: "sign bits find four times as many, floats (which may lie on a disk) put them in order",
};
let about = null;
let asked = 0;

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) { count /= 1000; unit += 1; }
  return `${unit && count < 100 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

const milliseconds = (ms) => `${ms < 10 ? ms.toFixed(2) : ms.toFixed(0)} ms`;
const nameOf = (side) => `${side.precision} ${side.dim}`;
const ordinal = (n) => {
  const tens = n % 100 > 10 && n % 100 < 14;
  return n.toLocaleString("en") + ((!tens && { 1: "st", 2: "nd", 3: "rd" }[n % 10]) || "th");
};

function choose(id, options, describe) {
  $(id).replaceChildren(...options.map((value) => {
    const option = make("option", "", describe ? describe(value) : String(value));
    option.value = value;
    return option;
  }));
}

function fail(message) {
  $("error").textContent = message;
  $("error").hidden = false;
  $("status").textContent = "";
  for (const id of ["figures", "results", "note"]) $(id).hidden = true;
}

async function ask(address) {
  let response;
  try {
    response = await fetch(address);
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  const content = await response.json();
  if (!response.ok) throw new Error(content.error);
  return content;
}

function figure(name, value, beside) {
  const box = make("div");
  const number = make("dd", "", value);
  number.append(make("small", "", beside));
  box.append(make("dt", "", name), number);
  return box;
}

function mark(hit, id, other, depth) {
  if (hit.other_rank > depth) {
    return id === "reference"
      ? ["lost", `✕ lost: ${ordinal(hit.other_rank)} in ${other}`]
      : ["new", `+ new: ${ordinal(hit.other_rank)} in ${other}`];
  }
  const moved = hit.other_rank - hit.rank;
  if (id === "reference") return ["kept", "✓ kept"];
  if (moved === 0) return ["kept", "= same rank"];
  return ["kept", `${moved > 0 ? "▲" : "▼"} ${Math.abs(moved)} (was ${hit.other_rank})`];
}

function scoreOf(hit, side) {
  if (side.precision !== "binary") return `cosine ${hit.score.toFixed(3)}`;
  return `${Math.round((1 - hit.score) * side.dim / 2)} of ${side.dim} bits differ`;
}

function twins(row, on) {
  for (const item of document.querySelectorAll("li[data-row]")) {
    item.classList.toggle("twin", on && item.dataset.row === row);
  }
}

function show(hit, id, side, other, depth) {
  const [kind, words] = mark(hit, id, nameOf(other), depth);
  const item = make("li", kind);
  item.dataset.row = hit.row;
  item.addEventListener("mouseenter", () => twins(item.dataset.row, true));
  item.addEventListener("mouseleave", () => twins(item.dataset.row, false));
  const facts = make("div", "facts");
  facts.append(make("span", "rank", String(hit.rank)), make("span", "mark", words));
  facts.append(make("span", "score", `${scoreOf(hit, side)} · row ${hit.row.toLocaleString("en")}`));
  const text = make("p", "text", hit.text);
  item.append(facts, text);
  return item;
}

// Whether a text is cut can be told only once it is laid out
function offerWholeTexts() {
  for (const text of document.querySelectorAll(".text")) {
    if (text.scrollHeight <= text.clientHeight + 1) continue;
    const more = make("button", "more", "Show all");
    more.type = "button";
    more.setAttribute("aria-expanded", "false");
    more.addEventListener("click", () => {
      const whole = text.classList.toggle("whole");
      more.textContent = whole ? "Show less" : "Show all";
      more.setAttribute("aria-expanded", String(whole));
    });
    text.after(more);
  }
}

function render(found) {
  const { reference, view, depth, kept, documents } = found;
  const smaller = reference.bytes_per_vector / view.bytes_per_vector;
  const times = smaller === 1 ? "the same" : `1/${Number(smaller.toFixed(1))} of ${reference.bytes_per_vector}`;
  $("error").hidden = true;
  $("status").textContent =
    `${kept} of the first ${depth} hits are kept in ${nameOf(view)}; ${depth - kept} are lost. ` +
    `The query was encoded in ${milliseconds(found.encode_ms)}.`;
  $("figures").replaceChildren(
    figure("Hits kept", `${kept} of ${depth}`, `${nameOf(view)} against ${nameOf(reference)}`),
    figure("Bytes per vector", view.bytes_per_vector.toLocaleString("en"), times),
    figure("Vectors of the corpus", bytes(view.bytes_per_vector * documents),
      `instead of ${bytes(reference.bytes_per_vector * documents)}, for ${documents.toLocaleString("en")} texts`),
    figure("Search", milliseconds(view.search_ms), `instead of ${milliseconds(reference.search_ms)}`),
  );
  for (const [id, side, other] of [["reference", reference, view], ["view", view, reference]]) {
    $(`${id}-name`).textContent = id === "reference" ? `${nameOf(side)}: whole vectors` : `${nameOf(side)}: your view`;
    $(id).replaceChildren(...side.hits.map((hit) => show(hit, id, side, other, depth)));
  }
  $("note").textContent =
    `${view.precision}: ${WHAT_PRECISIONS_ARE[view.precision]}. Vectors were read as ${about.stored_as}. ` +
    "Times are the quickest of three, without the encoding of the query; among few documents they mostly measure the start.";
  for (const id of ["figures", "results", "note"]) $(id).hidden = false;
  offerWholeTexts();
}

async function search() {
  const wanted = new URLSearchParams(FIELDS.map((name) => [name, $(name).value]));
  const mine = (asked += 1); // of answers that come late, only the last counts
  history.replaceState(null, "", `?${wanted}`);
  $("status").textContent = "Searching…";
  try {
    const found = await ask(`search?${wanted}`);
    if (mine === asked) render(found);
  } catch (error) {
    if (mine === asked) fail(error.message);
  }
}

async function start() {
  try {
    about = await ask("about");
  } catch (error) {
    fail(error.message);
    return;
  }
  $("about").textContent = `${about.documents.toLocaleString("en")} texts of ${about.corpus}, encoded by ${about.model}`;
  choose("dim", about.dims, (dim) => (dim === about.dims[0] ? `${dim} (all)` : String(dim)));
  choose("precision", about.precisions);
  choose("task", about.tasks);
  $("task-label").hidden = about.tasks.length < 2;
  $("precision").value = "binary";
  const given = new URLSearchParams(location.search);
  for (const name of FIELDS) {
    const value = given.get(name);
    if (value === null) continue;
    const field = $(name);
    if (field.tagName === "SELECT" && ![...field.options].some((option) => option.value === value)) {
      const option = make("option", "", value); // a dim that the list lacks is fine; a wrong one gets its message
      option.value = value;
      field.append(option);
    }
    field.value = value;
  }
  $("form").addEventListener("submit", (event) => { event.preventDefault(); search(); });
  for (const name of FIELDS.slice(1)) {
    $(name).addEventListener("change", () => { if ($("q").value.trim()) search(); });
  }
  if (given.has("q")) await search();
}

start();
