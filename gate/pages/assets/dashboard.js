"use strict";
(() => {
  const source = document.getElementById("data");
  if (!source) return;

  const PAGE = 100;
  const WORDS = { pass: "PASS", fail: "FAIL", inconclusive: "INCONCLUSIVE" };
  const { texts, rows } = JSON.parse(source.textContent);
  const lower = {};
  for (const column in texts) lower[column] = texts[column].map((text) => text.toLowerCase());

  // What a row holds, in order; texts are numbers of `texts`.
  const [DATE, CHECKPOINT, FAMILY, FORMAT, BRANCH, METRIC, CAUSE, OUTCOME, RETENTION, EARLY,
    LIMIT, HIGHER, BYTES, BITS, PAGED, NEWEST] = rows.length ? rows[0].keys() : [];
  const TEXT = { checkpoint: CHECKPOINT, family: FAMILY, format: FORMAT, branch: BRANCH, metric: METRIC };
  const SORTED = { ...TEXT, date: DATE, outcome: OUTCOME, retention: RETENTION, limit: LIMIT, size: BYTES, bits: BITS };
  const DESCENDING = new Set(["date", "retention", "limit", "size", "bits"]);
  const FILTERS = ["q", "family", "format", "outcome", "branch", "newest"];

  const form = document.getElementById("filters");
  const table = document.getElementById("reports");
  const pager = document.getElementById("pager");
  const shown = document.getElementById("shown");
  let state = {};

  const number = (value) => value.toLocaleString("en");
  const size = (bytes) => bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${(bytes / 1e6).toFixed(1)} MB`;
  const plainly = (value) => value >= 100 ? number(Math.round(value)) : value.toFixed(3);
  const retained = (row) => (row[EARLY] ? "~" : "") + (row[HIGHER] ? "" : "×") + plainly(row[RETENTION]);
  const limit = (row) => `${row[HIGHER] ? "≥" : "≤"} ${Number(row[LIMIT].toPrecision(4))}`;

  function read(stated) {
    const sort = Object.hasOwn(SORTED, stated.get("sort")) ? stated.get("sort") : "date";
    const down = stated.get("dir") ? stated.get("dir") !== "asc" : DESCENDING.has(sort);
    state = { sort, down, page: Math.max(1, Math.trunc(stated.get("page")) || 1) };
    for (const name of FILTERS) {
      state[name] = stated.get(name) || "";
      const field = form.elements[name];
      if (!field) continue;
      if (name === "newest") field.checked = Boolean(state.newest);
      else field.value = state[name];
    }
  }

  // So that what is seen can be sent as a link.
  function remember() {
    const stated = new URLSearchParams();
    for (const name of FILTERS) if (state[name]) stated.set(name, state[name]);
    if (state.sort !== "date" || !state.down) stated.set("sort", state.sort);
    if (state.down !== DESCENDING.has(state.sort)) stated.set("dir", state.down ? "desc" : "asc");
    if (state.page > 1) stated.set("page", state.page);
    history.replaceState(null, "", `#${stated}`);
  }

  function chosen() {
    const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = {};
    for (const name of ["family", "format", "branch"]) {
      if (state[name]) wanted[name] = texts[name].indexOf(state[name]);
    }
    const found = rows.filter((row) =>
      (!state.newest || row[NEWEST])
      && (!state.outcome || row[OUTCOME] === state.outcome)
      && Object.keys(wanted).every((name) => row[TEXT[name]] === wanted[name])
      && words.every((word) => Object.keys(TEXT).some((name) => lower[name][row[TEXT[name]]].includes(word))));
    // Texts are numbered by their order, and rows come with the newest first.
    const at = SORTED[state.sort];
    const sign = state.down ? -1 : 1;
    if (state.sort === "date") return state.down ? found : found.reverse();
    return found.sort((one, other) => {
      const [a, b] = [one[at], other[at]];
      if (a === b) return 0;
      if (a === null) return 1;
      if (b === null) return -1;
      return a < b ? -sign : sign;
    });
  }

  function cell(row, content, kind) {
    const made = document.createElement("td");
    if (kind) made.className = kind;
    made.append(content);
    row.append(made);
  }

  function verdict({ [OUTCOME]: outcome, [CAUSE]: cause }) {
    const shape = document.querySelector(`#shape-${outcome} svg`).cloneNode(true);
    const made = document.createElement("span");
    made.className = `outcome ${outcome}`;
    made.append(shape, WORDS[outcome]);
    const said = document.createElement("span");
    said.className = "muted";
    said.textContent = texts.cause[cause] && ` by ${texts.cause[cause]}`;
    const both = document.createDocumentFragment();
    both.append(made, said);
    return both;
  }

  function line(row) {
    const made = document.createElement("tr");
    cell(made, row[DATE], "date");
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = texts.checkpoint[row[CHECKPOINT]];
    if (row[PAGED]) {
      const link = document.createElement("a");
      link.href = `reports/${row[PAGED]}.html`;
      link.append(...name.childNodes);
      name.append(link);
    }
    made.append(name);
    cell(made, verdict(row));
    cell(made, row[RETENTION] === null ? "" : retained(row), "figure");
    cell(made, row[LIMIT] === null ? "" : limit(row), "figure");
    cell(made, row[BYTES] === null ? "" : size(row[BYTES]), "figure");
    cell(made, row[BITS] === null ? "" : row[BITS].toFixed(2), "figure");
    for (const name of ["format", "branch", "family", "metric"]) cell(made, texts[name][row[TEXT[name]]], "words");
    return made;
  }

  function show() {
    const found = chosen();
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    state.page = Math.min(state.page, pages);
    const from = (state.page - 1) * PAGE;
    const part = found.slice(from, from + PAGE);
    table.tBodies[0].replaceChildren(...part.map(line));
    for (const button of table.querySelectorAll("button[data-sort]")) {
      const heading = button.closest("th");
      if (button.dataset.sort === state.sort) {
        heading.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      } else heading.removeAttribute("aria-sort");
    }
    const all = `${number(rows.length)} ${rows.length === 1 ? "report" : "reports"}`;
    const match = found.length === 1 ? "matches" : "match";
    const said = found.length === rows.length ? all : `${number(found.length)} of ${all} ${match}`;
    const where = `, ${number(from + 1)} to ${number(from + part.length)} shown`;
    shown.textContent = found.length ? said + (pages > 1 ? where : "") : "No report matches";
    table.hidden = !found.length;
    pager.hidden = pages === 1;
    pager.querySelector("span").textContent = `Page ${number(state.page)} of ${number(pages)}`;
    pager.querySelector('[data-turn="-1"]').disabled = state.page === 1;
    pager.querySelector('[data-turn="1"]').disabled = state.page === pages;
  }

  function change(changes) {
    Object.assign(state, { page: 1 }, changes);
    show();
    remember();
  }

  form.addEventListener("input", () => {
    const changes = {};
    for (const name of FILTERS) {
      const field = form.elements[name];
      if (field) changes[name] = name === "newest" ? (field.checked ? "1" : "") : field.value;
    }
    change(changes);
  });
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    history.replaceState(null, "", "#all");
    read(new URLSearchParams());
    show();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  table.tHead.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-sort]");
    if (!button) return;
    const sort = button.dataset.sort;
    change({ sort, down: sort === state.sort ? !state.down : DESCENDING.has(sort) });
  });
  pager.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-turn]");
    if (!button) return;
    change({ page: state.page + Number(button.dataset.turn) });
    document.getElementById("all").scrollIntoView();
  });

  // A hash that names a part of the page says nothing about the table.
  function follow() {
    const stated = new URLSearchParams(location.hash.slice(1));
    if (![...FILTERS, "sort", "page"].some((name) => stated.has(name))) return;
    read(stated);
    show();
    document.getElementById("all").scrollIntoView();
  }

  addEventListener("hashchange", follow);
  document.getElementById("unscripted").remove();
  form.hidden = false;
  read(new URLSearchParams());
  show();
  follow();
})();
