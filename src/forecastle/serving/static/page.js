// Refresh the board in place: ask for the fragment with its ETag, keep what is open, focused and scrolled.
"use strict";

const board = document.getElementById("board");
const link = document.getElementById("link");
const seconds = Number(board.dataset.seconds);
let etag = `"${board.dataset.etag}"`;

function show(html) {
  const open = new Set(Array.from(board.querySelectorAll("details[open]"), (one) => one.dataset.key));
  const focused = board.contains(document.activeElement) && document.activeElement.tagName === "SUMMARY"
    ? document.activeElement.parentElement.dataset.key
    : null;
  board.innerHTML = html;
  for (const details of board.querySelectorAll("details")) {
    details.open = open.has(details.dataset.key);
    if (details.dataset.key === focused) details.querySelector("summary").focus({ preventScroll: true });
  }
}

async function refresh() {
  try {
    const answer = await fetch(board.dataset.source, {
      headers: { "If-None-Match": etag },
      cache: "no-store",
      signal: AbortSignal.timeout(10000),
    });
    if (answer.status === 200) {
      show(await answer.text());
      etag = answer.headers.get("ETag") || "";
    } else if (answer.status !== 304) {
      throw new Error(`status ${answer.status}`);
    }
    board.classList.remove("stale");
    if (link.textContent) link.textContent = "";
  } catch {
    board.classList.add("stale");
    link.textContent = "The service does not answer. What you see is the last answer; trying again.";
  }
}

setInterval(() => { if (!document.hidden) refresh(); }, seconds * 1000);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
