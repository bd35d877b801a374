// Keeps a page that is open up to date: asks for it again, and puts what is live in the place of what
// was. Without this script the page is whole, and as old as its footer says.
"use strict";
(() => {
  const RUNNING_MS = 1000, QUIET_MS = 3000, PATIENCE_MS = 8000;
  const silence = document.getElementById("silence");
  let timer = 0, asking = false;

  const focused = (region) => {
    const inside = document.activeElement;
    if (!inside || !region.contains(inside)) return null;
    const all = [...region.querySelectorAll("a, button, summary, [tabindex]")];
    return { place: all.indexOf(inside), text: inside.textContent };
  };
  const refocus = (region, was) => {
    if (!was) return;
    const all = [...region.querySelectorAll("a, button, summary, [tabindex]")];
    const again = all[was.place] && all[was.place].textContent === was.text
      ? all[was.place] : all.find((one) => one.textContent === was.text);
    if (again) again.focus({ preventScroll: true });
  };

  const swap = (fresh) => {
    for (const region of document.querySelectorAll("[data-live]")) {
      const next = fresh.getElementById(region.id);
      if (!next) continue;
      for (const button of region.querySelectorAll("button.copy")) {
        if (button.textContent === "Copy") button.hidden = true;
      }
      const same = next.isEqualNode(region);
      if (same) continue;
      // What is being selected is being copied.
      const selection = getSelection();
      if (!selection.isCollapsed && selection.containsNode(region, true)) continue;
      const open = [...region.querySelectorAll("details")].map((one) => one.open);
      const was = focused(region);
      const taken = document.adoptNode(next);
      taken.querySelectorAll("details").forEach((one, place) => { one.open = open[place] || false; });
      region.replaceWith(taken);
      refocus(taken, was);
    }
    document.title = fresh.title;
  };

  const say = (why) => {
    const asOf = document.getElementById("as-of");
    silence.textContent = why + (asOf ? " What you see is from " + asOf.textContent + " UTC." : "");
    silence.hidden = false;
  };

  const ask = async () => {
    if (asking || document.hidden) return;
    asking = true;
    try {
      const answer = await fetch(location.href, {
        cache: "no-store", credentials: "same-origin", signal: AbortSignal.timeout(PATIENCE_MS),
      });
      if (answer.redirected) return location.assign(answer.url);
      if (!answer.ok) return say("The agent answers with an error (" + answer.status + ").");
      swap(new DOMParser().parseFromString(await answer.text(), "text/html"));
      copies();
      silence.hidden = true;
    } catch {
      say("The agent does not answer.");
    } finally {
      asking = false;
      plan();
    }
  };

  const plan = () => {
    clearTimeout(timer);
    const busy = document.querySelector("#running progress, #operation progress");
    timer = setTimeout(ask, busy ? RUNNING_MS : QUIET_MS);
  };

  if (!document.querySelector("[data-live][id]:not(#footer)")) return;
  document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
  // A command is chosen as a whole, by the pointer or by the keyboard.
  const choose = (event) => {
    const code = event.target.closest && event.target.closest("[data-copy]");
    if (code && getSelection().isCollapsed) getSelection().selectAllChildren(code);
  };
  // Where the browser lets a page write to the clipboard, each command has a button.
  const copies = () => {
    if (!navigator.clipboard) return;
    for (const button of document.querySelectorAll("button.copy[hidden]")) button.hidden = false;
  };
  const copy = async (event) => {
    const button = event.target.closest && event.target.closest("button.copy");
    if (!button) return;
    await navigator.clipboard.writeText(button.previousElementSibling.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  };
  document.addEventListener("click", copy);
  document.addEventListener("click", choose);
  document.addEventListener("keydown", (event) => { if (event.key === "Enter") choose(event); });
  copies();
  plan();
})();
