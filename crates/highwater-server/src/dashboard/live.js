// Keeps a page that is open up to date: asks for it again, and puts what is live in the place of what
// was. Without this script the page is whole, and as old as its footer says.
"use strict";
(() => {
  const RUNNING_MS = 1000, QUIET_MS = 10000, PATIENCE_MS = 8000;
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
      if (!next || next.isEqualNode(region)) continue;
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
  document.addEventListener("click", choose);
  document.addEventListener("keydown", (event) => { if (event.key === "Enter") choose(event); });
  plan();
})();
