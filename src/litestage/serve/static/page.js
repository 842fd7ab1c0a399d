"use strict";
const $ = (id) => document.getElementById(id);
const CUT = { low_confidence: "✂ unsure", settled: "✂ settled" };
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const state = { task: null, models: {}, examples: [], example: -1, running: null, key: "" };

/* Light or dark: as the system says, until somebody chooses. */
const dark = matchMedia("(prefers-color-scheme: dark)");
const paint = (theme) => { document.documentElement.dataset.theme = theme; redraw(); };
$("theme").addEventListener("click", () => paint(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
dark.addEventListener("change", (event) => paint(event.matches ? "dark" : "light"));

const element = (tag, options = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), options);
  made.append(...children);
  return made;
};
const headers = () => (state.key ? { authorization: `Bearer ${state.key}` } : {});

async function refusal(answer) {
  try { return (await answer.json()).error.message; } catch { return `The server answered ${answer.status}.`; }
}

async function connect() {
  const answer = await fetch("v1/models", { headers: headers() }).catch(() => null);
  if (answer && answer.status === 401) {
    $("key-box").hidden = false;
    $("about").textContent = "This server wants a key.";
    return;
  }
  if (!answer || !answer.ok) {
    $("about").textContent = answer && answer.status === 503 ? "The model is being loaded…" : "No connection to the server.";
    setTimeout(connect, 1000);
    return;
  }
  const models = (await answer.json()).data;
  state.task = models[0].litestage.task;
  state.models = Object.fromEntries(models.filter((one) => one.litestage.kind === "staged").map((one) => [one.id, one.litestage]));
  const plans = Object.keys(state.models).map((id) => id.split(":")[1]).filter((name) => name && name !== "full");
  $("plan").replaceChildren(...[...plans, "none"].map((name) => element("option", { value: name, textContent: name })));
  $("about").textContent = `${models[0].root} · ${models[0].litestage.blocks} blocks · task ${state.task}`
    + (plans.length ? "" : " · start the server with --plan NAME=DIR to see a plan beside full depth");
  state.examples = await fetch("examples", { headers: headers() }).then((got) => (got.ok ? got.json() : [])).catch(() => []);
  $("example").hidden = !state.examples.length;
  if (state.examples.length && !$("question").value) another();
  if (location.hash === "#ask" && $("question").value) ask();  // a link that asks at once
}
$("key-box").addEventListener("submit", (event) => { event.preventDefault(); state.key = $("key").value; connect(); });

/* The question and its choices. */
function choices() { return [...document.querySelectorAll(".choice input")].map((input) => input.value.trim()); }

function fill(texts) {
  const box = $("choices");
  box.querySelectorAll(".choice, .more").forEach((one) => one.remove());
  texts.forEach((text, at) => {
    const input = element("input", { value: text, ariaLabel: `Choice ${LETTERS[at]}` });
    const away = element("button", { type: "button", textContent: "×", ariaLabel: `Take choice ${LETTERS[at]} out` });
    away.addEventListener("click", () => fill(choices().filter((_, other) => other !== at)));
    box.append(element("div", { className: "choice" }, element("b", { textContent: LETTERS[at] }), input, ...(texts.length > 2 ? [away] : [])));
  });
  if (texts.length < 8) {
    const more = element("button", { type: "button", className: "quiet more", textContent: "+ choice" });
    more.addEventListener("click", () => { fill([...choices(), ""]); [...box.querySelectorAll("input")].at(-1).focus(); });
    box.append(more);
  }
}

function another() {
  state.example = (state.example + 1) % state.examples.length;
  $("question").value = state.examples[state.example].question;
  fill(state.examples[state.example].choices);
}
$("example").addEventListener("click", another);

/* One side: an answer as it comes. */
class Side {
  constructor(kind, model, title, asked) {
    Object.assign(this, { kind, model, asked, stages: new Map(), tokens: 0, exits: 0, drafts: 0, decoding: 0, ended: null });
    this.numbers = {};
    const numbers = element("dl", { className: "numbers" });
    for (const [name, label] of [["time", "time"], ["rate", "tokens/s"], ["tokens", "tokens"], ["skipped", "left out"], ["exits", "exits"], ["drafts", "drafts kept"]]) {
      this.numbers[name] = element("dd", { textContent: "–" });
      numbers.append(element("div", { className: name === "time" ? "first" : "" }, element("dt", { textContent: label }), this.numbers[name]));
    }
    this.votes = element("ol", { className: "votes" });
    this.bars = asked.choices.map((text, at) => {
      const bar = element("i"), share = element("span", { className: "share" });
      const row = element("li", { title: text }, element("b", { textContent: LETTERS[at] }), element("span", { className: "name", textContent: text }), element("span", { className: "track" }, bar), share);
      this.votes.append(row);
      return { row, bar, share };
    });
    this.body = element("div");
    this.box = element("section", { className: `side ${kind} waiting`, ariaLabel: title },
      element("header", {}, element("h2", { textContent: title }), element("span", { className: "muted", textContent: model })),
      numbers, this.votes, this.body);
  }

  stage(name, branches = 1, skipped = null) {
    if (!this.stages.has(name)) {
      const paragraphs = Array.from({ length: branches }, (_, at) => {
        const text = element("span"), cut = element("span", { className: "cut" });
        const line = element("p", {}, ...(branches > 1 ? [element("b", { textContent: LETTERS[at] })] : []), text, " ", cut);
        return { line, text, cut, tokens: 0 };
      });
      const about = element("span", { className: "muted" }), map = element("canvas", { ariaLabel: `Sub-layers that ${name}'s decode steps ran`, role: "img" });
      const box = element("div", { className: "stage" }, element("div", {}, element("h3", { textContent: name }), about), ...paragraphs.map((one) => one.line), map);
      this.body.append(box);
      this.stages.set(name, { paragraphs, about, map, skipped: skipped || [], tokens: 0 });
    }
    return this.stages.get(name);
  }

  hear(event) {
    if (event.branches !== undefined) {
      if (event.vote === 0) this.stage(event.stage, event.branches, event.skipped);
    } else if (event.branch !== undefined) {
      this.tokens += event.new;
      if (event.vote !== 0) return;
      const stage = this.stage(event.stage), one = stage.paragraphs[event.branch];
      one.text.textContent = (one.text.textContent + event.text).replace(/^\s+/, "");
      one.tokens = event.tokens;
      one.line.classList.add("now");
      this.draw(event.stage);
    } else if (event.ended !== undefined) {
      this.exits += event.ended.filter((reason) => reason in CUT).length;
      this.drafts += event.accepted || 0;
      this.decoding += event.decode_seconds;
      if (event.vote !== 0) return;
      const stage = this.stage(event.stage, event.ended.length);
      stage.about.textContent = `${event.seconds.toFixed(2)} s`;
      stage.paragraphs.forEach((one, at) => {
        one.line.classList.remove("now");
        one.tokens = event.tokens[at];
        one.text.textContent = event.texts[at].trim();
        one.cut.textContent = { ...CUT, length: "✂ too long", no_room: "no room" }[event.ended[at]] || "";
      });
      this.draw(event.stage);
    }
  }

  tick(now) {
    const seconds = ((this.ended || now) - this.begun) / 1000;
    this.numbers.time.textContent = `${seconds.toFixed(2)} s`;
    this.numbers.tokens.textContent = this.tokens;
    this.numbers.rate.textContent = this.tokens ? Math.round(this.tokens / seconds) : "–";
    this.numbers.exits.textContent = this.exits;
    this.numbers.drafts.textContent = this.drafts;
  }

  /* The block map: a column a decode step, a row a block; attention above, FFN below. Where branches ended it fades. */
  draw(name) {
    const stage = this.stages.get(name), blocks = state.models[this.model].blocks;
    const steps = Math.max(1, ...stage.paragraphs.map((one) => one.tokens - 1));
    const scale = devicePixelRatio || 1, width = stage.map.clientWidth || 400;
    const wide = Math.max(1, Math.min(8, width / steps)), high = Math.max(2, Math.min(4, Math.floor(60 / blocks))), gap = 5;
    const height = 2 * blocks * high + gap;
    stage.map.width = Math.round(width * scale);
    stage.map.height = Math.round(height * scale);
    stage.map.style.height = `${height}px`;
    const style = getComputedStyle(document.documentElement), colour = (of) => style.getPropertyValue(`--${of}`).trim();
    const pen = stage.map.getContext("2d"), none = colour("none");
    pen.scale(scale, scale);
    for (let step = 0; step < steps; step += 1) {
      const skipped = left(stage.skipped, step);
      const alive = stage.paragraphs.filter((one) => one.tokens - 1 > step).length / stage.paragraphs.length;
      ["attention", "ffn"].forEach((kind, band) => {
        for (let block = 0; block < blocks; block += 1) {
          const out = skipped.has(`${block}.${kind}`);
          pen.globalAlpha = out ? 1 : 0.3 + 0.7 * alive;
          pen.fillStyle = out ? none : colour(kind);
          pen.fillRect(step * wide, band * (blocks * high + gap) + block * high, wide > 3 ? wide - 1 : wide, high > 2 ? high - 0.5 : high);
        }
      });
    }
  }

  async ask(signal) {
    this.box.classList.remove("waiting");
    this.begun = performance.now();
    const ticking = setInterval(() => this.tick(performance.now()), 60);
    try {
      const content = `${this.asked.question} ${this.asked.choices.map((text, at) => `(${LETTERS[at]}) ${text}`).join(" ")}`;
      const settings = { trace: true, ...(this.asked.votes > 1 ? { votes: this.asked.votes } : {}) };
      const body = { model: this.model, messages: [{ role: "user", content }], stream: true, seed: 1, litestage: settings };
      const answer = await fetch("v1/chat/completions", { method: "POST", signal, headers: { "content-type": "application/json", ...headers() }, body: JSON.stringify(body) });
      if (!answer.ok) throw new Error(await refusal(answer));
      for await (const event of events(answer.body)) {
        if (event.error) throw new Error(event.error.message);
        if (!event.litestage) continue;
        if ("probabilities" in event.litestage) this.done(event.litestage); else this.hear(event.litestage);
      }
      if (!this.ended) throw new Error("The server's answer broke off.");
    } finally {
      clearInterval(ticking);
      this.ended = this.ended || performance.now();
      this.tick(this.ended);
      this.body.querySelectorAll(".now").forEach((one) => one.classList.remove("now"));
    }
  }

  done(summary) {
    this.ended = performance.now();
    this.answer = summary.answer;
    const all = 2 * state.models[this.model].blocks;
    let run = 0, steps = 0;
    for (const stage of this.stages.values()) {
      for (const one of stage.paragraphs) {
        for (let step = 0; step < one.tokens - 1; step += 1) {
          run += all - left(stage.skipped, step).size;
          steps += all;
        }
      }
    }
    this.numbers.skipped.textContent = steps ? `${Math.round(100 * (1 - run / steps))} %` : "–";
    this.bars.forEach(({ row, bar, share }, at) => {
      const part = summary.probabilities[LETTERS[at]] || 0;
      bar.style.width = `${100 * part}%`;
      share.textContent = `${Math.round(100 * part)} %`;
      row.classList.toggle("chosen", LETTERS[at] === summary.answer);
    });
  }
}

/* What a decode step leaves out. */
function left(segments, step) {
  const segment = [...segments].reverse().find((one) => one.first_step <= step);
  return new Set(segment ? segment.sub_layers : []);
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) if (part.startsWith("data: {")) yield JSON.parse(part.slice(6));
  }
}

/* Asking. Full depth comes first and the plan behind it, so that neither takes time from the other. */
function redraw() { for (const side of state.sides || []) for (const name of side.stages.keys()) side.draw(name); }
addEventListener("resize", redraw);

function verdict(full, plan) {
  const said = (side) => (side.answer === null ? "gives no answer that could be read" : `answers ${side.answer}`);
  const both = full.answer === null ? "Neither gives an answer that could be read." : plan && `Both answer ${full.answer}.`;
  if (!plan) return [`Full depth ${said(full)}.`, ""];
  const ratio = (full.decoding / plan.decoding).toFixed(2), votes = full.asked.votes;
  const each = (side) => `${(side.decoding / votes).toFixed(2)} s`;
  return [
    `${full.answer === plan.answer ? both : `Full depth ${said(full)}, the plan ${said(plan)}.`} The plan decoded ${ratio} times as fast.`,
    `Decoding${votes > 1 ? " a vote" : ""} took ${each(full)} at full depth and ${each(plan)} with the plan. Prompts are left out of this comparison: what the first answer read, the second finds in the cache. The times above have all.`,
  ];
}
const say = ([first, more]) => { $("verdict").textContent = first; $("more").textContent = more; };

async function ask() {
  const asked = { question: $("question").value.trim(), choices: choices().filter(Boolean), votes: Number($("votes").value) };
  $("error").hidden = true;
  if (!asked.question || asked.choices.length < 2) { fail("Type a question and two choices or more."); return; }
  const plan = $("plan").value;
  const sides = [new Side("full", `${state.task}:full`, "Full depth", asked)];
  if (plan !== "none") sides.push(new Side("plan", `${state.task}:${plan}`, `Plan ${plan}`, asked));
  state.sides = sides;
  $("sides").replaceChildren(...sides.map((side) => side.box));
  say(["", ""]);
  $("legend").hidden = false;
  state.running = new AbortController();
  busy(true);
  try {
    for (const side of sides) await side.ask(state.running.signal);
    say(verdict(...sides));
    document.documentElement.dataset.done = "yes";
  } catch (error) {
    if (error.name !== "AbortError") fail(error.message);
  } finally {
    state.running = null;
    busy(false);
  }
}
function fail(text) { $("error").textContent = text; $("error").hidden = false; }
function busy(is) { $("run").hidden = is; $("stop").hidden = !is; $("example").disabled = is; }
const stop = () => state.running && state.running.abort();

$("form").addEventListener("submit", (event) => { event.preventDefault(); if (!state.running) ask(); });
$("stop").addEventListener("click", stop);
addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
  if (event.key === "Enter" && (event.metaKey || event.ctrlKey) && !state.running) { event.preventDefault(); ask(); }
  const typing = event.target.closest && event.target.closest("input, textarea, select");
  if (event.key.toLowerCase() === "e" && !typing && !event.metaKey && !event.ctrlKey && !event.altKey && state.examples.length && !state.running) another();
});

paint(dark.matches ? "dark" : "light");
fill(["", "", "", ""]);
connect();
