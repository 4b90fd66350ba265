// The page: what the served models make of a picture, or of what is drawn.
// Labels, file names and messages come from strangers: they are set as text, never as HTML.

import { drawOn } from "./drawing.js";

const byId = (id) => document.getElementById(id);
const POLL_MS = 3000; // only while no model is served

let served = []; // {name, version, labels, mode, ink, metrics} of each model that can be asked
let poll = 0; // the timer of the next look at /models
let input = null; // what was sent last: {image: Blob or a promise of one, name, caption, drawn}
let running = null; // the AbortController of the one request whose answer is still wanted

class Refused extends Error { // an error answer; its message is for the person
  constructor(message, status, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

async function json(response) {
  if (response.ok) return response.json();
  const problem = (await response.json().catch(() => null)) ?? {}; // a proxy may answer something else
  const wait = response.headers.get("Retry-After");
  const text = problem.detail || problem.title || response.statusText || "the server gave no reason";
  throw new Refused(wait ? `${text} (try again in ${wait} s)` : text, response.status, problem.code);
}

function words(error) {
  if (error instanceof Refused) return error.message;
  if (error instanceof SyntaxError) return "the server’s answer could not be read";
  return "the server cannot be reached, or it ended the connection";
}

// --- which models there are ---

async function refresh() {
  clearTimeout(poll);
  let models = [];
  let trouble = "";
  try {
    models = (await json(await fetch("models", { cache: "no-store" }))).models;
  } catch (error) {
    trouble = words(error);
  }
  served = models.filter((model) => model.served_version !== null).map((model) => {
    const version = model.versions.find((each) => each.version === model.served_version) ?? {};
    const { labels = [], input: preprocess, metrics } = version;
    const { mode, ink_on_paper: ink } = preprocess ?? {};
    return { name: model.name, version: model.served_version, labels: labels ?? [], mode, ink, metrics };
  });
  byId("work").hidden = !served.length;
  byId("empty").hidden = served.length > 0;
  if (served.length) showChoice();
  else {
    showEmpty(models, trouble);
    poll = setTimeout(refresh, POLL_MS);
  }
}

function showEmpty(models, trouble) {
  const versions = models.flatMap((model) => model.versions.map((version) => ({ ...version, name: model.name })));
  const loading = versions.some((version) => version.state === "loading");
  const none = loading ? "A model is being loaded" : "No model is served yet";
  const title = trouble ? "The server gives no list of models" : none;
  if (byId("empty-title").textContent !== title) byId("empty-title").textContent = title; // announced but once
  byId("empty-text").textContent = trouble || (loading ? "" : "Train one:");
  byId("empty-command").hidden = Boolean(trouble) || loading;
  byId("empty-versions").replaceChildren(...versions.map(({ name, version, state, reason }) =>
    element("li", "", `${name}, version ${version}: ${state}${reason ? ` (${reason})` : ""}`)));
}

function showChoice() {
  const select = byId("model");
  const before = select.value;
  select.replaceChildren(...served.map(({ name }) => new Option(name, name, false, name === before)));
  byId("choice").hidden = served.length < 2;
  showModel();
}

function showModel() {
  const { name, version, labels, mode, ink, metrics } = served.find((model) => model.name === byId("model").value);
  const digits = labels.length > 0 && labels.every((label) => /^[0-9]$/.test(label));
  const some = labels.slice(0, 10).map((label) => (label.length > 24 ? `${label.slice(0, 23)}…` : label));
  if (labels.length > 10) some.push("…");
  const about = [`${name}, version ${version}, knows ${labels.length} labels: ${some.join(", ")}.`];
  if (metrics) {
    const images = `${metrics.samples.toLocaleString("en")} ${metrics.split} images`;
    about.push(`It was right on ${(100 * metrics.accuracy).toFixed(2)} % of ${images}.`);
  }
  byId("about").textContent = about.join(" ");
  byId("drawing").hidden = mode !== "L";
  byId("drawing-title").textContent = digits ? "Draw a digit" : "Draw";
  byId("picture-title").textContent = mode === "L" ? "Or choose a picture" : "Choose a picture";
  byId("picture-hint").hidden = !digits;
  byId("picture-ink").textContent = ink ? "in any ink on plain paper of any colour" : "white on black";
}

// --- asking, and what came of it ---

async function ask(next) {
  running?.abort();
  const mine = new AbortController();
  running = mine;
  input = next;
  byId("answer").setAttribute("aria-busy", "true");
  try {
    const image = await next.image;
    if (mine !== running) return;
    showInput(image, next);
    const body = new FormData();
    body.append("file", image, next.name);
    const query = new URLSearchParams({ model: byId("model").value, top_k: "5" });
    const started = performance.now();
    const answer = await json(await fetch(`predict?${query}`, { method: "POST", body, signal: mine.signal }));
    if (mine === running) showAnswer(answer, performance.now() - started);
  } catch (error) {
    if (mine !== running) return; // aborted for a newer one, or of no interest any more
    showProblem(words(error), error);
    if ([404, 503].includes(error.status)) refresh(); // the model may be gone
  }
  if (mine === running) byId("answer").removeAttribute("aria-busy");
}

function showInput(image, { caption, drawn, name }) {
  const preview = byId("preview");
  URL.revokeObjectURL(preview.src);
  preview.hidden = false;
  preview.onerror = () => { preview.hidden = true; }; // TIFF, or no image at all
  preview.onload = () => preview.classList.toggle("coarse", preview.naturalWidth <= 64);
  preview.alt = drawn ? "Your drawing as it is sent" : `Preview of ${name}`;
  preview.src = URL.createObjectURL(image);
  byId("caption").textContent = caption;
  byId("shown").hidden = false;
  byId("waiting").hidden = true;
}

function percent(share) {
  if (share > 0.9995) return "> 99.9 %"; // no softmax is ever sure
  if (share < 0.0005) return "< 0.1 %";
  return `${(100 * share).toFixed(1)} %`;
}

function showAnswer({ model, version, predictions, in_distribution: familiar }, milliseconds) {
  const [best] = predictions;
  const strange = byId("strange");
  strange.hidden = familiar === undefined; // such a model never says
  strange.classList.toggle("said", familiar === false); // unsaid, it keeps its place, so that the bars keep theirs
  byId("problem").hidden = true;
  byId("best-label").textContent = best.label;
  byId("best-label").className = best.label.length > 2 ? "long" : "";
  byId("best-share").textContent = percent(best.probability);
  byId("bars").replaceChildren(...predictions.map(({ label, probability }) => {
    const item = element("li", "");
    const fill = element("span", "fill");
    fill.style.width = `${100 * probability}%`;
    const track = element("span", "track");
    track.append(fill);
    item.append(element("span", "label", label), track, element("span", "share", percent(probability)));
    return item;
  }));
  const time = Math.max(1, Math.round(milliseconds));
  byId("from").textContent = `${model}, version ${version}, in ${time} ms there and back`;
  const warning = familiar === false ? `. ${strange.textContent}` : "";
  byId("spoken").textContent = `${best.label}, ${percent(best.probability)}${warning}`;
  if (!served.some((each) => each.name === model && each.version === version)) refresh(); // a newer one took over
}

function showProblem(text, { status, code } = {}) {
  for (const id of ["best-label", "best-share", "bars", "from", "spoken"]) byId(id).replaceChildren();
  byId("strange").hidden = true;
  byId("problem").hidden = !text;
  byId("problem-text").textContent = text;
  byId("problem-code").textContent = [status, code].filter(Boolean).join(" ");
  byId("again").hidden = [400, 413, 415, 422].includes(status); // the same again would end the same
}

function forget() {
  running?.abort();
  running = input = null;
  showProblem("");
  byId("answer").removeAttribute("aria-busy");
  byId("shown").hidden = true;
  byId("waiting").hidden = false;
}

// --- pictures: picked, dropped or pasted ---

async function offer(files) {
  const [file] = files;
  if (!file) return;
  const more = files.length > 1 ? `, the first of ${files.length}` : ""; // a list is emptied when its event is over
  await listed; // a picture may come before the list of models does
  if (!served.length) return;
  const caption = `${file.name}, ${bytes(file.size)}${more}`;
  ask({ image: file, name: file.name, caption, drawn: false });
}

function bytes(size) {
  if (size < 1000) return `${size} bytes`;
  return size < 1e6 ? `${Math.round(size / 1000)} kB` : `${(size / 1e6).toFixed(1)} MB`;
}

function dragged(event) {
  const files = event.dataTransfer?.types.includes("Files") ?? false;
  if (files) event.preventDefault(); // or the browser would leave the page for the file
  byId("drop").classList.toggle("over", files && event.type === "dragover");
  if (files && event.type === "drop") offer(event.dataTransfer.files);
}

byId("file").addEventListener("change", ({ target }) => {
  offer([...target.files]);
  target.value = ""; // so that the same file can be chosen again
});
for (const type of ["dragover", "dragleave", "drop"]) window.addEventListener(type, dragged);
document.addEventListener("paste", ({ clipboardData }) => offer(clipboardData.files));
byId("model").addEventListener("change", () => {
  showModel();
  if (input?.drawn && byId("drawing").hidden) forget();
  else if (input) ask(input);
});
byId("again").addEventListener("click", () => ask(input));

drawOn(byId("paper"), {
  undo: byId("undo"),
  clear: byId("clear"),
  changed(image) {
    if (image) ask({ image, name: "drawing.png", caption: "What is sent: 28 × 28 pixels, enlarged", drawn: true });
    else forget();
  },
});

const listed = refresh();
