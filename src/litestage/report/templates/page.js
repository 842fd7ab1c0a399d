"use strict";
const specs = JSON.parse(document.getElementById("specs").textContent);
const options = { actions: false, renderer: "svg", tooltip: { disableDefaultStyle: true } };
Promise.all(Object.entries(specs).map(([id, spec]) => vegaEmbed(document.getElementById(id), spec, options)))
  .then(() => document.body.classList.add("drawn"))
  .catch((error) => console.error("A chart could not be drawn:", error));
matchMedia("print").addEventListener("change", () => dispatchEvent(new Event("resize")));
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((details) => { details.open = true; }));
