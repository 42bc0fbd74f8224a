// Keeps our pages up to date: asks for what has changed, puts texts into their places, draws two plots.
"use strict";
(() => {
  const body = document.body, live = body.dataset.live, said = JSON.parse(body.dataset.words);
  const EVERY_MS = 4000, SVG = "http://www.w3.org/2000/svg";
  const at = (id) => document.getElementById(id);
  const make = (name, text = "", attributes = {}) => {
    const made = document.createElement(name);
    made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const draw = (name, attributes, text = "") => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text) made.textContent = text;
    return made;
  };
  const tell = (place, text) => { if (place && place.textContent !== text) place.textContent = text; };
  const same = new Map();
  // Rebuilds a place only where what it shows has changed: focus and scroll stay where they are.
  const fill = (id, value, build) => {
    const key = JSON.stringify(value), place = at(id);
    if (!place || same.get(id) === key) return;
    same.set(id, key);
    place.replaceChildren(...build(value));
  };

  const bar = (one) => make("progress", "", { max: Math.max(one.total, 1), value: one.finished, "aria-label": one.counted });
  const card = (one) => {
    const item = make("li"), head = make("div", "", { class: "row" }), title = make("h2");
    title.append(make("a", one.name, { href: `/study/${encodeURIComponent(one.name)}${location.search}` }));
    head.append(title, make("span", one.state_words, { class: `badge ${one.running ? "open" : ""}` }));
    item.append(head, make("div", one.title || one.task, { class: "soft" }), bar(one));
    const line = [one.counted, one.running ? one.workers : "", one.left, one.foreign].filter(Boolean).join(" · ");
    item.append(make("div", line, { class: "soft" }));
    for (const text of one.good) item.append(make("div", text, { class: "good" }));
    const least = [one.best && `${said.best} ${one.best}`, one.resolved].filter(Boolean).join(" · ");
    if (least) item.append(make("div", least));
    return item;
  };

  const scaled = (low, high, from, to) => (value) => from + (to - from) * (high > low ? (value - low) / (high - low) : 0.5);
  const spread = (values) => [Math.min(...values), Math.max(...values)];
  // As the tables have them: 6.3e-4, 0.01, 6300.
  const short = (value, digits = 2) => Math.abs(value) >= 0.01 && Math.abs(value) < 1e5
    ? String(+value.toPrecision(digits)) : value.toExponential(1).replace(".0e", "e").replace("e+", "e");

  // One line a trial over lr, backbone_lr, ratio, loss, choices and what it reached; the best tenth stands out.
  const parallel = (trials, losses, choices) => {
    const ended = trials.filter((one) => one.lr && one.backbone_lr && one.value !== null);
    if (ended.length < 2) return [make("p", said.few)];
    const width = 760, height = 300, top = 34, bottom = 262;
    const values = ended.map((one) => one.value).sort((a, b) => a - b);
    const worst = values[Math.floor(0.9 * (values.length - 1))], bestTenth = values[Math.floor(0.1 * (values.length - 1))];
    const log = (name) => ({ name, at: (one) => Math.log10(one[name]), say: (v) => short(10 ** v) });
    const axes = [log("lr"), log("backbone_lr"), { ...log("ratio"), name: said.ratio },
      { name: said.loss, at: (one) => losses.indexOf(one.loss), names: losses },
      ...Object.entries(choices ?? {}).map(([name, names]) => ({ name, at: (one) => names.indexOf(one.choices[name]), names })),
      { name: said.value, at: (one) => Math.min(one.value, worst), say: (v) => short(v, 3) }];
    const plot = draw("svg", { viewBox: `0 0 ${width} ${height}`, class: "plot", role: "img", "aria-label": said.parallel });
    const labels = [];
    axes.forEach((axis, place) => {
      axis.x = 60 + place * (width - 130) / (axes.length - 1);
      const [low, high] = axis.names ? [0, axis.names.length - 1] : spread(ended.map(axis.at));
      axis.y = scaled(low, high, bottom, top);
      plot.append(draw("line", { x1: axis.x, x2: axis.x, y1: top, y2: bottom, class: "axis" }));
      labels.push(draw("text", { x: axis.x, y: height - 8, "text-anchor": "middle" }, axis.name));
      const marks = axis.names ? axis.names.map((name, index) => [index, name]) : [[low, axis.say(low)], [high, axis.say(high)]];
      for (const [value, text] of marks) {
        const above = !axis.names && value === high && high > low;
        labels.push(draw("text", { x: axis.x + 5, y: axis.y(value) + (axis.names ? 4 : above ? -6 : 14) }, text));
      }
    });
    const order = [...ended].sort((a, b) => b.value - a.value);
    for (const one of order) {
      const way = axes.map((axis, place) => `${place ? "L" : "M"}${axis.x.toFixed(1)} ${axis.y(axis.at(one)).toFixed(1)}`).join("");
      const kind = one.kind === "complete" && one.value <= bestTenth ? "best" : one.kind;
      const path = draw("path", { d: way, class: kind });
      path.append(draw("title", {}, `${one.number}: ${one.shown.join(", ")}, ${one.loss_words}, ${one.value_words}`));
      plot.append(path);
    }
    plot.append(...labels);  // over the lines
    return [plot];
  };

  const curves = (found) => {
    const shown = found.filter((one) => one.points.length);
    if (!shown.length) return [make("p", said.none)];
    const width = 760, height = 280, all = shown.flatMap((one) => one.points);
    const values = all.map((point) => point[1]).sort((a, b) => a - b);
    const low = values[0], high = values[Math.floor(0.95 * (values.length - 1))];
    const last = Math.max(2, ...all.map((point) => point[0])), above = values.at(-1) > high ? "≥ " : "";
    const x = scaled(1, last, 60, width - 20);
    const y = (value) => scaled(low, high, height - 40, 20)(Math.min(value, high));
    const plot = draw("svg", { viewBox: `0 0 ${width} ${height}`, class: "plot", role: "img", "aria-label": said.curves });
    plot.append(draw("line", { x1: 60, x2: width - 20, y1: height - 40, y2: height - 40, class: "axis" }));
    plot.append(draw("line", { x1: 60, x2: 60, y1: 20, y2: height - 40, class: "axis" }));
    plot.append(draw("text", { x: 8, y: 34 }, above + short(high, 3)), draw("text", { x: 8, y: height - 40 }, short(low, 3)));
    plot.append(draw("text", { x: 8, y: 14 }, said.value), draw("text", { x: 60, y: height - 20 }, "1"));
    plot.append(draw("text", { x: width - 20, y: height - 20, "text-anchor": "end" }, String(last)));
    plot.append(draw("text", { x: width / 2, y: height - 12, "text-anchor": "middle" }, said.epoch));
    for (const one of [...shown].sort((a, b) => (a.state === "running") - (b.state === "running"))) {
      const way = one.points.map(([epoch, value], place) => `${place ? "L" : "M"}${x(epoch).toFixed(1)} ${y(value).toFixed(1)}`).join("");
      const path = draw("path", { d: one.points.length > 1 ? way : `${way}h3`, class: one.state });
      path.append(draw("title", {}, `${said.trial} ${one.number}`));
      plot.append(path);
    }
    return [plot];
  };

  const order = { by: "number", falls: true };
  const rows = (trials) => {
    const key = (one) => one[order.by] ?? (order.falls ? -Infinity : Infinity);
    const turn = order.falls ? -1 : 1;
    const sorted = [...trials].sort((a, b) => (key(a) > key(b) ? turn : key(a) < key(b) ? -turn : 0));
    return sorted.map((one) => {
      const row = make("tr");
      const texts = [one.number, one.kind_words, ...one.shown, one.loss_words, one.value_words, one.epochs ?? "", one.seed ?? ""];
      texts.forEach((text, place) => row.append(make("td", String(text), place === 1 || place === 5 ? {} : { class: "number" })));
      return row;
    });
  };
  let latest = null;
  const sortable = () => {
    for (const head of document.querySelectorAll("th[data-by]")) {
      head.firstElementChild?.addEventListener("click", () => {
        const by = head.dataset.by;
        Object.assign(order, { falls: order.by === by ? !order.falls : false, by });
        for (const other of document.querySelectorAll("th[data-by]")) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", order.falls ? "descending" : "ascending");
        if (latest) fill("trials", [latest.trials, { ...order }], ([found]) => rows(found));
      });
    }
  };

  const items = (texts) => texts.map((text) => make("li", text));
  const show = (found) => {
    latest = found;
    if (found.studies) {
      fill("cards", found.studies, (studies) => studies.map(card));
      return;
    }
    fill("progress", [found.total, found.finished], () => [bar(found)]);
    tell(at("state"), found.state_words);
    tell(at("counted"), [found.counted, found.left, found.foreign].filter(Boolean).join(" · "));
    fill("answer", found.answer, items);
    const picture = at("zones");
    if (picture && found.figure && picture.dataset.mark !== String(found.figure)) {
      picture.dataset.mark = found.figure;
      picture.src = `${picture.dataset.from}&mark=${found.figure}`;
      picture.closest("figure").hidden = false;
    }
    fill("curves", found.curves, curves);
    fill("parallel", [found.trials, found.losses, found.choices],
      ([trials, losses, choices]) => parallel(trials, losses, choices));
    fill("trials", [found.trials, { ...order }], ([trials]) => rows(trials));
    fill("workers", found.workers, (workers) => workers.length
      ? workers.map((one) => make("li", [one.name, one.device, one.does, one.silent].filter(Boolean).join(" · ")))
      : [make("li", found.state === "done" ? said.rests : said.nobody)]);
    at("confirmation").hidden = !found.confirmed.length;
    fill("confirmed", found.confirmed, items);
  };

  let mark = "";
  const look = async () => {
    if (!document.hidden) {
      try {
        const answer = await fetch(live, { headers: mark ? { "If-None-Match": mark } : {}, cache: "no-store" });
        if (answer.status === 401) { location.reload(); return; }
        if (answer.ok) { mark = answer.headers.get("ETag") || ""; show(await answer.json()); }
        tell(at("said"), answer.ok || answer.status === 304 ? "" : said.gone);
      } catch (error) {
        tell(at("said"), said.gone);
      }
    }
    setTimeout(look, EVERY_MS);
  };
  sortable();
  show(JSON.parse(at("first").textContent));
  setTimeout(look, EVERY_MS);
})();
