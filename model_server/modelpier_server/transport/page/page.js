
"use strict";
// What comes from the server is put into the page as text alone, never as markup.
const INTERVAL = 2000, WINDOW = 30, LONGEST = 20000;
const byId = (id) => document.getElementById(id);
const seen = new Map(); // figures of each version, the newest last
let examples = null, known = "", apiKey = "", next = 0, turn = 0;

function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

const keyOf = (model) => JSON.stringify([model.name, model.version]);
const shapeOf = (shape) => "[" + shape.map((n) => (n < 0 ? "any" : n)).join(", ") + "]";

// ---------------------------------------------------------------------------------------------- figures
function quantile(bounds, counts, share) {
  const total = counts.reduce((a, b) => a + b, 0);
  let rest = share * total;
  for (let i = 0; i < counts.length; i++) {
    if (counts[i] && rest <= counts[i]) {
      const low = i ? bounds[i - 1] : 0;
      return i < bounds.length ? low + (bounds[i] - low) * (rest / counts[i]) : low;
    }
    rest -= counts[i];
  }
  return null;
}

function duration(seconds) {
  if (seconds === null) return "–";
  if (seconds < 0.01) return (seconds * 1000).toFixed(2) + " ms";
  return seconds < 1 ? (seconds * 1000).toFixed(0) + " ms" : seconds.toFixed(1) + " s";
}

// Over the last minute that this page has seen; over all time where nothing came in it.
function figuresOf(model, now) {
  const key = keyOf(model), history = seen.get(key) || [];
  if (history.length && history[history.length - 1].success > model.figures.success) history.length = 0; // loaded anew
  history.push({ at: now, ...model.figures });
  if (history.length > WINDOW) history.shift();
  seen.set(key, history);
  const old = history[0], { seconds, success, failed, pending, rows, executions } = model.figures;
  const recent = seconds.counts.map((n, i) => n - old.seconds.counts[i]);
  const counts = recent.some((n) => n > 0) ? recent : seconds.counts;
  const elapsed = (now - old.at) / 1000;
  return [
    ["Requests", success.toLocaleString("en")],
    ["Failed", failed.toLocaleString("en")],
    ["Per second", elapsed > 0 ? ((success - old.success) / elapsed).toFixed(1) : "–"],
    ["p50", duration(quantile(seconds.bounds, counts, 0.5))],
    ["p99", duration(quantile(seconds.bounds, counts, 0.99))],
    ["Queue", pending.toLocaleString("en")],
    ["Rows per run", executions ? (rows / executions).toFixed(1) : "–"],
  ];
}

// ---------------------------------------------------------------------------------------------- models
function tensors(model) {
  const table = make("table"), body = make("tbody");
  table.append(make("caption", "", "Inputs and outputs"));
  const head = make("tr");
  for (const text of ["", "Name", "Type", "Shape"]) {
    const cell = make("th", "", text || make("span", "soft", "Direction"));
    cell.scope = "col";
    head.append(cell);
  }
  table.append(make("thead", "", head), body);
  for (const [what, list] of [["input", model.inputs], ["output", model.outputs]]) {
    for (const one of list) {
      body.append(make("tr", "", make("td", "soft", what), make("td", "", make("code", "", one.name)),
        make("td", "", one.datatype), make("td", "", shapeOf(one.shape))));
    }
  }
  return make("div", "scroll", table);
}

function cardOf(model) {
  const card = make("article"), state = make("span", "state", model.state);
  if (model.state === "ready") state.classList.add("good");
  if (model.state === "failed") state.classList.add("bad");
  card.dataset.key = keyOf(model);
  card.append(make("div", "title", make("h3", "", model.name), make("span", "soft", "version " + model.version), state,
    make("span", "soft", model.reason || model.provider || "")));
  card.append(make("dl", "figures"));
  if (model.batching) card.append(make("p", "soft batching", "Batching " + model.batching));
  if (model.inputs.length || model.outputs.length) card.append(tensors(model));
  return card;
}

function show(status) {
  byId("server").textContent = `version ${status.server.version} · ${status.ready ? "ready" : "not ready"} · ` +
    `${status.connections} connection${status.connections === 1 ? "" : "s"}`;
  const now = JSON.stringify(status.models.map(({ figures, ...rest }) => rest));
  if (now !== known) { // cards are made anew only when something but figures changed: focus and selection stay
    known = now;
    byId("models").replaceChildren(...(status.models.length ? status.models.map(cardOf) : [make("p", "soft", "None yet.")]));
    offer(status.models.filter((model) => model.state === "ready"));
  }
  const cards = [...byId("models").children], moment = performance.now();
  status.models.forEach((model, i) => {
    const list = cards[i].querySelector(".figures");
    const figures = model.figures ? figuresOf(model, moment) : [];
    if (list.children.length !== figures.length) {
      list.replaceChildren(...figures.map(([name]) => make("div", "", make("dt", "", name), make("dd", ""))));
    }
    figures.forEach(([, value], n) => { list.children[n].lastChild.textContent = value; });
  });
}

// ---------------------------------------------------------------------------------------------- the form
async function offer(models) {
  const select = byId("model"), chosen = select.value;
  select.replaceChildren(...models.map((model) => {
    const option = make("option", "", `${model.name} version ${model.version}`);
    option.value = keyOf(model);
    return option;
  }));
  if (models.some((model) => keyOf(model) === chosen)) select.value = chosen;
  try {
    examples = await (await call("openapi.json")).json();
  } catch (error) {
    examples = null;
  }
  if (select.value !== chosen || !byId("request").value) prefill();
}

// A valid request: of the Open Inference Protocol, or of the plain route for types that have no JSON form there.
function exampleOf(name, version) {
  const paths = (examples && examples.paths) || {};
  const path = `/v2/models/${name}/versions/${version}/infer`;
  const jsonOf = (at) => paths[at] && paths[at].post.requestBody.content["application/json"];
  const infer = jsonOf(path), plain = jsonOf("/model");
  if (infer && infer.example) return [path, infer.example];
  const found = plain && plain.examples && plain.examples[`${name}:${version}`];
  return found ? ["/model", found.value] : [path, null];
}

// Indented, but for lists of elements: those go on one line.
function written(body) {
  const joined = (list) => list.replace(/\n\s*/g, " ").replace(/^\[ | \]$/g, (edge) => edge.trim());
  return JSON.stringify(body, null, 1).replace(/\[\n[^[\]{}]*\]/g, joined);
}

function prefill() {
  if (!byId("model").value) return;
  const [name, version] = JSON.parse(byId("model").value), [path, body] = exampleOf(name, version);
  byId("path").textContent = path;
  byId("request").value = body ? written(body) : "";
  byId("outcome").textContent = body ? "" : "Too large to show here; the OpenAPI document says what it takes.";
  byId("answer").hidden = true;
  command();
}

function command() {
  const quoted = byId("request").value.replace(/'/g, "'\\''");
  const bearer = apiKey ? ' -H "Authorization: Bearer $KEY"' : "";
  byId("curl").textContent = `curl -s${bearer} '${new URL("." + byId("path").textContent, location.href)}' -d '${quoted}'`;
}

async function send(event) {
  event.preventDefault();
  const outcome = byId("outcome"), answer = byId("answer"), begin = performance.now();
  outcome.textContent = "Sent…";
  try {
    const response = await call("." + byId("path").textContent, {
      method: "POST", headers: { "content-type": "application/json" }, body: byId("request").value,
    });
    const text = await response.text();
    outcome.textContent = `${response.status} ${response.statusText} in ${(performance.now() - begin).toFixed(0)} ms`;
    outcome.className = response.ok ? "good" : "bad";
    answer.textContent = text.length > LONGEST ? text.slice(0, LONGEST) + " …" : text;
    answer.hidden = false;
  } catch (error) {
    outcome.className = "bad";
    outcome.textContent = "The server does not answer.";
  }
}

// Kept nowhere but here: it is asked for again after a reload.
function call(path, options = {}) {
  const headers = { ...options.headers, ...(apiKey ? { authorization: `Bearer ${apiKey}` } : {}) };
  return fetch(path, { ...options, headers });
}

function login(event) {
  event.preventDefault();
  apiKey = byId("key").value.trim();
  clearTimeout(next);
  poll();
}

async function poll() {
  const mine = ++turn; // a login begins anew while an answer may be on its way
  try {
    const response = await call("status.json");
    const refused = response.status === 401 || response.status === 403;
    byId("login").hidden = !refused;
    if (refused) {
      byId("server").textContent = "This server asks for an API key.";
      byId("refused").textContent = apiKey ? (await response.json()).error : "";
    } else show(await response.json());
  } catch (error) {
    byId("server").textContent = "The server does not answer; trying again.";
  }
  if (mine === turn) next = setTimeout(poll, document.hidden ? 5 * INTERVAL : INTERVAL);
}

byId("model").addEventListener("change", prefill);
byId("request").addEventListener("input", command);
byId("try").addEventListener("submit", send);
byId("login").addEventListener("submit", login);
poll();
