// Keeps the page up to date. Whatever other nodes chose is text here, never markup.
"use strict";

const EVERY = 1000;
const at = (id) => document.getElementById(id);
let before = null;

function put(id, text) {
  if (at(id).textContent !== String(text)) at(id).textContent = text;
}

function row(cells, name) {
  const tr = document.createElement("tr");
  if (name) tr.className = name;
  for (const [text, style] of cells) {
    const td = document.createElement("td");
    td.textContent = text;
    if (style) td.className = style;
    tr.append(td);
  }
  return tr;
}

const span = (micros) =>
  micros === null ? "–" : micros < 1000 ? `${micros} µs` : `${(micros / 1000).toFixed(1)} ms`;

const count = (number) =>
  number >= 1e6 ? `${(number / 1e6).toFixed(1)} M` : number >= 1e4 ? `${(number / 1e3).toFixed(1)} k` : `${Math.round(number)}`;

function time(seconds) {
  const [d, h, m] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  return d ? `${d} d ${h} h` : h ? `${h} h ${m} min` : m ? `${m} min` : `${Math.floor(seconds)} s`;
}

function state(text, style) {
  put("state", text);
  at("state").className = style;
}

function rates(status) {
  const metrics = status.cluster.metrics;
  if (before && status.uptime > before.uptime) {
    const past = before.cluster.metrics;
    const each = (key) => (metrics[key] - past[key]) / (status.uptime - before.uptime);
    put("messages", count(each("sent") + each("received")));
    put("bytes", count(each("sent_bytes") + each("received_bytes")));
  }
}

function show(status) {
  document.title = `${status.node} · Tiebeam`;
  put("node", status.node);
  const cluster = status.cluster;
  put("about", [
    cluster && cluster.term > 0 ? `leader ${cluster.leader ?? "none"}, term ${cluster.term}` : null,
    `${status.connected.length} connected`,
    `${status.processes} processes`,
    `up ${time(status.uptime)}`,
    `version ${status.version}`,
  ].filter(Boolean).join(" · "));
  if (!cluster) return state("no cluster", "");
  state(cluster.health.trouble ? `this node ${cluster.health.trouble}` : "well", cluster.health.trouble ? "trouble" : "");
  const of = (word) => cluster.members.filter((member) => member.status === word).length;
  put("alive", of("alive"));
  put("away", of("suspect") + of("dead"));
  put("names", count(cluster.names.count));
  put("groups", count(cluster.groups));
  rates(status);
  at("members").replaceChildren(...cluster.members.map((member) =>
    row([[member.node], [member.kind], [member.status, `status ${member.status}`], [span(member.round_trip), "number"]],
      member.node === status.node ? "own" : "")));
  const list = cluster.names.list;
  const few = list !== null && list.length > 0;
  at("many").hidden = few;
  at("many").nextElementSibling.hidden = !few;
  put("many", list ? "No process of the default scope has a name." : `${cluster.names.count} names: more than this page lists. See tiebeam names ${status.node}`);
  at("registry").replaceChildren(...(list ?? []).map((entry) => row([[entry.name], [entry.node]])));
  before = status;
}

async function refresh() {
  try {
    const response = await fetch("status", { signal: AbortSignal.timeout(5000) });
    show(await response.json());
  } catch {
    state("the node does not answer", "lost");
  }
  setTimeout(refresh, EVERY);
}

refresh();
