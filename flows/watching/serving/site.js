// Show how far the run is, without loading the page again.
"use strict";
const section = document.getElementById("progress");
const EVERY_MS = 3000;

function cell(text, kind) {
  const made = document.createElement("td");
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function row(node) {
  const made = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = node.node;
  const done = cell(` ${node.done} of ${node.shards}`, "label");
  const bar = document.createElement("progress");
  bar.max = node.shards;
  bar.value = node.done;
  done.prepend(bar);
  made.append(head, cell(node.stage, "label"), done, cell(node.failed, node.failed ? "worse" : ""),
    cell(node.quarantined), cell(node.compute), cell(node.speed));
  return made;
}

function line(text) {
  const made = document.createElement("li");
  made.textContent = text;
  return made;
}

async function look() {
  try {
    const answer = await fetch(section.dataset.source);
    if (answer.ok) {
      const now = await answer.json();
      const state = document.getElementById("state");
      const ended = state.textContent === "running" && now.state !== "running";
      state.textContent = now.state;
      state.className = `state ${now.state}`;
      document.getElementById("line").textContent = now.line;
      document.getElementById("share").value = now.share || 0;
      document.getElementById("nodes").replaceChildren(...now.nodes.map(row));
      document.getElementById("failures").replaceChildren(...(now.failures || []).map(line));
      if (ended) location.reload();
    }
  } catch {
    document.getElementById("line").textContent = "the server does not answer";
  }
  setTimeout(look, EVERY_MS);
}
setTimeout(look, EVERY_MS);
