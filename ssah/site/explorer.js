"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const byId = name => document.getElementById(name);

// ---- small parts ----------------------------------------------------------------------------

function fill(select, texts) {
  select.replaceChildren(...texts.map((text, place) => new Option(text, place)));
}

function slider(input, count, start) {
  Object.assign(input, {min: 0, max: count - 1, step: 1, value: start});
}

function html(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

function svg(name, attributes, ...inside) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...inside);
  return made;
}

const title = text => svg("title", {}, text);    // shown where the pointer rests

function row(cells) {
  const made = document.createElement("tr");
  for (const cell of cells) {
    const box = document.createElement("td");
    box.append(...[cell].flat());
    made.append(box);
  }
  return made;
}

function chip(word) {
  const kind = data.chips[word.split(":")[0]] ?? "open";
  return html("span", word, `chip ${kind}`);
}

const percent = (fraction, digits = 1) => `${(100 * fraction).toFixed(digits)} %`;
const sum = numbers => numbers.reduce((total, number) => total + number, 0);

function onInput(names, show) {
  for (const name of names) byId(name).addEventListener("input", show);
  show();
}

// ---- 1: the ledger --------------------------------------------------------------------------

function showLedger() {
  const {factors, models, rows} = data.ledger;
  const place = byId("delta").value;
  byId("delta-shown").textContent =
    `times ${factors[place]}${factors[place] === 1 ? " (as fixed beforehand)" : ""}`;
  const found = models[byId("model").value].rows;
  byId("words").replaceChildren(...rows.map(about => {
    const claim = [html("b", about.id), html("br", ""), about.statement];
    if (!(about.id in found)) return row([claim, "not run yet", "", about.deltas[place]]);
    const {words, numbers} = found[about.id][byId("judge").value][place];
    const lines = numbers.map(number => html("div", number));
    return row([claim, words.map(chip), lines, about.deltas[place]]);
  }));
}

// ---- 2: the four kinds ----------------------------------------------------------------------

function showKinds() {
  const {labels, shares, usual, found, table_1} = data.kinds;
  const kind = byId("kind").value;
  const share = shares[kind][byId("share").value];
  byId("share-shown").textContent = percent(share, 2) + (share === usual[kind] ? " (Table 1)" : "");
  const units = found[byId("scale").value][kind][byId("share").value];
  const all = sum(labels.map(label => sum(units[label].units)));
  byId("kinds").replaceChildren(...labels.map(label => {
    const count = sum(units[label].units);
    const others = sum(table_1[label].units);
    const both = count * others / all;      // how many random units would share
    const chance = both / (count + others - both);
    return row([html("b", label), count.toLocaleString("en"), percent(count / all, 2),
                units[label].iou.toFixed(3), chance.toFixed(3)]);
  }));
  byId("blocks").replaceChildren(...labels.map(label => bars(label, units[label].units)));
}

function bars(label, counts) {
  const width = 400, height = 110, foot = 18, head = 20;
  const most = Math.max(...counts, 1);
  const step = width / counts.length;
  const made = svg("svg", {viewBox: `0 0 ${width} ${height + foot + head}`, role: "img",
                           "aria-label": `${label} a block: ${counts.join(", ")}`});
  made.append(svg("text", {x: 0, y: 13}, `${label} a block (at most ${most})`));
  counts.forEach((count, block) => {
    const tall = height * count / most;
    made.append(svg("rect", {x: block * step + 1, y: head + height - tall, width: step - 2,
                             height: tall, class: label},
                    title(`block ${block + 1}: ${count}`)));
  });
  made.append(svg("text", {x: 0, y: height + foot + head - 4}, "block 1"));
  made.append(svg("text", {x: width, y: height + foot + head - 4, "text-anchor": "end"},
                  String(counts.length)));
  return made;
}

// ---- 3: the toy -----------------------------------------------------------------------------

function showToy() {
  const {swings, shares, planted, found} = data.toy;
  const [onSafety, onUtility] = swings[byId("swing").value];
  const share = shares[byId("toy-share").value];
  byId("swing-shown").textContent = `${onSafety} on safety, ${onUtility} on utility texts`;
  byId("toy-share-shown").textContent = `${Math.round(100 * share)} units`;
  const {safety, utility, labels} = found[byId("swing").value][byId("toy-scale").value];
  const called = labels[byId("toy-share").value];
  const hits = called.filter((label, unit) => label === "SCU" && planted[unit] === "SCU").length;
  const right = called.filter((label, unit) => label === planted[unit]).length;
  byId("toy-words").textContent = `Of the 3 planted SCU ${hits} are found; `
    + `${right} of the 100 units get the label that was planted.`;
  byId("plot").replaceChildren(scatter(utility, safety, called, planted));
}

function scatter(across, upwards, called, planted) {
  const size = 420, edge = 34;
  const made = svg("svg", {viewBox: `0 0 ${size} ${size}`, role: "img",
                           "aria-label": "units by scaled utility and safety importance"});
  const x = onto(across, edge, size - 12);
  const y = onto(upwards, size - edge, 12);
  made.append(svg("path", {d: `M${edge} 8V${size - edge}H${size - 8}`, class: "axis"}));
  made.append(svg("text", {x: size - 8, y: size - 10, "text-anchor": "end"}, "utility importance →"));
  made.append(svg("text", {x: 14, y: 12, "text-anchor": "end", transform: "rotate(-90 14 12)"},
                  "safety importance →"));
  called.forEach((label, unit) => {
    const place = `translate(${x(across[unit])} ${y(upwards[unit])})`;
    made.append(svg("path", {d: SHAPES[label], class: label, transform: place},
                    title(`planted ${planted[unit]}, called ${label}`)));
    if (planted[unit] === "SCU") made.append(svg("circle", {r: 9, class: "ring", transform: place}));
  });
  Object.keys(SHAPES).forEach((label, place) => {
    made.append(svg("path", {d: SHAPES[label], class: label,
                             transform: `translate(${edge + 20 + 70 * place} 14)`}));
    made.append(svg("text", {x: edge + 30 + 70 * place, y: 18}, label));
  });
  return made;
}

const SHAPES = {
  SCU: "M-5 -5H5V5H-5Z",
  UCU: "M0 -6L6 0L0 6L-6 0Z",
  CU: "M-3 0A3 3 0 1 0 3 0A3 3 0 1 0 -3 0",
  RU: "M0 -6L6 5H-6Z",
};

const ends = values => [Math.min(...values), Math.max(...values)];

function onto(values, from, to) {
  const [least, most] = ends(values);
  return value => from + (to - from) * (0.06 + 0.86 * (value - least) / (most - least));
}

// ---- 4: along the training ------------------------------------------------------------------

function showTraining() {
  const {lines, targets, measures} = data.training;
  const seed = byId("training-seed").value;
  const [measure, upwards] = measures[byId("measure").value];
  const chosen = Number(byId("line").value);
  const runs = lines.map(line => line.seeds[seed].filter(point => point[measure] !== null));
  byId("training-words").textContent = lines[chosen].title + ": "
    + atEqualLoss(lines[chosen].seeds[seed], targets[seed]);
  byId("training").replaceChildren(drawnRuns(runs, measure, upwards, targets[seed], chosen));
}

function atEqualLoss(points, target) {
  const there = points.find(point => point.probe_loss <= target);
  if (!there) return `the loss of full fine-tuning (${target.toFixed(2)} nats) is not reached.`;
  const rate = there.keyword_asr;
  const attacks = rate === null ? "" : `, keyword ASR ${percent(rate, 0)}`;
  return `after ${there.epoch} epochs the loss is ${there.probe_loss.toFixed(2)} nats (full `
    + `fine-tuning ends at ${target.toFixed(2)}); log-odds ${there.log_odds.toFixed(2)}${attacks}.`;
}

function drawnRuns(runs, measure, upwards, target, chosen) {
  const width = 520, height = 340, edge = 40;
  const made = svg("svg", {viewBox: `0 0 ${width} ${height}`, role: "img",
                           "aria-label": `${upwards} over training loss, a line a condition`});
  const points = runs.flat();
  const x = onto(points.map(point => point.probe_loss), width - 12, edge);    // lower: to the right
  const y = onto(points.map(point => point[measure]), height - edge, 12);
  made.append(svg("path", {d: `M${edge} 8V${height - edge}H${width - 8}`, class: "axis"}));
  made.append(svg("path", {d: `M${x(target)} 20V${height - edge}`, class: "axis dotted"}));
  made.append(svg("text", {x: width - 8, y: height - 10, "text-anchor": "end"},
                  "training loss, lower →"));
  made.append(svg("text", {x: edge + 4, y: 14}, `↑ ${upwards}`));
  const below = height - edge + 14;
  for (const loss of ends(points.map(point => point.probe_loss))) {
    made.append(svg("text", {x: x(loss), y: below, "text-anchor": "middle"}, loss.toFixed(1)));
  }
  made.append(svg("text", {x: x(target), y: below, "text-anchor": "middle"}, target.toFixed(2)));
  for (const value of ends(points.map(point => point[measure]))) {
    made.append(svg("text", {x: edge - 5, y: y(value) + 4, "text-anchor": "end"},
                    value.toFixed(1)));
  }
  const others = [...runs.keys()].filter(place => place !== chosen);
  for (const place of [...others, chosen]) {      // the chosen one lies on top
    const {title: name, colour} = data.training.lines[place];
    const corners = runs[place].map(point => `${x(point.probe_loss)} ${y(point[measure])}`);
    const d = `M${corners.join("L")}`;
    const chosenLook = {class: "run chosen", style: `stroke: ${colour}`};
    made.append(svg("path", {d, ...(place === chosen ? chosenLook : {class: "run"})}));
    const wide = svg("path", {d, class: "reach", "data-line": place}, title(name));
    wide.addEventListener("pointerenter", () => choose(place));
    made.append(wide);
  }
  for (const point of runs[chosen]) {
    made.append(svg("circle", {cx: x(point.probe_loss), cy: y(point[measure]), r: 3.5,
                               style: `fill: ${data.training.lines[chosen].colour}`},
                    title(`epoch ${point.epoch}: loss ${point.probe_loss.toFixed(2)}, `
                          + point[measure].toFixed(2))));
  }
  return made;
}

function choose(place) {
  if (Number(byId("line").value) === place) return;     // drawing anew would call it again
  byId("line").value = place;
  showTraining();
}

// ---- all of it ------------------------------------------------------------------------------

const {ledger, kinds, toy, training} = data;
fill(byId("model"), ledger.models.map(model => model.label));
fill(byId("judge"), ledger.judges);
slider(byId("delta"), ledger.factors.length, ledger.factors.indexOf(1));
onInput(["model", "judge", "delta"], showLedger);

byId("kinds-model").textContent = kinds.model;
fill(byId("scale"), kinds.scales);
fill(byId("kind"), kinds.kinds);
function startShare() {
  const kind = byId("kind").value;
  slider(byId("share"), kinds.shares[kind].length, kinds.shares[kind].indexOf(kinds.usual[kind]));
}
onInput(["kind"], startShare);
onInput(["scale", "kind", "share"], showKinds);

fill(byId("toy-scale"), toy.scales);
slider(byId("swing"), toy.swings.length, 0);
slider(byId("toy-share"), toy.shares.length, toy.shares.indexOf(0.03));
onInput(["swing", "toy-share", "toy-scale"], showToy);

byId("training-model").textContent = training.model;
fill(byId("line"), training.lines.map(line => line.title));
fill(byId("training-seed"), training.seeds);
fill(byId("measure"), training.measures.map(([, title]) => title));
onInput(["line", "training-seed", "measure"], showTraining);
