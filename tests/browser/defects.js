() => {
  const found = [];
  const said = (element) => element.outerHTML.slice(0, 80);
  const name = (element) =>
    element.getAttribute("aria-label") ||
    (element.getAttribute("aria-labelledby") || "").split(" ").map((id) => document.getElementById(id)?.textContent ?? "").join("") ||
    [...(element.labels ?? [])].map((label) => label.textContent).join("") ||
    element.querySelector(":scope > title")?.textContent ||
    (["BUTTON", "A", "SUMMARY"].includes(element.tagName) ? element.textContent : "");
  if (document.documentElement.lang !== "en") found.push("no language");
  if (document.querySelectorAll("main").length !== 1) found.push("not one main");
  if (document.querySelectorAll("h1").length !== 1) found.push("not one h1");
  let last = 0;
  for (const heading of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    const level = Number(heading.tagName[1]);
    if (level > last + 1) found.push(`heading out of order: ${said(heading)}`);
    if (!heading.textContent.trim()) found.push(`empty heading: ${said(heading)}`);
    last = level;
  }
  for (const table of document.querySelectorAll("table")) {
    if (!table.caption?.textContent.trim()) found.push(`no caption: ${said(table)}`);
    if (table.querySelector("th:not([scope])")) found.push(`no scope: ${said(table)}`);
    if (!table.querySelector("thead th[scope=col]")) found.push(`no column heads: ${said(table)}`);
  }
  const named = "button, a, select, input, [role=img], [role=region], nav, summary, svg:not([aria-hidden=true])";
  for (const element of document.querySelectorAll(named))
    if (!name(element)?.trim()) found.push(`no name: ${said(element)}`);
  for (const element of document.querySelectorAll("[tabindex]"))
    if (element.tabIndex > 0) found.push(`focus out of order: ${said(element)}`);
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  for (const id of new Set(ids.filter((id, at) => ids.indexOf(id) !== at))) found.push(`two of #${id}`);
  for (const attribute of ["aria-labelledby", "aria-describedby", "for", "aria-controls"])
    for (const element of document.querySelectorAll(`[${attribute}]`))
      for (const id of element.getAttribute(attribute).split(" "))
        if (!document.getElementById(id)) found.push(`no #${id}: ${said(element)}`);
  return found;
}
